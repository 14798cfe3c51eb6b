//! Timers, events, signals, subworkflows, business results.
use kapell_kernel::{
    Attempt, CancelMode, Command, Ending, ErrorClass, Failure, Order, OrderKey, Rejected, Status, TaskError,
    TimerKey, correlation_of, hears,
};
use kapell_model::limits::NESTING_MAX;
use kapell_model::{Json, Timestamp};
use serde_json::{Value, json};

use crate::bench::{
    Bench, Start, cancel, catalogue, document, event, item, one, pause, resume, retry, seconds, workflow,
};

fn waits(by: Option<&str>) -> Value {
    let mut wait = json!({ "type": "paid", "correlate": "${event.data.order}" });
    if let Some(by) = by {
        wait["by"] = json!(by);
    }
    json!({ "id": "a", "wait": { "event": wait }, "timeout": "1h" })
}

fn waiting(spec: &Value) -> Bench {
    let start = Start { event: json!({ "data": { "order": "k" } }), ..Start::default() };
    Bench::started(catalogue(&[workflow(spec)]), start).planned()
}

fn signal(of_type: &str, subject: &str) -> Command {
    Command::Signal { event: event(of_type, subject) }
}

fn completed(bench: &Bench) -> Value {
    match &bench.ended().ending {
        Ending::Completed { output } => output.value(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_event_ends_the_wait_once() {
    let mut bench =
        waiting(&json!({ "steps": [waits(None), { "id": "b", "skill": "do.read", "after": ["a"] }] }));
    let Order::AwaitEvent { event_type, correlation, .. } = &bench.open[&OrderKey::Event(one(0), Attempt(0))]
    else {
        panic!()
    };
    assert_eq!((&**event_type, &**correlation), ("paid", "k"));
    let deliver = |attempt| Command::DeliverEvent { unit: one(0), attempt, event: event("paid", "k") };
    assert!(matches!(bench.refused(deliver(Attempt(1))), Rejected::Stale(_)));
    bench.ok(deliver(Attempt(0)));
    assert!(matches!(bench.refused(deliver(Attempt(0))), Rejected::Stale(_)));
    assert_eq!(bench.unit(one(0)).output().unwrap().value()["subject"], "k");
}

#[test]
fn an_event_that_does_not_come_fails_the_step() {
    let mut bench = waiting(&json!({ "steps": [waits(None)] }));
    assert!(matches!(
        bench.refused(Command::FireTimer(TimerKey::Wait(one(0), Attempt(0)))),
        Rejected::Stale(_)
    ));
    bench.fire(TimerKey::Wait(one(0), Attempt(0)));
    assert!(
        matches!(&bench.ended().ending, Ending::Failed(failure) if failure.error.class == ErrorClass::Timeout)
    );
    let mut patient = waits(None);
    patient.as_object_mut().unwrap().remove("timeout");
    let bench = waiting(&json!({ "steps": [patient] }));
    assert_eq!(bench.open.len(), 1, "no timer");
}

#[test]
fn a_signal_is_kept_until_a_step_waits_for_it() {
    let mut bench = waiting(&json!({ "steps": [
        { "id": "first", "skill": "do.read" },
        { "id": "a", "wait": { "event": { "type": "paid", "correlate": "k" } }, "after": ["first"] },
        { "id": "b", "wait": { "event": { "type": "paid", "correlate": "k" } }, "after": ["first"] },
        { "id": "c", "wait": { "event": { "type": "paid", "correlate": "k" } }, "after": ["first"] },
    ] }));
    for (of_type, subject) in [("other", "k"), ("paid", "not-k"), ("paid", "k"), ("paid", "k")] {
        bench.ok(signal(of_type, subject));
    }
    bench.finish(one(0), &json!(1));
    assert!(bench.unit(one(1)).is_over() && bench.unit(one(2)).is_over(), "each took one");
    assert!(matches!(bench.status(one(3)), Status::Listening { .. }));
    bench.ok(signal("other", "k"));
    assert!(bench.run.ended().is_none());
    bench.ok(signal("paid", "k"));
    assert_eq!(completed(&bench)["c"]["type"], "paid");
    bench.replay();
}

#[test]
fn a_paused_run_hears_signals_and_begins_nothing() {
    let mut bench =
        waiting(&json!({ "steps": [waits(None), { "id": "b", "skill": "do.read", "after": ["a"] }] }));
    bench.ok(pause());
    bench.ok(signal("paid", "k"));
    assert!(bench.unit(one(0)).is_over());
    assert!(bench.run.unit(one(1)).is_none());
    bench.ok(resume());
    assert!(bench.run.unit(one(1)).is_some());
}

#[test]
fn the_value_of_an_event_is_its_subject_or_what_the_step_says() {
    let spec = json!({ "steps": [waits(Some("event.data.order"))] });
    let mut bench = waiting(&spec);
    bench.ok(signal("paid", "k"));
    assert!(bench.run.ended().is_none(), "the subject does not count");
    bench.ok(Command::Signal { event: Json::of(&json!({ "type": "paid", "data": { "order": "k" } })) });
    assert!(bench.run.ended().is_some());
    let by = kapell_model::expr::Expr::compile("event.data.n").unwrap();
    let numbered = Json::of(&json!({ "type": "t", "data": { "n": 5 } }));
    assert_eq!(correlation_of(&numbered, Some(&by)).as_deref(), Some("5"));
    assert_eq!(correlation_of(&numbered, None), None);
    assert!(hears(&numbered, "t", "5", Some(&by)) && !hears(&numbered, "u", "5", Some(&by)));
    assert!(!hears(&Json::null(), "t", "5", Some(&by)));
}

#[test]
fn a_wait_of_each_item_takes_its_own_signal() {
    let mut bench = waiting(&json!({ "steps": [{ "id": "a", "foreach": ["x", "y"], "concurrency": 1,
        "wait": { "event": { "type": "paid", "correlate": "${item}" } } }] }));
    bench.ok(signal("paid", "y"));
    assert!(matches!(bench.status(item(0, 0)), Status::Listening { .. }));
    bench.ok(signal("paid", "x"));
    assert_eq!(completed(&bench)["results"][1]["subject"], "y");
}

#[test]
fn sleeps_end_at_their_time() {
    let until = Timestamp(5_000_000);
    let mut bench = Bench::of(&json!({ "steps": [
        { "id": "a", "wait": { "for": "90s" } }, { "id": "b", "wait": { "until": "${'1970-01-01T01:23:20Z'}" } },
    ] }));
    let end_of = |unit| TimerKey::Sleep(unit, Attempt(0));
    assert_eq!(bench.timer(end_of(one(0))), bench.now.after(seconds(90)));
    assert_eq!(bench.timer(end_of(one(1))), until);
    assert!(matches!(bench.refused(Command::FireTimer(end_of(one(0)))), Rejected::Stale(_)));
    bench.fire(end_of(one(0)));
    bench.fire(end_of(one(1)));
    assert_eq!(completed(&bench), json!({ "a": null, "b": null }));
    let bench = Bench::of(&json!({ "steps": [{ "id": "a", "wait": { "until": "${event.data}" } }] }));
    assert!(
        matches!(&bench.ended().ending, Ending::Failed(failure) if failure.error.message.contains("RFC 3339"))
    );
}

fn parent(nesting: u32) -> Bench {
    let spec = json!({ "onFailure": "stop", "steps": [{ "id": "a", "workflow": "child", "retry": { "attempts": 2 },
        "with": { "n": 1 } }] });
    let child = document("Workflow", "child", json!({ "steps": [{ "id": "a", "wait": { "for": "1s" } }] }));
    let start = Start { nesting, ..Start::default() };
    Bench::started(catalogue(&[child, workflow(&spec)]), start).planned()
}

fn report(attempt: u32, result: Result<Ending, TaskError>) -> Command {
    Command::ReportChild { unit: one(0), attempt: Attempt(attempt), result }
}

#[test]
fn a_child_is_started_under_an_id_of_its_own_and_its_output_is_the_steps() {
    let mut bench = parent(0);
    let Order::StartChild { child, workflow, input, .. } =
        bench.open[&OrderKey::Child(one(0), Attempt(1))].clone()
    else {
        panic!()
    };
    assert_eq!((workflow.as_str(), input.value()), ("child", json!({ "n": 1 })));
    bench.ok(report(1, Err(TaskError::new(ErrorClass::Unavailable, "no shard"))));
    bench.fire(TimerKey::Retry(one(0), Attempt(1)));
    let Order::StartChild { child: second, .. } = &bench.open[&OrderKey::Child(one(0), Attempt(2))] else {
        panic!()
    };
    assert_ne!(child, *second);
    let done = Ok(Ending::Completed { output: Json::of(&json!("out")) });
    assert!(matches!(bench.refused(report(1, done.clone())), Rejected::Stale(OrderKey::Child(..))));
    bench.ok(report(2, done.clone()));
    assert_eq!(completed(&bench), json!("out"));
    assert!(matches!(bench.refused(report(2, done)), Rejected::Stale(_)));
}

#[test]
fn a_child_that_fails_is_canceled_or_cannot_start_fails_the_step() {
    let error = TaskError::new(ErrorClass::Denied, "no");
    let large = Json::of(&json!("x".repeat(kapell_model::limits::PAYLOAD_BYTES_MAX)));
    for (result, class, word) in [
        (Ok(Ending::Failed(Failure { unit: None, error: error.clone() })), ErrorClass::Denied, "no"),
        (Ok(Ending::Canceled { by: "bob".into(), reason: "tired".into() }), ErrorClass::Permanent, "tired"),
        (Ok(Ending::Completed { output: large }), ErrorClass::Permanent, "bytes"),
        (Err(error), ErrorClass::Denied, "no"),
    ] {
        let mut bench = parent(0);
        bench.ok(report(1, result));
        let Ending::Failed(failure) = &bench.ended().ending else { panic!() };
        assert_eq!(failure.error.class, class);
        assert!(failure.error.message.contains(word));
        bench.ok(retry());
        assert!(bench.has(OrderKey::Child(one(0), Attempt(2))));
    }
}

/// A child beside a step that can be undone.
fn with_child(on_failure: &str) -> Bench {
    let spec = json!({ "onFailure": on_failure, "timeout": "2h", "steps": [
        { "id": "a", "skill": "do.read", "compensate": { "skill": "do.undo" } },
        { "id": "b", "workflow": "child", "after": ["a"] },
        { "id": "c", "skill": "do.read", "after": ["a"], "retry": { "attempts": 1 } },
        { "id": "d", "skill": "do.read", "after": ["b"] },
    ] });
    let child = document("Workflow", "child", json!({ "steps": [{ "id": "a", "wait": { "for": "1s" } }] }));
    let mut bench = Bench::with(&spec, &[child]);
    bench.finish(one(0), &json!(1));
    bench
}

fn child_ends(bench: &mut Bench, result: Result<Ending, TaskError>) {
    bench.ok(Command::ReportChild { unit: one(1), attempt: Attempt(1), result });
}

fn canceled_child() -> Result<Ending, TaskError> {
    Ok(Ending::Canceled { by: "bob".into(), reason: "no".into() })
}

const CHILD: OrderKey = OrderKey::CancelChild(
    kapell_kernel::UnitId {
        step: kapell_model::plan::StepIndex(1),
        item: None,
        side: kapell_kernel::Side::Forward,
    },
    Attempt(1),
);

#[test]
fn the_child_of_a_canceled_run_is_canceled_and_the_run_ends_after_it() {
    for mode in [CancelMode::Undo, CancelMode::Leave] {
        let mut bench = with_child("compensate");
        let started = bench.open[&OrderKey::Child(one(1), Attempt(1))].clone();
        bench.ok(cancel(mode));
        let Order::StartChild { child: begun, .. } = started else { panic!() };
        let Order::CancelChild { child, by, mode: how, .. } = bench.open[&CHILD].clone() else { panic!() };
        assert_eq!((child, how), (begun, mode));
        assert!(!by.is_empty());
        assert_eq!(bench.open.len(), 1, "nothing is undone yet: {:?}", bench.open.keys());
        assert_eq!(bench.refused(cancel(mode)), Rejected::WindingUp);
        bench.restore();
        child_ends(&mut bench, canceled_child());
        match mode {
            CancelMode::Undo => assert!(bench.has(OrderKey::Dispatch(one(0).undo(), Attempt(1)))),
            CancelMode::Leave => assert!(matches!(bench.ended().ending, Ending::Canceled { .. })),
        }
        let late = Command::ReportChild { unit: one(1), attempt: Attempt(1), result: canceled_child() };
        assert!(matches!(bench.refused(late), Rejected::Stale(_)));
        bench.replay();
    }
}

#[test]
fn the_child_of_a_failed_run_is_canceled_and_so_is_that_of_one_that_took_too_long() {
    let mut failed = with_child("stop");
    failed.fail(one(2), ErrorClass::Permanent);
    let mut late = with_child("stop");
    late.fire(TimerKey::Run);
    for mut bench in [failed, late] {
        let Order::CancelChild { by, reason, mode, .. } = bench.open[&CHILD].clone() else { panic!() };
        assert_eq!(mode, CancelMode::Leave, "as its parent, it is stopped and not undone");
        assert!(by.starts_with("run ") && reason.contains("failed"), "{by}: {reason}");
        child_ends(&mut bench, canceled_child());
        assert!(matches!(bench.ended().ending, Ending::Failed(_)));
        bench.ok(retry());
        assert!(bench.has(OrderKey::Child(one(1), Attempt(2))), "a new child, under an id of its own");
        bench.replay();
    }
}

#[test]
fn a_child_that_ended_well_before_its_cancelation_came_is_done_and_nothing_follows() {
    let mut bench = with_child("compensate");
    bench.ok(cancel(CancelMode::Undo));
    child_ends(&mut bench, Ok(Ending::Completed { output: Json::of(&json!("out")) }));
    assert!(bench.unit(one(1)).output().is_some());
    assert!(bench.run.step(one(3).step).is_none(), "what waited for it does not begin");
    let before = bench.run.clone();
    bench.restore();
    assert!(bench.run == before, "a checkpoint gives it back as it is");
    bench.work(one(0).undo(), &json!(null));
    assert!(bench.ended().undone);
    bench.replay();
}

#[test]
fn a_child_that_never_began_does_not_hold_up_the_end() {
    let mut bench = with_child("stop");
    bench.ok(cancel(CancelMode::Leave));
    child_ends(&mut bench, Err(TaskError::new(ErrorClass::Unavailable, "never started")));
    assert!(matches!(bench.ended().ending, Ending::Canceled { .. }));
}

#[test]
fn an_old_journal_in_which_children_were_left_alone_still_means_what_it_meant() {
    let mut bench = with_child("stop");
    let canceled = || Ending::Canceled { by: "bob".into(), reason: "no".into() };
    let children = kapell_kernel::Children::LeftAlone;
    let undo = kapell_kernel::Undo::Nothing;
    let began = kapell_kernel::Entry::WindUpBegan { towards: canceled(), undo, children };
    kapell_kernel::evolve(&mut bench.run, &began);
    assert_eq!(*bench.status(one(1)), kapell_kernel::Status::Canceled);
    let ended = kapell_kernel::Entry::RunEnded { ending: canceled(), at: bench.now, outcome: None };
    kapell_kernel::evolve(&mut bench.run, &ended);
    assert_eq!(kapell_kernel::invariants::check(&bench.run), Ok(()));
}

#[test]
fn children_nest_as_deep_as_is_allowed() {
    assert!(parent(NESTING_MAX - 1).has(OrderKey::Child(one(0), Attempt(1))));
    let bench = parent(NESTING_MAX);
    assert!(
        matches!(&bench.ended().ending, Ending::Failed(failure) if failure.error.message.contains("nested"))
    );
}

fn with_outcome(success: &str, correlate: Option<&str>) -> Bench {
    let mut spec = json!({
        "key": "event.subject",
        "outcome": { "within": "7d", "on": { "type": "told" }, "success": success },
        "steps": [{ "id": "a", "skill": "do.read" }],
    });
    if let Some(correlate) = correlate {
        spec["outcome"]["on"]["correlate"] = json!(correlate);
    }
    let start = Start { key: Some("the-key"), event: json!({ "data": { "n": 7 } }), ..Start::default() };
    let mut bench = Bench::started(catalogue(&[workflow(&spec)]), start).planned();
    bench.finish(one(0), &json!(1));
    bench
}

#[test]
fn the_business_result_is_what_the_later_event_says_or_unknown() {
    let told = |subject| Command::BindOutcome { event: event("told", subject) };
    for (success, expected) in [
        ("event.subject == 'good'", "Success"),
        ("event.subject == 'bad'", "Failure"),
        ("event.nothing", "Unknown"),
    ] {
        let mut bench = with_outcome(success, None);
        let Order::BindOutcome { event_type, correlation } = &bench.open[&OrderKey::Outcome] else {
            panic!()
        };
        assert_eq!((&**event_type, &**correlation), ("told", "the-key"));
        assert_eq!(bench.timer(TimerKey::Outcome), bench.now.after(seconds(7 * 24 * 3600)));
        let entries = bench.ok(told("good"));
        assert!(format!("{entries:?}").contains(expected), "{entries:?}");
        assert!(bench.open.is_empty());
        assert!(matches!(bench.refused(told("good")), Rejected::Stale(OrderKey::Outcome)));
    }
    let mut silent = with_outcome("true", Some("n-${event.data.n}"));
    let Order::BindOutcome { correlation, .. } = &silent.open[&OrderKey::Outcome] else { panic!() };
    assert_eq!(&**correlation, "n-7");
    assert!(matches!(silent.refused(Command::FireTimer(TimerKey::Outcome)), Rejected::Stale(_)));
    silent.fire(TimerKey::Outcome);
    assert!(silent.open.is_empty());
    assert!(matches!(silent.refused(Command::FireTimer(TimerKey::Outcome)), Rejected::Stale(_)));
    assert!(
        with_outcome("true", Some("${event.nothing}")).open.is_empty(),
        "nobody can tell what to wait for"
    );
}
