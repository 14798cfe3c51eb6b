//! Schemas: which version they have, and how they come to the one that this program knows.
//!
//! Owns: the migrations and the lock under which they run. Never: goes back, or changes a schema that it did not make.
//!
//! A version is `major.minor`. A minor step only adds what older programs do not miss, so programs of one major version
//! share the tables whatever their minor version, and a cluster is upgraded node by node. A major step is for all
//! others: older programs refuse the tables from then on.
use std::fmt;

use tokio_postgres::Client;

use crate::describe;

/// Of the tables.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// Larger: programs from before do not understand the tables.
    pub major: i32,
    /// Larger: something was added that programs from before do not miss.
    pub minor: i32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// From the version before to this one. A step that was released is never changed.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Which version it makes.
    pub to: Version,
    /// Statements that can run in a transaction.
    pub sql: &'static str,
}

/// One schema of a database, with everything in it.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// Its name, which needs no quotes.
    pub name: &'static str,
    /// In order, from nothing on.
    pub steps: &'static [Step],
}

/// Why the tables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// To be answered with an upgrade of this program.
    #[error(
        "the tables of `{name}` have version {found}, this program knows up to {known}: a newer Kapell made them"
    )]
    Newer {
        /// The schema.
        name: &'static str,
        /// What is there.
        found: Version,
        /// What this program knows.
        known: Version,
    },
    /// There is a schema of this name that bears no mark of ours.
    #[error("there is a schema `{name}` that Kapell did not make; drop it or name another database")]
    Foreign {
        /// The schema.
        name: &'static str,
    },
    /// The database cannot hold them.
    #[error("{reason}")]
    Unfit {
        /// What it lacks.
        reason: String,
    },
    /// The server refused or was lost.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
}

/// Older ones do not notice that a client has gone.
const SERVER_MIN: i32 = 140_000;

/// What is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Nothing,
    Foreign,
    Ours(Version),
}

/// What is to be done about tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Todo {
    /// They are as this program wants them.
    Nothing,
    /// They are older, or there are none.
    Migrate,
}

impl Schema {
    /// Makes the tables, or brings them to the version that this program knows. Several nodes may do it at once.
    ///
    /// # Errors
    ///
    /// See [`SchemaError`]. Nothing was changed then.
    pub async fn prepare(&self, client: &Client) -> Result<(), SchemaError> {
        match self.check(client).await? {
            Todo::Nothing => Ok(()),
            Todo::Migrate => self.migrate(client).await,
        }
    }

    /// Looks what [`Schema::prepare`] would do. Looking is quick, migrating takes as long as it takes: who sets a time
    /// for the one must not set it for the other.
    ///
    /// # Errors
    ///
    /// See [`SchemaError`].
    pub async fn check(&self, client: &Client) -> Result<Todo, SchemaError> {
        check_server(client).await?;
        let is_behind = self.is_behind(self.look(client).await?)?;
        Ok(if is_behind { Todo::Migrate } else { Todo::Nothing })
    }

    /// Deletes the tables, whatever their version, with everything in them. None is fine.
    ///
    /// # Errors
    ///
    /// `Foreign`: the schema is not ours, and nothing was deleted. `Postgres`: the server refused or was lost.
    pub async fn remove(&self, client: &Client) -> Result<(), SchemaError> {
        let name = self.name;
        match self.look(client).await? {
            Found::Nothing => Ok(()),
            Found::Foreign => Err(SchemaError::Foreign { name }),
            Found::Ours(_) => Ok(client.batch_execute(&format!("DROP SCHEMA {name} CASCADE")).await?),
        }
    }

    fn newest(&self) -> Version {
        self.steps.last().map_or(Version { major: 0, minor: 0 }, |step| step.to)
    }

    fn is_behind(&self, found: Found) -> Result<bool, SchemaError> {
        let (name, known) = (self.name, self.newest());
        match found {
            Found::Nothing => Ok(true),
            Found::Foreign => Err(SchemaError::Foreign { name }),
            Found::Ours(found) if found.major > known.major => Err(SchemaError::Newer { name, found, known }),
            Found::Ours(found) => Ok(found < known),
        }
    }

