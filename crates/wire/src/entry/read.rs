//! From the journal to the kernel.
use std::sync::Arc;

use kapell_kernel::{
    Accepted, AfterFailure, ApprovalAnswer, ApprovalKey, Asked, Attempt, CallNo, CallOutcome, CallVerdict,
    Children, Ending, Entry, Failure, OutcomeVerdict, ParentRef, PlanSource, Question, QuestionKind, Undo,
    UnitId, Verdict,
};
use kapell_model::Timestamp;
use kapell_model::definition::OnExpire;
use kapell_model::plan::StepIndex;
use kapell_proto::journal as proto;
use kapell_proto::journal::entry::Kind;

use crate::error::DecodeError;
use crate::field::{self, Field, ReadJson, json, json_list, json_option, required, texts, time};
use crate::plan;
use crate::record::Definitions;
use crate::task::unit_of;

/// table: one arm for each entry.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each entry")]
pub(crate) fn from_proto(
    record: Timestamp,
    kind: Kind,
    definitions: &dyn Definitions,
) -> Result<Entry, DecodeError> {
    Ok(match kind {
        Kind::RunAccepted(entry) => Entry::RunAccepted(Box::new(accepted(entry, definitions)?)),
        Kind::TurnTaken(proto::TurnTaken {}) => Entry::TurnTaken,
        Kind::ContextGathered(entry) => Entry::ContextGathered {
            context: json("ContextGathered.context", &entry.context)?,
            reasons: texts(entry.reasons),
            deadline: time(entry.deadline_ms),
        },
        Kind::PlanMade(entry) => {
            let (source, reasons) = plan_made(entry)?;
            Entry::PlanMade { source, reasons }
        }
        Kind::StepSkipped(entry) => Entry::StepSkipped { step: StepIndex(entry.step) },
        Kind::FanOpened(entry) => Entry::FanOpened {
            step: StepIndex(entry.step),
            items: json_list("FanOpened.items", &entry.items)?,
            inputs: json_list("FanOpened.inputs", &entry.inputs)?,
        },
        Kind::JudgementAsked(entry) => Entry::JudgementAsked {
            unit: field::unit("JudgementAsked.unit", entry.unit)?,
            input: json("JudgementAsked.input", &entry.input)?,
        },
        Kind::Judged(entry) => {
            let Judged { unit, attempt, verdict, reasons } = judged(entry, json)?;
            Entry::Judged { unit, attempt, verdict, reasons }
        }
        Kind::ApprovalAsked(entry) => {
            let unit = field::unit("ApprovalAsked.unit", entry.unit)?;
            let attempt = Attempt(entry.attempt);
            let Asked { question, since, expires, on_expire } = question(entry)?;
            let at = since.unwrap_or(record);
            Entry::ApprovalAsked { unit, attempt, question, at, expires, on_expire }
        }
        Kind::ApprovalDecided(entry) => {
            let (key, answer) = decided(entry, json)?;
            Entry::ApprovalDecided { key, answer }
        }
        Kind::TaskDispatched(entry) => Entry::TaskDispatched {
            unit: field::unit("TaskDispatched.unit", entry.unit)?,
            attempt: Attempt(entry.attempt),
            input: json_option("TaskDispatched.input", entry.input.as_deref())?,
            deadline: Timestamp(entry.deadline_ms),
        },
        Kind::CheckpointSaved(entry) => Entry::CheckpointSaved {
            unit: field::unit("CheckpointSaved.unit", entry.unit)?,
            data: json("CheckpointSaved.data", &entry.data)?,
        },
        Kind::CallIntended(entry) => Entry::CallIntended {
            unit: field::unit("CallIntended.unit", entry.unit)?,
            no: CallNo(entry.no),
            attempt: Attempt(entry.attempt),
            tool: field::tool("CallIntended.tool", &entry.tool)?,
            args: json("CallIntended.args", &entry.args)?,
            effect: field::effect("CallIntended.effect", entry.effect)?,
            at: Timestamp(entry.at_ms),
        },
        Kind::CallFinished(entry) => {
            let (unit, no, outcome) = call_finished(entry, json)?;
            Entry::CallFinished { unit, no, outcome }
        }
        Kind::CallSettled(entry) => {
            let at = Timestamp(entry.at_ms);
            let (unit, no, verdict) = call_settled(entry, json)?;
            Entry::CallSettled { unit, no, verdict, at }
        }
        Kind::UnitDone(entry) => Entry::UnitDone {
            unit: field::unit("UnitDone.unit", entry.unit)?,
            output: json("UnitDone.output", &entry.output)?,
        },
        Kind::AttemptFailed(entry) => Entry::AttemptFailed {
            unit: field::unit("AttemptFailed.unit", entry.unit)?,
            attempt: Attempt(entry.attempt),
            error: field::error("AttemptFailed.error", entry.error)?,
            then: match entry.retry_at_ms {
                Some(at) => AfterFailure::RetryAt(Timestamp(at)),
                None => AfterFailure::GiveUp,
            },
        },
        Kind::SleepBegan(entry) => Entry::SleepBegan {
            unit: field::unit("SleepBegan.unit", entry.unit)?,
            until: Timestamp(entry.until_ms),
        },
        Kind::WaitBegan(entry) => Entry::WaitBegan {
            unit: field::unit("WaitBegan.unit", entry.unit)?,
            event_type: entry.event_type.into(),
            correlation: entry.correlation.into(),
            until: time(entry.until_ms),
        },
        Kind::ChildBegan(entry) => Entry::ChildBegan {
            unit: field::unit("ChildBegan.unit", entry.unit)?,
            attempt: Attempt(entry.attempt),
            child: field::run("ChildBegan.child", &entry.child)?,
            input: json("ChildBegan.input", &entry.input)?,
            deadline: time(entry.deadline_ms),
        },
        Kind::ChildTimedOut(entry) => Entry::ChildTimedOut {
            unit: field::unit("ChildTimedOut.unit", entry.unit)?,
            undo: undo_said(entry.undo),
        },
        Kind::SignalReceived(entry) => {
            Entry::SignalReceived { event: json("SignalReceived.event", &entry.event)? }
        }
        Kind::SignalTaken(entry) => Entry::SignalTaken { position: entry.position },
        Kind::FanJoined(entry) => {
            Entry::FanJoined { step: StepIndex(entry.step), output: json("FanJoined.output", &entry.output)? }
        }
        Kind::RequestDone(entry) => {
            Entry::RequestDone { request: field::request("RequestDone.request", &entry.request)? }
        }
        Kind::RunPaused(entry) => Entry::RunPaused { by: entry.by.into(), reason: entry.reason.into() },
        Kind::RunResumed(entry) => Entry::RunResumed { by: entry.by.into() },
        Kind::WindUpBegan(entry) => {
            let children = if entry.children_canceled { Children::Canceled } else { Children::LeftAlone };
            let (towards, undo) = undo(entry)?;
            Entry::WindUpBegan { towards, undo, children }
        }
        Kind::UnitSettled(entry) => Entry::UnitSettled { unit: field::unit("UnitSettled.unit", entry.unit)? },
        Kind::RunEnded(entry) => Entry::RunEnded {
            ending: ending("RunEnded.ending", entry.ending, json)?,
            at: Timestamp(entry.at_ms),
            outcome: entry
                .outcome_correlation
                .map(|correlation| (Arc::from(correlation), Timestamp(entry.outcome_until_ms))),
        },
        Kind::ParentTold(proto::ParentTold {}) => Entry::ParentTold,
        Kind::OutcomeBound(entry) => Entry::OutcomeBound {
            verdict: verdict_of("OutcomeBound.verdict", entry.verdict)?,
            event: json_option("OutcomeBound.event", entry.event.as_deref())?,
        },
        Kind::RunRetried(entry) => {
            Entry::RunRetried { by: entry.by.into(), deadline: time(entry.deadline_ms) }
        }
    })
}

