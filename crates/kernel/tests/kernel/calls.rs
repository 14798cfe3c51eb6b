//! Tasks, their tool calls and checkpoints.
use kapell_kernel::{
    ApprovalKey, Attempt, CallNo, CallOutcome, CallState, CallVerdict, Command, Ending, Entry, ErrorClass,
    OrderKey, Rejected, Status, TaskError, TimerKey,
};
use kapell_model::Json;
use kapell_model::definition::EffectClass;
use serde_json::{Value, json};

use crate::bench::{Bench, answered, cancel, finished, intended, one, seconds, unknown};

fn write_task() -> Bench {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.write" }] }));
    bench.follow(one(0));
    bench
}

fn text(value: &str) -> Json {
    Json::of(&Value::from(value))
}

#[test]
fn a_stale_attempt_does_not_count() {
    let mut bench = write_task();
    bench.fail(one(0), ErrorClass::Unavailable);
    bench.fire(TimerKey::Retry(one(0), Attempt(1)));
    assert_eq!(bench.unit(one(0)).attempt, Attempt(2));
    let stale = Rejected::Stale(OrderKey::Dispatch(one(0), Attempt(1)));
    assert_eq!(bench.refused(finished(one(0), Attempt(1), Ok(text("late")))), stale);
    assert_eq!(bench.refused(intended(one(0), Attempt(1), 0, json!({}))), stale);
    let data = Json::null();
    let checkpoint = Command::SaveCheckpoint { unit: one(0), attempt: Attempt(1), position: 0, data };
    assert_eq!(bench.refused(checkpoint), stale);
    assert!(matches!(
        bench.refused(Command::FireTimer(TimerKey::Attempt(one(0), Attempt(1)))),
        Rejected::Stale(_)
    ));
    bench.finish(one(0), &json!("on time"));
    assert_eq!(bench.ended().ending, Ending::Completed { output: text("on time") });
}

#[test]
fn the_same_number_with_other_arguments_is_refused() {
    let mut bench = write_task();
    assert_eq!(bench.intend(one(0), 0).len(), 1);
    assert!(bench.intend(one(0), 0).is_empty(), "the same call is the same call");
    let refused = bench.refused(intended(one(0), Attempt(1), 0, json!({ "n": "other" })));
    assert!(matches!(&refused, Rejected::CallDiverged { number: 0, before, now } if before != now));
    assert!(refused.to_string().contains("must number its calls alike"));
}

#[test]
fn a_call_that_succeeded_is_never_intended_again() {
    let mut bench = write_task();
    bench.call(one(0));
    bench.fail(one(0), ErrorClass::WorkerLost);
    bench.fire(TimerKey::Retry(one(0), Attempt(1)));
    assert!(bench.intend(one(0), 0).is_empty());
    let call = bench.unit(one(0)).call(CallNo(0)).unwrap();
    assert_eq!((&call.state, call.attempt), (&CallState::Succeeded(text("called")), Attempt(1)));
}

#[test]
fn a_call_that_failed_for_certain_may_be_made_again_with_other_arguments() {
    let mut bench = write_task();
    bench.intend(one(0), 0);
    bench.call_ends(one(0), 0, CallOutcome::Failed(TaskError::new(ErrorClass::RateLimited, "slow down")));
    assert_eq!(bench.ok(intended(one(0), Attempt(1), 0, json!({ "n": "other" }))).len(), 1);
    assert!(bench.has(OrderKey::Call(one(0), CallNo(0), Attempt(2))));
    let outcome = CallOutcome::Succeeded(Json::null());
    let first = Command::FinishCall { unit: one(0), no: CallNo(0), attempt: Attempt(1), outcome };
    assert!(matches!(bench.refused(first), Rejected::Stale(OrderKey::Call(..))));
}

