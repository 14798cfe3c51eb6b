//! Opening: reach every database, bring its tables to our version, make sure that it is the right one.
//!
//! Owns: what must hold before a journal can be used. Never: starts a job for a store that is refused.
use std::sync::Arc;

use kapell_model::ShardCount;
use kapell_postgres::{Schema, SchemaError, Step, Target, UrlError, Version};
use kapell_runtime::Runtime;

use crate::database::Database;
use crate::lane::Lane;
use crate::link::{self, Open};
use crate::options::Options;
use crate::queue::{Limits, Queue};
use crate::segment::{self, Keeper};
use crate::store;
use crate::trouble::Trouble;
use crate::value::OwnerId;
use crate::writer::Writers;
use crate::{Place, PostgresJournal};

/// Everything that the journal keeps in a database.
const SCHEMA: Schema = Schema {
    name: "kapell_journal",
    steps: &[
        Step { to: Version { major: 1, minor: 0 }, sql: include_str!("../migrations/1.0.sql") },
        Step { to: Version { major: 1, minor: 1 }, sql: include_str!("../migrations/1.1.sql") },
    ],
};

/// Why the journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// To be corrected in the settings.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The tables there are not ones that this program can use.
    #[error("journal in {database}")]
    Schema {
        /// Which, without its password.
        database: String,
        /// Why.
        #[source]
        source: SchemaError,
    },
    /// The list of databases is not the one that the store was made with.
    #[error(
        "the databases of the journal: {reason} (hint: list the databases that the store was made with, in the same order)"
    )]
    Databases {
        /// What is wrong.
        reason: String,
    },
    /// The store was made by something else.
    #[error("the store in {database} has {shards} shards, which no store has")]
    Shards {
        /// Which, without its password.
        database: String,
        /// What is written there.
        shards: i32,
    },
    /// A server cannot be reached, or not be used as it is. May be tried again.
    #[error("journal in {database}: {reason}")]
    Unavailable {
        /// Which, without its password.
        database: String,
        /// What it said.
        reason: String,
    },
}

impl PostgresJournal {
    /// Opens the store in these databases (`postgres://user:password@host:5432/database`), or makes a new one, with
    /// [`Options::shards`], of databases that belong to none. Their number and order are part of the store. To be called in the runtime that is
    /// to run the jobs.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub async fn open(
        urls: &[String],
        options: Options,
        runtime: &Runtime,
    ) -> Result<PostgresJournal, OpenError> {
        let owner = OwnerId::new(&*runtime.entropy);
        let mut databases = Vec::with_capacity(urls.len());
        for url in urls {
            let target = Target::parse(url, &link::session(options.connect_within))?;
            databases.push(Arc::new(Database::new(target, owner, runtime.jobs.clone(), options.clone())));
        }
        let mut connections = Vec::with_capacity(databases.len());
        for database in &databases {
            let within = options.connect_within;
            let opened = tokio::time::timeout(within, prepare(database)).await;
            connections.push(opened.unwrap_or_else(|_| Err(unavailable(database, &Trouble::Slow(within))))?);
        }
        let pairs = databases.iter().map(|database| &**database).zip(&connections).collect::<Vec<_>>();
        let identified = store::identify(&pairs, options.shards.get(), &*runtime.entropy).await;
        let whole =
            databases.iter().map(|database| database.target.to_string()).collect::<Vec<_>>().join(", ");
        let identified = identified.map_err(|trouble| OpenError::Unavailable {
            database: whole.clone(),
            reason: trouble.reason(),
        })?;
        let store = identified.map_err(|reason| OpenError::Databases { reason })?;
        let shards = u16::try_from(store.shards).ok().and_then(ShardCount::new);
        let shards = shards.ok_or(OpenError::Shards { database: whole, shards: store.shards })?;
        for (database, open) in pairs {
            database.store.get_or_init(|| store.id);
            segment::ensure_first(open, database).await.map_err(|trouble| unavailable(database, &trouble))?;
        }
        let retry_after = options.retry_after;
        Ok(PostgresJournal { places: databases.into_iter().map(start).collect(), shards, retry_after })
    }
}

/// The first connection to a database, and the tables there.
async fn prepare(database: &Database) -> Result<Open, OpenError> {
    let open = Open::raw(database).await.map_err(|trouble| unavailable(database, &trouble))?;
    open.settle(&database.options).await.map_err(|trouble| unavailable(database, &trouble))?;
    match SCHEMA.prepare(&open.client).await {
        Ok(()) => Ok(open),
        Err(SchemaError::Postgres(error)) => Err(unavailable(database, &Trouble::Postgres(error))),
        Err(
            source @ (SchemaError::Newer { .. } | SchemaError::Foreign { .. } | SchemaError::Unfit { .. }),
        ) => Err(OpenError::Schema { database: database.target.to_string(), source }),
    }
}

fn unavailable(database: &Database, trouble: &Trouble) -> OpenError {
    OpenError::Unavailable { database: database.target.to_string(), reason: trouble.reason() }
}

fn start(database: Arc<Database>) -> Place {
    let options = &database.options;
    let queue = Arc::new(Queue::new(Limits {
        queue_bytes_max: options.queue_bytes_max,
        group_bytes_max: options.group_bytes_max,
        group_records_max: options.group_records_max,
        group_beside_min: options.group_beside_min,
        retry_after: options.retry_after,
    }));
    Place {
        readers: Lane::start(&database, options.readers),
        keepers: Lane::start(&database, options.keepers),
        _writers: Writers::start(&database, &queue),
        _keeper: Keeper::start(&database),
        queue,
        database,
    }
}
