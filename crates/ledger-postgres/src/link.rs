//! Links: one connection each, made anew when it was lost.
//!
//! Owns: the settings of a session, and how often a server that does not answer is asked. Never: uses a connection
//! again on which something went wrong: closing it is the one rollback that always works.
use std::future::Future;
use std::time::Duration;

use kapell_ledger::LedgerError;
use kapell_postgres::{Leash, Session, Target, Todo, describe, leash};
use kapell_runtime::{Job, Jobs, OnDeath};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::schema::SCHEMA;
use crate::trouble::{RETRY_AFTER, Trouble};

/// Carries one connection's bytes; the link that uses it notices its death.
const CONNECTION: Job = Job { name: "ledger-connection", on_panic: OnDeath::Log };
/// Longest time to reach a server and to look at its tables.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Every statement of the ledger looks rows up by an index, so statistics that are out of date must not talk the
/// planner into reading a whole table. What a node leaves behind that is cut off ends before another one has waited
/// for long.
const SESSION: Session = Session {
    application_name: "kapell-ledger",
    options: "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off \
         -c jit=off -c max_parallel_workers_per_gather=0 -c statement_timeout=60s \
         -c idle_in_transaction_session_timeout=15s -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 \
         -c tcp_keepalives_count=3",
    connect_within: OPEN_WITHIN,
};

/// Where the ledger is.
#[derive(Clone)]
pub(crate) struct Place {
    target: Target,
    jobs: Jobs,
}

impl Place {
    pub(crate) fn new(url: &str, jobs: &Jobs) -> Result<Place, LedgerError> {
        let target = Target::parse(url, &SESSION);
        let target = target.map_err(|error| LedgerError::Misplaced { reason: error.to_string() })?;
        Ok(Place { target, jobs: jobs.clone() })
    }

    async fn connect(&self) -> Result<Open, Trouble> {
        let (client, connection) = self.target.connect().await?;
        let (leash, connection) = leash(connection);
        self.jobs.spawn(CONNECTION, async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = describe(&error), "a connection of the ledger ended");
            }
        });
        Ok(Open { client, _leash: leash })
    }

    /// A connection to tables that are as they should be.
    pub(crate) async fn open(&self) -> Result<Open, Trouble> {
        let look = async {
            let open = self.connect().await?;
            let todo = SCHEMA.check(&open.client).await?;
            Ok((open, todo))
        };
        let looked = tokio::time::timeout(OPEN_WITHIN, look).await;
        let (open, todo) = looked.unwrap_or(Err(Trouble::Slow(OPEN_WITHIN)))?;
        match todo {
            Todo::Nothing => {}
            Todo::Migrate => SCHEMA.migrate(&open.client).await?,
        }
        Ok(open)
    }

    /// Deletes the tables.
    pub(crate) async fn clear(&self) -> Result<(), Trouble> {
        let open = self.connect().await?;
        Ok(SCHEMA.remove(&open.client).await?)
    }
}

/// A connection, which ends with this.
pub(crate) struct Open {
    pub(crate) client: Client,
    _leash: Leash,
}

/// Something to do with a connection, which may be done twice.
pub(crate) trait Work: Sync {
    type Answer: Send;

    fn once(&self, client: &Client) -> impl Future<Output = Result<Self::Answer, Trouble>> + Send;
}

/// One connection, or none at the moment.
pub(crate) struct Link {
    place: Place,
    open: Option<Open>,
    /// Why it could not be made, and until when nobody tries again.
    failed: Option<(Instant, LedgerError)>,
}

impl Link {
    pub(crate) fn new(place: Place) -> Link {
        Link { place, open: None, failed: None }
    }

    /// Makes the connection now.
    pub(crate) async fn open_now(&mut self) -> Result<(), LedgerError> {
        self.client().await.map(|_| ())
    }

    /// The connection, made if need be.
    async fn client(&mut self) -> Result<&Client, LedgerError> {
        if self.open.take_if(|open| open.client.is_closed()).is_some() {
            tracing::debug!("the ledger's connection was lost and is made anew");
        }
        match self.open {
            Some(ref open) => Ok(&open.client),
            None => {
                let open = self.connect().await?;
                Ok(&self.open.insert(open).client)
            }
        }
    }

    async fn connect(&mut self) -> Result<Open, LedgerError> {
        if let Some((until, error)) = &self.failed
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        self.failed = None;
        self.place.open().await.map_err(|trouble| {
            let error = trouble.answer();
            self.failed = Some((Instant::now() + RETRY_AFTER, error.clone()));
            error
        })
    }

    /// Does some work with the connection. One on which it fails is not used again; if it had been lost since its last
    /// use, the work is done with a new one.
    pub(crate) async fn run<W: Work>(&mut self, within: Duration, work: &W) -> Result<W::Answer, Trouble> {
        let was_used = self.open.is_some();
        match self.attempt(within, work).await {
            Err(trouble) if was_used && trouble.is_loss() => self.attempt(within, work).await,
            outcome => outcome,
        }
    }

    async fn attempt<W: Work>(&mut self, within: Duration, work: &W) -> Result<W::Answer, Trouble> {
        let client = self.client().await.map_err(Trouble::Answered)?;
        let outcome = tokio::time::timeout(within, work.once(client)).await;
        let outcome = outcome.unwrap_or(Err(Trouble::Slow(within)));
        if outcome.is_err() {
            self.open = None;
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