#[test]
fn an_unknown_outcome_blocks_a_good_end_until_it_is_settled() {
    let mut bench = write_task();
    bench.intend(one(0), 0);
    bench.call_ends(one(0), 0, unknown());
    bench.finish(one(0), &json!(1));
    assert!(bench.run.ended().is_none());
    assert_eq!(bench.open.keys().collect::<Vec<_>>(), [&OrderKey::Reconcile(one(0), CallNo(0), Attempt(1))]);
    let verdict = CallVerdict::TookEffect(text("found"));
    bench.ok(Command::SettleCall { unit: one(0), no: CallNo(0), attempt: Attempt(1), verdict });
    assert!(matches!(bench.ended().ending, Ending::Completed { .. }));
}

#[test]
fn an_unknown_outcome_blocks_a_bad_end_until_a_person_settles_it() {
    for took_effect in [true, false] {
        let mut bench = write_task();
        bench.intend(one(0), 0);
        bench.intend(one(0), 1);
        bench.call_ends(one(0), 0, unknown());
        bench.ok(cancel(kapell_kernel::CancelMode::Leave));
        assert_eq!(*bench.status(one(0)), Status::Settling);
        let settle =
            |verdict| Command::SettleCall { unit: one(0), no: CallNo(0), attempt: Attempt(1), verdict };
        bench.ok(settle(CallVerdict::CannotTell { reason: "no trace".into() }));
        let key = ApprovalKey::Call(one(0), CallNo(0), Attempt(1));
        assert!(bench.has(OrderKey::Approval(key)));
        bench.answer(key, took_effect, None);
        assert!(bench.run.ended().is_none(), "the other call is open");
        bench.call_ends(one(0), 1, CallOutcome::Failed(TaskError::new(ErrorClass::Unavailable, "down")));
        assert!(matches!(bench.ended().ending, Ending::Canceled { .. }));
        assert_eq!(bench.unit(one(0)).took_effect(), took_effect);
        assert_eq!(*bench.status(one(0)), Status::Canceled);
    }
}

#[test]
fn a_failed_unit_with_an_open_call_keeps_the_run_until_the_call_is_over() {
    let mut bench = write_task();
    bench.intend(one(0), 0);
    bench.fail(one(0), ErrorClass::Permanent);
    assert!(matches!(bench.status(one(0)), Status::Failed(_)));
    assert_eq!(bench.open.keys().collect::<Vec<_>>(), [&OrderKey::Call(one(0), CallNo(0), Attempt(1))]);
    bench.call_ends(one(0), 0, unknown());
    bench.call_ends(one(0), 0, unknown());
    let verdict = CallVerdict::SafeToRepeat;
    let entries = bench.ok(Command::SettleCall { unit: one(0), no: CallNo(0), attempt: Attempt(1), verdict });
    assert!(
        matches!(entries[0], Entry::CallFinished { outcome: CallOutcome::Failed(_), .. }),
        "not made again"
    );
    assert!(matches!(bench.ended().ending, Ending::Failed(_)));
}

#[test]
fn a_call_is_made_again_where_that_is_safe() {
    let mut bench = write_task();
    bench.intend(one(0), 0);
    bench.call_ends(one(0), 0, unknown());
    let settle = |attempt, verdict| Command::SettleCall { unit: one(0), no: CallNo(0), attempt, verdict };
    bench.ok(settle(Attempt(1), CallVerdict::SafeToRepeat));
    assert!(bench.has(OrderKey::Call(one(0), CallNo(0), Attempt(2))));
    assert!(matches!(bench.refused(settle(Attempt(1), CallVerdict::SafeToRepeat)), Rejected::Stale(_)));
    assert!(matches!(bench.refused(settle(Attempt(2), CallVerdict::SafeToRepeat)), Rejected::Stale(_)));
}

#[test]
fn a_late_answer_is_better_than_what_somebody_would_find() {
    let mut bench = write_task();
    bench.intend(one(0), 0);
    bench.call_ends(one(0), 0, unknown());
    bench.call_ends(one(0), 0, CallOutcome::Succeeded(text("late")));
    assert!(!bench.has(OrderKey::Reconcile(one(0), CallNo(0), Attempt(1))));
    bench.finish(one(0), &json!(1));
    assert!(bench.run.ended().is_some());
}

