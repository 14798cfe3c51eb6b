//! Undoing what was done, in reverse causal order.
use kapell_kernel::{
    Attempt, CallOutcome, CallVerdict, CancelMode, Command, Ending, Entry, ErrorClass, OrderKey, Rejected,
    Side, Status, TimerKey, UnitId,
};
use kapell_model::Json;
use serde_json::{Value, json};

use crate::bench::{Bench, cancel, finished, item, one, retry, unknown};
use crate::menu::is_working;

fn undoable(id: &str, after: &[&str]) -> Value {
    json!({ "id": id, "skill": "do.read", "after": after, "retry": { "attempts": 1 },
        "compensate": { "skill": "do.undo", "with": { "was": "${output}" } } })
}

/// The units that are being undone now.
fn undoing(bench: &Bench) -> Vec<UnitId> {
    let working = bench.run.units().filter(|(id, unit)| id.side == Side::Undo && is_working(&unit.status));
    working.map(|(id, _)| id).collect()
}

#[test]
fn steps_are_undone_after_all_that_built_on_them() {
    // a feeds b and c, both feed d; e stands alone and fails.
    let mut bench = Bench::of(&json!({ "steps": [
        undoable("a", &[]), undoable("b", &["a"]), undoable("c", &["a"]),
        { "id": "between", "skill": "do.read", "after": ["b", "c"] },
        undoable("d", &["between"]), { "id": "e", "skill": "do.read" },
    ] }));
    for step in [0, 1, 2, 3, 4] {
        bench.finish(one(step), &json!({ "step": step }));
    }
    bench.fail(one(5), ErrorClass::Permanent);
    assert_eq!(undoing(&bench), [one(4).undo()]);
    let input = &bench.unit(one(4).undo()).input;
    assert_eq!(input.value(), json!({ "was": { "step": 4 } }));
    bench.finish(one(4).undo(), &json!(null));
    assert_eq!(undoing(&bench), [one(1).undo(), one(2).undo()], "through a step that cannot be undone");
    bench.finish(one(2).undo(), &json!(null));
    assert_eq!(undoing(&bench), [one(1).undo()]);
    assert!(matches!(bench.refused(cancel(CancelMode::Leave)), Rejected::WindingUp));
    assert!(matches!(bench.refused(retry()), Rejected::RunNotFailed { .. }));
    bench.finish(one(1).undo(), &json!(null));
    assert_eq!(undoing(&bench), [one(0).undo()]);
    bench.finish(one(0).undo(), &json!(null));
    assert!(bench.ended().undone);
    assert!(matches!(&bench.ended().ending, Ending::Failed(failure) if failure.unit == Some(one(5))));
    assert_eq!(bench.refused(retry()), Rejected::Compensated);
    bench.replay();
}

#[test]
fn items_are_undone_as_many_at_once_as_they_were_done() {
    let mut fan = undoable("a", &[]);
    fan["foreach"] = json!(["x", "y", "z", "never"]);
    fan["concurrency"] = json!(2);
    fan["compensate"]["with"] = json!({ "item": "${item}", "at": "${index}", "was": "${output}" });
    let mut bench = Bench::of(&json!({ "steps": [fan, { "id": "b", "skill": "do.read" }] }));
    for at in 0..3 {
        bench.finish(item(0, at), &json!(at * 10));
    }
    bench.fail(one(1), ErrorClass::Permanent);
    assert_eq!(undoing(&bench), [item(0, 0).undo(), item(0, 1).undo()]);
    bench.finish(item(0, 1).undo(), &json!(null));
    assert_eq!(undoing(&bench), [item(0, 0).undo(), item(0, 2).undo()]);
    let input = bench.unit(item(0, 2).undo()).input.value();
    assert_eq!(input, json!({ "item": "z", "at": 2, "was": 20 }));
    bench.finish(item(0, 0).undo(), &json!(null));
    bench.finish(item(0, 2).undo(), &json!(null));
    assert!(bench.ended().undone);
    assert_eq!(*bench.status(item(0, 3)), Status::Canceled);
    assert!(bench.run.unit(item(0, 3).undo()).is_none());
}

#[test]
fn a_stopped_unit_is_undone_if_a_call_changed_the_world_and_only_then() {
    for (tool, effect, expected) in [("shop/set", "write", true), ("shop/get", "read", false)] {
        let mut step = undoable("a", &[]);
        step["skill"] = json!("do.write");
        let mut bench = Bench::of(&json!({ "steps": [step, { "id": "b", "skill": "do.read" }] }));
        bench.follow(one(0));
        bench.ok(Command::IntendCall {
            unit: one(0),
            attempt: Attempt(1),
            no: kapell_kernel::CallNo(0),
            tool: tool.parse().unwrap(),
            args: Json::null(),
            effect: serde_json::from_value(json!(effect)).unwrap(),
        });
        bench.fail(one(1), ErrorClass::Permanent);
        assert_eq!(*bench.status(one(0)), Status::Settling);
        assert!(undoing(&bench).is_empty(), "what the open call did is not known yet");
        bench.call_ends(one(0), 0, CallOutcome::Succeeded(Json::null()));
        assert_eq!(undoing(&bench) == [one(0).undo()], expected, "{effect}");
        if expected {
            assert_eq!(bench.unit(one(0).undo()).input.value(), json!({ "was": null }), "it has no output");
            bench.finish(one(0).undo(), &json!(null));
        }
        assert_eq!(bench.ended().undone, expected);
    }
}

#[test]
fn a_failed_unit_whose_call_took_effect_is_undone() {
    let mut step = undoable("a", &[]);
    step["skill"] = json!("do.write");
    let mut bench = Bench::of(&json!({ "steps": [step] }));
    bench.follow(one(0));
    bench.call(one(0));
    bench.fail(one(0), ErrorClass::Permanent);
    assert_eq!(undoing(&bench), [one(0).undo()]);
}

