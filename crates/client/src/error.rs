//! What can go wrong, grouped by what the caller can do. The server's words are kept as they are.
use std::error::Error as _;
use std::time::Duration;

use tonic::{Code, Status};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ConnectError(#[from] kapell_runtime::DialError);

/// Why a request was not answered with what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The request is wrong: the same one will never be answered.
    #[error("{message}")]
    Invalid {
        /// The server's words.
        message: String,
    },
    /// What it names is not there.
    #[error("{message}")]
    NotFound {
        /// The server's words.
        message: String,
    },
    /// It does not fit the state of things, such as pausing a run that has ended.
    #[error("{message}")]
    Refused {
        /// The server's words.
        message: String,
    },
    /// The server is full; nothing was done. Try again later.
    #[error("{message}")]
    Busy {
        /// The server's words.
        message: String,
        /// When to try again, if the server said so.
        retry_after: Option<Duration>,
    },
    /// The server went away or cannot do it now. Whether it was done is not known.
    #[error("{message}")]
    Unavailable {
        /// The server's or the connection's words.
        message: String,
    },
    /// No answer in time. Whether it was done is not known.
    #[error("no answer within {} ms", .after.as_millis())]
    TimedOut {
        /// How long it was waited for.
        after: Duration,
    },
    /// The server failed in a way that needs somebody to look at it.
    #[error("{code}: {message}")]
    Failed {
        /// The gRPC code in words.
        code: &'static str,
        /// The server's words.
        message: String,
    },
}

impl ClientError {
    /// It may have been done; another coordinator can say.
    pub(crate) fn silent() -> ClientError {
        ClientError::Unavailable { message: "the coordinator does not answer".to_owned() }
    }
}

/// Milliseconds to wait before the next try; the name is gRPC's own.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

impl From<Status> for ClientError {
    fn from(status: Status) -> ClientError {
        let message = status.message().to_owned();
        let failed = |code| ClientError::Failed { code, message: message.clone() };
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => ClientError::Invalid { message },
            Code::NotFound => ClientError::NotFound { message },
            Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => {
                ClientError::Refused { message }
            }
            Code::ResourceExhausted => ClientError::Busy { message, retry_after: pushback(&status) },
            Code::Unavailable => ClientError::Unavailable { message },
            Code::DeadlineExceeded => {
                ClientError::Unavailable { message: format!("the server gave up: {message}") }
            }
            Code::PermissionDenied => failed("not permitted"),
            Code::Unauthenticated => failed("not authenticated"),
            Code::Unimplemented => failed("the server does not know this request (is it older?)"),
            Code::DataLoss => failed("stored data is damaged"),
            // The connection broke, or is closed to new requests: the server said nothing of the kind.
            Code::Ok | Code::Unknown | Code::Cancelled | Code::Internal if status.source().is_some() => {
                ClientError::Unavailable { message }
            }
            Code::Internal => failed("internal error"),
            Code::Cancelled => failed("canceled"),
            Code::Ok | Code::Unknown => failed("unknown error"),
        }
    }
}

fn pushback(status: &Status) -> Option<Duration> {
    let millis = status.metadata().get(PUSHBACK)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_says_when_to_come_back() {
        let mut status = Status::resource_exhausted("the shard is busy");
        status.metadata_mut().insert(PUSHBACK, "250".parse().unwrap());
        let busy = ClientError::from(status);
        let retry_after = Some(Duration::from_millis(250));
        assert_eq!(busy, ClientError::Busy { message: "the shard is busy".to_owned(), retry_after });
    }

    #[test]
    fn a_connection_that_broke_is_not_mistaken_for_what_the_server_says() {
        let said = Status::cancelled("enough");
        assert!(matches!(ClientError::from(said), ClientError::Failed { code: "canceled", .. }));
        for mut broke in [Status::cancelled("h2 protocol error"), Status::internal("http2 error")] {
            broke.set_source(std::sync::Arc::new(std::io::Error::other("connection reset")));
            assert!(matches!(ClientError::from(broke), ClientError::Unavailable { .. }));
        }
    }

    #[test]
    fn the_servers_words_are_kept() {
        assert_eq!(
            ClientError::from(Status::not_found("there is no run x")).to_string(),
            "there is no run x"
        );
        let damaged = ClientError::from(Status::data_loss("record 7"));
        assert_eq!(damaged.to_string(), "stored data is damaged: record 7");
    }
}