#[test]
fn a_person_who_says_that_nothing_happened_lets_the_task_go_on() {
    let mut bench = write_task();
    bench.intend(one(0), 0);
    bench.call_ends(one(0), 0, unknown());
    let verdict = CallVerdict::CannotTell { reason: "no trace".into() };
    bench.ok(Command::SettleCall { unit: one(0), no: CallNo(0), attempt: Attempt(1), verdict });
    let key = ApprovalKey::Call(one(0), CallNo(0), Attempt(1));
    bench.answer(key, false, None);
    assert!(matches!(bench.refused(answered(key, true, None)), Rejected::Stale(OrderKey::Approval(_))));
    let state = &bench.unit(one(0)).call(CallNo(0)).unwrap().state;
    assert!(matches!(state, CallState::Failed(error) if error.class.is_retryable()));
    assert_eq!(bench.intend(one(0), 0).len(), 1);
}

#[test]
fn nothing_is_called_beyond_the_mandate() {
    let mut bench = Bench::of(&json!({ "steps": [
        { "id": "a", "skill": "do.read" }, { "id": "b", "skill": "ask.write", "after": [] },
    ] }));
    let call = |unit, tool: &str, effect| Command::IntendCall {
        unit,
        attempt: Attempt(1),
        no: CallNo(0),
        tool: tool.parse().unwrap(),
        args: Json::null(),
        effect,
    };
    bench.follow(one(1));
    let of_nobody = bench.refused(call(one(0), "shop/other", EffectClass::Read));
    assert_eq!(of_nobody, Rejected::NoMandate { tool: "shop/other".into() });
    let not_its_own = bench.refused(call(one(1), "shop/set", EffectClass::Write));
    assert_eq!(not_its_own, Rejected::NoMandate { tool: "shop/set".into() });
    let stronger_than_judged = bench.refused(call(one(0), "shop/set", EffectClass::Write));
    assert_eq!(stronger_than_judged, Rejected::NoMandate { tool: "shop/set".into() });
    assert_eq!(bench.ok(call(one(0), "shop/get", EffectClass::Read)).len(), 1);
}

#[test]
fn checkpoints_are_kept_in_order_and_given_to_the_next_attempt() {
    let mut bench = write_task();
    let save = |attempt, position, word: &str| Command::SaveCheckpoint {
        unit: one(0),
        attempt: Attempt(attempt),
        position,
        data: text(word),
    };
    bench.ok(save(1, 0, "first"));
    assert!(bench.ok(save(1, 0, "again")).is_empty());
    assert!(matches!(bench.refused(save(1, 2, "a gap")), Rejected::Stale(_)));
    bench.ok(save(1, 1, "second"));
    bench.fail(one(0), ErrorClass::Panicked);
    bench.fire(TimerKey::Retry(one(0), Attempt(1)));
    let orders = kapell_kernel::outstanding(&bench.run);
    let dispatch = orders.iter().find_map(|order| match order {
        kapell_kernel::Order::Dispatch(dispatch) => Some(dispatch),
        _ => None,
    });
    assert_eq!(dispatch.unwrap().checkpoints, [text("first"), text("second")]);
    bench.finish(one(0), &json!(1));
    assert!(bench.unit(one(0)).checkpoints.is_empty(), "nobody needs them any more");
}

#[test]
fn a_lost_worker_does_not_count_and_others_do() {
    let spec = json!({ "steps": [{ "id": "a", "skill": "do.read", "retry": { "attempts": 2 } }] });
    let mut bench = Bench::of(&spec);
    for attempt in 1..=5 {
        bench.fail(one(0), ErrorClass::WorkerLost);
        assert_eq!(bench.timer(TimerKey::Retry(one(0), Attempt(attempt))), bench.now, "at once");
        bench.fire(TimerKey::Retry(one(0), Attempt(attempt)));
    }
    bench.fail(one(0), ErrorClass::Unavailable);
    bench.fire(TimerKey::Retry(one(0), Attempt(6)));
    bench.fail(one(0), ErrorClass::Timeout);
    assert!(matches!(bench.ended().ending, Ending::Failed(_)));
}