    async fn look(&self, client: &Client) -> Result<Found, SchemaError> {
        let name = self.name;
        let sql = format!(
            "SELECT to_regclass('{name}.schema_version') IS NOT NULL, \
             EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('{name}'))"
        );
        let row = client.query_one(&sql, &[]).await?;
        match (row.try_get(0)?, row.try_get(1)?) {
            (true, _) => {}
            (false, true) => return Ok(Found::Foreign),
            (false, false) => return Ok(Found::Nothing),
        }
        let sql = format!("SELECT major, minor FROM {name}.schema_version");
        let Some(row) = client.query_opt(&sql, &[]).await? else { return Ok(Found::Foreign) };
        Ok(Found::Ours(Version { major: row.try_get(0)?, minor: row.try_get(1)? }))
    }

    /// All steps in one transaction, while no other node migrates. A limit that the session has for its statements does
    /// not hold for them: given up in the middle, they would never come to an end.
    ///
    /// # Errors
    ///
    /// See [`SchemaError`]. Nothing was changed then.
    pub async fn migrate(&self, client: &Client) -> Result<(), SchemaError> {
        let name = self.name;
        let lock = format!("SELECT pg_advisory_xact_lock(hashtext('{name}'))");
        client.batch_execute(&format!("BEGIN; SET LOCAL statement_timeout = 0; {lock}")).await?;
        let migrated = self.migrate_locked(client).await;
        let end = if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" };
        // Without it the connection is of no use, and the transaction ends with it.
        client.batch_execute(end).await?;
        migrated
    }

    async fn migrate_locked(&self, client: &Client) -> Result<(), SchemaError> {
        let name = self.name;
        // Another node may have been here between the look and the lock.
        let found = self.look(client).await?;
        if !self.is_behind(found)? {
            return Ok(());
        }
        let from = match found {
            Found::Ours(version) => version,
            Found::Nothing | Found::Foreign => {
                create(client, name).await?;
                Version { major: 0, minor: 0 }
            }
        };
        for step in self.steps.iter().filter(|step| step.to > from) {
            let Version { major, minor } = step.to;
            client.batch_execute(step.sql).await?;
            let mark = format!("UPDATE {name}.schema_version SET major = {major}, minor = {minor}");
            client.batch_execute(&mark).await?;
            tracing::info!(schema = name, version = %step.to, "tables have a new version");
        }
        Ok(())
    }
}

async fn check_server(client: &Client) -> Result<(), SchemaError> {
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')";
    let row = client.query_one(sql, &[]).await?;
    let (version, encoding): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    if version < SERVER_MIN {
        let (found, needed) = (version / 10_000, SERVER_MIN / 10_000);
        return Err(SchemaError::Unfit {
            reason: format!("PostgreSQL is {found}; {needed} or newer is needed"),
        });
    }
    if encoding != "UTF8" {
        let reason = format!("the database's encoding is {encoding}; create one with ENCODING 'UTF8'");
        return Err(SchemaError::Unfit { reason });
    }
    Ok(())
}

/// An administrator may have made the schema for a user who may not.
async fn create(client: &Client, name: &str) -> Result<(), SchemaError> {
    let row = client.query_one(&format!("SELECT to_regnamespace('{name}') IS NULL"), &[]).await?;
    if row.try_get(0)? {
        client.batch_execute(&format!("CREATE SCHEMA {name}")).await?;
    }
    let mark = format!(
        "CREATE TABLE {name}.schema_version (one boolean PRIMARY KEY DEFAULT true CHECK (one), \
         major integer NOT NULL, minor integer NOT NULL); \
         INSERT INTO {name}.schema_version (major, minor) VALUES (0, 0)"
    );
    client.batch_execute(&mark).await?;
    Ok(())
}
