//! What an entry changes in one unit.
use std::sync::Arc;

use kapell_model::Json;

use super::steps;
use crate::command::{ApprovalAnswer, CallVerdict, Verdict};
use crate::entry::{AfterFailure, Entry};
use crate::error::{ErrorClass, TaskError};
use crate::order::{ApprovalKey, Question, QuestionKind};
use crate::run::{Run, StepState};
use crate::unit::{Asked, Call, CallOutcome, CallState, Side, Status, Unit, UnitId};

/// Changes the unit, then keeps the counters of its step.
pub(super) fn apply(run: &mut Run, id: UnitId, entry: &Entry) {
    if id.side == Side::Forward {
        steps::begin_unit(run, id);
    }
    let Some(forward) = run.forward_mut(id) else { return };
    let counted = steps::Counted::of(forward);
    let unit = match id.side {
        Side::Forward => &mut forward.unit,
        Side::Undo => forward.undo.get_or_insert_with(|| Unit::new(Json::null())),
    };
    let was_done = unit.output().is_some();
    change(unit, entry);
    let (is_done, is_cleared) = (unit.output().is_some(), unit.status == Status::Cleared);
    let has_failed = matches!(unit.status, Status::Failed(_));
    steps::count_item(run, id, counted);
    if id.side == Side::Undo {
        return;
    }
    if is_cleared {
        run.cleared.push(id);
    }
    if has_failed {
        run.failed.get_or_insert(id);
    }
    if is_done && !was_done && matches!(run.step(id.step), Some(StepState::One(_))) {
        steps::over(run, id.step);
    }
}

/// table: one arm for each entry that is about a unit.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each entry")]
fn change(unit: &mut Unit, entry: &Entry) {
    match entry {
        Entry::JudgementAsked { input, .. } => {
            unit.input = input.clone();
            unit.status = Status::Judging;
        }
        Entry::Judged { verdict, .. } => judged(unit, verdict),
        Entry::ApprovalAsked { question, at, expires, on_expire, .. } => {
            let (question, since) = (question.clone(), Some(*at));
            let asked = Asked { question, since, expires: *expires, on_expire: *on_expire };
            unit.status = Status::Asking(Box::new(asked));
        }
        Entry::ApprovalDecided { key: ApprovalKey::Unit(..), answer } => decided(unit, answer),
        Entry::ApprovalDecided { key: ApprovalKey::Call(_, no, _), answer } => {
            if let Some(call) = unit.calls.iter_mut().find(|call| call.no == *no) {
                call.state = told_by_person(answer);
            }
        }
        Entry::TaskDispatched { attempt, input, deadline, .. } => {
            if let Some(input) = input {
                unit.input = input.clone();
            }
            unit.attempt = *attempt;
            unit.status = Status::Working { deadline: *deadline };
        }
        Entry::CheckpointSaved { data, .. } => unit.checkpoints.push(data.clone()),
        Entry::CallIntended { .. } => intend(unit, entry),
        Entry::CallFinished { no, outcome, .. } => {
            if let Some(call) = unit.calls.iter_mut().find(|call| call.no == *no) {
                call.state = finished(outcome);
            }
        }
        Entry::CallSettled { no, verdict, at, .. } => {
            if let Some(call) = unit.calls.iter_mut().find(|call| call.no == *no) {
                settled(call, verdict, *at);
            }
        }
        Entry::UnitDone { output, .. } => {
            unit.status = Status::Done(output.clone());
            unit.checkpoints = Vec::new();
        }
        Entry::AttemptFailed { attempt, error, then, .. } => {
            unit.attempt = unit.attempt.max(*attempt);
            unit.failures += u32::from(error.class.counts());
            unit.status = match then {
                AfterFailure::RetryAt(until) => Status::BackingOff { until: *until },
                AfterFailure::GiveUp => Status::Failed(Box::new(error.clone())),
            };
        }
        Entry::SleepBegan { until, .. } => unit.status = Status::Sleeping { until: *until },
        Entry::WaitBegan { event_type, correlation, until, .. } => {
            let (event_type, correlation) = (event_type.clone(), correlation.clone());
            unit.status = Status::Listening { event_type, correlation, until: *until };
        }
        Entry::ChildBegan { child, attempt, input, deadline, .. } => {
            unit.attempt = *attempt;
            unit.input = input.clone();
            unit.status = Status::InChild { child: *child, deadline: *deadline, timed_out: None };
        }
        Entry::ChildTimedOut { undo, .. } => {
            if let Status::InChild { timed_out, .. } = &mut unit.status {
                *timed_out = Some(*undo);
            }
        }
        Entry::UnitSettled { .. } => unit.status = Status::Canceled,
        Entry::RunAccepted(_)
        | Entry::TurnTaken
        | Entry::ContextGathered { .. }
        | Entry::PlanMade { .. }
        | Entry::StepSkipped { .. }
        | Entry::FanOpened { .. }
        | Entry::SignalReceived { .. }
        | Entry::SignalTaken { .. }
        | Entry::FanJoined { .. }
        | Entry::RequestDone { .. }
        | Entry::RunPaused { .. }
        | Entry::RunResumed { .. }
        | Entry::WindUpBegan { .. }
        | Entry::RunEnded { .. }
        | Entry::ParentTold
        | Entry::OutcomeBound { .. }
        | Entry::RunRetried { .. } => {}
    }
}

