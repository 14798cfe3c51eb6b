//! Errors of the parts as gRPC statuses and refusals.
use std::sync::Arc;

use kapell_ledger::LedgerError;
use kapell_model::limits::WORDS_BYTES_MAX;
use kapell_model::{Name, RunId, ShardId};
use kapell_proto::v1;
use tonic::Status;

use crate::ingest::Refused;
use crate::shard::SubmitError;

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

/// Says in a trailer when to try again, as gRPC clients know it: milliseconds.
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";
/// A shard that nobody owned for a while may need another while.
const ON_ITS_WAY_RETRY_MS: u64 = 500;

/// What a shard refused.
pub(super) fn of_submit(error: &SubmitError) -> Status {
    let mut status = kind_of_submit(error);
    if let Some(after) = error.retry_after() {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        status.metadata_mut().insert(RETRY_PUSHBACK, millis.into());
    }
    status
}

/// Nothing was done: no node that is known owns the shard.
pub(super) fn on_its_way(shard: ShardId) -> Status {
    let text = format!("shard {shard} is on its way to a node and nothing was done; send it again");
    let mut status = Status::unavailable(text);
    status.metadata_mut().insert(RETRY_PUSHBACK, ON_ITS_WAY_RETRY_MS.into());
    status
}

fn kind_of_submit(error: &SubmitError) -> Status {
    match error {
        SubmitError::Busy { .. } | SubmitError::KeyQueueFull { .. } | SubmitError::TooMany { .. } => {
            Status::resource_exhausted(error.to_string())
        }
        SubmitError::NotFound(_) => Status::not_found(error.to_string()),
        SubmitError::Rejected(_) => Status::failed_precondition(error.to_string()),
        SubmitError::Unavailable => Status::unavailable(error.to_string()),
    }
}

/// A status as one answer of a stream.
pub(super) fn problem(status: &Status) -> v1::Problem {
    let pushback = status.metadata().get(RETRY_PUSHBACK).and_then(|after| after.to_str().ok());
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
pub(super) fn by(text: &str) -> Result<Arc<str>, Status> {
    words("by", if text.is_empty() { "somebody" } else { text })
}

/// A name or reason that is kept for the run's story.
pub(super) fn words(field: &str, text: &str) -> Result<Arc<str>, Status> {
    let bytes = text.len();
    if bytes > WORDS_BYTES_MAX {
        let text = format!("{field}: it has {bytes} bytes, at most {WORDS_BYTES_MAX} are allowed");
        return Err(Status::invalid_argument(text));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kapell_kernel::Rejected;
    use kapell_model::ShardId;

    use super::*;

    #[test]
    fn a_refusal_for_now_says_when_to_try_again_and_another_does_not() {
        let pushback = |error: &SubmitError| {
            let status = of_submit(error);
            status.metadata().get(RETRY_PUSHBACK).map(|millis| millis.to_str().unwrap().to_owned())
        };
        let busy = SubmitError::Busy { retry_after: Duration::from_millis(50) };
        assert_eq!(pushback(&busy).as_deref(), Some("50"));
        let full = SubmitError::KeyQueueFull { key: "k".to_owned(), waiting: 10_000 };
        assert_eq!(pushback(&full).as_deref(), Some("1000"));
        assert_eq!(pushback(&SubmitError::Unavailable).as_deref(), Some("200"));
        assert_eq!(pushback(&SubmitError::NotFound(RunId::new(ShardId(0), 1))), None);
        assert_eq!(pushback(&SubmitError::Rejected(Rejected::RunEnded)), None);
        let refused = of_refused(&Refused::Shard(full));
        assert!(refused.metadata().contains_key(RETRY_PUSHBACK), "also where an event is refused");
    }
}
