//! Journals whose beginning is gone.
use std::sync::atomic::Ordering;
use std::time::Duration;

use kapell_kernel::{Attempt, Command, ErrorClass, TaskError, UnitId};
use kapell_model::plan::StepIndex;
use kapell_model::{Json, Name, RequestId, ShardCount};
use kapell_wire::DefinitionRecord;
use serde_json::json;

use super::super::message::{Output, Past, Request, StartRun, SubmitError};
use super::super::state::ShardRules;
use super::*;
use crate::definitions::change;
use crate::kept::Kept;

const NOW: Timestamp = Timestamp(1_000_000);
const SHARD: ShardId = ShardId(0);

/// A shard and the journal that follows from what it is told.
struct Bench {
    shard: ShardState,
    definitions: Definitions,
    journal: Kept,
}

fn id(run: u32) -> RunId {
    RunId::new(SHARD, u128::from(run))
}

impl Bench {
    fn new(history_entries: u64) -> Bench {
        let document = |kind: &str, name: &str, spec: serde_json::Value| DefinitionRecord {
            document: Json::of(&json!({
                "apiVersion": "kapell.dev/v1", "kind": kind, "metadata": { "name": name }, "spec": spec,
            })),
            removed: false,
            revision: 1,
            at: NOW,
        };
        let skill = json!({ "name": "clerk.noop", "rules": { "rows": [{ "then": {} }] } });
        let definitions = Definitions::default();
        let documents = [
            document("Specialist", "clerk", json!({ "skills": [skill] })),
            document("Workflow", "work", json!({ "steps": [{ "id": "one", "skill": "clerk.noop" }] })),
            document("Workflow", "nap", json!({ "steps": [{ "id": "nap", "wait": { "for": "1h" } }] })),
        ];
        definitions.apply(&documents).unwrap();
        let rules = ShardRules {
            shard: SHARD,
            shards: ShardCount::default(),
            dedupe_window: Duration::from_secs(60),
            dedupe_runs_max: 100,
            live_runs_max: 100,
            checkpoint_entries: 100,
            checkpoint_every: Duration::from_secs(60),
            history_entries,
        };
        Bench { shard: ShardState::new(rules), definitions, journal: Kept::of(Vec::new()) }
    }

    /// What the shard has decided since is on disk.
    fn flush(&mut self) {
        for record in std::mem::take(&mut self.shard.records) {
            let seq = Seq(self.journal.records.len() as u64 + 1);
            self.journal.records.push(Placed { seq, record });
        }
        self.shard.outputs.clear();
    }

