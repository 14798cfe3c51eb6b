//! The tables: which version they have, and how they come to the one that this program knows.
//!
//! Owns: the migrations and the lock under which they run. Never: goes back, or changes a schema that it did not make.
//!
//! A version is `major.minor`. A minor step only adds what older programs do not miss, so programs of one major
//! version share the tables whatever their minor version, and a cluster is upgraded node by node. A major step is for
//! all others: older programs refuse the tables from then on.
use kapell_ledger::LedgerError;
use tokio_postgres::Client;

use crate::trouble::Trouble;

/// Of the tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Version {
    pub(crate) major: i32,
    pub(crate) minor: i32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// From the version before to this one.
pub(crate) struct Step {
    pub(crate) to: Version,
    pub(crate) sql: &'static str,
}

/// In order, from nothing on. A step that was released is never changed.
pub(crate) const STEPS: &[Step] =
    &[Step { to: Version { major: 1, minor: 0 }, sql: include_str!("../migrations/1.0.sql") }];

/// Of the advisory lock under which migrations run: `KapellLe`, so that nobody else has it by chance.
const LOCK: i64 = i64::from_be_bytes(*b"KapellLe");
/// Older ones do not tidy indexes while rows change.
const SERVER_MIN: i32 = 140_000;

/// What is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Nothing,
    /// A schema of our name without our mark.
    Foreign,
    Ours(Version),
}

/// What is to be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Todo {
    Nothing,
    Migrate,
}

/// Looks whether the tables are those of these steps.
pub(crate) async fn check(client: &Client, steps: &[Step]) -> Result<Todo, Trouble> {
    check_server(client).await?;
    judge(look(client).await?, steps)
}

async fn check_server(client: &Client) -> Result<(), Trouble> {
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')";
    let row = client.query_typed_one(sql, &[]).await?;
    let (version, encoding): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    let wrong = if version < SERVER_MIN {
        format!("PostgreSQL is {}, and the ledger needs {} or newer", version / 10_000, SERVER_MIN / 10_000)
    } else if encoding != "UTF8" {
        format!("the database's encoding is {encoding}; create one with ENCODING 'UTF8'")
    } else {
        return Ok(());
    };
    Err(Trouble::Answered(LedgerError::Misplaced { reason: wrong }))
}

async fn look(client: &Client) -> Result<Found, Trouble> {
    let sql = "SELECT to_regclass('kapell_ledger.schema_version') IS NOT NULL, \
         EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('kapell_ledger'))";
    let row = client.query_typed_one(sql, &[]).await?;
    match (row.try_get(0)?, row.try_get(1)?) {
        (true, _) => {}
        (false, true) => return Ok(Found::Foreign),
        (false, false) => return Ok(Found::Nothing),
    }
    let sql = "SELECT major, minor FROM kapell_ledger.schema_version";
    let Some(row) = client.query_typed_opt(sql, &[]).await? else { return Ok(Found::Foreign) };
    Ok(Found::Ours(Version { major: row.try_get(0)?, minor: row.try_get(1)? }))
}

fn judge(found: Found, steps: &[Step]) -> Result<Todo, Trouble> {
    let newest = steps.last().map_or(Version { major: 0, minor: 0 }, |step| step.to);
    match found {
        Found::Nothing => Ok(Todo::Migrate),
        Found::Foreign => Err(Trouble::Answered(LedgerError::Misplaced {
            reason: "the schema `kapell_ledger` of this database is not the ledger's and is left alone; \
                     drop it, or name another database"
                .to_owned(),
        })),
        Found::Ours(found) if found.major > newest.major => Err(Trouble::Answered(LedgerError::Unreadable {
            reason: format!(
                "its tables have version {found}, this program knows {newest}: a newer Kapell made them; \
                     upgrade this node, or, to go back for good, stop all nodes"
            ),
        })),
        Found::Ours(found) if found < newest => Ok(Todo::Migrate),
        Found::Ours(_) => Ok(Todo::Nothing),
    }
}

const CREATE: &str = "CREATE TABLE kapell_ledger.schema_version (\
     one boolean PRIMARY KEY DEFAULT true CHECK (one), major integer NOT NULL, minor integer NOT NULL); \
     INSERT INTO kapell_ledger.schema_version (major, minor) VALUES (0, 0)";

/// All steps in one transaction, while no other node migrates and nobody applies. It takes as long as it takes: given
/// up in the middle, it would never come to an end.
pub(crate) async fn migrate(client: &Client, steps: &[Step]) -> Result<(), Trouble> {
    let begin = format!("BEGIN; SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({LOCK})");
    client.batch_execute(&begin).await?;
    // Another node may have been here between the look and the lock.
    let found = look(client).await?;
    if judge(found, steps)? == Todo::Migrate {
        let from = match found {
            Found::Nothing | Found::Foreign => {
                create_schema(client).await?;
                client.batch_execute(CREATE).await?;
                Version { major: 0, minor: 0 }
            }
            Found::Ours(version) => {
                client.batch_execute("LOCK TABLE kapell_ledger.watermarks IN ACCESS EXCLUSIVE MODE").await?;
                version
            }
        };
        for step in steps.iter().filter(|step| step.to > from) {
            let Version { major, minor } = step.to;
            client.batch_execute(step.sql).await?;
            let mark = format!("UPDATE kapell_ledger.schema_version SET major = {major}, minor = {minor}");
            client.batch_execute(&mark).await?;
            tracing::info!(version = %step.to, "the ledger's tables have a new version");
        }
    }
    Ok(client.batch_execute("COMMIT").await?)
}

/// An administrator may have made it for a user who may not.
async fn create_schema(client: &Client) -> Result<(), Trouble> {
    let sql = "SELECT to_regnamespace('kapell_ledger') IS NULL";
    if client.query_typed_one(sql, &[]).await?.try_get(0)? {
        client.batch_execute("CREATE SCHEMA kapell_ledger").await?;
    }
    Ok(())
}

/// Deletes the tables, whatever their version. A schema that does not bear our mark is left alone.
pub(crate) async fn remove(client: &Client) -> Result<(), Trouble> {
    match look(client).await? {
        Found::Nothing => Ok(()),
        Found::Foreign => judge(Found::Foreign, STEPS).map(|_| ()),
        Found::Ours(_) => Ok(client.batch_execute("DROP SCHEMA kapell_ledger CASCADE").await?),
    }
}

#[cfg(test)]
mod tests;
