//! Tasks: attempts that end, fail, are made again, keep checkpoints.
use kapell_model::limits::{ATTEMPTS_MAX, CALLS_PER_TASK_MAX, TASK_BYTES_MAX};
use kapell_model::plan::RetryRule;
use kapell_model::{Json, Timestamp};

use super::{Decided, at_attempt, fits, fits_with_others};
use crate::backoff::delay;
use crate::entry::{AfterFailure, Entry};
use crate::error::{ErrorClass, Rejected, TaskError};
use crate::order::OrderKey;
use crate::run::Run;
use crate::unit::{Attempt, Status, Unit, UnitId};
use crate::{Context, outstanding};

/// An attempt ended.
pub(super) fn finish(
    run: &Run,
    at: Timestamp,
    (unit, attempt): (UnitId, Attempt),
    result: Result<Json, TaskError>,
    context: &Context<'_>,
) -> Decided {
    working(run, unit, attempt)?;
    let checked = result.and_then(|output| check_output(run, unit, output, context));
    Ok(match checked {
        Ok(output) => vec![Entry::UnitDone { unit, output }],
        Err(error) => failed(run, at, (unit, attempt), error.cut()),
    })
}

/// Refuses an answer that is not from the attempt that is under way: a worker that lost its lease may still
/// answer, and its answer must not count.
pub(super) fn working(run: &Run, unit: UnitId, attempt: Attempt) -> Result<(), Rejected> {
    let key = OrderKey::Dispatch(unit, attempt);
    let Status::Working { .. } = at_attempt(run, unit, attempt, key)?.status else {
        return Err(Rejected::Stale(key));
    };
    Ok(())
}

fn check_output(run: &Run, unit: UnitId, output: Json, context: &Context<'_>) -> Result<Json, TaskError> {
    fits("the output", &output).map_err(|error| TaskError::new(ErrorClass::Permanent, error.to_string()))?;
    fits_with_others(run, unit, &output)?;
    let namespace = &run.workflow().namespace;
    let skill = outstanding::skill_of(run, unit).and_then(|skill| context.catalogue.skill(namespace, &skill));
    match skill.map(|skill| skill.output.check(&output)) {
        None | Some(Ok(())) => Ok(output),
        Some(Err(violation)) => {
            let message = format!("the output does not fit the skill's schema: {violation}");
            Err(TaskError::new(ErrorClass::ContractBroken, message))
        }
    }
}

/// The entry of a failed attempt, with what follows it.
pub(super) fn failed(
    run: &Run,
    at: Timestamp,
    (unit, attempt): (UnitId, Attempt),
    error: TaskError,
) -> Vec<Entry> {
    let then = after_failure(run, at, (unit, attempt), &error);
    vec![Entry::AttemptFailed { unit, attempt, error, then }]
}

/// The entry of a unit that failed for good.
pub(super) fn given_up(unit: UnitId, attempt: Attempt, error: TaskError) -> Vec<Entry> {
    vec![Entry::AttemptFailed { unit, attempt, error, then: AfterFailure::GiveUp }]
}

pub(super) fn after_failure(
    run: &Run,
    at: Timestamp,
    (unit, attempt): (UnitId, Attempt),
    error: &TaskError,
) -> AfterFailure {
    let Some(step) = run.plan_step(unit.step) else { return AfterFailure::GiveUp };
    let failures = run.unit(unit).map_or(0, |unit| unit.failures) + u32::from(error.class.counts());
    let RetryRule { attempts_max, .. } = step.retry;
    if !error.class.is_retryable() || failures >= attempts_max || attempt.0 >= ATTEMPTS_MAX {
        return AfterFailure::GiveUp;
    }
    if !error.class.counts() {
        return AfterFailure::RetryAt(at);
    }
    let asked = error.retry_after.unwrap_or_default();
    AfterFailure::RetryAt(at.after(delay(&step.retry, run.id, unit, attempt, failures).max(asked)))
}

/// Refuses what would let the calls and checkpoints of a task grow without end.
pub(super) fn fits_the_task(run: &Run, unit: UnitId, more: &Json) -> Result<(), Rejected> {
    let kept = run.unit(unit).map_or(0, Unit::kept_bytes);
    let (bytes, most) = (kept + more.bytes_len(), TASK_BYTES_MAX);
    if bytes > most {
        return Err(Rejected::TooLarge { what: "the task's calls and checkpoints together", bytes, most });
    }
    Ok(())
}

/// Keeps what the agent wants back. The same position twice is once.
pub(super) fn checkpoint(
    run: &Run,
    (unit, attempt): (UnitId, Attempt),
    position: u32,
    data: Json,
) -> Decided {
    working(run, unit, attempt)?;
    fits("the checkpoint", &data)?;
    if position >= CALLS_PER_TASK_MAX {
        return Err(Rejected::TooMany {
            what: "checkpoints in this task",
            most: CALLS_PER_TASK_MAX as usize,
        });
    }
    let kept = run.unit(unit).map_or(0, |unit| unit.checkpoints.len());
    match (position as usize).cmp(&kept) {
        std::cmp::Ordering::Less => Ok(vec![]),
        std::cmp::Ordering::Equal => {
            fits_the_task(run, unit, &data)?;
            Ok(vec![Entry::CheckpointSaved { unit, data }])
        }
        std::cmp::Ordering::Greater => Err(Rejected::Stale(OrderKey::Dispatch(unit, attempt))),
    }
}