pub(crate) fn accepted(
    entry: proto::RunAccepted,
    definitions: &dyn Definitions,
) -> Result<Accepted, DecodeError> {
    Ok(Accepted {
        event: json("RunAccepted.event", &entry.event)?,
        parent: entry.parent.map(parent).transpose()?,
        workflow: field::workflow("RunAccepted.definition", &entry.definition, definitions)?,
        key: entry.key.map(Arc::from),
        nesting: entry.nesting,
        queued: entry.queued,
        at: Timestamp(entry.at_ms),
    })
}

pub(crate) fn parent(parent: proto::Parent) -> Result<ParentRef, DecodeError> {
    Ok(ParentRef {
        run: field::run("Parent.run", &parent.run)?,
        unit: field::unit("Parent.unit", parent.unit)?,
        attempt: Attempt(parent.attempt),
    })
}

pub(crate) fn plan_made(made: proto::PlanMade) -> Result<(PlanSource, Vec<Arc<str>>), DecodeError> {
    let source = match &made.plan {
        None => PlanSource::Written,
        Some(spec) => PlanSource::Made(plan::plan_of("PlanMade.plan", spec)?),
    };
    Ok((source, texts(made.reasons)))
}

/// A judgement, whether it is asked for or was given.
pub(crate) struct Judged {
    pub(crate) unit: UnitId,
    pub(crate) attempt: Attempt,
    pub(crate) verdict: Verdict,
    pub(crate) reasons: Vec<Arc<str>>,
}

