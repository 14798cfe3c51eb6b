//! What goes wrong, before it is known whom it concerns.
//!
//! Owns: which error of PostgreSQL asks for another try here. Never: hides what PostgreSQL said.
use std::time::Duration;

use kapell_journal::{AcquireError, AppendError, ReadError};
use tokio_postgres::error::SqlState;

/// Why a statement gave no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// PostgreSQL or the connection.
    Postgres(tokio_postgres::Error),
    /// No answer for so long.
    Slow(Duration),
    /// The server was reached and cannot be used.
    Unfit(String),
    /// Nobody does it.
    Refused(&'static str),
    /// What was read is not what was written, or is not there.
    Read(ReadError),
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Trouble {
        Trouble::Postgres(error)
    }
}

/// What `kapell_journal.refuse()` says.
const SEALED: &str = "KJ001";

impl Trouble {
    pub(crate) fn reason(&self) -> String {
        match self {
            Trouble::Postgres(error) => kapell_postgres::describe(error),
            Trouble::Slow(span) => format!("PostgreSQL did not answer for {span:?}"),
            Trouble::Unfit(reason) => reason.clone(),
            Trouble::Refused(reason) => (*reason).to_owned(),
            Trouble::Read(error) => error.to_string(),
        }
    }

    /// Nothing was inserted: the segment takes nothing any more, or is gone.
    pub(crate) fn is_sealed(&self) -> bool {
        self.code().is_some_and(|code| code.code() == SEALED || *code == SqlState::UNDEFINED_TABLE)
    }

    /// A segment was dropped between the look for it and its use.
    pub(crate) fn is_dropped(&self) -> bool {
        self.code().is_some_and(|code| *code == SqlState::UNDEFINED_TABLE)
    }

    /// Whether the connection was lost, and perhaps nothing else is wrong.
    pub(crate) fn is_loss(&self) -> bool {
        match self {
            // A server that stops says so (57P01 and so on) on the connections that it closes.
            Trouble::Postgres(error) => error.code().is_none_or(|code| code.code().starts_with("57P")),
            Trouble::Slow(_) | Trouble::Unfit(_) | Trouble::Refused(_) | Trouble::Read(_) => false,
        }
    }

    fn code(&self) -> Option<&SqlState> {
        match self {
            Trouble::Postgres(error) => error.code(),
            Trouble::Slow(_) | Trouble::Unfit(_) | Trouble::Refused(_) | Trouble::Read(_) => None,
        }
    }

    pub(crate) fn on_append(&self, retry_after: Duration) -> AppendError {
        AppendError::Unavailable { reason: self.reason(), retry_after }
    }

    pub(crate) fn on_read(self, retry_after: Duration) -> ReadError {
        match self {
            Trouble::Read(error) => error,
            Trouble::Postgres(_) | Trouble::Slow(_) | Trouble::Unfit(_) | Trouble::Refused(_) => {
                ReadError::Unavailable { reason: self.reason(), retry_after }
            }
        }
    }

    pub(crate) fn on_acquire(self, retry_after: Duration) -> AcquireError {
        AcquireError::Read(self.on_read(retry_after))
    }
}
