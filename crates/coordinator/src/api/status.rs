//! Errors of the parts as gRPC statuses and refusals.
use kapell_ledger::LedgerError;
use kapell_model::{Name, RunId};
use kapell_proto::v1;
use tonic::Status;

use crate::ingest::Refused;
use crate::shard::SubmitError;

/// Milliseconds to wait before the next try; the name is gRPC's own.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// A refusal of one event.
pub(super) fn refusal(error: &Refused) -> v1::Refusal {
    v1::Refusal {
        code: error.code().to_owned(),
        message: error.to_string(),
        retry_after_ms: error.retry_after().map(|after| after.as_millis() as u64),
    }
}

/// A refusal of a whole request.
pub(super) fn of_refused(error: &Refused) -> Status {
    match error {
        Refused::Unreadable { .. } | Refused::DoesNotFit { .. } => {
            Status::invalid_argument(error.to_string())
        }
        Refused::Shard(error) => of_submit(error),
    }
}

/// What a shard refused.
pub(super) fn of_submit(error: &SubmitError) -> Status {
    match error {
        SubmitError::Busy { .. } | SubmitError::KeyQueueFull { .. } => {
            Status::resource_exhausted(error.to_string())
        }
        SubmitError::NotFound(_) => Status::not_found(error.to_string()),
        SubmitError::Rejected(_) => Status::failed_precondition(error.to_string()),
        SubmitError::Unavailable => Status::unavailable(error.to_string()),
    }
}

/// A status as one answer of a stream.
pub(super) fn problem(status: &Status) -> v1::Problem {
    let pushback = status.metadata().get(PUSHBACK).and_then(|after| after.to_str().ok());
    v1::Problem {
        code: status.code().into(),
        message: status.message().to_owned(),
        retry_after_ms: pushback.and_then(|after| after.parse().ok()),
    }
}

/// What the ledger refused.
pub(super) fn of_ledger(error: &LedgerError) -> Status {
    match error {
        LedgerError::Unavailable { .. } => Status::unavailable(error.to_string()),
        LedgerError::BadCursor(_) => Status::invalid_argument(error.to_string()),
        LedgerError::Unreadable { .. } | LedgerError::Misplaced { .. } => {
            Status::data_loss(error.to_string())
        }
    }
}

/// A namespace as it is written; empty: `default`.
pub(super) fn namespace(text: &str) -> Result<Name, Status> {
    if text.is_empty() {
        return Ok(Name::default_namespace());
    }
    Name::new(text).map_err(|error| Status::invalid_argument(format!("namespace: {error}")))
}

/// A name as it is written.
pub(super) fn name(field: &str, text: &str) -> Result<Name, Status> {
    Name::new(text).map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}

/// A run id as it is written.
pub(super) fn run(text: &str) -> Result<RunId, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("{error}")))
}

/// Who acts; empty: `somebody`.
pub(super) fn by(text: &str) -> std::sync::Arc<str> {
    if text.is_empty() { "somebody".into() } else { text.into() }
}
