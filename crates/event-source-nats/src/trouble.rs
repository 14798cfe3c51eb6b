//! What goes wrong, as errors of the port.
use std::time::Duration;

use kapell_event_source::SourceError;

/// When to try again what NATS does not do now.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) fn unavailable(reason: String) -> SourceError {
    SourceError::Unavailable { reason, retry_after: RETRY_AFTER }
}

pub(crate) fn misplaced(reason: String) -> SourceError {
    SourceError::Misplaced { reason }
}
