//! The reference: a journal in SQLite, simple enough to be seen to be right.
//!
//! Owns: the same promises as every backend, one transaction a call. Never: is fast, or runs in production.
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use kapell_journal::{
    AcquireError, Acquired, AppendDone, AppendError, Batch, Journal, Placed, ReadError, Record, RunImage,
};
use kapell_model::{Epoch, RunId, Seq, ShardId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS shard (
        shard INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, last INTEGER NOT NULL,
        checkpointed INTEGER NOT NULL, trimmed INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS record (
        shard INTEGER NOT NULL, seq INTEGER NOT NULL, run BLOB NOT NULL, payload BLOB NOT NULL,
        PRIMARY KEY (shard, seq));
    CREATE INDEX IF NOT EXISTS record_by_run ON record (run, seq);
    CREATE TABLE IF NOT EXISTS image (
        shard INTEGER NOT NULL, run BLOB NOT NULL, state BLOB NOT NULL, PRIMARY KEY (shard, run));
";
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// See the module.
pub struct SqliteJournal {
    connection: Mutex<Connection>,
    /// Shards that may be written: acquired here, and nothing failed since.
    open: Mutex<BTreeSet<ShardId>>,
}

#[derive(Clone, Copy)]
struct ShardRow {
    epoch: Epoch,
    last: Seq,
    checkpointed: Seq,
    trimmed: Seq,
}

fn unread(error: &rusqlite::Error) -> ReadError {
    ReadError::Unavailable { reason: error.to_string(), retry_after: RETRY_AFTER }
}

fn unwritten(error: &rusqlite::Error) -> AppendError {
    AppendError::Unavailable { reason: error.to_string(), retry_after: RETRY_AFTER }
}

impl SqliteJournal {
    /// Opens or creates the database.
    pub fn open(path: &Path) -> Result<SqliteJournal, rusqlite::Error> {
        let connection = Connection::open(path)?;
        connection.execute_batch(SCHEMA)?;
        Ok(SqliteJournal { connection: Mutex::new(connection), open: Mutex::new(BTreeSet::new()) })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().expect("no panic while it is held")
    }

    fn shards_open(&self) -> MutexGuard<'_, BTreeSet<ShardId>> {
        self.open.lock().expect("no panic while it is held")
    }

    /// The shard, if `epoch` may act for it.
    fn admit(&self, connection: &Connection, shard: ShardId, epoch: Epoch) -> Result<ShardRow, AppendError> {
        let row = shard_row(connection, shard).map_err(|error| unwritten(&error))?;
        if row.epoch != epoch {
            return Err(AppendError::Fenced { held_by: row.epoch });
        }
        if !self.shards_open().contains(&shard) {
            return Err(AppendError::Poisoned);
        }
        Ok(row)
    }

    fn try_append(&self, batch: &Batch) -> Result<(), AppendError> {
        let mut connection = self.connection();
        let row = self.admit(&connection, batch.shard, batch.epoch)?;
        let written = if batch.first == row.last.next() {
            insert(&mut connection, batch).map_err(|error| unwritten(&error))
        } else {
            Err(AppendError::OutOfOrder { expected: row.last.next(), got: batch.first })
        };
        if written.is_err() {
            self.shards_open().remove(&batch.shard);
        }
        written
    }

    fn try_acquire(&self, shard: ShardId, epoch: Epoch) -> Result<Acquired, AcquireError> {
        let connection = self.connection();
        let row = shard_row(&connection, shard).map_err(|error| unread(&error))?;
        if row.epoch > epoch {
            return Err(AcquireError::Fenced { held_by: row.epoch });
        }
        let upsert =
            "INSERT INTO shard VALUES (?1, ?2, 0, 0, 0) ON CONFLICT (shard) DO UPDATE SET epoch = ?2";
        connection.execute(upsert, params![shard.0, epoch.0 as i64]).map_err(|error| unread(&error))?;
        self.shards_open().insert(shard);
        Ok(Acquired { last: row.last, checkpointed: row.checkpointed, trimmed: row.trimmed })
    }

    fn try_checkpoint(
        &self,
        shard: ShardId,
        epoch: Epoch,
        through: Seq,
        changed: &[RunImage],
    ) -> Result<(), AppendError> {
        let mut connection = self.connection();
        let row = self.admit(&connection, shard, epoch)?;
        if through < row.checkpointed {
            return Err(AppendError::OutOfOrder { expected: row.checkpointed, got: through });
        }
        if through > row.last {
            return Err(AppendError::OutOfOrder { expected: row.last, got: through });
        }
        store_images(&mut connection, shard, through, changed).map_err(|error| unwritten(&error))
    }

    fn try_trim(&self, shard: ShardId, epoch: Epoch, through: Seq) -> Result<(), AppendError> {
        let mut connection = self.connection();
        let row = self.admit(&connection, shard, epoch)?;
        if through > row.checkpointed {
            return Err(AppendError::OutOfOrder { expected: row.checkpointed, got: through });
        }
        delete_through(&mut connection, shard, through.max(row.trimmed)).map_err(|error| unwritten(&error))
    }

    fn try_read(&self, shard: ShardId, after: Seq) -> Result<Vec<Placed>, ReadError> {
        let connection = self.connection();
        let row = shard_row(&connection, shard).map_err(|error| unread(&error))?;
        if after < row.trimmed {
            return Err(ReadError::Trimmed { through: row.trimmed });
        }
        let select = "SELECT seq, run, payload FROM record WHERE shard = ?1 AND seq > ?2 ORDER BY seq";
        let mut statement = connection.prepare(select).map_err(|error| unread(&error))?;
        let found = statement.query_map(params![shard.0, after.0 as i64], placed);
        found.and_then(Iterator::collect).map_err(|error| unread(&error))
    }

    fn try_history(&self, run: RunId) -> Result<Vec<Placed>, ReadError> {
        let connection = self.connection();
        let select = "SELECT seq, run, payload FROM record WHERE run = ?1 ORDER BY seq";
        let mut statement = connection.prepare(select).map_err(|error| unread(&error))?;
        let found = statement.query_map(params![run.to_bytes()], placed);
        found.and_then(Iterator::collect).map_err(|error| unread(&error))
    }

    fn try_images(&self, shard: ShardId) -> Result<Vec<RunImage>, ReadError> {
        let connection = self.connection();
        let select = "SELECT run, state FROM image WHERE shard = ?1 ORDER BY run";
        let mut statement = connection.prepare(select).map_err(|error| unread(&error))?;
        let found = statement.query_map(params![shard.0], |row| {
            let state: Vec<u8> = row.get(1)?;
            Ok(RunImage { run: RunId::from_bytes(row.get(0)?), state: Some(Bytes::from(state)) })
        });
        found.and_then(Iterator::collect).map_err(|error| unread(&error))
    }
}

fn shard_row(connection: &Connection, shard: ShardId) -> Result<ShardRow, rusqlite::Error> {
    let select = "SELECT epoch, last, checkpointed, trimmed FROM shard WHERE shard = ?1";
    let found = connection.query_row(select, params![shard.0], |row| {
        let number = |at| Ok::<u64, rusqlite::Error>(row.get::<_, i64>(at)? as u64);
        Ok(ShardRow {
            epoch: Epoch(number(0)?),
            last: Seq(number(1)?),
            checkpointed: Seq(number(2)?),
            trimmed: Seq(number(3)?),
        })
    });
    let new = ShardRow { epoch: Epoch(0), last: Seq::ZERO, checkpointed: Seq::ZERO, trimmed: Seq::ZERO };
    Ok(found.optional()?.unwrap_or(new))
}

fn placed(row: &Row<'_>) -> Result<Placed, rusqlite::Error> {
    let payload: Vec<u8> = row.get(2)?;
    let record = Record { run: RunId::from_bytes(row.get(1)?), payload: Bytes::from(payload) };
    Ok(Placed { seq: Seq(row.get::<_, i64>(0)? as u64), record })
}

fn insert(connection: &mut Connection, batch: &Batch) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction()?;
    let mut seq = batch.first;
    for record in &batch.records {
        let values = params![batch.shard.0, seq.0 as i64, record.run.to_bytes(), record.payload.as_ref()];
        transaction.execute("INSERT INTO record VALUES (?1, ?2, ?3, ?4)", values)?;
        seq = seq.next();
    }
    let last = seq.0 as i64 - 1;
    transaction.execute("UPDATE shard SET last = ?2 WHERE shard = ?1", params![batch.shard.0, last])?;
    transaction.commit()
}

