//! What goes wrong, sorted by what the caller can do about it.
//!
//! Owns: which error of SQLite is which error of the port. Never: hides what SQLite said.
use std::path::Path;
use std::time::Duration;

use kapell_ledger::LedgerError;
use kapell_model::{Seq, ShardId};
use rusqlite::ErrorCode;

/// When a caller may try again what did not work now.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(200);
pub(crate) const ELSEWHERE: &str = "name another file, or move this one away: the ledger is then built anew";

/// Why a statement or a row gave no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    Sqlite(rusqlite::Error),
    Damaged(String),
    /// What was folded anew is older than what is stored by now.
    Moved {
        shard: ShardId,
        found: Seq,
        stored: Seq,
    },
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Trouble {
        Trouble::Sqlite(error)
    }
}

impl Trouble {
    /// In use: the store was fine when it was opened.
    pub(crate) fn answer(self) -> LedgerError {
        match self {
            Trouble::Damaged(reason) => LedgerError::Unreadable { reason },
            Trouble::Moved { shard, found, stored } => unavailable(&format!(
                "shard {shard} was contained up to {found} and is up to {stored} now; fold it again"
            )),
            Trouble::Sqlite(error) => match kind(&error) {
                Kind::Passing | Kind::Place => unavailable(&error.to_string()),
                Kind::NotSqlite | Kind::Damage => LedgerError::Unreadable { reason: error.to_string() },
            },
        }
    }
}

/// While opening: what is wrong is most likely the place that was named.
pub(crate) fn opening(path: &Path, error: &rusqlite::Error) -> LedgerError {
    let place = path.display();
    match kind(error) {
        Kind::Passing => unavailable(&format!("{place}: {error}")),
        Kind::Place => LedgerError::Misplaced {
            reason: format!(
                "{place}: {error}; see that its directory exists and that this user may write both, or name another"
            ),
        },
        Kind::NotSqlite => LedgerError::Misplaced {
            reason: format!("{place} is no SQLite database and is left alone; {ELSEWHERE}"),
        },
        Kind::Damage => LedgerError::Unreadable { reason: format!("{place}: {error}") },
    }
}

pub(crate) fn unavailable(reason: &str) -> LedgerError {
    LedgerError::Unavailable { reason: reason.to_owned(), retry_after: RETRY_AFTER }
}

enum Kind {
    Passing,
    Place,
    NotSqlite,
    Damage,
}

/// An error that is not known here is not called passing.
fn kind(error: &rusqlite::Error) -> Kind {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted
            | ErrorCode::OperationAborted
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::SystemIoFailure,
        ) => Kind::Passing,
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Kind::Place,
        Some(ErrorCode::NotADatabase) => Kind::NotSqlite,
        _ => Kind::Damage,
    }
}
