//! Refusals between peers.
use std::time::Duration;

use kapell_proto::peer::v1 as peer;
use kapell_wire::peer::Refusal;

use crate::shard::SubmitError;

/// As it is said.
pub(super) fn to(error: &SubmitError) -> peer::Refusal {
    let refusal = match error.clone() {
        SubmitError::Busy { retry_after } => Refusal::Busy { retry_after },
        SubmitError::KeyQueueFull { key, waiting } => Refusal::KeyQueueFull { key, waiting },
        SubmitError::TooMany { .. } => Refusal::Busy { retry_after: Duration::from_secs(1) },
        SubmitError::NotFound(run) => Refusal::NotFound(run),
        SubmitError::Rejected(rejected) => Refusal::Rejected(rejected),
        SubmitError::Unavailable => Refusal::Unavailable,
    };
    refusal.to_proto()
}

/// What was said. What cannot be read leaves open whether it was done.
pub(super) fn from(refusal: peer::Refusal) -> SubmitError {
    match Refusal::from_proto(refusal) {
        Ok(Refusal::Busy { retry_after }) => SubmitError::Busy { retry_after },
        Ok(Refusal::KeyQueueFull { key, waiting }) => SubmitError::KeyQueueFull { key, waiting },
        Ok(Refusal::NotFound(run)) => SubmitError::NotFound(run),
        Ok(Refusal::Rejected(rejected)) => SubmitError::Rejected(rejected),
        Ok(Refusal::Unavailable | Refusal::Unsupported { .. }) | Err(_) => SubmitError::Unavailable,
    }
}
