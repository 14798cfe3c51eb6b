//! Subworkflows: how a child's end becomes the end of a unit.
use kapell_model::{Json, Timestamp};

use super::task::{after_failure, failed, given_up};
use super::{Decided, at_attempt, fits, fits_with_others, too_long, undo_of_failed};
use crate::entry::{AfterFailure, Entry};
use crate::error::{ErrorClass, Rejected, TaskError};
use crate::order::{OrderKey, TimerKey};
use crate::run::{Ending, Phase, Run, Undo};
use crate::unit::{Attempt, Status, UnitId};

/// The child ended, or could not be started.
pub(super) fn report(
    run: &Run,
    at: Timestamp,
    (unit, attempt): (UnitId, Attempt),
    result: Result<Ending, TaskError>,
) -> Decided {
    let key = OrderKey::Child(unit, attempt);
    let Status::InChild { timed_out, .. } = at_attempt(run, unit, attempt, key)?.status else {
        return Err(Rejected::Stale(key));
    };
    if let Phase::WindingUp { .. } = run.phase {
        return Ok(vec![let_go(unit, result)]);
    }
    Ok(match result {
        // Done before its cancelation came counts as done: another attempt would do it twice.
        Ok(Ending::Failed(_) | Ending::Canceled { .. }) | Err(_) if timed_out.is_some() => {
            failed(run, at, (unit, attempt), too_long())
        }
        Ok(Ending::Completed { output }) => match fits("the output of the subworkflow", &output) {
            Ok(()) => match fits_with_others(run, unit, &output) {
                Ok(()) => vec![Entry::UnitDone { unit, output }],
                Err(error) => given_up(unit, attempt, error),
            },
            Err(error) => given_up(unit, attempt, TaskError::new(ErrorClass::Permanent, error.to_string())),
        },
        Ok(Ending::Failed(failure)) => given_up(unit, attempt, failure.error),
        Ok(Ending::Canceled { by, reason }) => {
            let message = format!("the subworkflow was canceled by {by}: {reason}");
            given_up(unit, attempt, TaskError::new(ErrorClass::Permanent, message))
        }
        Err(error) => failed(run, at, (unit, attempt), error.cut()),
    })
}

/// The child took too long. Its end is the end of the attempt, so that two children of one unit never run at once;
/// and what it did is undone before another does it again.
pub(super) fn time_out(run: &Run, at: Timestamp, (unit, attempt): (UnitId, Attempt)) -> Decided {
    if let Phase::WindingUp { .. } = run.phase {
        return Err(Rejected::Stale(OrderKey::Timer(TimerKey::Attempt(unit, attempt))));
    }
    let undo = match after_failure(run, at, (unit, attempt), &too_long()) {
        AfterFailure::RetryAt(_) => Undo::Steps,
        AfterFailure::GiveUp => undo_of_failed(run),
    };
    Ok(vec![Entry::ChildTimedOut { unit, undo }])
}

/// The end of a child whose parent is wound up: only what it did counts, so that it is undone with the rest.
fn let_go(unit: UnitId, result: Result<Ending, TaskError>) -> Entry {
    match result {
        Ok(Ending::Completed { output }) if fits("the output", &output).is_ok() => {
            Entry::UnitDone { unit, output }
        }
        Ok(Ending::Completed { .. }) => Entry::UnitDone { unit, output: Json::null() },
        Ok(Ending::Failed(_) | Ending::Canceled { .. }) | Err(_) => Entry::UnitSettled { unit },
    }
}
