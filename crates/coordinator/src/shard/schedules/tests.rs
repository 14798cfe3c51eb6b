mod once;

use std::time::Duration;

use kapell_kernel::{Ending, Phase};
use kapell_model::ShardId;
use kapell_wire::{Image, RecordBody, decode_image, decode_record};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::message::Request;
use super::super::orders::OWED_AGAIN;
use super::super::state::ShardRules;
use super::*;
use crate::definitions::{Definitions, change};

const MINUTE: u64 = 60_000;
/// Some midnight in UTC.
const MIDNIGHT: u64 = 1_767_225_600_000;

fn minute(minute: u64) -> Timestamp {
    Timestamp(MIDNIGHT + minute * MINUTE)
}

fn document(kind: &str, name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "kapell.dev/v1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

fn workflow(name: &str, key: Option<&str>) -> Value {
    let mut spec = json!({ "steps": [{ "id": "nap", "wait": { "for": "1h" } }] });
    if let Some(key) = key {
        spec["key"] = json!(key);
    }
    document("Workflow", name, spec)
}

/// Every minute, with these fields more.
fn schedule(more: Value) -> Value {
    let mut spec = json!({ "cron": "* * * * *", "workflow": "work" });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    document("Schedule", "often", spec)
}

fn rules(shard: u16, shards: u16) -> ShardRules {
    ShardRules {
        shard: ShardId(shard),
        shards: ShardCount::new(shards).unwrap(),
        dedupe_window: Duration::from_secs(60),
        dedupe_runs_max: 100,
        live_runs_max: 100,
        checkpoint_entries: 100,
        checkpoint_every: Duration::from_secs(60),
        history_entries: 100,
    }
}

/// One shard, its journal, and the definitions of its node.
struct Bench {
    shard: ShardState,
    definitions: Definitions,
    revision: u64,
    journal: Vec<kapell_journal::Record>,
}

impl Bench {
    /// With the workflow `work`, and a schedule that was applied at midnight.
    fn new(more: Value) -> Bench {
        let mut bench = Bench {
            shard: ShardState::new(rules(0, 1)),
            definitions: Definitions::default(),
            revision: 0,
            journal: Vec::new(),
        };
        bench.apply(workflow("work", None), minute(0));
        bench.apply(schedule(more), minute(0));
        bench
    }

    fn define(&mut self, document: Value, removed: bool, at: Timestamp) {
        self.revision += 1;
        let record =
            kapell_wire::DefinitionRecord { removed, revision: self.revision, ..change(&document, at) };
        self.definitions.apply(&[record]).unwrap();
    }

    fn apply(&mut self, document: Value, at: Timestamp) {
        self.define(document, false, at);
        self.shard.follow_schedules(at, &self.definitions.in_force());
    }

    fn delete(&mut self, document: Value, at: Timestamp) {
        self.define(document, true, at);
        self.shard.follow_schedules(at, &self.definitions.in_force());
    }

    fn tick(&mut self, now: Timestamp) -> bool {
        self.shard.fire(now, 100, &self.definitions.in_force())
    }

    fn ask(&mut self, request: Request, now: Timestamp) {
        self.shard.apply(request, now, &self.definitions.in_force());
    }

    fn ask_again(&mut self, moment: Instant, now: Timestamp) {
        self.shard.ask_again(moment, now, &self.definitions.in_force());
    }

    fn confirm(&mut self, start: &Start, now: Timestamp) {
        let ParentRef { run, unit, attempt } = start.above;
        self.ask(Request::Confirmed(Owed::Child(run, unit, attempt)), now);
    }

    fn end(&mut self, start: &Start, now: Timestamp) {
        let result = Ok(Ending::Completed { output: Json::null() });
        let ParentRef { run, unit, attempt } = start.above;
        let command = Command::ReportChild { unit, attempt, result };
        self.shard.command(run, command, now, &self.definitions.in_force()).unwrap();
    }

    /// What is asked of other shards, once the records are on disk.
    fn starts(&mut self) -> Vec<Start> {
        self.journal.append(&mut self.shard.records);
        let start = |output| {
            let Output::StartChild(above, start) = output else { return None };
            Some(Start { above, start: *start })
        };
        std::mem::take(&mut self.shard.outputs).into_iter().filter_map(start).collect()
    }

    /// The minutes for which runs are asked for.
    fn minutes(&mut self) -> Vec<u64> {
        self.starts().iter().map(Start::minute).collect()
    }

    /// What was not on disk is lost; another owner takes the shard.
    fn crash(&mut self, now: Timestamp) {
        self.shard = load(self.shard.rules, &self.journal, &self.definitions);
        self.shard.drive_all(now, &self.definitions.in_force());
    }

    fn view(&mut self) -> v1::Schedule {
        self.shard.schedules.view(&Name::default_namespace()).pop().unwrap()
    }

    fn state(&self) -> &ScheduleState {
        let id = self.shard.schedules.ids().next().unwrap();
        self.shard.schedules.state(id).unwrap()
    }
}

/// A shard as its journal tells it.
fn load(rules: ShardRules, journal: &[kapell_journal::Record], definitions: &Definitions) -> ShardState {
    let mut shard = ShardState::new(rules);
    for record in journal {
        let (_, body) = decode_record(&record.payload, definitions).unwrap();
        let RecordBody::Schedule(entry) = body else { panic!("{body:?}") };
        shard.schedules.evolve(record.run, &entry);
    }
    shard
}

/// A run that is asked for.
#[derive(Debug)]
struct Start {
    above: ParentRef,
    start: StartRun,
}

impl Start {
    fn event(&self) -> Value {
        self.start.event.value().clone()
    }

    /// Of its tick, from midnight on.
    fn minute(&self) -> u64 {
        let tick = Timestamp::from_rfc3339(self.event()["time"].as_str().unwrap()).unwrap();
        (tick.0 - MIDNIGHT) / MINUTE
    }
}

#[test]
fn a_tick_starts_one_run_with_an_event_that_says_which_tick() {
    let mut bench = Bench::new(json!({ "with": { "region": "north" } }));
    assert_eq!(bench.shard.next_due(), Some(minute(1)));
    bench.tick(Timestamp(minute(1).0 - 1));
    assert_eq!(bench.minutes(), [0; 0], "not before");
    bench.tick(minute(1));
    let starts = bench.starts();
    let [start] = &starts[..] else { panic!("{starts:?}") };
    let expected = json!({
        "type": "kapell.schedule.tick", "source": "/kapell/schedules/often", "specversion": "1.0",
        "id": "2026-01-01T00:01:00.000Z", "time": "2026-01-01T00:01:00.000Z", "data": { "region": "north" },
    });
    assert_eq!(start.event(), expected);
    assert_eq!(start.start.workflow.name.as_str(), "work");
    bench.tick(minute(1));
    assert_eq!(bench.minutes(), [0; 0], "nothing is decided twice");
    assert_eq!(bench.shard.next_due(), Some(minute(2)));
}

#[test]
fn a_run_is_asked_for_until_it_is_on_disk_also_after_a_crash() {
    let mut bench = Bench::new(json!({}));
    bench.tick(minute(1));
    let first = bench.starts().pop().unwrap();
    assert_eq!(bench.shard.audit().undriven, []);
    let (moment, later) = (Instant::now(), minute(1).after(OWED_AGAIN));
    bench.ask_again(moment, later);
    assert_eq!(bench.minutes(), [0; 0], "the other shard has time to answer");
    bench.ask_again(moment + OWED_AGAIN, later);
    assert_eq!(bench.minutes(), [1]);
    bench.crash(later);
    let again = bench.starts().pop().unwrap();
    assert_eq!((again.start.run, again.above), (first.start.run, first.above));
    assert_eq!(bench.shard.audit().undriven, []);
    bench.confirm(&again, later);
    for looks in 2..4 {
        bench.ask_again(moment + OWED_AGAIN * looks, later);
    }
    assert_eq!(bench.minutes(), [0; 0]);
    bench.crash(later);
    assert_eq!(bench.minutes(), [0; 0], "that it is there is on disk too");
}

#[test]
fn a_start_that_is_on_its_way_does_not_change_with_the_definitions() {
    let mut bench = Bench::new(json!({ "with": { "region": "north" } }));
    bench.tick(minute(1));
    let first = bench.starts().pop().unwrap();
    // With a key, the run would live in another shard and be started a second time there.
    bench.apply(workflow("work", Some("event.data.region")), minute(1));
    bench.apply(schedule(json!({ "with": { "region": "south" } })), minute(1));
    bench.crash(minute(1));
    let again = bench.starts().pop().unwrap();
    assert_eq!((again.start.run, again.start.key.clone()), (first.start.run, None));
    assert_eq!(again.event(), first.event());
    assert_eq!(again.start.workflow.digest, first.start.workflow.digest);
    bench.end(&again, minute(1));
    bench.tick(minute(2));
    let next = bench.starts().pop().unwrap();
    assert_eq!(next.start.key.as_deref(), Some("south"), "the next tick goes by the new ones");
}

#[test]
fn a_tick_that_was_not_on_disk_is_decided_again_and_meets_its_first_self() {
    let mut bench = Bench::new(json!({}));
    bench.tick(minute(1));
    bench.shard.records.clear();
    let lost = bench.starts().pop().unwrap();
    bench.crash(minute(1));
    bench.tick(minute(1));
    assert_eq!(bench.starts().pop().unwrap().start.run, lost.start.run);
}

#[test]
fn ticks_count_from_when_the_schedule_was_applied_and_not_from_when_the_shard_learns_of_it() {
    let mut bench = Bench::new(json!({ "catchup": "all", "overlap": "allow" }));
    // The node stopped right after the schedule had been applied.
    bench.crash(minute(5));
    bench.tick(minute(5));
    assert_eq!(bench.minutes(), [1, 2, 3, 4, 5]);
}

#[test]
fn missed_ticks_are_made_up_for_as_the_definition_says() {
    for (catchup, expected, left_out) in
        [("latest", &[5][..], 4), ("all", &[1, 2, 3, 4, 5], 0), ("skip", &[], 5)]
    {
        let mut bench = Bench::new(json!({ "catchup": catchup, "overlap": "allow" }));
        bench.crash(minute(5));
        bench.tick(minute(5).after(Duration::from_secs(30)));
        assert_eq!(bench.minutes(), expected, "{catchup}");
        assert_eq!(bench.state().left_out, left_out, "{catchup}");
        bench.tick(minute(6));
        assert_eq!(bench.minutes(), [6], "{catchup}: from here on it ticks as ever");
    }
}

#[test]
fn many_missed_ticks_are_decided_in_portions() {
    let mut bench = Bench::new(json!({ "catchup": "all", "overlap": "allow" }));
    let in_force = bench.definitions.in_force();
    let now = minute(7);
    let mut portions = vec![];
    while bench.shard.fire(now, 3, &in_force) {
        portions.push(bench.minutes());
        bench.crash(now);
        bench.starts();
    }
    portions.push(bench.minutes());
    assert_eq!(portions, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
}

#[test]
fn a_tick_while_the_last_run_goes_on_is_left_out() {
    let mut bench = Bench::new(json!({}));
    bench.tick(minute(1));
    let first = bench.starts().pop().unwrap();
    bench.confirm(&first, minute(1));
    bench.tick(minute(2));
    assert_eq!(bench.minutes(), [0; 0]);
    let seen = bench.view();
    assert_eq!((seen.running, seen.left_out), (1, 1));
    assert_eq!(seen.last_left_out_reason, "the last run was not over");
    bench.crash(minute(2));
    bench.tick(minute(3));
    assert_eq!(bench.minutes(), [0; 0], "another owner knows it too");
    bench.end(&first, minute(3));
    bench.end(&first, minute(3));
    bench.tick(minute(4));
    assert_eq!(bench.minutes(), [4]);
    assert_eq!(bench.state().left_out, 2);
}

#[test]
fn ticks_wait_for_the_last_run_and_start_one_after_the_other() {
    let mut bench = Bench::new(json!({ "overlap": "queue" }));
    for now in 1..=3 {
        bench.tick(minute(now));
    }
    let first = bench.starts().pop().unwrap();
    assert_eq!((first.minute(), bench.view().waiting), (1, 2));
    bench.crash(minute(3));
    assert_eq!(bench.minutes(), [1], "not confirmed yet, and nothing overtakes it");
    bench.end(&first, minute(4));
    let second = bench.starts().pop().unwrap();
    assert_eq!(second.minute(), 2);
    bench.end(&second, minute(4));
    assert_eq!(bench.minutes(), [3]);
    assert_eq!(bench.view().waiting, 0);
}

#[test]
fn a_clock_that_steps_back_starts_nothing_twice_and_one_that_steps_forward_misses_nothing() {
    let mut bench = Bench::new(json!({ "catchup": "all", "overlap": "allow" }));
    bench.tick(minute(3));
    assert_eq!(bench.minutes(), [1, 2, 3]);
    bench.tick(minute(1));
    bench.crash(minute(1));
    bench.starts();
    bench.tick(minute(2));
    assert_eq!(bench.minutes(), [0; 0]);
    assert_eq!(bench.shard.next_due(), Some(minute(4)));
    bench.tick(minute(6));
    assert_eq!(bench.minutes(), [4, 5, 6]);
}

#[test]
fn a_suspended_schedule_does_nothing_and_misses_nothing() {
    let mut bench = Bench::new(json!({ "catchup": "all", "overlap": "queue" }));
    for now in 1..=2 {
        bench.tick(minute(now));
    }
    let first = bench.starts().pop().unwrap();
    bench.apply(schedule(json!({ "catchup": "all", "overlap": "queue", "suspend": true })), minute(2));
    assert_eq!((bench.shard.next_due(), bench.view().next_ms), (None, 0));
    bench.end(&first, minute(5));
    assert_eq!(bench.minutes(), [0; 0], "what waits goes on waiting");
    bench.apply(schedule(json!({ "catchup": "all", "overlap": "queue" })), minute(9));
    let waited = bench.starts().pop().unwrap();
    assert_eq!(waited.minute(), 2);
    bench.end(&waited, minute(9));
    bench.tick(minute(11));
    assert_eq!(bench.minutes(), [10], "the next after it was resumed; 11 waits");
}

#[test]
fn changed_times_count_from_the_change_and_other_changes_lose_no_tick() {
    let mut bench = Bench::new(json!({ "catchup": "all", "overlap": "allow" }));
    bench.tick(minute(1));
    assert_eq!(bench.minutes(), [1]);
    let every_two = json!({ "cron": "*/2 * * * *", "catchup": "all", "overlap": "allow" });
    bench.apply(schedule(every_two.clone()), minute(5));
    bench.tick(minute(8));
    assert_eq!(bench.minutes(), [6, 8], "2 and 4 were before the change");
    let mut with = every_two;
    with["with"] = json!({ "a": 1 });
    bench.apply(schedule(with), minute(12));
    bench.tick(minute(12));
    assert_eq!(bench.minutes(), [10, 12], "that 10 was late does not lose it");
}

#[test]
fn a_removed_schedule_is_forgotten_once_its_ticks_have_their_runs() {
    let mut bench = Bench::new(json!({}));
    bench.tick(minute(1));
    let first = bench.starts().pop().unwrap();
    bench.delete(schedule(json!({})), minute(2));
    assert_eq!(bench.shard.next_due(), None);
    bench.crash(minute(2));
    assert_eq!(bench.minutes(), [1], "what was decided is done");
    bench.confirm(&first, minute(2));
    assert_eq!(bench.shard.schedules.ids().count(), 0);
    assert_eq!(bench.starts().len(), 0);
    bench.crash(minute(2));
    assert_eq!(bench.shard.schedules.ids().count(), 0);
    let told = bench.shard.command(
        first.above.run,
        Command::ReportChild {
            unit: first.above.unit,
            attempt: first.above.attempt,
            result: Ok(Ending::Completed { output: Json::null() }),
        },
        minute(3),
        &bench.definitions.in_force(),
    );
    assert_eq!(told, Err(SubmitError::NotFound(first.above.run)), "which the run takes for an answer");
    bench.apply(schedule(json!({ "catchup": "all", "overlap": "allow" })), minute(5));
    bench.tick(minute(6));
    assert_eq!(bench.minutes(), [6], "made anew, it counts from then on");
}

#[test]
fn a_node_that_does_not_know_the_schedule_yet_does_not_forget_it() {
    let mut bench = Bench::new(json!({}));
    bench.tick(minute(1));
    let first = bench.starts().pop().unwrap();
    bench.confirm(&first, minute(1));
    bench.starts();
    let behind = Definitions::default();
    let old = kapell_wire::DefinitionRecord { revision: 1, ..change(&workflow("work", None), minute(0)) };
    behind.apply(&[old]).unwrap();
    bench.shard = load(bench.shard.rules, &bench.journal, &bench.definitions);
    bench.shard.drive_all(minute(2), &behind.in_force());
    assert_eq!((bench.shard.schedules.ids().count(), bench.shard.records.len()), (1, 0));
    bench.shard.follow_schedules(minute(2), &bench.definitions.in_force());
    assert_eq!(bench.shard.next_due(), Some(minute(2)));
}

#[test]
fn a_tick_that_cannot_start_its_workflow_is_left_out_with_the_reason() {
    let mut bench = Bench::new(json!({ "overlap": "queue" }));
    bench.apply(workflow("work", Some("event.data.region")), minute(0));
    for now in 1..=2 {
        bench.tick(minute(now));
    }
    assert_eq!(bench.minutes(), [0; 0]);
    let seen = bench.view();
    assert_eq!((seen.left_out, seen.running, seen.waiting), (2, 0, 0));
    assert!(seen.last_left_out_reason.contains("region"), "{}", seen.last_left_out_reason);
}

#[test]
fn a_checkpoint_holds_all_of_a_schedule_and_lets_go_of_a_removed_one() {
    let mut bench = Bench::new(json!({ "overlap": "queue" }));
    for now in 1..=3 {
        bench.tick(minute(now));
    }
    let first = bench.starts().pop().unwrap();
    let images = bench.shard.images(minute(3), &bench.definitions);
    let [image] = &images[..] else { panic!("{images:?}") };
    let read = decode_image(image.run, image.state.as_ref().unwrap(), &bench.definitions).unwrap();
    assert_eq!(read, Image::Schedule(Box::new(bench.state().clone())));
    bench.shard.save_everything();
    assert_eq!(bench.shard.images(minute(3), &bench.definitions).len(), 2, "and the definitions");
    bench.confirm(&first, minute(3));
    bench.delete(schedule(json!({})), minute(4));
    let gone = bench.shard.images(minute(4), &bench.definitions);
    assert_eq!(
        gone.iter().map(|image| (image.run, image.state.is_none())).collect::<Vec<_>>(),
        [(first.above.run, true)]
    );
}

#[test]
fn the_audit_finds_a_start_that_nobody_asks_for_and_a_tick_that_nobody_decides() {
    let mut bench = Bench::new(json!({}));
    bench.tick(minute(1));
    assert_eq!(bench.shard.audit().undriven, []);
    bench.shard.owed.clear();
    assert_eq!(bench.shard.audit().undriven.len(), 1);
    bench.shard.schedules.due.clear();
    assert_eq!(bench.shard.audit().undriven.len(), 2);
}

#[test]
fn a_run_of_a_schedule_names_it_and_tells_it_when_it_is_over() {
    let mut bench = Bench::new(json!({}));
    bench.tick(minute(1));
    let Start { above, start } = bench.starts().pop().unwrap();
    let run = start.run;
    let in_force = bench.definitions.in_force();
    bench.ask(Request::Start(vec![start], Box::new(|_| {})), minute(1));
    let seen = super::super::view::view(&bench.shard.runs[&run]);
    assert_eq!((seen.schedule.as_str(), seen.parent.as_str()), ("often", ""));
    bench.shard.fire(minute(100), 100, &in_force);
    assert!(matches!(bench.shard.runs[&run].phase(), Phase::Ended(_)), "it stays until the schedule knows");
    let told =
        bench.shard.outputs.iter().any(
            |output| matches!(output, Output::TellParent(child, to, _) if *child == run && *to == above),
        );
    assert!(told);
    let line = crate::story::tell(
        &bench.shard.runs[&run],
        &[(
            kapell_model::Seq(1),
            minute(1),
            kapell_kernel::Entry::RunAccepted(Box::new(bench.shard.runs[&run].accepted().clone())),
        )],
    );
    let text = "schedule `often` started workflow `work` for its tick of 2026-01-01T00:01:00.000Z";
    assert_eq!(line[0].text, text);
}
