//! From the kernel to the journal.
use kapell_kernel::{
    Accepted, AfterFailure, ApprovalAnswer, ApprovalKey, Attempt, Call, CallNo, CallOutcome, CallVerdict,
    Children, Ending, Entry, OutcomeVerdict, ParentRef, PlanSource, Question, QuestionKind, Undo, UnitId,
    Verdict,
};
use kapell_model::definition::OnExpire;
use kapell_model::{Json, Timestamp};
use kapell_proto::journal as proto;
use kapell_proto::journal::entry::Kind;
use std::sync::Arc;

use crate::plan;
use crate::task::{effect_to, error_to, unit_to};

/// table: one arm for each entry. What happened at the record's time does not say the time again.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each entry")]
pub(crate) fn to_proto(record: Timestamp, entry: &Entry) -> Kind {
    match entry {
        Entry::RunAccepted(begun) => Kind::RunAccepted(accepted(begun)),
        Entry::TurnTaken => Kind::TurnTaken(proto::TurnTaken {}),
        Entry::ContextGathered { context, reasons, deadline } => {
            Kind::ContextGathered(proto::ContextGathered {
                context: text(context),
                reasons: texts(reasons),
                deadline_ms: millis(*deadline),
            })
        }
        Entry::PlanMade { source, reasons } => Kind::PlanMade(plan_made(source, reasons)),
        Entry::StepSkipped { step } => Kind::StepSkipped(proto::StepSkipped { step: step.0 }),
        Entry::FanOpened { step, items, inputs } => Kind::FanOpened(proto::FanOpened {
            step: step.0,
            items: items.iter().map(text).collect(),
            inputs: inputs.iter().map(text).collect(),
        }),
        Entry::JudgementAsked { unit, input } => {
            Kind::JudgementAsked(proto::JudgementAsked { unit: Some(unit_to(*unit)), input: text(input) })
        }
        Entry::Judged { unit, attempt, verdict, reasons } => {
            Kind::Judged(judged(*unit, *attempt, verdict, reasons))
        }
        Entry::ApprovalAsked { unit, attempt, question: asked, at, expires, on_expire } => {
            Kind::ApprovalAsked(proto::ApprovalAsked {
                unit: Some(unit_to(*unit)),
                attempt: attempt.0,
                asked_ms: (*at != record).then_some(at.0),
                ..question(asked, *expires, *on_expire)
            })
        }
        Entry::ApprovalDecided { key, answer } => Kind::ApprovalDecided(decided(*key, answer)),
        Entry::TaskDispatched { unit, attempt, input, deadline } => {
            Kind::TaskDispatched(proto::TaskDispatched {
                unit: Some(unit_to(*unit)),
                attempt: attempt.0,
                input: input.as_ref().map(text),
                deadline_ms: deadline.0,
            })
        }
        Entry::CheckpointSaved { unit, data } => {
            Kind::CheckpointSaved(proto::CheckpointSaved { unit: Some(unit_to(*unit)), data: text(data) })
        }
        Entry::CallIntended { unit, no, attempt, tool, args, effect, at } => {
            Kind::CallIntended(proto::CallIntended {
                unit: Some(unit_to(*unit)),
                no: no.0,
                attempt: attempt.0,
                tool: tool.to_string(),
                args: text(args),
                effect: effect_to(*effect).into(),
                at_ms: at.0,
            })
        }
        Entry::CallFinished { unit, no, outcome } => Kind::CallFinished(call_finished(*unit, *no, outcome)),
        Entry::CallSettled { unit, no, verdict, at } => {
            Kind::CallSettled(proto::CallSettled { at_ms: at.0, ..call_settled(*unit, *no, verdict) })
        }
        Entry::UnitDone { unit, output } => {
            Kind::UnitDone(proto::UnitDone { unit: Some(unit_to(*unit)), output: text(output) })
        }
        Entry::AttemptFailed { unit, attempt, error, then } => Kind::AttemptFailed(proto::AttemptFailed {
            unit: Some(unit_to(*unit)),
            attempt: attempt.0,
            error: Some(error_to(error)),
            retry_at_ms: match then {
                AfterFailure::RetryAt(at) => Some(at.0),
                AfterFailure::GiveUp => None,
            },
        }),
        Entry::SleepBegan { unit, until } => {
            Kind::SleepBegan(proto::SleepBegan { unit: Some(unit_to(*unit)), until_ms: until.0 })
        }
        Entry::WaitBegan { unit, event_type, correlation, until } => Kind::WaitBegan(proto::WaitBegan {
            unit: Some(unit_to(*unit)),
            event_type: event_type.to_string(),
            correlation: correlation.to_string(),
            until_ms: millis(*until),
        }),
        Entry::ChildBegan { unit, attempt, child, input, deadline } => Kind::ChildBegan(proto::ChildBegan {
            unit: Some(unit_to(*unit)),
            attempt: attempt.0,
            child: child.to_bytes().to_vec(),
            input: text(input),
            deadline_ms: millis(*deadline),
        }),
        Entry::ChildTimedOut { unit, undo } => {
            Kind::ChildTimedOut(proto::ChildTimedOut { unit: Some(unit_to(*unit)), undo: undoes(*undo) })
        }
        Entry::SignalReceived { event } => Kind::SignalReceived(proto::SignalReceived { event: text(event) }),
        Entry::SignalTaken { position } => Kind::SignalTaken(proto::SignalTaken { position: *position }),
        Entry::FanJoined { step, output } => {
            Kind::FanJoined(proto::FanJoined { step: step.0, output: text(output) })
        }
        Entry::RequestDone { request } => {
            Kind::RequestDone(proto::RequestDone { request: request.to_bytes().to_vec() })
        }
        Entry::RunPaused { by, reason } => {
            Kind::RunPaused(proto::RunPaused { by: by.to_string(), reason: reason.to_string() })
        }
        Entry::RunResumed { by } => Kind::RunResumed(proto::RunResumed { by: by.to_string() }),
        Entry::WindUpBegan { towards, undo: what, children } => {
            let children_canceled = match children {
                Children::Canceled => true,
                Children::LeftAlone => false,
            };
            Kind::WindUpBegan(proto::WindUpBegan { children_canceled, ..undo(towards, *what) })
        }
        Entry::UnitSettled { unit } => Kind::UnitSettled(proto::UnitSettled { unit: Some(unit_to(*unit)) }),
        Entry::RunEnded { ending: how, at, outcome } => Kind::RunEnded(proto::RunEnded {
            ending: Some(ending(how)),
            at_ms: at.0,
            outcome_correlation: outcome.as_ref().map(|(correlation, _)| correlation.to_string()),
            outcome_until_ms: outcome.as_ref().map_or(0, |(_, until)| until.0),
        }),
        Entry::ParentTold => Kind::ParentTold(proto::ParentTold {}),
        Entry::OutcomeBound { verdict, event } => Kind::OutcomeBound(proto::OutcomeBound {
            verdict: verdict_of(*verdict).into(),
            event: event.as_ref().map(text),
        }),
        Entry::RunRetried { by, deadline } => {
            Kind::RunRetried(proto::RunRetried { by: by.to_string(), deadline_ms: millis(*deadline) })
        }
    }
}

