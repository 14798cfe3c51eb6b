//! The ledger in SQLite: one file, rebuilt from the journal whenever it is lost.
//!
//! Owns: the file, its two connections and the threads that use them. Never: blocks an async worker, is asked for what
//! must be fresh, or touches a file that is not a ledger.
//!
//! A commit is not flushed by itself (`synchronous = NORMAL`): after a power loss the file is older but whole, and its
//! watermarks say from where to apply again.
mod lane;
mod list;
mod read;
mod row;
mod schema;
mod trouble;
mod write;

use std::future::ready;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use futures::future::BoxFuture;
use kapell_ledger::cursor::{self, List};
use kapell_ledger::{
    ApprovalQuery, ApprovalRow, Ledger, LedgerBatch, LedgerError, Page, Rebuild, RunQuery, RunRow,
};
use kapell_model::{RunId, Seq, ShardId};
use rusqlite::Connection;

use lane::{Lane, Read, Write};
use trouble::Trouble;

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Two threads of the ledger: one writes, one reads. For production.
    Thread,
    /// The caller, inside the call, blocking: nothing happens that was not asked for. For simulation and tests.
    Inline,
}

enum Work {
    Thread { writer: Lane<Write>, reader: Lane<Read> },
    Inline(Mutex<Connection>),
}

/// See the crate. Dropped, it finishes what is queued.
pub struct SqliteLedger(Work);

impl SqliteLedger {
    /// Opens the ledger at `path`, or creates it; the directory must exist.
    ///
    /// # Errors
    /// `Misplaced`: the file is not a ledger or cannot be written there; nothing was changed. `Unreadable`: it is a
    /// ledger, but damaged or of another version. `Unavailable`: another process holds it.
    pub fn open(path: &Path, mode: Mode) -> Result<SqliteLedger, LedgerError> {
        let writer = schema::open_writer(path)?;
        Ok(SqliteLedger(match mode {
            Mode::Inline => Work::Inline(Mutex::new(writer)),
            Mode::Thread => {
                let reader = Lane::reader(schema::open_reader(path)?)?;
                Work::Thread { writer: Lane::writer(writer)?, reader }
            }
        }))
    }

    /// A ledger without a file, inline, that ends with this value.
    ///
    /// # Errors
    /// `Unavailable`: no memory.
    pub fn in_memory() -> Result<SqliteLedger, LedgerError> {
        Ok(SqliteLedger(Work::Inline(Mutex::new(schema::open_in_memory()?))))
    }

    /// Deletes the ledger at `path`, which nobody may have open, so that [`SqliteLedger::open`] makes a new one. What
    /// `kapell ledger rebuild` does when the file cannot be opened. No file is fine.
    ///
    /// # Errors
    /// `Misplaced`: the file does not bear the mark of a ledger, or cannot be deleted.
    pub fn remove(path: &Path) -> Result<(), LedgerError> {
        schema::remove(path)
    }

    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> Result<T, Trouble> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, LedgerError>> {
        match &self.0 {
            Work::Inline(conn) => Box::pin(ready(inline(conn, read))),
            Work::Thread { reader, .. } => reader.read(move |conn| read(conn).map_err(Trouble::answer)),
        }
    }
}

fn inline<T>(
    conn: &Mutex<Connection>,
    job: impl FnOnce(&mut Connection) -> Result<T, Trouble>,
) -> Result<T, LedgerError> {
    // A panic leaves no transaction behind: it is rolled back when it is dropped.
    let mut conn = conn.lock().unwrap_or_else(PoisonError::into_inner);
    job(&mut conn).map_err(Trouble::answer)
}

impl Ledger for SqliteLedger {
    fn watermark(&self, shard: ShardId) -> BoxFuture<'_, Result<Seq, LedgerError>> {
        self.read(move |conn| read::watermark(conn, shard))
    }

    fn apply(&self, batch: LedgerBatch) -> BoxFuture<'_, Result<(), LedgerError>> {
        let batch = batch.slim();
        match &self.0 {
            Work::Inline(conn) => {
                Box::pin(ready(inline(conn, |conn| write::apply(conn, [&batch].into_iter()))))
            }
            Work::Thread { writer, .. } => writer.apply(batch),
        }
    }

    fn runs(&self, query: RunQuery) -> BoxFuture<'_, Result<Page<RunRow>, LedgerError>> {
        match query.cursor.as_ref().map(|cursor| cursor::read(List::Runs, cursor)).transpose() {
            Ok(after) => self.read(move |conn| read::runs(conn, &query, after.as_ref())),
            Err(bad) => Box::pin(ready(Err(bad))),
        }
    }

    fn run(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunRow>, LedgerError>> {
        self.read(move |conn| read::run(conn, run))
    }

    fn approvals(
        &self,
        query: ApprovalQuery,
    ) -> BoxFuture<'_, Result<Page<(RunRow, ApprovalRow)>, LedgerError>> {
        match query.cursor.as_ref().map(|cursor| cursor::read(List::Approvals, cursor)).transpose() {
            Ok(after) => self.read(move |conn| read::approvals(conn, &query, after.as_ref())),
            Err(bad) => Box::pin(ready(Err(bad))),
        }
    }

    fn replace(&self, rebuild: Rebuild) -> BoxFuture<'_, Result<(), LedgerError>> {
        let rebuild = rebuild.slim();
        match &self.0 {
            Work::Inline(conn) => Box::pin(ready(inline(conn, |conn| write::replace(conn, &rebuild)))),
            Work::Thread { writer, .. } => writer.replace(rebuild),
        }
    }
}
