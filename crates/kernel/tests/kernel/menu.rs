//! Everything that the world may say to a run: right answers, wrong ones, stale ones, and what people want.
use std::time::Duration;

use kapell_kernel::{
    ApprovalKey, Attempt, CallNo, CallOutcome, CallVerdict, CancelMode, Command, Ending, ErrorClass, Order,
    PlanSource, QuestionKind, Status, TaskError, TimerKey, UnitId, Verdict,
};
use kapell_model::{Json, Timestamp};
use serde_json::json;

use crate::bench::{
    Bench, answered, cancel, event, finished, intended, one, pause, resume, retry, unknown, verdict,
};

/// A command and when it is given.
pub(crate) type Choice = (Timestamp, Command);

/// The answer that lets the run go on, if this order has one beside the passing of time.
pub(crate) fn kind_answer(order: &Order) -> Option<Command> {
    Some(match order {
        Order::AwaitTurn => Command::TakeTurn,
        Order::GatherContext => Command::SupplyContext { context: Json::null(), reasons: vec![] },
        Order::MakePlan => Command::AdoptPlan { source: PlanSource::Written, reasons: vec![] },
        Order::Judge { unit, attempt } => verdict(*unit, *attempt, Verdict::Follow),
        Order::Dispatch(dispatch) => {
            finished(dispatch.unit, dispatch.attempt, Ok(Json::of(&json!({ "ok": true }))))
        }
        Order::Call { unit, call } => {
            let outcome = CallOutcome::Succeeded(Json::of(&json!("made")));
            Command::FinishCall { unit: *unit, no: call.no, attempt: call.attempt, outcome }
        }
        Order::Reconcile { unit, call } => {
            let verdict = CallVerdict::TookEffect(Json::of(&json!("found")));
            Command::SettleCall { unit: *unit, no: call.no, attempt: call.attempt, verdict }
        }
        Order::AskApproval { key, .. } => answered(*key, true, Some(json!({ "ok": true }))),
        Order::AwaitEvent { unit, attempt, event_type, correlation } => {
            Command::DeliverEvent { unit: *unit, attempt: *attempt, event: event(event_type, correlation) }
        }
        Order::StartChild { unit, attempt, .. } => {
            let result = Ok(Ending::Completed { output: Json::of(&json!({ "child": 1 })) });
            Command::ReportChild { unit: *unit, attempt: *attempt, result }
        }
        Order::CancelChild { unit, attempt, .. } => {
            let result = Ok(Ending::Canceled { by: "bob".into(), reason: "no".into() });
            Command::ReportChild { unit: *unit, attempt: *attempt, result }
        }
        Order::TellParent(_) => Command::AcknowledgeEnd,
        Order::AwaitResume => resume(),
        Order::BindOutcome { event_type, correlation } => {
            Command::BindOutcome { event: event(event_type, correlation) }
        }
        Order::SetTimer { .. } => return None,
    })
}

/// All that may be said now.
pub(crate) fn menu(bench: &Bench) -> Vec<Choice> {
    let mut said = Vec::new();
    for order in bench.open.values() {
        said.extend(kind_answer(order).map(|command| (bench.now, command)));
        answers(bench, order, &mut said);
    }
    let now = |command| (bench.now, command);
    said.extend(people().into_iter().map(now));
    said
}

/// What may be said at any time, mostly out of place.
fn people() -> Vec<Command> {
    vec![
        pause(),
        resume(),
        cancel(CancelMode::Undo),
        cancel(CancelMode::Leave),
        retry(),
        Command::TakeTurn,
        Command::SupplyContext { context: Json::of(&json!({ "a": 1 })), reasons: vec!["looked".into()] },
        Command::AdoptPlan { source: PlanSource::Written, reasons: vec![] },
        Command::Signal { event: event("paid", "k") },
        Command::Signal { event: event("other", "k") },
        Command::AcknowledgeEnd,
        Command::BindOutcome { event: event("told", "k") },
        Command::FireTimer(TimerKey::Run),
        Command::FireTimer(TimerKey::Outcome),
        finished(one(77), Attempt(1), Ok(Json::null())),
        Command::SettleCall {
            unit: one(0),
            no: CallNo(9),
            attempt: Attempt(1),
            verdict: CallVerdict::SafeToRepeat,
        },
        answered(ApprovalKey::Unit(one(0), Attempt(9)), true, None),
    ]
}

fn failed(unit: UnitId, attempt: Attempt, class: ErrorClass) -> Command {
    let mut error = TaskError::new(class, "it broke");
    error.retry_after = Some(Duration::from_millis(u64::from(attempt.0)));
    finished(unit, attempt, Err(error))
}

