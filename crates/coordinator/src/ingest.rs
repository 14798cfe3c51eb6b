//! Ingest: an event in, the runs that it starts and the waits that it ends.
//!
//! Owns: matching triggers, the identity of runs, and the answer "accepted" once every shard has it on disk.
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kapell_model::catalogue::SchemaCheck;
use kapell_model::expr::scope_of;
use kapell_model::plan::CompiledWorkflow;
use kapell_model::{Json, Name, Origin, RunId, ShardCount};
use kapell_wire::cloud_event::Event;
use tokio::sync::oneshot;

use crate::answer::replying;
use crate::definitions::{Definitions, InForce};
use crate::links::Links;
use crate::shard::{Busy, Delivered, Request, StartRun, Started, SubmitError};

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
    /// Accepts an event, or refuses it before anything was started.
    pub(crate) async fn publish(&self, namespace: &Name, event: Event) -> Result<Accepted, Refused> {
        let in_force = self.definitions.in_force();
        let starts = self.starts(namespace, &event, &in_force)?;
        let mut accepted = Accepted::default();
        for result in join_all(starts.into_iter().map(|start| self.start(start))).await {
            accepted.runs.push(result?);
        }
        accepted.delivered = self.deliver(namespace, event).await?;
        Ok(accepted)
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
        if let Some(schema) = &workflow.input {
            check_input(workflow, schema, event)?;
        }
        let key = match &workflow.key {
            None => None,
            Some(key) => {
                let value = key.eval_key(&scope_of("event", &event.json)).map_err(|error| {
                    Refused::Unreadable { workflow: workflow.name.clone(), reason: error.to_string() }
                })?;
                Some(Arc::<str>::from(value))
            }
        };
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
    pub(crate) async fn start(&self, start: StartRun) -> Result<(Started, Name), Refused> {
        let (run, name) = (start.run, start.workflow.name.clone());
        let (reply, answered) = oneshot::channel();
        let request = Request::Start(Box::new(start), replying(reply));
        self.submit(run, request)?;
        let started = answered.await.map_err(|_| SubmitError::Unavailable)??;
        Ok((started, name))
    }

    fn submit(&self, run: RunId, request: Request) -> Result<(), SubmitError> {
        let mailbox = self.links.of_run(run).ok_or(SubmitError::NotFound(run))?;
        mailbox.try_submit(request).map_err(|(Busy { retry_after }, _)| SubmitError::Busy { retry_after })
    }

    /// Any shard may hold a run that waits for the event.
    async fn deliver(&self, namespace: &Name, event: Event) -> Result<u32, Refused> {
        let event = Arc::new(event);
        let mut answers = Vec::new();
        for mailbox in self.links.mailboxes() {
            if !mailbox.has_waits() {
                continue;
            }
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
