//! Judgements and approvals: may it be done?
use std::sync::Arc;

use kapell_model::definition::OnExpire;
use kapell_model::limits::APPROVAL_EXPIRES_DEFAULT;
use kapell_model::{Json, Timestamp};
use serde_json::json;

use super::call::let_go;
use super::task::given_up;
use super::{Decided, fits};
use crate::Context;
use crate::command::{ApprovalAnswer, Verdict};
use crate::entry::Entry;
use crate::error::{ErrorClass, Rejected, TaskError};
use crate::order::{ApprovalKey, OrderKey, Question, QuestionKind, TimerKey};
use crate::outstanding::{gated, skill_of};
use crate::run::Run;
use crate::unit::{Attempt, CallState, Status, Unit, UnitId};

/// A judgement was made.
pub(super) fn verdict(
    run: &Run,
    at: Timestamp,
    (unit, attempt): (UnitId, Attempt),
    verdict: Verdict,
    reasons: Vec<Arc<str>>,
) -> Decided {
    let judging = |found: &&Unit| found.status == Status::Judging && gated(found) == attempt;
    if run.unit(unit).filter(judging).is_none() {
        return Err(Rejected::Stale(OrderKey::Judge(unit, attempt)));
    }
    let follows = match &verdict {
        Verdict::Follow => None,
        Verdict::Escalate { ask, show, kind } => Some(Entry::ApprovalAsked {
            unit,
            attempt,
            question: Question { kind: *kind, ask: ask.clone(), show: show.clone() },
            at,
            expires: at.after(APPROVAL_EXPIRES_DEFAULT),
            on_expire: OnExpire::Reject,
        }),
        Verdict::Pause => {
            let reason = reasons.first().cloned().unwrap_or_else(|| "a person must look at it".into());
            Some(Entry::RunPaused { by: "judgement".into(), reason })
        }
        Verdict::Refuse { reason } => {
            let error = TaskError::new(ErrorClass::Denied, &**reason);
            given_up(unit, attempt, error).pop()
        }
    };
    let mut entries = vec![Entry::Judged { unit, attempt, verdict, reasons }];
    // A run that a person has paused meanwhile stays paused.
    entries.extend(follows.filter(|entry| !(run.paused && matches!(entry, Entry::RunPaused { .. }))));
    Ok(entries)
}

/// A person answered.
pub(super) fn decide(run: &Run, key: ApprovalKey, answer: ApprovalAnswer, context: &Context<'_>) -> Decided {
    let stale = Rejected::Stale(OrderKey::Approval(key));
    if let Some(result) = &answer.result {
        fits("the result", result)?;
    }
    match key {
        ApprovalKey::Unit(unit, attempt) => {
            let found = run.unit(unit).filter(|found| gated(found) == attempt).ok_or(stale.clone())?;
            let Status::Asking(asked) = &found.status else { return Err(stale) };
            if asked.question.kind == QuestionKind::Suggestion && answer.approved {
                check_suggested(run, unit, &answer, context)?;
            }
            let follows = follows((unit, attempt), asked.question.kind, &answer);
            Ok(std::iter::once(Entry::ApprovalDecided { key, answer }).chain(follows).collect())
        }
        ApprovalKey::Call(unit, no, attempt) => {
            let asking = |call: &&crate::unit::Call| {
                call.attempt == attempt && matches!(call.state, CallState::Asking { .. })
            };
            run.unit(unit).and_then(|found| found.call(no)).filter(asking).ok_or(stale)?;
            Ok(std::iter::once(Entry::ApprovalDecided { key, answer }).chain(let_go(run, unit, no)).collect())
        }
    }
}

/// Nobody answered in time.
pub(super) fn expire(run: &Run, at: Timestamp, (unit, attempt): (UnitId, Attempt)) -> Decided {
    let stale = Rejected::Stale(OrderKey::Timer(TimerKey::Approval(unit, attempt)));
    let found = run.unit(unit).filter(|found| gated(found) == attempt).ok_or(stale.clone())?;
    let Status::Asking(asked) = &found.status else { return Err(stale) };
    if asked.expires > at {
        return Err(stale);
    }
    let approved = match (asked.on_expire, asked.question.kind) {
        // A suggestion needs a person's result; silence has none.
        (OnExpire::Approve, QuestionKind::Step | QuestionKind::Agree) => true,
        (OnExpire::Approve, QuestionKind::Suggestion | QuestionKind::CallOutcome) | (OnExpire::Reject, _) => {
            false
        }
    };
    let answer = ApprovalAnswer {
        approved,
        by: "expiry".into(),
        reason: "nobody answered in time".into(),
        result: None,
    };
    let key = ApprovalKey::Unit(unit, attempt);
    let mut entries = vec![Entry::ApprovalDecided { key, answer: answer.clone() }];
    entries.extend(follows((unit, attempt), asked.question.kind, &answer));
    Ok(entries)
}

/// Refuses a result that the steps after this one could not use; the person may correct it.
fn check_suggested(
    run: &Run,
    unit: UnitId,
    answer: &ApprovalAnswer,
    context: &Context<'_>,
) -> Result<(), Rejected> {
    let namespace = &run.workflow().namespace;
    let skill = skill_of(run, unit).and_then(|skill| context.catalogue.skill(namespace, &skill));
    let (Some(skill), null) = (skill, Json::null()) else { return Ok(()) };
    let fit = skill.output.check(answer.result.as_ref().unwrap_or(&null));
    fit.map_err(|violation| Rejected::UnfitResult(violation.to_string()))
}

/// What an answer means for the unit.
fn follows((unit, attempt): (UnitId, Attempt), kind: QuestionKind, answer: &ApprovalAnswer) -> Option<Entry> {
    if !answer.approved {
        let message = format!("{} said no: {}", answer.by, answer.reason);
        return given_up(unit, attempt, TaskError::new(ErrorClass::Rejected, message)).pop();
    }
    match kind {
        QuestionKind::Step => {
            let output = json!({ "approved": true, "by": &*answer.by, "reason": &*answer.reason });
            Some(Entry::UnitDone { unit, output: Json::of(&output) })
        }
        QuestionKind::Suggestion => {
            Some(Entry::UnitDone { unit, output: answer.result.clone().unwrap_or_else(Json::null) })
        }
        QuestionKind::Agree | QuestionKind::CallOutcome => None,
    }
}