pub(crate) fn accepted(accepted: &Accepted) -> proto::RunAccepted {
    proto::RunAccepted {
        definition: accepted.workflow.digest.0.to_vec(),
        key: accepted.key.as_ref().map(ToString::to_string),
        event: text(&accepted.event),
        parent: accepted.parent.map(parent),
        nesting: accepted.nesting,
        queued: accepted.queued,
        at_ms: accepted.at.0,
    }
}

pub(crate) fn parent(parent: ParentRef) -> proto::Parent {
    proto::Parent {
        run: parent.run.to_bytes().to_vec(),
        unit: Some(unit_to(parent.unit)),
        attempt: parent.attempt.0,
    }
}

pub(crate) fn plan_made(source: &PlanSource, reasons: &[Arc<str>]) -> proto::PlanMade {
    let plan = match source {
        PlanSource::Written => None,
        PlanSource::Made(made) => Some(text(&plan::spec_of(made))),
    };
    proto::PlanMade { plan, reasons: texts(reasons) }
}

pub(crate) fn judged(
    unit: UnitId,
    attempt: Attempt,
    verdict: &Verdict,
    reasons: &[Arc<str>],
) -> proto::Judged {
    let verdict = Some(judgement(verdict));
    proto::Judged { unit: Some(unit_to(unit)), attempt: attempt.0, reasons: texts(reasons), verdict }
}

pub(crate) fn decided(key: ApprovalKey, answer: &ApprovalAnswer) -> proto::ApprovalDecided {
    let (unit, call, attempt) = match key {
        ApprovalKey::Unit(unit, attempt) => (unit, None, attempt),
        ApprovalKey::Call(unit, no, attempt) => (unit, Some(no.0), attempt),
    };
    proto::ApprovalDecided {
        unit: Some(unit_to(unit)),
        attempt: attempt.0,
        call,
        approved: answer.approved,
        by: answer.by.to_string(),
        reason: answer.reason.to_string(),
        result: answer.result.as_ref().map(text),
    }
}