#[test]
fn attempt_100_is_the_last_even_for_lost_workers() {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.read" }] }));
    for attempt in 1..100 {
        bench.fail(one(0), ErrorClass::WorkerLost);
        bench.fire(TimerKey::Retry(one(0), Attempt(attempt)));
    }
    assert!(bench.run.ended().is_none());
    bench.fail(one(0), ErrorClass::WorkerLost);
    assert!(bench.run.ended().is_some());
}

#[test]
fn delays_double_up_to_their_maximum_and_are_drawn_alike_everywhere() {
    let spec = json!({ "steps": [{ "id": "a", "skill": "do.read",
        "retry": { "attempts": 8, "backoff": { "initial": "1s", "max": "10s" } } }] });
    let delays = |bench: &mut Bench| -> Vec<u64> {
        (1..8)
            .map(|attempt| {
                bench.fail(one(0), ErrorClass::Unavailable);
                let before = bench.now;
                bench.fire(TimerKey::Retry(one(0), Attempt(attempt)));
                bench.now.0 - before.0
            })
            .collect()
    };
    let drawn = delays(&mut Bench::of(&spec));
    for (delay, ceiling) in drawn.iter().zip([1_000, 2_000, 4_000, 8_000, 10_000, 10_000, 10_000]) {
        assert!((ceiling / 2..=ceiling).contains(delay), "{delay} of {ceiling}");
    }
    assert_eq!(drawn, delays(&mut Bench::of(&spec)));
    assert_ne!(drawn[5], drawn[6], "drawn anew for each attempt");
}

#[test]
fn an_outside_system_that_asks_for_patience_gets_it() {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.read" }] }));
    let mut error = TaskError::new(ErrorClass::RateLimited, "later");
    error.retry_after = Some(seconds(77));
    bench.ok(finished(one(0), Attempt(1), Err(error)));
    assert_eq!(bench.timer(TimerKey::Retry(one(0), Attempt(1))), bench.now.after(seconds(77)));
}

#[test]
fn an_attempt_that_takes_too_long_is_made_again() {
    let mut bench = Bench::of(&json!({ "steps": [
        { "id": "a", "skill": "do.read", "timeout": "5s" }, { "id": "b", "skill": "do.checked" },
    ] }));
    bench.follow(one(1));
    assert_eq!(bench.timer(TimerKey::Attempt(one(0), Attempt(1))), bench.now.after(seconds(5)), "the step's");
    assert_eq!(
        bench.timer(TimerKey::Attempt(one(1), Attempt(1))),
        bench.now.after(seconds(20)),
        "the skill's"
    );
    assert!(matches!(
        bench.refused(Command::FireTimer(TimerKey::Attempt(one(0), Attempt(1)))),
        Rejected::Stale(_)
    ));
    bench.fire(TimerKey::Attempt(one(0), Attempt(1)));
    assert!(matches!(bench.status(one(0)), Status::BackingOff { .. }));
}

#[test]
fn every_error_class_has_a_word_and_only_what_passes_is_tried_again() {
    use ErrorClass as Class;
    let passing =
        [Class::Unavailable, Class::RateLimited, Class::Timeout, Class::WorkerLost, Class::Panicked];
    let lasting = [
        Class::Auth,
        Class::BadRequest,
        Class::ContractBroken,
        Class::UnknownOutcome,
        Class::Denied,
        Class::Rejected,
        Class::Expression,
        Class::NoSpecialist,
        Class::Permanent,
    ];
    let mut words = std::collections::BTreeSet::new();
    for class in passing.iter().chain(&lasting) {
        assert!(words.insert(class.to_string()), "{class} twice");
        assert_eq!(class.is_retryable(), passing.contains(class), "{class}");
        let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.read" }] }));
        bench.fail(one(0), *class);
        assert_eq!(bench.run.ended().is_none(), class.is_retryable(), "{class}");
    }
    assert_eq!(TaskError::new(Class::Auth, "expired").to_string(), "auth: expired");
}
