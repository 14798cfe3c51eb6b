//! Subworkflows: how a child's end becomes the end of a unit.
use kapell_model::Timestamp;

use super::task::{failed, given_up};
use super::{Decided, at_attempt, fits, fits_with_others};
use crate::entry::Entry;
use crate::error::{ErrorClass, Rejected, TaskError};
use crate::order::OrderKey;
use crate::run::{Ending, Run};
use crate::unit::{Attempt, Status, UnitId};

/// The child ended, or could not be started.
pub(super) fn report(
    run: &Run,
    at: Timestamp,
    (unit, attempt): (UnitId, Attempt),
    result: Result<Ending, TaskError>,
) -> Decided {
    let key = OrderKey::Child(unit, attempt);
    if !matches!(at_attempt(run, unit, attempt, key)?.status, Status::InChild { .. }) {
        return Err(Rejected::Stale(key));
    }
    Ok(match result {
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
