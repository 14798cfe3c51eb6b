//! What goes wrong, sorted by what the caller can do about it.
//!
//! Owns: which error of PostgreSQL is which error of the port. Never: hides what PostgreSQL said, or shows a password.
use std::time::Duration;

use kapell_ledger::LedgerError;
use kapell_postgres::describe;

/// When a caller may try again what did not work now.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why a statement or a row gave no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    Postgres(tokio_postgres::Error),
    /// A row makes no sense.
    Damaged(String),
    /// No answer for so long.
    Slow(Duration),
    /// The answer is already known.
    Answered(LedgerError),
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Trouble {
        Trouble::Postgres(error)
    }
}

impl Trouble {
    pub(crate) fn answer(self) -> LedgerError {
        match self {
            Trouble::Answered(error) => error,
            Trouble::Damaged(reason) => LedgerError::Unreadable { reason },
            Trouble::Slow(span) => unavailable(format!("PostgreSQL did not answer for {span:?}")),
            Trouble::Postgres(error) => {
                let reason = describe(&error);
                match kind(&error) {
                    Kind::Passing => unavailable(reason),
                    Kind::Place(hint) => LedgerError::Misplaced { reason: format!("{reason}; {hint}") },
                    Kind::Damage => LedgerError::Unreadable { reason },
                }
            }
        }
    }

    /// Whether the connection was lost, and perhaps nothing else is wrong.
    pub(crate) fn is_loss(&self) -> bool {
        match self {
            // A server that stops says so (57P01 and so on) on the connections that it closes.
            Trouble::Postgres(error) => error.code().is_none_or(|code| code.code().starts_with("57P")),
            Trouble::Damaged(_) | Trouble::Slow(_) | Trouble::Answered(_) => false,
        }
    }

    /// Whether others that were stored together with the culprit would have been stored without it.
    pub(crate) fn is_of_one(&self) -> bool {
        match self {
            Trouble::Postgres(error) => matches!(kind(error), Kind::Damage),
            Trouble::Damaged(_) | Trouble::Slow(_) | Trouble::Answered(_) => false,
        }
    }
}

pub(crate) fn unavailable(reason: impl Into<String>) -> LedgerError {
    LedgerError::Unavailable { reason: reason.into(), retry_after: RETRY_AFTER }
}

enum Kind {
    Passing,
    Place(&'static str),
    Damage,
}

/// An error that is not known here is not called passing.
fn kind(error: &tokio_postgres::Error) -> Kind {
    // No code: the connection, not the statement.
    let Some(code) = error.code() else { return Kind::Passing };
    match code.code() {
        "28000" | "28P01" => Kind::Place("see to the user and password of the ledger's URL"),
        "3D000" => Kind::Place("create the database, or name another one"),
        "42501" => Kind::Place("let this user own the schema `kapell_ledger`, or create it in this database"),
        // Another program waits for us or holds what we need; a standby has not taken over yet.
        "55P03" | "25006" => Kind::Passing,
        code => match code.get(..2) {
            // Connections, resources, operators' doings, deadlocks and the like, input and output.
            Some("08" | "53" | "57" | "40" | "58") => Kind::Passing,
            _ => Kind::Damage,
        },
    }
}