/// table: what else may be said to each kind of order.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each order")]
fn answers(bench: &Bench, order: &Order, said: &mut Vec<Choice>) {
    let mut say = |command| said.push((bench.now, command));
    match order {
        Order::Judge { unit, attempt } => {
            for kind in [QuestionKind::Agree, QuestionKind::Suggestion] {
                let escalate = Verdict::Escalate { ask: "may it?".into(), show: Json::null(), kind };
                say(verdict(*unit, *attempt, escalate));
            }
            say(verdict(*unit, *attempt, Verdict::Pause));
            say(verdict(*unit, *attempt, Verdict::Refuse { reason: "no".into() }));
            say(verdict(*unit, attempt.next(), Verdict::Follow));
        }
        Order::Dispatch(dispatch) => {
            let (unit, attempt) = (dispatch.unit, dispatch.attempt);
            say(failed(unit, attempt, ErrorClass::Unavailable));
            say(failed(unit, attempt, ErrorClass::Permanent));
            say(failed(unit, attempt, ErrorClass::WorkerLost));
            say(failed(unit, Attempt(attempt.0 - 1), ErrorClass::Permanent));
            say(finished(unit.undo(), attempt, Ok(Json::null())));
            let position = bench.unit(unit).checkpoints.len() as u32;
            for position in [0, position, position + 1] {
                say(Command::SaveCheckpoint { unit, attempt, position, data: Json::of(&json!(position)) });
            }
            for no in [0, 1] {
                say(intended(unit, attempt, no, json!({ "n": no })));
            }
            say(intended(unit, attempt, 0, json!({ "other": 1 })));
            say(intended(unit, attempt.next(), 2, json!({})));
        }
        Order::Call { unit, call } => {
            let ends = |attempt, outcome| Command::FinishCall { unit: *unit, no: call.no, attempt, outcome };
            say(ends(call.attempt, CallOutcome::Failed(TaskError::new(ErrorClass::Unavailable, "down"))));
            say(ends(call.attempt, unknown()));
            say(ends(call.attempt.next(), unknown()));
        }
        Order::Reconcile { unit, call } => {
            let (unit, no, attempt) = (*unit, call.no, call.attempt);
            say(Command::SettleCall { unit, no, attempt, verdict: CallVerdict::SafeToRepeat });
            say(Command::SettleCall {
                unit,
                no,
                attempt,
                verdict: CallVerdict::CannotTell { reason: "?".into() },
            });
            say(Command::FinishCall { unit, no, attempt, outcome: CallOutcome::Succeeded(Json::null()) });
            say(Command::FinishCall { unit, no, attempt, outcome: unknown() });
        }
        Order::AskApproval { key, .. } => {
            say(answered(*key, true, None));
            say(answered(*key, false, None));
        }
        Order::SetTimer { key, at } => {
            said.push((*at, Command::FireTimer(*key)));
            said.push((Timestamp(at.0 - 1), Command::FireTimer(*key)));
        }
        Order::AwaitEvent { unit, attempt, .. } => {
            say(Command::DeliverEvent { unit: *unit, attempt: attempt.next(), event: event("paid", "k") });
        }
        Order::StartChild { unit, attempt, .. } | Order::CancelChild { unit, attempt, .. } => {
            let (unit, attempt) = (*unit, *attempt);
            let error = TaskError::new(ErrorClass::Unavailable, "nobody there");
            let failure = kapell_kernel::Failure { unit: None, error: error.clone() };
            let canceled = Ending::Canceled { by: "bob".into(), reason: "no".into() };
            for result in [Err(error), Ok(Ending::Failed(failure)), Ok(canceled)] {
                say(Command::ReportChild { unit, attempt, result });
            }
            say(Command::ReportChild {
                unit,
                attempt: attempt.next(),
                result: Ok(Ending::Completed { output: Json::null() }),
            });
        }
        Order::AwaitTurn
        | Order::GatherContext
        | Order::MakePlan
        | Order::TellParent(_)
        | Order::AwaitResume
        | Order::BindOutcome { .. } => {}
    }
}

/// Whether this command, given again at once, must do nothing: it answered an order that is gone.
pub(crate) fn answers_once(command: &Command) -> bool {
    match command {
        Command::TakeTurn
        | Command::SupplyContext { .. }
        | Command::AdoptPlan { .. }
        | Command::GiveVerdict { .. }
        | Command::FinishTask { .. }
        | Command::SaveCheckpoint { .. }
        | Command::IntendCall { .. }
        | Command::FinishCall { .. }
        | Command::SettleCall { .. }
        | Command::DecideApproval { .. }
        | Command::FireTimer(_)
        | Command::DeliverEvent { .. }
        | Command::ReportChild { .. }
        | Command::AcknowledgeEnd
        | Command::BindOutcome { .. }
        | Command::Pause { .. }
        | Command::Resume { .. }
        | Command::Cancel { .. }
        | Command::Once { .. } => true,
        // Two signals are two signals; a run that failed again may be retried again.
        Command::Signal { .. } | Command::Retry { .. } => false,
    }
}

/// Answers every order kindly until the run is over and nothing is owed; time passes only when all else waits.
/// Returns how many commands it took.
pub(crate) fn go_on_kindly(bench: &mut Bench, commands_max: usize) -> usize {
    for count in 0..commands_max {
        if bench.open.is_empty() {
            return count;
        }
        let answer = bench.open.values().find_map(kind_answer);
        match answer {
            Some(command) => {
                bench.ok(command);
            }
            None => {
                let due = bench.open.values().filter_map(|order| match order {
                    Order::SetTimer { key, at } if *key != TimerKey::Run => Some((*at, *key)),
                    _ => None,
                });
                let (at, key) = due.min().unwrap();
                bench.now = bench.now.max(at);
                bench.ok(Command::FireTimer(key));
            }
        }
    }
    panic!("not over after {commands_max} commands: {:?}", bench.open.keys());
}

/// Whether the unit may still be worked on, for tests that count.
pub(crate) fn is_working(status: &Status) -> bool {
    matches!(status, Status::Working { .. })
}