pub(crate) fn call_finished(unit: UnitId, no: CallNo, outcome: &CallOutcome) -> proto::CallFinished {
    use proto::call_finished::Outcome;
    let outcome = match outcome {
        CallOutcome::Succeeded(result) => Outcome::Succeeded(text(result)),
        CallOutcome::Failed(error) => Outcome::Failed(error_to(error)),
        CallOutcome::Unknown { reason } => Outcome::Unknown(reason.to_string()),
    };
    proto::CallFinished { unit: Some(unit_to(unit)), no: no.0, outcome: Some(outcome) }
}

/// Without the time, which the entry has and the command does not.
pub(crate) fn call_settled(unit: UnitId, no: CallNo, verdict: &CallVerdict) -> proto::CallSettled {
    use proto::call_settled::Verdict;
    let verdict = match verdict {
        CallVerdict::TookEffect(result) => Verdict::TookEffect(text(result)),
        CallVerdict::SafeToRepeat => Verdict::SafeToRepeat(proto::Empty {}),
        CallVerdict::CannotTell { reason } => Verdict::CannotTell(reason.to_string()),
    };
    proto::CallSettled { unit: Some(unit_to(unit)), no: no.0, at_ms: 0, verdict: Some(verdict) }
}

fn judgement(verdict: &Verdict) -> proto::judged::Verdict {
    match verdict {
        Verdict::Follow => proto::judged::Verdict::Follow(proto::Empty {}),
        Verdict::Escalate { ask, show, kind } => {
            proto::judged::Verdict::Escalate(escalation(ask, show, *kind))
        }
        Verdict::Pause => proto::judged::Verdict::Pause(proto::Empty {}),
        Verdict::Refuse { reason } => proto::judged::Verdict::Refuse(reason.to_string()),
    }
}

fn escalation(ask: &str, show: &Json, kind: QuestionKind) -> proto::Escalation {
    let kind = match kind {
        QuestionKind::Step => proto::QuestionKind::Step,
        QuestionKind::Agree => proto::QuestionKind::Agree,
        QuestionKind::Suggestion => proto::QuestionKind::Suggestion,
        QuestionKind::CallOutcome => proto::QuestionKind::CallOutcome,
    };
    proto::Escalation { ask: ask.to_owned(), show: text(show), kind: kind.into() }
}

/// A question without saying whose.
pub(crate) fn question(question: &Question, expires: Timestamp, on_expire: OnExpire) -> proto::ApprovalAsked {
    proto::ApprovalAsked {
        unit: None,
        attempt: 0,
        question: Some(escalation(&question.ask, &question.show, question.kind)),
        expires_ms: expires.0,
        approve_on_expire: match on_expire {
            OnExpire::Reject => false,
            OnExpire::Approve => true,
        },
        asked_ms: None,
    }
}

/// What was intended, without saying by which unit.
pub(crate) fn intended(call: &Call) -> proto::CallIntended {
    proto::CallIntended {
        unit: None,
        no: call.no.0,
        attempt: call.attempt.0,
        tool: call.tool.to_string(),
        args: text(&call.args),
        effect: effect_to(call.effect).into(),
        at_ms: call.intended.0,
    }
}

pub(crate) fn undo(towards: &Ending, undo: Undo) -> proto::WindUpBegan {
    proto::WindUpBegan { towards: Some(ending(towards)), undo: undoes(undo), children_canceled: false }
}

/// Whether steps are undone.
pub(crate) fn undoes(undo: Undo) -> bool {
    match undo {
        Undo::Steps => true,
        Undo::Nothing => false,
    }
}

pub(crate) fn ending(ending: &Ending) -> proto::Ending {
    use proto::ending::How;
    let how = match ending {
        Ending::Completed { output } => How::Completed(text(output)),
        Ending::Failed(failure) => How::Failed(proto::Failure {
            unit: failure.unit.map(unit_to),
            error: Some(error_to(&failure.error)),
        }),
        Ending::Canceled { by, reason } => {
            How::Canceled(proto::Cancellation { by: by.to_string(), reason: reason.to_string() })
        }
    };
    proto::Ending { how: Some(how) }
}

pub(crate) fn verdict_of(verdict: OutcomeVerdict) -> proto::OutcomeVerdict {
    match verdict {
        OutcomeVerdict::Success => proto::OutcomeVerdict::Success,
        OutcomeVerdict::Failure => proto::OutcomeVerdict::Failure,
        OutcomeVerdict::Unknown => proto::OutcomeVerdict::Unknown,
    }
}

pub(crate) fn text(json: &Json) -> String {
    json.as_str().to_owned()
}

pub(crate) fn texts(list: &[Arc<str>]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn millis(at: Option<Timestamp>) -> Option<u64> {
    at.map(|at| at.0)
}