fn store_images(
    connection: &mut Connection,
    shard: ShardId,
    through: Seq,
    changed: &[RunImage],
) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction()?;
    for image in changed {
        let run = image.run.to_bytes();
        match &image.state {
            Some(state) => transaction.execute(
                "INSERT OR REPLACE INTO image VALUES (?1, ?2, ?3)",
                params![shard.0, run, state.as_ref()],
            )?,
            None => transaction
                .execute("DELETE FROM image WHERE shard = ?1 AND run = ?2", params![shard.0, run])?,
        };
    }
    let values = params![shard.0, through.0 as i64];
    transaction.execute("UPDATE shard SET checkpointed = ?2 WHERE shard = ?1", values)?;
    transaction.commit()
}

fn delete_through(connection: &mut Connection, shard: ShardId, through: Seq) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction()?;
    let values = params![shard.0, through.0 as i64];
    transaction.execute("DELETE FROM record WHERE shard = ?1 AND seq <= ?2", values)?;
    transaction.execute("UPDATE shard SET trimmed = ?2 WHERE shard = ?1", values)?;
    transaction.commit()
}

fn now<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(answer))
}

fn streamed<T: Send + 'static>(found: Result<Vec<T>, ReadError>) -> BoxStream<'static, Result<T, ReadError>> {
    match found {
        Ok(all) => stream::iter(all.into_iter().map(Ok)).boxed(),
        Err(error) => stream::iter([Err(error)]).boxed(),
    }
}

