//! Tool calls: intended before they are made, ended, found out about.
use kapell_model::definition::EffectClass;
use kapell_model::limits::CALLS_PER_TASK_MAX;
use kapell_model::{Json, Timestamp, ToolRef};

use super::task::{fits_the_task, working};
use super::{Decided, fits};
use crate::entry::Entry;
use crate::error::{ErrorClass, Rejected, TaskError};
use crate::order::OrderKey;
use crate::run::{Phase, Run};
use crate::unit::{Attempt, Call, CallNo, CallOutcome, CallState, Side, Status, UnitId};
use crate::{CallVerdict, Context, outstanding};

/// A call as an agent asks for it.
pub(super) struct Wanted {
    /// Its number.
    pub(super) no: CallNo,
    /// What to call.
    pub(super) tool: ToolRef,
    /// With what.
    pub(super) args: Json,
    /// What the tool does to the world.
    pub(super) effect: EffectClass,
}

/// Intends a call. One that was intended before is not intended again: no entry, and the caller reads how far it is.
pub(super) fn intend(
    run: &Run,
    at: Timestamp,
    (unit, attempt): (UnitId, Attempt),
    wanted: Wanted,
    context: &Context<'_>,
) -> Decided {
    working(run, unit, attempt)?;
    fits("the arguments", &wanted.args)?;
    mandated(run, unit, &wanted, context)?;
    if wanted.no.0 >= CALLS_PER_TASK_MAX {
        return Err(Rejected::TooMany { what: "tool calls in this task", most: CALLS_PER_TASK_MAX as usize });
    }
    let made = match run.unit(unit).and_then(|unit| unit.call(wanted.no)) {
        None => Attempt(0),
        Some(known) => {
            same(known, &wanted)?;
            match known.state {
                CallState::Failed(_) => known.attempt,
                CallState::Intended
                | CallState::Unknown { .. }
                | CallState::Asking { .. }
                | CallState::Succeeded(_) => return Ok(vec![]),
            }
        }
    };
    fits_the_task(run, unit, &wanted.args)?;
    let Wanted { no, tool, args, effect } = wanted;
    Ok(vec![Entry::CallIntended { unit, no, attempt: made.next(), tool, args, effect, at }])
}

/// The tool must be listed, and do no more to the world than the skill says: that is what was judged.
fn mandated(run: &Run, unit: UnitId, wanted: &Wanted, context: &Context<'_>) -> Result<(), Rejected> {
    let namespace = &run.workflow().namespace;
    let skill = outstanding::skill_of(run, unit).and_then(|skill| context.catalogue.skill(namespace, &skill));
    match skill {
        Some(skill) if skill.mandate.contains(&wanted.tool) && wanted.effect <= skill.effect => Ok(()),
        Some(_) | None => Err(Rejected::NoMandate { tool: wanted.tool.to_string() }),
    }
}

/// A call that failed for certain may be made again with other arguments; one that may have had an effect may not.
fn same(known: &Call, wanted: &Wanted) -> Result<(), Rejected> {
    if matches!(known.state, CallState::Failed(_)) || (known.tool == wanted.tool && known.args == wanted.args)
    {
        return Ok(());
    }
    let told = |tool: &ToolRef, args: &Json| {
        format!("{tool} {}", args.as_str().chars().take(120).collect::<String>())
    };
    Err(Rejected::CallDiverged {
        number: known.no.0,
        before: told(&known.tool, &known.args),
        now: told(&wanted.tool, &wanted.args),
    })
}

fn open(
    run: &Run,
    (unit, no, attempt): (UnitId, CallNo, Attempt),
    key: OrderKey,
    is_open: impl Fn(&CallState) -> bool,
) -> Result<&Call, Rejected> {
    match run.unit(unit).and_then(|unit| unit.call(no)) {
        Some(call) if call.attempt == attempt && is_open(&call.state) => Ok(call),
        Some(_) | None => Err(Rejected::Stale(key)),
    }
}

/// A connector reports. An answer that comes while somebody finds out is better than what they would find.
pub(super) fn finish(run: &Run, at: (UnitId, CallNo, Attempt), outcome: CallOutcome) -> Decided {
    let (unit, no, attempt) = at;
    let call = open(run, at, OrderKey::Call(unit, no, attempt), CallState::is_open)?;
    let outcome = match (outcome, &call.state) {
        (CallOutcome::Unknown { .. }, CallState::Unknown { .. } | CallState::Asking { .. }) => {
            return Ok(vec![]);
        }
        (CallOutcome::Succeeded(result), _) if fits("the result", &result).is_err() => {
            // It took effect all the same; only what it said is too large to keep.
            CallOutcome::Succeeded(Json::null())
        }
        (CallOutcome::Failed(error), _) => CallOutcome::Failed(error.cut()),
        (outcome @ (CallOutcome::Succeeded(_) | CallOutcome::Unknown { .. }), _) => outcome,
    };
    let lets_go = match &outcome {
        CallOutcome::Succeeded(_) | CallOutcome::Failed(_) => let_go(run, unit, no),
        CallOutcome::Unknown { .. } => None,
    };
    Ok(std::iter::once(Entry::CallFinished { unit, no, outcome }).chain(lets_go).collect())
}

/// Somebody found out.
pub(super) fn settle(
    run: &Run,
    at: Timestamp,
    call_at: (UnitId, CallNo, Attempt),
    verdict: CallVerdict,
) -> Decided {
    let (unit, no, attempt) = call_at;
    open(run, call_at, OrderKey::Reconcile(unit, no, attempt), |state| {
        matches!(state, CallState::Unknown { .. })
    })?;
    let winding_up = matches!(run.phase, Phase::WindingUp { .. }) && unit.side == Side::Forward;
    let settled = |verdict| Entry::CallSettled { unit, no, verdict, at };
    Ok(match verdict {
        CallVerdict::SafeToRepeat if winding_up => {
            let error = TaskError::new(ErrorClass::Permanent, "not made again: the run is being wound up");
            let outcome = CallOutcome::Failed(error);
            std::iter::once(Entry::CallFinished { unit, no, outcome }).chain(let_go(run, unit, no)).collect()
        }
        CallVerdict::TookEffect(result) => {
            let result = if fits("the result", &result).is_ok() { result } else { Json::null() };
            let entry = settled(CallVerdict::TookEffect(result));
            std::iter::once(entry).chain(let_go(run, unit, no)).collect()
        }
        CallVerdict::SafeToRepeat | CallVerdict::CannotTell { .. } => vec![settled(verdict)],
    })
}

/// Lets go of a stopped unit with its last open call, this one.
pub(super) fn let_go(run: &Run, unit: UnitId, no: CallNo) -> Option<Entry> {
    let found = run.unit(unit)?;
    let others_open = found.calls.iter().any(|call| call.no != no && call.state.is_open());
    (found.status == Status::Settling && !others_open).then_some(Entry::UnitSettled { unit })
}
