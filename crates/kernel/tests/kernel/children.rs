//! The time that a subworkflow may take.
use kapell_kernel::{
    Attempt, CancelMode, Command, Ending, Entry, ErrorClass, Failure, Order, OrderKey, Rejected, Status,
    TaskError, TimerKey,
};
use kapell_model::Json;
use serde_json::{Value, json};

use crate::bench::{Bench, START, cancel, document, one, pause, resume, retry, seconds};

const DEADLINE: fn(u32) -> TimerKey = |attempt| TimerKey::Attempt(one(0), Attempt(attempt));
const CHILD: fn(u32) -> OrderKey = |attempt| OrderKey::Child(one(0), Attempt(attempt));
const CANCEL: fn(u32) -> OrderKey = |attempt| OrderKey::CancelChild(one(0), Attempt(attempt));

fn timed(on_failure: &str, attempts: u32) -> Bench {
    let spec = json!({ "onFailure": on_failure, "steps": [
        { "id": "a", "workflow": "child", "timeout": "1h", "retry": { "attempts": attempts } },
    ] });
    let child = document("Workflow", "child", json!({ "steps": [{ "id": "a", "wait": { "for": "1s" } }] }));
    Bench::with(&spec, &[child])
}

fn report(bench: &mut Bench, attempt: u32, result: Result<Ending, TaskError>) -> Vec<Entry> {
    bench.ok(Command::ReportChild { unit: one(0), attempt: Attempt(attempt), result })
}

fn canceled() -> Result<Ending, TaskError> {
    Ok(Ending::Canceled { by: "bob".into(), reason: "no".into() })
}

fn completed(output: &Value) -> Result<Ending, TaskError> {
    Ok(Ending::Completed { output: Json::of(output) })
}

/// How the child is canceled.
fn mode_of(bench: &Bench, attempt: u32) -> CancelMode {
    let Order::CancelChild { by, reason, mode, .. } = bench.open[&CANCEL(attempt)].clone() else { panic!() };
    assert!(by.starts_with("run ") && reason.contains("timeout"), "{by}: {reason}");
    mode
}

fn failure(bench: &Bench) -> TaskError {
    let Ending::Failed(failure) = &bench.ended().ending else { panic!("{:?}", bench.ended()) };
    failure.error.clone()
}

#[test]
fn a_child_that_takes_too_long_is_canceled_and_begun_again_after_it_has_ended() {
    let mut bench = timed("compensate", 2);
    assert_eq!(bench.timer(DEADLINE(1)), START.after(seconds(3600)));
    let Order::StartChild { child: first, .. } = bench.open[&CHILD(1)].clone() else { panic!() };
    bench.restore();
    bench.fire(DEADLINE(1));
    let Order::CancelChild { child, .. } = bench.open[&CANCEL(1)].clone() else { panic!() };
    assert_eq!(child, first);
    assert_eq!(mode_of(&bench, 1), CancelMode::Undo);
    assert_eq!(bench.open.len(), 1, "the next attempt waits for its end: {:?}", bench.open.keys());
    bench.restore();
    let late = Command::FireTimer(DEADLINE(1));
    assert_eq!(bench.refused(late), Rejected::Stale(OrderKey::Timer(DEADLINE(1))));
    report(&mut bench, 1, canceled());
    assert!(matches!(bench.status(one(0)), Status::BackingOff { .. }));
    bench.fire(TimerKey::Retry(one(0), Attempt(1)));
    let Order::StartChild { child: second, .. } = &bench.open[&CHILD(2)] else { panic!() };
    assert_ne!(*second, first);
    let begun = bench.now;
    assert_eq!(bench.timer(DEADLINE(2)), begun.after(seconds(3600)), "each attempt has its own time");
    report(&mut bench, 2, completed(&json!("out")));
    assert!(matches!(bench.ended().ending, Ending::Completed { .. }));
    bench.replay();
}

