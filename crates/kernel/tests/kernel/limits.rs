//! Limits, each at its value and one above; and that large runs take linear time.
use kapell_kernel::{
    Attempt, CallNo, CallOutcome, Command, Ending, ErrorClass, Order, Rejected, TaskError, TimerKey, UnitId,
    Verdict, outstanding,
};
use kapell_model::Json;
use kapell_model::limits::{
    CALLS_PER_TASK_MAX, ERROR_BYTES_MAX, FOREACH_ITEMS_MAX, FOREACH_OUTPUT_BYTES_MAX, KEY_BYTES_MAX,
    PAYLOAD_BYTES_MAX, RUN_OUTPUT_BYTES_MAX, SIGNALS_BYTES_MAX, TASK_BYTES_MAX,
};
use serde_json::{Value, json};

use crate::bench::{Bench, Looks, cancel, event, finished, intended, item, one, pause, resume, verdict};

/// A JSON string of so many bytes.
fn text(bytes: usize) -> Json {
    Json::of(&Value::from("x".repeat(bytes - 2)))
}

fn error_of(bench: &Bench) -> String {
    match &bench.ended().ending {
        Ending::Failed(failure) => failure.error.message.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn payloads_may_be_one_mebibyte() {
    let (most, more) = (text(PAYLOAD_BYTES_MAX), text(PAYLOAD_BYTES_MAX + 1));
    let mut bench = Bench::of(&json!({ "steps": [
        { "id": "a", "skill": "do.write" }, { "id": "b", "wait": { "event": { "type": "t", "correlate": "k" } } },
        { "id": "c", "skill": "do.read", "with": { "a": "${steps.a}" } },
    ] }));
    bench.looks = Looks::Away;
    bench.follow(one(0));
    let call = |args: &Json| Command::IntendCall {
        unit: one(0),
        attempt: Attempt(1),
        no: CallNo(0),
        tool: "shop/set".parse().unwrap(),
        args: args.clone(),
        effect: kapell_model::definition::EffectClass::Write,
    };
    let checkpoint = |data: &Json| Command::SaveCheckpoint {
        unit: one(0),
        attempt: Attempt(1),
        position: 0,
        data: data.clone(),
    };
    let deliver =
        |event: &Json| Command::DeliverEvent { unit: one(1), attempt: Attempt(0), event: event.clone() };
    let signal = |event: &Json| Command::Signal { event: event.clone() };
    let large = Rejected::TooLarge { what: "", bytes: PAYLOAD_BYTES_MAX + 1, most: PAYLOAD_BYTES_MAX };
    for command in [call(&more), checkpoint(&more), deliver(&more), signal(&more)] {
        let refused = bench.refused(command);
        assert!(
            matches!((&refused, &large),
            (Rejected::TooLarge { bytes, most, .. }, Rejected::TooLarge { bytes: more, most: limit, .. })
            if bytes == more && most == limit),
            "{refused}"
        );
    }
    for command in [call(&most), checkpoint(&most), deliver(&most), signal(&most)] {
        bench.ok(command);
    }
    bench.call_ends(one(0), 0, CallOutcome::Succeeded(most.clone()));
    bench.ok(finished(one(0), Attempt(1), Ok(most)));
    assert!(error_of(&bench).contains("pass a reference"), "with its field it is too large as an input");
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.read" }] }));
    bench.ok(finished(one(0), Attempt(1), Ok(more)));
    assert!(error_of(&bench).contains("at most 1048576"));
}

#[test]
fn outputs_of_a_foreach_may_be_eight_mebibytes_together() {
    let full = FOREACH_OUTPUT_BYTES_MAX / PAYLOAD_BYTES_MAX;
    let fan = |items: usize| {
        let over = (0..items).collect::<Vec<_>>();
        Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.read", "foreach": over }] }))
    };
    let mut bench = fan(full);
    for at in 0..full {
        bench.ok(finished(item(0, at as u32), Attempt(1), Ok(text(PAYLOAD_BYTES_MAX))));
    }
    assert!(matches!(bench.ended().ending, Ending::Completed { .. }));
    let mut bench = fan(full + 1);
    for at in 0..full {
        bench.ok(finished(item(0, at as u32), Attempt(1), Ok(text(PAYLOAD_BYTES_MAX))));
    }
    bench.ok(finished(item(0, full as u32), Attempt(1), Ok(Json::of(&json!(1)))));
    let error = error_of(&bench);
    assert!(
        error.contains("are 8388609 bytes together, at most 8388608 are allowed; pass references"),
        "{error}"
    );
}

#[test]
fn output_of_a_run_may_be_sixteen_mebibytes() {
    let count = RUN_OUTPUT_BYTES_MAX / PAYLOAD_BYTES_MAX + 1;
    // `{"s10":` and a comma or brace for each.
    let around = count * 7 + 1;
    for (more, is_right) in [(0, true), (1, false)] {
        let step = |at: usize| json!({ "id": format!("s{}", at + 10), "skill": "do.read" });
        let mut bench = Bench::of(&json!({ "steps": (0..count).map(step).collect::<Vec<_>>() }));
        let mut left = RUN_OUTPUT_BYTES_MAX - around + more;
        for at in 0..count {
            let bytes = (left / (count - at)).min(PAYLOAD_BYTES_MAX);
            left -= bytes;
            bench.ok(finished(one(at as u32), Attempt(1), Ok(text(bytes))));
        }
        assert_eq!(matches!(bench.ended().ending, Ending::Completed { .. }), is_right);
        if !is_right {
            assert!(error_of(&bench).contains("16777217 bytes, at most 16777216 are allowed"));
        }
    }
}

#[test]
fn messages_of_errors_are_cut() {
    let long = "ü".repeat(ERROR_BYTES_MAX);
    assert_eq!(TaskError::new(ErrorClass::Permanent, long.clone()).message.len(), ERROR_BYTES_MAX);
    assert_eq!(TaskError::new(ErrorClass::Permanent, format!("x{long}")).message.len(), ERROR_BYTES_MAX - 1);
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.read" }] }));
    let error = TaskError { class: ErrorClass::Permanent, message: long, retry_after: None };
    bench.ok(finished(one(0), Attempt(1), Err(error)));
    assert_eq!(error_of(&bench).len(), ERROR_BYTES_MAX);
}

#[test]
fn a_run_keeps_10_000_signals() {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.read" }] }));
    bench.looks = Looks::Away;
    for _ in 0..10_000 {
        bench.ok(Command::Signal { event: event("t", "k") });
    }
    let refused = bench.refused(Command::Signal { event: event("t", "k") });
    assert_eq!(refused, Rejected::TooMany { what: "unread signals", most: 10_000 });
    bench.compare();
}

#[test]
fn the_signals_of_a_run_have_eight_mebibytes_together() {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.read" }] }));
    bench.looks = Looks::Away;
    for _ in 0..SIGNALS_BYTES_MAX / PAYLOAD_BYTES_MAX {
        bench.ok(Command::Signal { event: text(PAYLOAD_BYTES_MAX) });
    }
    let (bytes, most) = (SIGNALS_BYTES_MAX + 3, SIGNALS_BYTES_MAX);
    let refused = bench.refused(Command::Signal { event: text(3) });
    assert_eq!(refused, Rejected::TooLarge { what: "the run's unread signals together", bytes, most });
}

#[test]
fn the_calls_and_checkpoints_of_a_task_have_64_mebibytes_together() {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.write" }] }));
    bench.follow(one(0));
    bench.looks = Looks::Away;
    let full = text(PAYLOAD_BYTES_MAX);
    let save = |position: usize, data: &Json| Command::SaveCheckpoint {
        unit: one(0),
        attempt: Attempt(1),
        position: position as u32,
        data: data.clone(),
    };
    bench.ok(intended(one(0), Attempt(1), 0, full.value()));
    bench.call_ends(one(0), 0, CallOutcome::Succeeded(full.clone()));
    let left = TASK_BYTES_MAX / PAYLOAD_BYTES_MAX - 2;
    for position in 0..left {
        bench.ok(save(position, &full));
    }
    let what = "the task's calls and checkpoints together";
    let too_large = |bytes| Rejected::TooLarge { what, bytes: TASK_BYTES_MAX + bytes, most: TASK_BYTES_MAX };
    assert_eq!(bench.refused(save(left, &text(3))), too_large(3));
    assert_eq!(bench.refused(intended(one(0), Attempt(1), 1, json!({}))), too_large(2));
    assert_eq!(bench.ok(save(0, &full)), [], "what is kept already is no more");
    bench.ok(finished(one(0), Attempt(1), Ok(Json::null())));
    assert!(matches!(bench.ended().ending, Ending::Completed { .. }));
}

#[test]
fn the_value_that_an_event_must_carry_has_a_kibibyte() {
    let waits = |bytes: usize| {
        let wait = json!({ "event": { "type": "t", "correlate": "k".repeat(bytes) } });
        Bench::of(&json!({ "steps": [{ "id": "a", "wait": wait }] }))
    };
    assert!(waits(KEY_BYTES_MAX).run.ended().is_none());
    let error = error_of(&waits(KEY_BYTES_MAX + 1));
    assert!(error.contains("`correlate` gave 1025 bytes, at most 1024 are allowed"), "{error}");
}

#[test]
fn a_task_makes_10_000_calls_and_keeps_as_many_checkpoints() {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.write" }] }));
    bench.follow(one(0));
    bench.looks = Looks::Away;
    let most = CALLS_PER_TASK_MAX;
    let save = |position| Command::SaveCheckpoint {
        unit: one(0),
        attempt: Attempt(1),
        position,
        data: Json::null(),
    };
    for no in 0..most {
        bench.ok(intended(one(0), Attempt(1), no, json!({})));
        let (no, attempt, outcome) = (CallNo(no), Attempt(1), CallOutcome::Succeeded(Json::null()));
        // Only every hundredth is finished: the others are as many open orders.
        if no.0 % 100 == 0 {
            bench.ok(Command::FinishCall { unit: one(0), no, attempt, outcome });
        }
        bench.ok(save(no.0));
    }
    let calls = bench.refused(intended(one(0), Attempt(1), most, json!({})));
    assert!(matches!(calls, Rejected::TooMany { what: "tool calls in this task", .. }));
    assert!(matches!(bench.refused(save(most)), Rejected::TooMany { what: "checkpoints in this task", .. }));
    bench.compare();
}

fn fan(items: usize, step: Value) -> Bench {
    let list: Vec<usize> = (0..items).collect();
    let mut step = step;
    step["id"] = json!("a");
    step["foreach"] = json!("${steps.list}");
    let list_step = json!({ "id": "list", "skill": "do.read" });
    let mut bench =
        Bench::of(&json!({ "steps": [list_step, step, { "id": "z", "skill": "do.read", "after": ["a"] }] }));
    bench.looks = Looks::Away;
    bench.finish(one(0), &json!(list));
    bench
}

#[test]
fn a_fan_out_has_10_000_items_and_no_more() {
    let bench = fan(FOREACH_ITEMS_MAX + 1, json!({ "skill": "do.read" }));
    assert!(error_of(&bench).contains("10001 items"));
    let text = "y".repeat(1 << 20);
    let large = json!({ "skill": "do.read", "with": { "large": &text[..900_000], "n": "${item}" } });
    let bench = fan(9, large.clone());
    assert_eq!(outstanding(&bench.run).len(), 18);
    assert!(error_of(&fan(10, large)).contains("inputs of all items"));
    let one_too_large = json!({ "skill": "do.read", "with": { "large": text, "n": "${item}" } });
    assert!(error_of(&fan(1, one_too_large)).contains("pass a reference"));
}

/// What is bounded is the number of entries. The time is not measured, but a walk over all items for each of the
/// 20,000 commands would take minutes instead of seconds.
#[test]
fn a_fan_out_of_10_000_items_is_done_and_undone_in_linear_time() {
    let items = FOREACH_ITEMS_MAX as u32;
    let step =
        json!({ "skill": "do.read", "compensate": { "skill": "do.undo", "with": { "n": "${item}" } } });
    let mut bench = fan(FOREACH_ITEMS_MAX, step);
    for at in 0..items {
        bench.ok(finished(item(1, at), Attempt(1), Ok(Json::null())));
    }
    bench.compare();
    assert_eq!(
        bench.run.step(kapell_model::plan::StepIndex(1)).map(|_| bench.run.units().count()),
        Some(10_002)
    );
    bench.fail(one(2), ErrorClass::Permanent);
    assert_eq!(outstanding(&bench.run).len(), 200);
    for at in 0..items {
        bench.ok(finished(item(1, at).undo(), Attempt(1), Ok(Json::null())));
    }
    bench.compare();
    assert!(bench.ended().undone);
    // Opened, 10,000 dispatched and done, joined, wound up, 10,000 undone, ended.
    assert!(bench.journal.len() < 40_100, "{}", bench.journal.len());
}

#[test]
fn many_steps_at_once_can_be_judged_paused_resumed_and_canceled() {
    let count = 2_000;
    let steps: Vec<Value> =
        (0..count).map(|at| json!({ "id": format!("s{at}"), "skill": "do.write" })).collect();
    let mut bench = Bench::accepted(&json!({ "steps": steps }));
    bench.looks = Looks::Away;
    let mut bench = bench.planned();
    bench.ok(pause());
    for at in 0..count {
        bench.ok(verdict(one(at), Attempt(1), Verdict::Follow));
    }
    bench.ok(resume());
    for at in 0..count / 2 {
        bench.fail(one(at), ErrorClass::Unavailable);
    }
    bench.ok(pause());
    bench.compare();
    bench.ok(resume());
    let timers =
        bench.open.keys().filter(|key| matches!(key, kapell_kernel::OrderKey::Timer(TimerKey::Retry(..))));
    assert_eq!(timers.count() as u32, count / 2);
    bench.ok(cancel(kapell_kernel::CancelMode::Undo));
    assert!(bench.open.is_empty());
    bench.replay();
}

#[test]
fn a_retried_fan_out_finds_the_few_items_that_are_left() {
    let mut bench = fan(1_000, json!({ "skill": "do.read", "retry": { "attempts": 1 } }));
    let left: Vec<UnitId> = [3, 500, 998].into_iter().map(|at| item(1, at)).collect();
    for at in (0..1_000).map(|at| item(1, at)).filter(|unit| !left.contains(unit)) {
        bench.ok(finished(at, Attempt(1), Ok(Json::null())));
    }
    bench.fail(left[1], ErrorClass::Permanent);
    bench.ok(crate::bench::retry());
    let again: Vec<UnitId> = outstanding(&bench.run)
        .into_iter()
        .filter_map(|order| match order {
            Order::Dispatch(dispatch) => Some(dispatch.unit),
            _ => None,
        })
        .collect();
    assert_eq!(again, left);
    bench.compare();
}