pub(crate) fn judged(judged: proto::Judged, json: ReadJson) -> Result<Judged, DecodeError> {
    Ok(Judged {
        unit: field::unit("Judged.unit", judged.unit)?,
        attempt: Attempt(judged.attempt),
        verdict: judgement(required("Judged.verdict", judged.verdict)?, json)?,
        reasons: texts(judged.reasons),
    })
}

fn judgement(verdict: proto::judged::Verdict, json: ReadJson) -> Result<Verdict, DecodeError> {
    Ok(match verdict {
        proto::judged::Verdict::Follow(proto::Empty {}) => Verdict::Follow,
        proto::judged::Verdict::Escalate(escalation) => {
            let Question { kind, ask, show } = escalated(escalation, json)?;
            Verdict::Escalate { ask, show, kind }
        }
        proto::judged::Verdict::Pause(proto::Empty {}) => Verdict::Pause,
        proto::judged::Verdict::Refuse(reason) => Verdict::Refuse { reason: reason.into() },
    })
}

fn escalated(escalation: proto::Escalation, json: ReadJson) -> Result<Question, DecodeError> {
    let value = escalation.kind;
    let kind = proto::QuestionKind::try_from(value)
        .map_err(|_| DecodeError::UnknownValue { field: "Escalation.kind", value })?;
    let kind = match kind {
        proto::QuestionKind::Step => QuestionKind::Step,
        proto::QuestionKind::Agree => QuestionKind::Agree,
        proto::QuestionKind::Suggestion => QuestionKind::Suggestion,
        proto::QuestionKind::CallOutcome => QuestionKind::CallOutcome,
    };
    Ok(Question { kind, ask: escalation.ask.into(), show: json("Escalation.show", &escalation.show)? })
}

/// A question, whoever it is about.
pub(crate) fn question(asked: proto::ApprovalAsked) -> Result<Asked, DecodeError> {
    let question = escalated(required("ApprovalAsked.question", asked.question)?, json)?;
    let on_expire = if asked.approve_on_expire { OnExpire::Approve } else { OnExpire::Reject };
    let since = time(asked.asked_ms);
    Ok(Asked { question, since, expires: Timestamp(asked.expires_ms), on_expire })
}