#[test]
fn the_last_attempt_fails_with_a_timeout_and_its_child_is_left_as_the_workflow_says() {
    for (on_failure, mode) in [("compensate", CancelMode::Undo), ("stop", CancelMode::Leave)] {
        let mut bench = timed(on_failure, 1);
        bench.fire(DEADLINE(1));
        assert_eq!(mode_of(&bench, 1), mode);
        report(&mut bench, 1, canceled());
        assert_eq!(failure(&bench).class, ErrorClass::Timeout);
        bench.ok(retry());
        assert!(bench.has(CHILD(2)) && bench.has(OrderKey::Timer(DEADLINE(2))));
        bench.replay();
    }
}

#[test]
fn what_a_child_did_is_undone_before_another_does_it_again() {
    let mut bench = timed("stop", 2);
    bench.fire(DEADLINE(1));
    assert_eq!(mode_of(&bench, 1), CancelMode::Undo, "else the second would do it twice");
}

#[test]
fn a_child_that_fails_or_never_began_after_its_time_was_up_has_timed_out() {
    let error = TaskError::new(ErrorClass::Permanent, "it broke");
    let failed = Ok(Ending::Failed(Failure { unit: None, error: error.clone() }));
    for result in [failed, Err(error)] {
        let mut bench = timed("stop", 2);
        bench.fire(DEADLINE(1));
        report(&mut bench, 1, result);
        bench.fire(TimerKey::Retry(one(0), Attempt(1)));
        bench.fire(DEADLINE(2));
        report(&mut bench, 2, canceled());
        assert_eq!(failure(&bench).class, ErrorClass::Timeout);
    }
}

#[test]
fn a_child_that_was_done_before_its_cancelation_came_counts() {
    let mut bench = timed("compensate", 2);
    bench.fire(DEADLINE(1));
    report(&mut bench, 1, completed(&json!("out")));
    let Ending::Completed { output } = &bench.ended().ending else { panic!("done twice, or not at all") };
    assert_eq!(output.value(), json!("out"));
}

#[test]
fn a_child_is_canceled_once_though_its_parent_is_wound_up_meanwhile() {
    let mut bench = timed("compensate", 2);
    bench.fire(DEADLINE(1));
    let before = bench.open[&CANCEL(1)].clone();
    bench.ok(cancel(CancelMode::Leave));
    assert_eq!(bench.open.values().collect::<Vec<_>>(), [&before]);
    bench.restore();
    report(&mut bench, 1, canceled());
    assert!(matches!(bench.ended().ending, Ending::Canceled { .. }));
    bench.replay();
}

#[test]
fn a_run_that_is_wound_up_waits_for_no_deadline_of_its_children() {
    let mut bench = timed("compensate", 2);
    bench.ok(cancel(CancelMode::Leave));
    assert_eq!(bench.open.keys().collect::<Vec<_>>(), [&CANCEL(1)]);
    bench.now = bench.now.after(seconds(3600));
    let late = Command::FireTimer(DEADLINE(1));
    assert_eq!(bench.refused(late), Rejected::Stale(OrderKey::Timer(DEADLINE(1))));
}

#[test]
fn a_paused_run_lets_its_children_time_out_and_begins_them_again_when_it_goes_on() {
    let mut bench = timed("compensate", 2);
    bench.ok(pause());
    bench.fire(DEADLINE(1));
    report(&mut bench, 1, canceled());
    assert_eq!(bench.open.keys().collect::<Vec<_>>(), [&OrderKey::Resume]);
    bench.ok(resume());
    bench.fire(TimerKey::Retry(one(0), Attempt(1)));
    assert!(bench.has(CHILD(2)));
}

#[test]
fn a_child_without_a_timeout_may_take_years() {
    let spec = json!({ "steps": [{ "id": "a", "workflow": "child" }] });
    let child = document("Workflow", "child", json!({ "steps": [{ "id": "a", "wait": { "for": "1s" } }] }));
    let bench = Bench::with(&spec, &[child]);
    assert_eq!(bench.open.keys().collect::<Vec<_>>(), [&CHILD(1)]);
}