impl Journal for SqliteJournal {
    fn epoch(&self, shard: ShardId) -> BoxFuture<'_, Result<Epoch, ReadError>> {
        now(shard_row(&self.connection(), shard).map(|row| row.epoch).map_err(|error| unread(&error)))
    }
    fn acquire(&self, shard: ShardId, epoch: Epoch) -> BoxFuture<'_, Result<Acquired, AcquireError>> {
        now(self.try_acquire(shard, epoch))
    }
    fn append(&self, batch: Batch, done: AppendDone) {
        done(self.try_append(&batch));
    }
    fn read(&self, shard: ShardId, after: Seq) -> BoxStream<'_, Result<Placed, ReadError>> {
        streamed(self.try_read(shard, after))
    }
    fn history(&self, run: RunId) -> BoxFuture<'_, Result<Vec<Placed>, ReadError>> {
        now(self.try_history(run))
    }
    fn checkpoint(
        &self,
        shard: ShardId,
        epoch: Epoch,
        through: Seq,
        changed: Vec<RunImage>,
    ) -> BoxFuture<'_, Result<(), AppendError>> {
        now(self.try_checkpoint(shard, epoch, through, &changed))
    }
    fn images(&self, shard: ShardId) -> BoxStream<'_, Result<RunImage, ReadError>> {
        streamed(self.try_images(shard))
    }
    fn trim(&self, shard: ShardId, epoch: Epoch, through: Seq) -> BoxFuture<'_, Result<(), AppendError>> {
        now(self.try_trim(shard, epoch, through))
    }
}
