mod limits;

use std::sync::Arc;

use kapell_kernel::{Attempt, CancelMode, Ending, Rejected, TimerKey, UnitId};
use kapell_model::Json;
use kapell_model::plan::StepIndex;
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);

fn in_force() -> Arc<InForce> {
    let document = |kind: &str, name: &str, spec: serde_json::Value| json!({ "apiVersion": "kapell.dev/v1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    let skill = json!({ "name": "clerk.noop", "rules": { "rows": [{ "then": {} }] } });
    let one = json!([{ "id": "one", "skill": "clerk.noop" }]);
    InForce::of(&[
        document("Specialist", "clerk", json!({ "skills": [skill] })),
        document("Workflow", "work", json!({ "steps": one })),
        document("Workflow", "nap", json!({ "steps": [{ "id": "nap", "wait": { "for": "1h" } }] })),
        document("Workflow", "ask", json!({ "steps": [{ "id": "ask", "approval": { "ask": "May I?" } }] })),
        document("Workflow", "whole", json!({ "steps": [{ "id": "part", "workflow": "work" }] })),
    ])
}

fn id(run: u32) -> RunId {
    RunId::new(ShardId(0), u128::from(run))
}

fn number(run: RunId) -> u32 {
    (1..100).find(|number| id(*number) == run).unwrap()
}

fn unit() -> UnitId {
    UnitId::step(StepIndex(0))
}

struct Bench {
    shard: ShardState,
    in_force: Arc<InForce>,
    first: Option<Instant>,
}

impl Bench {
    fn new() -> Bench {
        let rules = ShardRules {
            shard: ShardId(0),
            shards: ShardCount::default(),
            dedupe_window: Duration::from_secs(60),
            dedupe_runs_max: 100,
            live_runs_max: 2,
            checkpoint_entries: 100,
            checkpoint_every: Duration::from_secs(60),
            history_entries: 100,
        };
        Bench { shard: ShardState::new(rules), in_force: in_force(), first: None }
    }

    fn start(&mut self, run: u32, workflow: &str, key: Option<&str>) -> Result<Started, SubmitError> {
        let name = Name::new(workflow).unwrap();
        let workflow = self.in_force.catalogue.workflow(&Name::default_namespace(), &name).cloned().unwrap();
        let (key, event, parent) = (key.map(Arc::from), Json::trusted(r#"{"data":{}}"#), None);
        let start = StartRun { run: id(run), workflow, key, event, parent, nesting: 0 };
        self.shard.start(start, NOW, &self.in_force)
    }

    fn tell(&mut self, run: u32, command: Command) -> Result<(), SubmitError> {
        self.shard.command(id(run), command, NOW, &self.in_force)
    }

    fn finish(&mut self, run: u32) -> Result<(), SubmitError> {
        let result = Ok(Json::trusted("{}"));
        self.tell(run, Command::FinishTask { unit: unit(), attempt: Attempt(1), result })
    }

    fn cancel(&mut self, run: u32) -> Result<(), SubmitError> {
        let (by, reason, mode) = ("ada".into(), "enough".into(), CancelMode::Leave);
        self.tell(run, Command::Cancel { by, reason, mode })
    }

    /// What is asked for again so many seconds after the first look, at this time of day.
    fn asked_again(&mut self, seconds: u64, now: Timestamp) -> Vec<String> {
        let first = *self.first.get_or_insert_with(Instant::now);
        self.shard.ask_again(first + Duration::from_secs(seconds), now, &self.in_force.clone());
        self.left()
    }

    /// What left since it was asked last, in short; answers and rows are left out.
    fn left(&mut self) -> Vec<String> {
        let short = |output: Output| match output {
            Output::Dispatch(work) => Some(format!("dispatch {} {:?}", number(work.run), work.origin)),
            Output::Cancel(run, ..) => Some(format!("cancel {}", number(run))),
            Output::StartChild(parent, _) => Some(format!("start child of {}", number(parent.run))),
            Output::CancelChild(parent, ..) => Some(format!("cancel child of {}", number(parent.run))),
            Output::Reply(_)
            | Output::Settled(_)
            | Output::Call(_)
            | Output::Reconcile(_)
            | Output::CallNews(..)
            | Output::CallOver(..)
            | Output::TellParent(..)
            | Output::Notify(..)
            | Output::Gather(_)
            | Output::Defined(_)
            | Output::Project(_)
            | Output::Loaded(..) => None,
        };
        std::mem::take(&mut self.shard.outputs).into_iter().filter_map(short).collect()
    }
}

#[test]
fn a_run_is_started_once_while_it_goes_on_and_after_it_has_ended() {
    let mut bench = Bench::new();
    assert_eq!(bench.start(1, "work", None), Ok(Started { run: id(1), duplicate: false }));
    let entries = bench.shard.records.len();
    assert_eq!(bench.start(1, "work", None), Ok(Started { run: id(1), duplicate: true }));
    assert_eq!(bench.left(), ["dispatch 1 New"]);
    bench.finish(1).unwrap();
    assert!(bench.shard.runs.is_empty(), "nobody waits for it any more");
    let ended = bench.shard.records.len();
    assert!(ended > entries);
    assert_eq!(bench.start(1, "work", None), Ok(Started { run: id(1), duplicate: true }));
    assert_eq!(bench.shard.records.len(), ended, "a duplicate writes nothing");
    assert_eq!(bench.finish(1), Err(SubmitError::Rejected(Rejected::RunEnded)));
    assert_eq!(bench.finish(2), Err(SubmitError::NotFound(id(2))));
}

#[test]
fn a_shard_that_is_full_refuses_and_writes_nothing() {
    let mut bench = Bench::new();
    for run in 1..=2 {
        bench.start(run, "nap", None).unwrap();
    }
    let entries = bench.shard.records.len();
    assert!(matches!(bench.start(3, "nap", Some("k")), Err(SubmitError::Busy { .. })));
    assert_eq!(bench.shard.records.len(), entries);
    bench.cancel(1).unwrap();
    assert_eq!(
        bench.start(3, "work", Some("k")),
        Ok(Started { run: id(3), duplicate: false }),
        "the refused start did not stand in the key's line"
    );
    assert_eq!(bench.left(), ["dispatch 3 New"]);
}

#[test]
fn a_task_that_is_wanted_no_longer_is_canceled_and_one_that_ended_is_not() {
    let mut bench = Bench::new();
    for run in 1..=2 {
        bench.start(run, "work", None).unwrap();
    }
    bench.left();
    bench.finish(1).unwrap();
    assert_eq!(bench.left(), [""; 0], "the worker has just reported it");
    bench.cancel(2).unwrap();
    assert_eq!(bench.left(), ["cancel 2"]);
}

#[test]
fn runs_of_a_key_follow_each_other_also_after_a_restart() {
    let mut bench = Bench::new();
    for run in 1..=2 {
        bench.start(run, "work", Some("k")).unwrap();
    }
    assert_eq!(bench.left(), ["dispatch 1 New"]);

    let mut again = Bench::new();
    for run in [2, 1] {
        again.shard.load(bench.shard.runs.remove(&id(run)).unwrap());
    }
    again.shard.drive_all(NOW, &again.in_force.clone());
    assert_eq!(again.left(), ["dispatch 1 Recovered"], "a worker may hold it");
    again.finish(1).unwrap();
    assert_eq!(again.left(), ["dispatch 2 New"], "nobody can hold this one");
}

#[test]
fn a_child_is_asked_for_until_it_is_confirmed() {
    let mut bench = Bench::new();
    bench.start(1, "whole", None).unwrap();
    assert_eq!(bench.left(), ["start child of 1"]);
    assert_eq!(bench.asked_again(0, NOW), [""; 0]);
    assert_eq!(bench.asked_again(1, NOW), [""; 0], "it has some time to answer");
    assert_eq!(bench.asked_again(2, NOW), ["start child of 1"]);
    assert_eq!(bench.asked_again(3, NOW), [""; 0], "and as much again");
    let confirmed = Request::Confirmed(Owed::Child(id(1), unit(), Attempt(1)));
    bench.shard.apply(confirmed, NOW, &bench.in_force.clone());
    assert_eq!(bench.asked_again(60, NOW), [""; 0]);
    let result = Ok(Ending::Completed { output: Json::null() });
    bench.tell(1, Command::ReportChild { unit: unit(), attempt: Attempt(1), result }).unwrap();
    assert!(bench.shard.runs.is_empty() && bench.shard.children.is_empty());
}

#[test]
fn what_is_owed_is_asked_for_again_whatever_the_time_of_day_does() {
    let mut bench = Bench::new();
    bench.start(1, "whole", None).unwrap();
    bench.left();
    let day = Duration::from_secs(24 * 3_600);
    let tomorrow = NOW.after(day);
    assert_eq!(bench.asked_again(0, tomorrow), [""; 0], "a step forward is no reason to ask");
    assert_eq!(bench.asked_again(1, Timestamp(tomorrow.0 + 1)), [""; 0]);
    assert_eq!(bench.asked_again(2, tomorrow), ["start child of 1"]);
    assert_eq!(bench.asked_again(4, Timestamp(0)), ["start child of 1"], "nor a step back a reason not to");
}

#[test]
fn the_child_of_a_canceled_run_is_canceled_until_it_ends() {
    let mut bench = Bench::new();
    bench.start(1, "whole", None).unwrap();
    assert_eq!(bench.left(), ["start child of 1"]);
    bench.cancel(1).unwrap();
    assert_eq!(bench.left(), ["cancel child of 1"]);
    assert_eq!(bench.shard.audit().undriven, []);
    bench.asked_again(0, NOW);
    assert_eq!(bench.asked_again(60, NOW), ["cancel child of 1"], "and not started again");

    let mut again = Bench::new();
    again.shard.load(bench.shard.runs.remove(&id(1)).unwrap());
    again.shard.drive_all(NOW, &again.in_force.clone());
    assert_eq!(again.left(), ["cancel child of 1"], "also after a restart");
    let ending = Request::Confirmed(Owed::ChildEnd(id(1), unit(), Attempt(1)));
    again.shard.apply(ending, NOW, &again.in_force.clone());
    again.asked_again(0, NOW);
    assert_eq!(again.asked_again(60, NOW), [""; 0], "it is ending");
    assert_eq!(again.shard.audit().undriven, []);
    let result = Ok(Ending::Canceled { by: "ada".into(), reason: "enough".into() });
    again.tell(1, Command::ReportChild { unit: unit(), attempt: Attempt(1), result }).unwrap();
    assert!(again.shard.runs.is_empty() && again.shard.children.is_empty() && again.shard.owed.is_empty());
}

#[test]
fn a_late_word_that_a_child_began_does_not_count_for_its_end() {
    let mut bench = Bench::new();
    bench.start(1, "whole", None).unwrap();
    bench.cancel(1).unwrap();
    assert_eq!(bench.left(), ["start child of 1", "cancel child of 1"]);
    let began = Request::Confirmed(Owed::Child(id(1), unit(), Attempt(1)));
    bench.shard.apply(began, NOW, &bench.in_force.clone());
    bench.asked_again(0, NOW);
    assert_eq!(bench.asked_again(60, NOW), ["cancel child of 1"], "nobody has said that it is ending");
}

#[test]
fn a_shard_knows_since_when_a_question_is_asked_also_after_a_restart() {
    let mut bench = Bench::new();
    for (run, workflow) in [(1, "ask"), (2, "nap")] {
        bench.start(run, workflow, None).unwrap();
    }
    let key = kapell_kernel::ApprovalKey::Unit(unit(), Attempt(1));
    let asked = [(id(1), key, NOW)];
    assert_eq!(bench.shard.asked(&[id(2), id(1), id(3)]), asked);

    let mut again = Bench::new();
    let image = bench.shard.runs[&id(1)].to_image();
    again.shard.load(Box::new(Run::from_image(image).unwrap()));
    again.shard.drive_all(NOW.after(Duration::from_secs(60)), &again.in_force.clone());
    assert_eq!(again.shard.asked(&[id(1)]), asked);
    again.cancel(1).unwrap();
    assert_eq!(again.shard.asked(&[id(1)]), []);
}

#[test]
fn the_audit_finds_an_order_that_nobody_drives() {
    let mut bench = Bench::new();
    bench.start(1, "nap", None).unwrap();
    assert_eq!(bench.shard.audit().undriven, []);
    bench.shard.timers.cancel(id(1), TimerKey::Sleep(unit(), Attempt(0)));
    let audit = bench.shard.audit();
    assert_eq!((audit.runs, audit.undriven.len()), (1, 1), "{audit:?}");
}

#[test]
fn a_timer_fires_when_it_is_due_and_not_before() {
    let mut bench = Bench::new();
    bench.start(1, "nap", None).unwrap();
    let in_force = bench.in_force.clone();
    let due = bench.shard.timers.next().unwrap();
    assert_eq!(due, NOW.after(Duration::from_secs(3_600)));
    assert!(!bench.shard.fire(Timestamp(due.0 - 1), 10, &in_force));
    assert_eq!(bench.shard.runs.len(), 1);
    bench.shard.fire(due, 10, &in_force);
    assert!(bench.shard.runs.is_empty(), "its only step was to sleep");
}

#[test]
fn a_shard_says_that_it_is_here_after_everything_that_was_found_in_it() {
    let mut bench = Bench::new();
    bench.start(1, "work", None).unwrap();
    (bench.shard.epoch, bench.shard.outputs) = (Epoch(6), vec![]);
    bench.shard.drive_all(NOW, &bench.in_force);
    let outputs = std::mem::take(&mut bench.shard.outputs);
    assert!(
        matches!(outputs.as_slice(), [Output::Dispatch(_), Output::Loaded(ShardId(0), Epoch(6))]),
        "{} outputs",
        outputs.len()
    );
}