    fn start(&mut self, run: u32, workflow: &str) {
        let in_force = self.definitions.in_force();
        let name = Name::new(workflow).unwrap();
        let workflow = in_force.catalogue.workflow(&Name::default_namespace(), &name).cloned().unwrap();
        let (key, event, parent) = (None, Json::trusted(r#"{"data":{}}"#), None);
        let start = StartRun { run: id(run), workflow, key, event, parent, nesting: 0 };
        let request = Request::Start(vec![start], Box::new(|_| {}));
        self.shard.apply(request, NOW, &in_force);
        self.flush();
    }

    fn tell(&mut self, run: u32, command: Command) {
        let in_force = self.definitions.in_force();
        self.shard.apply(Request::Command(id(run), Box::new(command), Box::new(|_| {})), NOW, &in_force);
        self.flush();
    }

    fn signal(&mut self, run: u32) {
        self.tell(run, Command::Signal { event: Json::trusted(r#"{"type":"t"}"#) });
    }

    /// A run that has failed.
    fn failed(&mut self, run: u32) {
        self.start(run, "work");
        self.breaks(run, Attempt(1));
    }

    fn breaks(&mut self, run: u32, attempt: Attempt) {
        let result = Err(TaskError::new(ErrorClass::Permanent, "it broke"));
        let unit = UnitId::step(StepIndex(0));
        self.tell(run, Command::FinishTask { unit, attempt, result });
        assert!(!self.shard.runs.contains_key(&id(run)), "it is over");
    }

    /// Answers what the checkpoint covers.
    fn checkpoint(&mut self) -> Seq {
        let images = self.shard.images(NOW, &self.definitions);
        self.journal.images.retain(|kept| images.iter().all(|image| image.run != kept.run));
        self.journal.images.extend(images);
        self.shard.last
    }

    fn trim(&mut self, through: Seq) {
        self.journal.trimmed = through;
    }

    async fn told(&self, checkpointed: Seq) -> Option<Whole> {
        let images = images(&self.journal, &self.definitions, SHARD).await.unwrap();
        tell(&self.journal, &self.definitions, (SHARD, checkpointed), images).await.unwrap()
    }

    /// The past of a run, as its history tells it now.
    fn past(&self, run: u32) -> Option<Past> {
        let kept = self.journal.records.iter().filter(|placed| placed.seq > self.journal.trimmed);
        let history: Vec<Placed> = kept.filter(|placed| placed.record.run == id(run)).cloned().collect();
        let (folded, told) = fold(id(run), &history, &self.definitions).unwrap()?;
        Some(Past { run: Box::new(folded), first: told[0].0 })
    }

    fn revive(&mut self, past: Past) -> Result<(), SubmitError> {
        self.revive_for(past, retry())
    }

    fn revive_for(&mut self, past: Past, retry: Command) -> Result<(), SubmitError> {
        let (reply, answer) = std::sync::mpsc::channel();
        let tell = Box::new(move |result| drop(reply.send(result)));
        let request = Request::Revive(past, Box::new(retry), tell);
        self.shard.apply(request, NOW, &self.definitions.in_force());
        for output in std::mem::take(&mut self.shard.outputs) {
            if let Output::Reply(reply) = output {
                reply();
            }
        }
        self.flush();
        answer.recv().unwrap()
    }
}

fn retry() -> Command {
    Command::Retry { by: "ada".into() }
}

#[tokio::test]
async fn no_entry_counts_twice_in_a_run_whose_beginning_was_trimmed() {
    let mut bench = Bench::new(0);
    bench.start(1, "nap");
    let trimmed = bench.shard.last;
    bench.signal(1);
    bench.start(2, "nap");
    bench.signal(2);
    let checkpointed = bench.checkpoint();
    for run in [1, 2, 1] {
        bench.signal(run);
    }
    bench.trim(trimmed);
    let told = bench.told(checkpointed).await.unwrap();
    assert_eq!((told.runs.len(), told.through), (2, bench.shard.last));
    for (run, signals) in [(1, 3), (2, 2)] {
        let (told, live) = (told.runs[&id(run)].to_image(), bench.shard.runs[&id(run)].to_image());
        assert_eq!((told.signals.len(), &told), (signals, &live), "run {run}");
    }
}

#[tokio::test]
async fn images_that_are_older_than_what_was_trimmed_are_read_again() {
    let mut bench = Bench::new(0);
    bench.start(1, "nap");
    let before = bench.checkpoint();
    bench.signal(1);
    // Another checkpoint was stored after the images were read, and what it covers is gone.
    bench.trim(bench.shard.last);
    assert!(bench.told(before).await.is_none(), "nobody knows what happened in between");
    let now = bench.checkpoint();
    assert_eq!(bench.told(now).await.unwrap().runs[&id(1)].to_image().signals.len(), 1);
}

#[test]
fn a_run_that_is_set_going_again_keeps_its_history_until_a_checkpoint_holds_it() {
    let mut bench = Bench::new(0);
    bench.start(1, "nap");
    let kept = bench.shard.last;
    bench.failed(2);
    // Its image says that the run is over; the journal alone says that it goes on.
    let through = bench.checkpoint();
    let past = bench.past(2).unwrap();
    assert_eq!(bench.revive(past), Ok(()));
    assert_eq!(bench.shard.trim_to(through), Some(kept), "else a crash now would lose the run");
    let through = bench.checkpoint();
    assert_eq!(bench.shard.trim_to(through), Some(through), "the image has it all");
}

/// The first time it was on its way until the run had failed again.
#[test]
fn a_retry_that_comes_a_second_time_sets_nothing_going() {
    let mut bench = Bench::new(0);
    bench.failed(1);
    let first = Command::Once { request: RequestId::of("first"), command: Box::new(retry()) };
    let past = bench.past(1).unwrap();
    assert_eq!(bench.revive_for(past, first.clone()), Ok(()));
    bench.breaks(1, Attempt(2));
    let (past, last) = (bench.past(1).unwrap(), bench.shard.last);
    assert_eq!(bench.revive_for(past, first), Ok(()), "it was done");
    assert_eq!((bench.shard.runs.len(), bench.shard.last), (0, last), "and is not done again");
}

#[test]
fn a_history_that_was_trimmed_after_it_was_read_sets_nothing_going() {
    let mut bench = Bench::new(0);
    bench.failed(1);
    let past = bench.past(1).unwrap();
    let through = bench.checkpoint();
    let trimmed = bench.shard.trim_to(through).unwrap();
    bench.shard.trimmed = trimmed;
    bench.trim(trimmed);
    assert!(bench.past(1).is_none());
    assert_eq!(bench.revive(past), Err(SubmitError::NotFound(id(1))));
    assert_eq!((bench.shard.runs.len(), bench.shard.last), (0, trimmed), "and nothing is written");
}

#[tokio::test]
async fn a_node_that_is_behind_takes_no_removed_schedule_for_a_new_one() {
    let schedule = json!({
        "apiVersion": "kapell.dev/v1", "kind": "Schedule", "metadata": { "name": "often" },
        "spec": { "cron": "* * * * *", "workflow": "nap", "catchup": "all" },
    });
    let mut bench = Bench::new(0);
    let shards = ShardCount::new(1).unwrap();
    let mut state = ShardState::new(ShardRules { shards, ..bench.shard.rules });
    let caught_up = async |bench: &Bench, state: &ShardState, moment: Instant| {
        catch_up(&bench.definitions, &bench.journal, state, moment).await.unwrap();
        bench.journal.histories.load(Ordering::Relaxed)
    };
    assert_eq!(caught_up(&bench, &state, Instant::now()).await, 0, "without schedules nothing is read");

    bench.definitions.apply(&[change(&schedule, NOW)]).unwrap();
    let removed = DefinitionRecord { removed: true, revision: 2, ..change(&schedule, NOW) };
    let stored = Bench::new(0).definitions.in_force();
    let stored = stored.documents.iter().map(|document| change(&document.value(), NOW));
    for record in stored.chain([change(&schedule, NOW), removed]) {
        let payload = kapell_wire::encode_record(NOW, kapell_wire::RecordRef::Definition(&record));
        let record = kapell_journal::Record { run: control_run(), payload };
        let seq = Seq(bench.journal.records.len() as u64 + 1);
        bench.journal.records.push(Placed { seq, record });
    }
    let acquired = Instant::now();
    assert_eq!(caught_up(&bench, &state, acquired).await, 1);
    state.drive_all(Timestamp(u64::from(u32::MAX)), &bench.definitions.in_force());
    assert_eq!((bench.definitions.in_force().revision, state.next_due()), (2, None));

    state.schedules.load(id(9), kapell_kernel::schedule::ScheduleState::default());
    assert_eq!(caught_up(&bench, &state, acquired).await, 1, "shards that come together read it once");
    assert_eq!(caught_up(&bench, &state, Instant::now()).await, 2);
}
