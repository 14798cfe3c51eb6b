//! The ledger in PostgreSQL: shared by all coordinators of a cluster, rebuilt from the journal whenever it is lost.
//!
//! Owns: the schema `kapell_ledger` of one database, and the few connections of one node. Never: holds what the
//! journal does not, or touches another schema.
//!
//! A commit is flushed as the server is told to; a group of batches shares one. Connections are made when they are
//! needed and made anew when they were lost; whoever asked meanwhile is told when to ask again.
mod known;
mod lane;
mod link;
mod list;
mod read;
mod row;
mod schema;
mod sheet;
mod text;
mod trouble;
mod write;

use std::future::ready;
use std::sync::Arc;

use futures::future::BoxFuture;
use kapell_ledger::cursor::{self, List};
use kapell_ledger::{
    ApprovalQuery, ApprovalRow, Ledger, LedgerBatch, LedgerError, Page, Rebuild, RunQuery, RunRow,
};
use kapell_model::{RunId, Seq, ShardId};
use kapell_runtime::Jobs;

use known::Known;
use lane::{Queue, Read, Write};
use link::{Link, Place};
use read::{One, PageOf, Watermark};
use trouble::Trouble;

/// Connections to the server that one [`PostgresLedger`] takes at most.
pub const CONNECTIONS: usize = lane::CONNECTIONS;

/// See the crate. Dropped, its jobs finish what is queued and end.
pub struct PostgresLedger {
    writer: Queue<Write>,
    readers: Queue<Read>,
}

impl PostgresLedger {
    /// Connects to the database at `url` (`postgres://user:password@host:5432/database`) and makes the tables there, or
    /// brings older ones to the version of this program. To be called in the runtime that is to run the jobs.
    ///
    /// # Errors
    /// `Misplaced`: there is no such database, or this user may not keep a ledger there; nothing was changed.
    /// `Unreadable`: a newer program made the tables. `Unavailable`: the server does not answer; to be tried again.
    pub async fn open(url: &str, jobs: &Jobs) -> Result<PostgresLedger, LedgerError> {
        let place = Place::new(url, jobs)?;
        let mut writer = Link::new(place.clone());
        writer.open_now().await?;
        let known = Arc::new(Known::default());
        let reader = || Link::new(place.clone());
        Ok(PostgresLedger {
            readers: lane::start_readers(jobs, reader, &known),
            writer: lane::start_writer(jobs, writer, known),
        })
    }

    /// Deletes the tables, which nobody should use, so that [`PostgresLedger::open`] makes new ones. For tables that a
    /// newer program made, or that are damaged. None is fine.
    ///
    /// # Errors
    /// `Misplaced`: the schema is not the ledger's. `Unavailable`: the server does not answer.
    pub async fn remove(url: &str, jobs: &Jobs) -> Result<(), LedgerError> {
        Place::new(url, jobs)?.clear().await.map_err(Trouble::answer)
    }
}

impl Ledger for PostgresLedger {
    fn watermark(&self, shard: ShardId) -> BoxFuture<'_, Result<Seq, LedgerError>> {
        self.readers.send(|respond| Read::Watermark(Watermark(shard), respond))
    }

    fn contained(&self, shard: ShardId) -> BoxFuture<'_, Result<Seq, LedgerError>> {
        self.readers.send(|respond| Read::Contained(Watermark(shard), respond))
    }

    fn apply(&self, batch: LedgerBatch) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.writer.send(|respond| Write::Apply(batch.slim(), respond))
    }

    fn runs(&self, query: RunQuery) -> BoxFuture<'_, Result<Page<RunRow>, LedgerError>> {
        match query.cursor.as_ref().map(|cursor| cursor::read(List::Runs, cursor)).transpose() {
            Ok(after) => self.readers.send(|respond| Read::Runs(Box::new(PageOf { query, after }), respond)),
            Err(bad) => Box::pin(ready(Err(bad))),
        }
    }

    fn run(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunRow>, LedgerError>> {
        self.readers.send(|respond| Read::Run(One(run), respond))
    }

    fn approvals(
        &self,
        query: ApprovalQuery,
    ) -> BoxFuture<'_, Result<Page<(RunRow, ApprovalRow)>, LedgerError>> {
        match query.cursor.as_ref().map(|cursor| cursor::read(List::Approvals, cursor)).transpose() {
            Ok(after) => {
                self.readers.send(|respond| Read::Approvals(Box::new(PageOf { query, after }), respond))
            }
            Err(bad) => Box::pin(ready(Err(bad))),
        }
    }

    fn replace(&self, rebuild: Rebuild) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.writer.send(|respond| Write::Replace(rebuild.slim(), respond))
    }
}