fn judged(unit: &mut Unit, verdict: &Verdict) {
    match verdict {
        // The person who resumes the paused run has looked at it.
        Verdict::Follow | Verdict::Pause => unit.status = Status::Cleared,
        // `ApprovalAsked` and `AttemptFailed` follow and say the rest.
        Verdict::Escalate { .. } | Verdict::Refuse { .. } => {}
    }
}

fn decided(unit: &mut Unit, answer: &ApprovalAnswer) {
    let Status::Asking(asked) = &unit.status else { return };
    let Question { kind, .. } = asked.question;
    match (kind, answer.approved) {
        (QuestionKind::Agree, true) => unit.status = Status::Cleared,
        // `UnitDone` or `AttemptFailed` follows and says the rest.
        (QuestionKind::Agree, false)
        | (QuestionKind::Step | QuestionKind::Suggestion | QuestionKind::CallOutcome, _) => {}
    }
}

fn told_by_person(answer: &ApprovalAnswer) -> CallState {
    if answer.approved {
        CallState::Succeeded(answer.result.clone().unwrap_or_else(Json::null))
    } else {
        // Retryable on purpose: the person says that nothing happened, so the step may go on.
        let message = format!("{} says that the call took no effect", answer.by);
        CallState::Failed(Box::new(TaskError::new(ErrorClass::Unavailable, message)))
    }
}

fn intend(unit: &mut Unit, entry: &Entry) {
    let Entry::CallIntended { no, attempt, tool, args, effect, at, .. } = entry else { return };
    let call = Call {
        no: *no,
        tool: tool.clone(),
        args: args.clone(),
        effect: *effect,
        attempt: *attempt,
        intended: *at,
        state: CallState::Intended,
    };
    match unit.calls.iter_mut().find(|known| known.no == *no) {
        Some(known) => *known = call,
        None => unit.calls.push(call),
    }
}

fn finished(outcome: &CallOutcome) -> CallState {
    match outcome {
        CallOutcome::Succeeded(result) => CallState::Succeeded(result.clone()),
        CallOutcome::Failed(error) => CallState::Failed(Box::new(error.clone())),
        CallOutcome::Unknown { reason } => CallState::Unknown { reason: Arc::clone(reason) },
    }
}

fn settled(call: &mut Call, verdict: &CallVerdict, at: kapell_model::Timestamp) {
    match verdict {
        CallVerdict::TookEffect(result) => call.state = CallState::Succeeded(result.clone()),
        CallVerdict::SafeToRepeat => {
            call.attempt = call.attempt.next();
            call.intended = at;
            call.state = CallState::Intended;
        }
        CallVerdict::CannotTell { .. } => call.state = CallState::Asking { since: Some(at) },
    }
}