#[test]
fn an_undo_is_tried_again_like_any_task() {
    let mut step = undoable("a", &[]);
    step["retry"] = json!({ "attempts": 2 });
    let mut bench = Bench::of(&json!({ "steps": [step, { "id": "b", "skill": "do.read" }] }));
    bench.finish(one(0), &json!(1));
    bench.fail(one(1), ErrorClass::Permanent);
    bench.fail(one(0).undo(), ErrorClass::Unavailable);
    bench.fire(TimerKey::Retry(one(0).undo(), Attempt(1)));
    assert_eq!(undoing(&bench), [one(0).undo()]);
    assert!(matches!(
        bench.refused(finished(one(0).undo(), Attempt(1), Ok(Json::null()))),
        Rejected::Stale(_)
    ));
    // A call of an undo is settled like any other, and made again where that is safe.
    bench.intend(one(0).undo(), 0);
    bench.call_ends(one(0).undo(), 0, unknown());
    let (no, verdict) = (kapell_kernel::CallNo(0), CallVerdict::SafeToRepeat);
    bench.ok(Command::SettleCall { unit: one(0).undo(), no, attempt: Attempt(1), verdict });
    assert!(bench.has(OrderKey::Call(one(0).undo(), no, Attempt(2))));
    bench.call_ends(one(0).undo(), 0, CallOutcome::Succeeded(Json::null()));
    bench.finish(one(0).undo(), &json!(null));
    assert!(bench.ended().undone);
}

#[test]
fn an_undo_that_fails_for_good_is_visible_and_the_rest_is_undone_all_the_same() {
    let mut bench = Bench::of(&json!({ "steps": [
        undoable("a", &[]), undoable("b", &["a"]), { "id": "c", "skill": "do.read" },
    ] }));
    bench.finish(one(0), &json!(1));
    bench.finish(one(1), &json!(1));
    bench.fail(one(2), ErrorClass::Permanent);
    bench.fail(one(1).undo(), ErrorClass::Permanent);
    assert!(matches!(bench.status(one(1).undo()), Status::Failed(_)));
    bench.finish(one(0).undo(), &json!(null));
    assert!(!bench.ended().undone, "not all of it");
    let failed = bench
        .journal
        .iter()
        .any(|entry| matches!(entry, Entry::AttemptFailed { unit, .. } if *unit == one(1).undo()));
    assert!(failed);
    assert_eq!(bench.refused(retry()), Rejected::Compensated, "a part of it is gone");
}

#[test]
fn a_run_whose_undo_did_nothing_may_be_retried_and_undone_later() {
    let mut fan = undoable("a", &[]);
    fan["foreach"] = json!([1, 2]);
    let mut bench = Bench::of(&json!({ "steps": [
        fan, undoable("b", &[]), { "id": "c", "skill": "do.read", "after": ["a", "b"] },
    ] }));
    for unit in [item(0, 0), item(0, 1), one(1)] {
        bench.finish(unit, &json!(1));
    }
    bench.fail(one(2), ErrorClass::Permanent);
    let undos = undoing(&bench);
    assert_eq!(undos, [item(0, 0).undo(), item(0, 1).undo(), one(1).undo()]);
    for unit in &undos {
        bench.fail(*unit, ErrorClass::Permanent);
    }
    assert!(!bench.ended().undone);
    bench.ok(retry());
    assert!(is_working(bench.status(one(2))), "only what failed is begun again");
    assert!(undoing(&bench).is_empty());
    bench.fail(one(2), ErrorClass::Permanent);
    assert_eq!(undoing(&bench), undos);
    for unit in &undos {
        assert_eq!(bench.unit(*unit).attempt, Attempt(2), "attempts are never numbered anew");
        bench.finish(*unit, &json!(null));
    }
    assert!(bench.ended().undone);
    bench.replay();
}

#[test]
fn an_undo_whose_input_has_no_value_fails_and_the_run_ends() {
    let mut step = undoable("a", &[]);
    step["compensate"]["with"] = json!({ "was": "${output.nothing.here}" });
    let mut bench = Bench::of(&json!({ "steps": [step, { "id": "b", "skill": "do.read" }] }));
    bench.finish(one(0), &json!({}));
    bench.fail(one(1), ErrorClass::Permanent);
    assert!(!bench.ended().undone);
    assert!(
        matches!(bench.status(one(0).undo()), Status::Failed(error) if error.class == ErrorClass::Expression)
    );
}

#[test]
fn nothing_is_undone_where_the_definition_or_the_person_says_so() {
    let mut spec = json!({ "steps": [undoable("a", &[]), { "id": "b", "skill": "do.read" }] });
    let mut canceled = Bench::of(&spec);
    canceled.finish(one(0), &json!(1));
    canceled.ok(cancel(CancelMode::Leave));
    assert!(!canceled.ended().undone);
    spec["onFailure"] = json!("stop");
    let mut failed = Bench::of(&spec);
    failed.finish(one(0), &json!(1));
    failed.fail(one(1), ErrorClass::Permanent);
    assert!(!failed.ended().undone);
    let mut undone = Bench::of(&spec);
    undone.finish(one(0), &json!(1));
    undone.ok(cancel(CancelMode::Undo));
    assert_eq!(undoing(&undone), [one(0).undo()]);
    undone.finish(one(0).undo(), &json!(null));
    assert!(matches!(undone.ended().ending, Ending::Canceled { .. }));
    assert!(undone.ended().undone);
    assert!(matches!(undone.refused(retry()), Rejected::RunNotFailed { .. }));
}
