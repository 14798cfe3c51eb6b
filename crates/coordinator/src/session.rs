//! The streams of workers and connectors.
//!
//! Owns: the order of a session (hello, welcome, then frames both ways) and turning messages into what the desks and
//! shards understand. Never: keeps state beyond the connection.
mod connector;
mod outlet;
mod streams;
mod worker;

pub(crate) use connector::ConnectorSessions;
pub(crate) use outlet::Outlet;
pub(crate) use streams::{OpenStream, Streams};
pub(crate) use worker::WorkerSessions;

use std::time::Duration;

use kapell_model::ShardId;
use kapell_wire::claim::shard_from;
use kapell_wire::task::BadRef;
use tonic::Status;

use crate::shard::SubmitError;

/// Frames that wait for a slow reader before its session is ended.
const FRAMES_WAITING_MAX: usize = 4_096;

/// How sessions are kept alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liveness {
    /// How often the other side sends a heartbeat.
    pub(crate) heartbeat: Duration,
    /// After so much silence its work is given to others.
    pub(crate) lease: Duration,
}

/// Whether a report may be forgotten by who sent it: it is on disk, or nobody wants it. If it could not be passed on, it
/// is sent again.
pub(crate) fn is_settled(result: &Result<(), SubmitError>) -> bool {
    match result {
        Ok(()) | Err(SubmitError::Rejected(_) | SubmitError::NotFound(_)) => true,
        Err(
            SubmitError::Busy { .. }
            | SubmitError::KeyQueueFull { .. }
            | SubmitError::TooMany { .. }
            | SubmitError::Unavailable,
        ) => false,
    }
}

/// Shards whose claims are answered.
fn shards(answered: &[u32]) -> Result<Vec<ShardId>, Status> {
    let shards = answered.iter().map(|shard| shard_from(*shard));
    shards.collect::<Result<_, BadRef>>().map_err(|error| Status::invalid_argument(error.to_string()))
}

#[cfg(test)]
mod tests {
    use kapell_model::RunId;

    use super::*;

    #[test]
    fn a_report_that_reached_nobody_is_not_acknowledged() {
        assert!(is_settled(&Ok(())));
        assert!(is_settled(&Err(SubmitError::NotFound(RunId::new(ShardId(0), 1)))));
        assert!(!is_settled(&Err(SubmitError::Unavailable)));
        assert!(!is_settled(&Err(SubmitError::Busy { retry_after: Duration::from_secs(1) })));
    }
}
