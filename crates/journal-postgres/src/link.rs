//! Links: one connection each, made anew when it was lost.
//!
//! Owns: what a connection must be before anything is sent over it. Never: uses a connection again on which something
//! went wrong: closing it is the one rollback that always works.
use std::sync::Arc;
use std::time::Duration;

use kapell_postgres::{Leash, Session, describe, leash};
use kapell_runtime::{Job, OnDeath};
use tokio::time::Instant;
use tokio_postgres::{Client, Statement};

use crate::database::Database;
use crate::options::{Fsync, Options};
use crate::trouble::Trouble;
use crate::value::RunKey;

/// How often a segment may be dropped under a reader before it gives up.
const DROPPED_TRIED: usize = 8;

/// Carries one connection's bytes; the link that uses it notices its death.
const CONNECTION: Job = Job { name: "journal-connection", on_panic: OnDeath::Log };

/// Settings of every session. Each statement finds its rows by an index, so statistics that are out of date must not
/// talk the planner into reading a whole table. What a node leaves behind that is cut off ends before another one has
/// waited for long.
pub(crate) fn session(connect_within: Duration) -> Session {
    Session {
        application_name: "kapell-journal",
        options: "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_sort=off -c jit=off \
             -c max_parallel_workers_per_gather=0 -c plan_cache_mode=force_generic_plan \
             -c default_transaction_isolation=read\\ committed -c lock_timeout=10s \
             -c idle_in_transaction_session_timeout=15s -c tcp_keepalives_idle=10 \
             -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
        connect_within,
    }
}

/// A connection that may be used.
pub(crate) struct Open {
    pub(crate) client: Client,
    /// The insert that was prepared last, and for which segment.
    pub(crate) insert: Option<(i32, Statement)>,
    _leash: Leash,
}

impl Open {
    /// A connection of which nothing is known yet.
    pub(crate) async fn raw(database: &Database) -> Result<Open, Trouble> {
        let (client, connection) = database.target.connect().await?;
        let (leash, connection) = leash(connection);
        database.jobs.spawn(CONNECTION, async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = describe(&error), "a connection of the journal ended");
            }
        });
        Ok(Open { client, insert: None, _leash: leash })
    }

    /// Makes sure that what is answered is on disk.
    pub(crate) async fn settle(&self, options: &Options) -> Result<(), Trouble> {
        let sql =
            "SELECT current_setting('fsync'), current_setting('synchronous_commit'), pg_is_in_recovery()";
        let rows = self.client.query_typed(sql, &[]).await?;
        let Some(row) = rows.first() else {
            return Err(Trouble::Unfit("PostgreSQL shows no settings".to_owned()));
        };
        let (flushes, commits, standby): (&str, &str, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if standby {
            return Err(Trouble::Unfit("the server is a standby and takes no writes".to_owned()));
        }
        if flushes != "on" && options.fsync == Fsync::Required {
            let reason = "the server has fsync=off and would lose what it has accepted; set fsync=on";
            return Err(Trouble::Unfit(reason.to_owned()));
        }
        // A stronger one is kept.
        let commits = if matches!(commits, "on" | "remote_apply") { commits } else { "on" };
        let within = options.answer_within.as_millis();
        let set = format!("SET synchronous_commit = {commits}; SET statement_timeout = {within}");
        self.client.batch_execute(&set).await?;
        // It ends the statement of a client that is gone. Not every system that PostgreSQL runs on can tell.
        let watch = self.client.batch_execute("SET client_connection_check_interval = '5s'").await;
        match watch {
            Err(error) if error.code().is_none() => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A node must not go on with another store that took the place of its own.
    async fn check_store(&self, database: &Database) -> Result<(), Trouble> {
        let rows = self.client.query_typed("SELECT id FROM kapell_journal.store", &[]).await?;
        let found = rows.first().map(|row| row.try_get::<_, RunKey>(0)).transpose()?;
        if found.map(|key| key.0.to_bytes()) == database.store.get().copied() {
            return Ok(());
        }
        let place = &database.target;
        Err(Trouble::Unfit(format!("{place} is not the database that it was when this node started")))
    }
}

/// One connection, or none at the moment.
pub(crate) struct Link {
    pub(crate) database: Arc<Database>,
    open: Option<Open>,
    /// Why it could not be made, and until when nobody tries again.
    failed: Option<(Instant, String)>,
}

/// Something that is done with a connection, and may be done twice.
pub(crate) trait Work: Send + Sync {
    /// What comes of it.
    type Answer: Send;

    /// Does it. After an error the connection is not used again.
    fn run(
        &self,
        open: &mut Open,
        database: &Database,
    ) -> impl Future<Output = Result<Self::Answer, Trouble>> + Send;
}

impl Link {
    pub(crate) fn new(database: &Arc<Database>) -> Link {
        Link { database: database.clone(), open: None, failed: None }
    }

    /// The connection, made if need be.
    pub(crate) async fn open(&mut self) -> Result<&mut Open, Trouble> {
        if self.open.take_if(|open| open.client.is_closed()).is_some() {
            tracing::debug!(database = %self.database.target, "a connection of the journal was lost");
        }
        match self.open {
            Some(ref mut open) => Ok(open),
            None => {
                let open = self.connect().await?;
                Ok(self.open.insert(open))
            }
        }
    }

    /// Closes the connection.
    pub(crate) fn discard(&mut self) {
        self.open = None;
    }

    async fn connect(&mut self) -> Result<Open, Trouble> {
        if let Some((until, reason)) = &self.failed
            && Instant::now() < *until
        {
            return Err(Trouble::Unfit(reason.clone()));
        }
        self.failed = None;
        let database = self.database.clone();
        let connect = async {
            let open = Open::raw(&database).await?;
            open.settle(&database.options).await?;
            open.check_store(&database).await?;
            Ok(open)
        };
        let within = database.options.connect_within;
        let connected = tokio::time::timeout(within, connect).await.unwrap_or(Err(Trouble::Slow(within)));
        connected.inspect_err(|trouble| {
            self.failed = Some((Instant::now() + database.options.retry_after, trouble.reason()));
        })
    }

    /// Does some work. A connection on which it fails is not used again; if it had been lost since its last use, or a
    /// segment that was to be read was dropped, the work is done again.
    pub(crate) async fn run<W: Work>(&mut self, work: &W) -> Result<W::Answer, Trouble> {
        self.run_within(work, self.database.patience()).await
    }

    /// The same for work that may take long.
    pub(crate) async fn run_within<W: Work>(
        &mut self,
        work: &W,
        within: Duration,
    ) -> Result<W::Answer, Trouble> {
        let mut tried = 1;
        loop {
            // After a failure it is a new one.
            let was_used = self.open.is_some();
            match self.attempt(work, within).await {
                Err(trouble) if was_used && trouble.is_loss() => {}
                Err(trouble) if trouble.is_dropped() && tried < DROPPED_TRIED => {}
                outcome => return outcome,
            }
            tried += 1;
        }
    }

    async fn attempt<W: Work>(&mut self, work: &W, within: Duration) -> Result<W::Answer, Trouble> {
        let database = self.database.clone();
        let open = self.open().await?;
        let outcome = tokio::time::timeout(within, work.run(open, &database)).await;
        let outcome = outcome.unwrap_or(Err(Trouble::Slow(within)));
        if outcome.is_err() {
            self.discard();
        }
        outcome
    }
}