pub(crate) fn decided(
    decided: proto::ApprovalDecided,
    json: ReadJson,
) -> Result<(ApprovalKey, ApprovalAnswer), DecodeError> {
    let unit = field::unit("ApprovalDecided.unit", decided.unit)?;
    let key = match decided.call {
        None => ApprovalKey::Unit(unit, Attempt(decided.attempt)),
        Some(no) => ApprovalKey::Call(unit, CallNo(no), Attempt(decided.attempt)),
    };
    let result = decided.result.map(|result| json("ApprovalDecided.result", &result)).transpose()?;
    let (by, reason) = (decided.by.into(), decided.reason.into());
    Ok((key, ApprovalAnswer { approved: decided.approved, by, reason, result }))
}

pub(crate) fn call_finished(
    call: proto::CallFinished,
    json: ReadJson,
) -> Result<(UnitId, CallNo, CallOutcome), DecodeError> {
    use proto::call_finished::Outcome;
    let unit = field::unit("CallFinished.unit", call.unit)?;
    let outcome = match required("CallFinished.outcome", call.outcome)? {
        Outcome::Succeeded(result) => CallOutcome::Succeeded(json("CallFinished.succeeded", &result)?),
        Outcome::Failed(error) => CallOutcome::Failed(field::error("CallFinished.failed", Some(error))?),
        Outcome::Unknown(reason) => CallOutcome::Unknown { reason: reason.into() },
    };
    Ok((unit, CallNo(call.no), outcome))
}

/// Without the time, which the entry has and the command does not.
pub(crate) fn call_settled(
    call: proto::CallSettled,
    json: ReadJson,
) -> Result<(UnitId, CallNo, CallVerdict), DecodeError> {
    use proto::call_settled::Verdict;
    let unit = field::unit("CallSettled.unit", call.unit)?;
    let verdict = match required("CallSettled.verdict", call.verdict)? {
        Verdict::TookEffect(result) => CallVerdict::TookEffect(json("CallSettled.took_effect", &result)?),
        Verdict::SafeToRepeat(proto::Empty {}) => CallVerdict::SafeToRepeat,
        Verdict::CannotTell(reason) => CallVerdict::CannotTell { reason: reason.into() },
    };
    Ok((unit, CallNo(call.no), verdict))
}

pub(crate) fn undo(began: proto::WindUpBegan) -> Result<(Ending, Undo), DecodeError> {
    Ok((ending("WindUpBegan.towards", began.towards, json)?, undo_said(began.undo)))
}

/// Whether steps are undone.
pub(crate) fn undo_said(undo: bool) -> Undo {
    if undo { Undo::Steps } else { Undo::Nothing }
}

pub(crate) fn ending(
    field: Field,
    ending: Option<proto::Ending>,
    json: ReadJson,
) -> Result<Ending, DecodeError> {
    use proto::ending::How;
    Ok(match required("Ending.how", required(field, ending)?.how)? {
        How::Completed(output) => Ending::Completed { output: json("Ending.completed", &output)? },
        How::Failed(failure) => Ending::Failed(Failure {
            unit: failure.unit.map(|unit| unit_of(&unit)),
            error: field::error("Failure.error", failure.error)?,
        }),
        How::Canceled(proto::Cancellation { by, reason }) => {
            Ending::Canceled { by: by.into(), reason: reason.into() }
        }
    })
}

pub(crate) fn verdict_of(field: Field, value: i32) -> Result<OutcomeVerdict, DecodeError> {
    let known =
        proto::OutcomeVerdict::try_from(value).map_err(|_| DecodeError::UnknownValue { field, value })?;
    Ok(match known {
        proto::OutcomeVerdict::Success => OutcomeVerdict::Success,
        proto::OutcomeVerdict::Failure => OutcomeVerdict::Failure,
        proto::OutcomeVerdict::Unknown => OutcomeVerdict::Unknown,
    })
}
