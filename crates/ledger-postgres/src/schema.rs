//! The tables of the ledger.
//!
//! Owns: their steps from version to version. Never: runs them itself.
use kapell_ledger::LedgerError;
use kapell_postgres::{Schema, SchemaError, Step, Version};

use crate::trouble::Trouble;

/// See `kapell_postgres` for what a version means.
pub(crate) const SCHEMA: Schema = Schema {
    name: "kapell_ledger",
    steps: &[Step { to: Version { major: 1, minor: 0 }, sql: include_str!("../migrations/1.0.sql") }],
};

impl From<SchemaError> for Trouble {
    fn from(error: SchemaError) -> Trouble {
        match error {
            SchemaError::Postgres(error) => Trouble::Postgres(error),
            SchemaError::Newer { .. } => Trouble::Answered(LedgerError::Unreadable {
                reason: format!("{error}; upgrade this node, or, to go back for good, stop all nodes"),
            }),
            SchemaError::Foreign { .. } | SchemaError::Unfit { .. } => {
                Trouble::Answered(LedgerError::Misplaced { reason: error.to_string() })
            }
        }
    }
}
