//! Ingest: an event in, the runs that it starts and the waits that it ends.
//!
//! Owns: matching triggers, the identity of runs, and the answer "accepted" once every shard has it on disk.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kapell_model::catalogue::SchemaCheck;
use kapell_model::expr::scope_of;
use kapell_model::limits::KEY_BYTES_MAX;
use kapell_model::plan::CompiledWorkflow;
use kapell_model::{Json, Name, Origin, RunId, ShardCount, ShardId};
use kapell_wire::cloud_event::Event;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::answer::replying;
use crate::definitions::{Definitions, InForce};
use crate::links::Links;
use crate::shard::{Busy, Delivered, Request, StartRun, Started, SubmitError};

/// Time that shards have to answer. One that is on its way, or whose journal is away, must hold up neither what the
/// others have answered nor a stream of events: shorter than a client's deadline, and than NATS waits for a word.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Takes events.
#[derive(Clone)]
pub(crate) struct Ingest {
    pub(crate) links: Arc<Links>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) shards: ShardCount,
}

/// What became of an event.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    /// The runs that it started, now or before.
    pub(crate) runs: Vec<(Started, Name)>,
    /// Waiting steps and outcomes that it reached.
    pub(crate) delivered: u32,
}

/// Why an event was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// A trigger's condition or key cannot be evaluated on it.
    #[error("workflow `{workflow}` cannot read the event: {reason}")]
    Unreadable {
        /// The workflow.
        workflow: Name,
        /// What CEL said.
        reason: String,
    },
    /// Its data does not fit a workflow's input schema.
    #[error("the event's data does not fit the input of workflow `{workflow}`: {reason}")]
    DoesNotFit {
        /// The workflow.
        workflow: Name,
        /// What does not fit.
        reason: String,
    },
    /// A shard refused.
    #[error(transparent)]
    Shard(#[from] SubmitError),
}

impl Ingest {
    /// Accepts events, each of them or refuses it before anything of it was started; answers in their order. What
    /// one shard is to start goes to it together. What was not answered in time may have been done all the same: the
    /// same event again says so.
    pub(crate) async fn publish(
        &self,
        namespace: &Name,
        events: Vec<Event>,
    ) -> Vec<Result<Accepted, Refused>> {
        let (in_force, until) = (self.definitions.in_force(), Instant::now() + ANSWERED_WITHIN);
        let mut by_shard: BTreeMap<ShardId, (Vec<usize>, Vec<StartRun>)> = BTreeMap::new();
        let mut answers: Vec<Result<Accepted, Refused>> = Vec::with_capacity(events.len());
        for (place, event) in events.iter().enumerate() {
            answers.push(self.starts(namespace, event, &in_force).map(|starts| {
                for start in starts {
                    let (places, group) = by_shard.entry(start.run.shard()).or_default();
                    places.push(place);
                    group.push(start);
                }
                Accepted::default()
            }));
        }
        let asked = by_shard.into_values();
        let asked = asked.map(async |(places, group)| (places, self.start_all(group, until).await));
        for (places, results) in join_all(asked).await {
            for (place, result) in places.into_iter().zip(results) {
                add(&mut answers[place], result);
            }
        }
        for (event, answer) in events.into_iter().zip(&mut answers) {
            if let Ok(accepted) = answer {
                let delivered = timeout_at(until, self.deliver(namespace, event)).await;
                match delivered.unwrap_or(Err(SubmitError::Unavailable)) {
                    Ok(count) => accepted.delivered = count,
                    Err(error) => *answer = Err(error.into()),
                }
            }
        }
        answers
    }

    fn starts(&self, namespace: &Name, event: &Event, in_force: &InForce) -> Result<Vec<StartRun>, Refused> {
        let mut starts = Vec::new();
        for workflow in in_force.catalogue.triggered_by(namespace, &event.event_type, &event.source) {
            let when = workflow.trigger.as_ref().and_then(|trigger| trigger.when.as_ref());
            let wanted = when.map_or(Ok(true), |when| when.eval_bool(&scope_of("event", &event.json)));
            let unreadable = |reason: String| Refused::Unreadable { workflow: workflow.name.clone(), reason };
            if wanted.map_err(|error| unreadable(error.to_string()))? {
                starts.push(self.start_of(workflow, event)?);
            }
        }
        Ok(starts)
    }

    /// The run that an event starts of one workflow.
    pub(crate) fn start_of(
        &self,
        workflow: &Arc<CompiledWorkflow>,
        event: &Event,
    ) -> Result<StartRun, Refused> {
        let key = key_of(workflow, event)?;
        let origin = Origin {
            namespace: &workflow.namespace,
            workflow: &workflow.name,
            source: &event.source,
            event_id: &event.id,
        };
        let run = RunId::of_event(self.shards, &origin, key.as_deref());
        Ok(StartRun {
            run,
            workflow: workflow.clone(),
            key,
            event: event.json.clone(),
            parent: None,
            nesting: 0,
        })
    }

    /// Starts a run and waits until it is on disk.
    pub(crate) async fn start(&self, start: StartRun) -> Result<Started, Refused> {
        let until = Instant::now() + ANSWERED_WITHIN;
        let unanswered = Err(SubmitError::Unavailable.into());
        let started = self.start_all(vec![start], until).await.pop().unwrap_or(unanswered);
        started.map(|(started, _)| started)
    }

    /// Starts runs of one shard and waits until they are on disk.
    async fn start_all(&self, group: Vec<StartRun>, until: Instant) -> Vec<Result<(Started, Name), Refused>> {
        let names: Vec<(RunId, Name)> =
            group.iter().map(|start| (start.run, start.workflow.name.clone())).collect();
        let results = match names.first() {
            Some((run, _)) => self.ask(*run, group, until).await,
            None => return Vec::new(),
        };
        match results {
            Ok(results) => {
                let named = results.into_iter().zip(names);
                named.map(|(result, (_, name))| Ok((result?, name))).collect()
            }
            Err(error) => names.iter().map(|_| Err(error.clone().into())).collect(),
        }
    }

    async fn ask(
        &self,
        run: RunId,
        group: Vec<StartRun>,
        until: Instant,
    ) -> Result<Vec<Result<Started, SubmitError>>, SubmitError> {
        let mailbox = self.links.of_run(run).ok_or(SubmitError::NotFound(run))?;
        let (reply, answered) = oneshot::channel();
        let request = Request::Start(group, replying(reply));
        mailbox.try_submit(request).map_err(|(Busy { retry_after }, _)| SubmitError::Busy { retry_after })?;
        let answered = timeout_at(until, answered).await;
        answered.ok().and_then(Result::ok).ok_or(SubmitError::Unavailable)
    }

    /// Any shard may hold a run that waits for the event.
    async fn deliver(&self, namespace: &Name, event: Event) -> Result<u32, SubmitError> {
        if !self.definitions.awaits(namespace, &event.event_type) {
            return Ok(0);
        }
        let event = Arc::new(event);
        let mut answers = Vec::new();
        for mailbox in self.links.mailboxes().iter().filter(|mailbox| mailbox.has_waits()) {
            let (reply, answered) = oneshot::channel::<Delivered>();
            let reply = replying(reply);
            mailbox.submit(Request::Deliver(event.clone(), namespace.clone(), reply)).await;
            answers.push(answered);
        }
        let mut count = 0;
        for answer in join_all(answers).await {
            count += answer.map_err(|_| SubmitError::Unavailable)?.count;
        }
        Ok(count)
    }
}

/// What came of one of the runs that an event starts. An event of which a part was refused is refused: the same
/// event again finds the other part done.
fn add(answer: &mut Result<Accepted, Refused>, result: Result<(Started, Name), Refused>) {
    match (&mut *answer, result) {
        (Ok(accepted), Ok(started)) => accepted.runs.push(started),
        (Ok(_), Err(refused)) => *answer = Err(refused),
        (Err(_), _) => {}
    }
}

/// The key of the run that an event starts of a workflow, if its data fits.
pub(crate) fn key_of(workflow: &CompiledWorkflow, event: &Event) -> Result<Option<Arc<str>>, Refused> {
    if let Some(schema) = &workflow.input {
        check_input(workflow, schema, event)?;
    }
    let Some(key) = &workflow.key else { return Ok(None) };
    let unreadable = |reason: String| Refused::Unreadable { workflow: workflow.name.clone(), reason };
    let value = key.eval_key(&scope_of("event", &event.json));
    let value = value.map_err(|error| unreadable(error.to_string()))?;
    if value.len() > KEY_BYTES_MAX {
        let reason = format!("its key is {} bytes, at most {KEY_BYTES_MAX} are allowed", value.len());
        return Err(unreadable(reason));
    }
    Ok(Some(value.into()))
}

fn check_input(workflow: &CompiledWorkflow, schema: &Json, event: &Event) -> Result<(), Refused> {
    let refuse = |reason: String| Refused::DoesNotFit { workflow: workflow.name.clone(), reason };
    let check = SchemaCheck::compile(Some(&schema.value())).map_err(|error| refuse(error.to_string()))?;
    check.check_value(&event.json.value()["data"]).map_err(|violation| refuse(violation.to_string()))
}

impl Refused {
    /// Stable name; docs/errors has a page for each.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Refused::Unreadable { .. } => "event-unreadable",
            Refused::DoesNotFit { .. } => "event-does-not-fit",
            Refused::Shard(SubmitError::Busy { .. }) => "busy",
            Refused::Shard(SubmitError::KeyQueueFull { .. }) => "key-queue-full",
            Refused::Shard(SubmitError::NotFound(_)) => "not-found",
            // No event asks for it.
            Refused::Shard(SubmitError::TooMany { .. }) => "busy",
            Refused::Shard(SubmitError::Rejected(_)) => "rejected",
            Refused::Shard(SubmitError::Unavailable) => "journal-unavailable",
        }
    }

    /// When trying again makes sense.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Refused::Shard(error) => error.retry_after(),
            Refused::Unreadable { .. } | Refused::DoesNotFit { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::own_event::OwnEvent;

    #[test]
    fn a_key_has_a_kibibyte_and_no_more() {
        let in_force = InForce::of(&[json!({
            "apiVersion": "kapell.dev/v1", "kind": "Workflow", "metadata": { "name": "w" },
            "spec": { "key": "event.data", "steps": [{ "id": "a", "wait": { "for": "1s" } }] },
        })]);
        let shards = ShardCount::default();
        let (links, definitions) = (Arc::new(Links::new(shards, 1)), Arc::default());
        let ingest = Ingest { links, definitions, shards };
        let workflow = in_force.catalogue.workflow(&Name::default_namespace(), &Name::new("w").unwrap());
        let start = |bytes: usize| {
            let data = &Json::string(&"k".repeat(bytes));
            let event = OwnEvent { event_type: "t", source: "/s", id: "1", subject: None, time: None, data };
            ingest.start_of(workflow.unwrap(), &event.make().unwrap())
        };
        assert_eq!(start(KEY_BYTES_MAX).unwrap().key.unwrap().len(), KEY_BYTES_MAX);
        let refused = start(KEY_BYTES_MAX + 1).unwrap_err();
        assert_eq!((refused.code(), refused.retry_after()), ("event-unreadable", None));
        assert!(refused.to_string().contains("its key is 1025 bytes, at most 1024 are allowed"), "{refused}");
    }
}
