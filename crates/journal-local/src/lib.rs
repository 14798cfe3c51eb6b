//! The journal of one machine: a segmented append log shared by all shards of a node.
//!
//! Owns: the files of the data directory, group commit, what survives a crash and what damage looks like. Never: knows
//! what an entry means, draws a clock, or answers an append before its bytes are flushed.
//!
//! Format and reasons: docs/adr/0002-local-journal-format.md. What to do about damage: docs/errors/journal-corrupt.md.
mod checkpoint;
mod disk;
mod engine;
#[cfg(feature = "fault")]
pub mod fault;
mod frame;
mod group;
mod index;
mod keep;
mod lane;
mod names;
mod open;
mod options;
mod read;
mod scan;
mod segment;
mod shared;
mod table;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kapell_journal::{
    AcquireError, Acquired, AppendDone, AppendError, Batch, Done, Journal, Placed, ReadError, RunImage,
};
use kapell_model::{Epoch, RunId, Seq, ShardId};

pub use disk::{DirError, Disk, DiskFile, RealDisk};
pub use open::OpenError;
pub use options::Options;

use engine::{Append, Engine, Item, Reply};
use lane::{Jobs, Limits, TooMany, Writer};
use read::Cursor;
use segment::{Active, Chore, Chores};
use shared::{Shared, lock};

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Threads of the journal: a writer, one for chores around it, one that reads, one for checkpoints. A lone append is
    /// written by its caller (docs/adr/0012-a-lone-append.md). For production.
    Thread,
    /// The caller, inside the call: nothing happens that was not asked for. For simulation and crash-point tests.
    Inline,
}

enum Writing {
    // Boxed: the engine is much larger than a handle to the thread.
    Inline(Box<Mutex<Engine>>),
    Thread(Writer),
}

/// See the crate. Dropped, it finishes what is queued.
pub struct LocalJournal {
    writing: Writing,
    reading: Jobs,
    keeping: Jobs,
    shared: Arc<Shared>,
}

impl LocalJournal {
    /// Opens the journal in `disk`, or creates it. Cuts a torn tail; refuses damage.
    pub fn open(disk: Arc<dyn Disk>, options: Options, driver: Driver) -> Result<LocalJournal, OpenError> {
        let place = disk.place();
        let (shared, active) = open::open(disk, options)?;
        match driver {
            Driver::Inline => Ok(LocalJournal::inline(shared, active)),
            Driver::Thread => LocalJournal::threads(shared, active)
                .map_err(|error| OpenError::Write { place, reason: format!("thread: {error}") }),
        }
    }

    fn inline(shared: Arc<Shared>, active: Active) -> LocalJournal {
        seal_leftovers(&shared, &Chores::Inline);
        let engine = Engine::new(Arc::clone(&shared), Chores::Inline, active);
        LocalJournal {
            writing: Writing::Inline(Box::new(Mutex::new(engine))),
            reading: Jobs::Inline,
            keeping: Jobs::Inline,
            shared,
        }
    }

    fn threads(shared: Arc<Shared>, active: Active) -> std::io::Result<LocalJournal> {
        let chores = Chores::start(&shared)?;
        seal_leftovers(&shared, &chores);
        let engine = Engine::new(Arc::clone(&shared), chores, active);
        let options = &shared.options;
        let limits = Limits {
            queue_bytes_max: options.queue_bytes_max,
            group_bytes_max: options.group_bytes_max,
            group_appends_max: options.group_appends_max,
            acquisitions_max: options.jobs_waiting_max,
            caller_flush_max: options.caller_flush_max,
            retry_after: options.retry_after,
        };
        Ok(LocalJournal {
            writing: Writing::Thread(Writer::start(engine, limits)?),
            reading: Jobs::start("journal-reader", options.jobs_waiting_max)?,
            keeping: Jobs::start("journal-keeper", options.jobs_waiting_max)?,
            shared,
        })
    }

    fn refuse_read(&self) -> ReadError {
        ReadError::Unavailable { reason: BUSY.to_owned(), retry_after: self.retry_after() }
    }

    fn retry_after(&self) -> Duration {
        self.shared.options.retry_after
    }

    /// Runs `keep` where checkpoints are done.
    fn keep(
        &self,
        keep: impl FnOnce(&Shared) -> Result<(), AppendError> + Send + 'static,
    ) -> BoxFuture<'_, Result<(), AppendError>> {
        let shared = Arc::clone(&self.shared);
        let kept = self.keeping.run(move || keep(&shared));
        Box::pin(async move {
            let busy = |_: TooMany| AppendError::Unavailable {
                reason: BUSY.to_owned(),
                retry_after: self.retry_after(),
            };
            kept.await.map_err(busy)?
        })
    }
}

const BUSY: &str = "too many requests wait for the journal";

/// Segments that were read at opening have their index in memory; nobody else will write it down.
fn seal_leftovers(shared: &Shared, chores: &Chores) {
    let mut segments: VecDeque<_> = lock(&shared.state).segments.clone();
    drop(segments.pop_back());
    for segment in segments {
        if lock(&segment.memory).is_some() {
            chores.hand(shared, Chore::Seal(segment));
        }
    }
}

fn encode(batch: &Batch, done: AppendDone, retry_after: Duration) -> Result<Append, (Done, AppendError)> {
    let done = Done::new(done, retry_after);
    if frame::records_frame_bytes(batch) > frame::FRAME_BYTES_MAX {
        let reason = format!("a batch may have {} bytes", frame::FRAME_BYTES_MAX);
        return Err((done, AppendError::Unavailable { reason, retry_after }));
    }
    Ok(Append {
        shard: batch.shard,
        epoch: batch.epoch,
        first: batch.first,
        count: batch.records.len() as u64,
        frame: frame::encode_records(batch),
        done,
    })
}

fn drive(engine: &Mutex<Engine>, item: Item) {
    let mut replies: Vec<Reply> = Vec::new();
    lock(engine).commit(std::iter::once(item), &mut replies);
    for reply in replies {
        reply.give();
    }
}

impl Journal for LocalJournal {
    fn epoch(&self, shard: ShardId) -> BoxFuture<'_, Result<Epoch, ReadError>> {
        let epoch = lock(&self.shared.state).shard(shard).row.epoch;
        Box::pin(std::future::ready(Ok(epoch)))
    }

    fn acquire(&self, shard: ShardId, epoch: Epoch) -> BoxFuture<'_, Result<Acquired, AcquireError>> {
        let (answer, answered) = oneshot::channel();
        let item = Item::Acquire { shard, epoch, answer };
        match &self.writing {
            Writing::Inline(engine) => drive(engine, item),
            Writing::Thread(writer) => writer.acquire(item),
        }
        Box::pin(async move { answered.await.map_err(|_| self.refuse_read())? })
    }

    fn append(&self, batch: Batch, done: AppendDone) {
        let (shard, epoch) = (batch.shard, batch.epoch);
        let encoded = encode(&batch, done, self.retry_after());
        match (&self.writing, encoded) {
            (Writing::Inline(engine), Ok(append)) => drive(engine, Item::Append(append)),
            (Writing::Thread(writer), Ok(append)) => writer.append(append),
            (Writing::Inline(engine), Err((done, error))) => {
                drive(engine, Item::Close { shard, epoch });
                done.answer(Err(error));
            }
            (Writing::Thread(writer), Err((done, error))) => {
                writer.turn_away(shard, epoch);
                done.answer(Err(error));
            }
        }
    }

    fn read(&self, shard: ShardId, after: Seq) -> BoxStream<'_, Result<Placed, ReadError>> {
        let start = Cursor::new(&self.shared, shard, after);
        let chunks = stream::try_unfold(Some(start), move |state| async move {
            let Some(cursor) = state else { return Ok(None) };
            let mut cursor = cursor?;
            let shared = Arc::clone(&self.shared);
            let run = self.reading.run(move || cursor.chunk(&shared).map(|chunk| (chunk, cursor)));
            let (chunk, cursor) = run.await.map_err(|_| self.refuse_read())??;
            Ok::<_, ReadError>((!chunk.is_empty()).then_some((chunk, Some(Ok(cursor)))))
        });
        chunks.map_ok(|chunk| stream::iter(chunk.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn history(&self, run: RunId) -> BoxFuture<'_, Result<Vec<Placed>, ReadError>> {
        let shared = Arc::clone(&self.shared);
        let found = self.reading.run(move || read::history(&shared, run));
        Box::pin(async move { found.await.map_err(|_| self.refuse_read())? })
    }

    fn checkpoint(
        &self,
        shard: ShardId,
        epoch: Epoch,
        through: Seq,
        changed: Vec<RunImage>,
    ) -> BoxFuture<'_, Result<(), AppendError>> {
        self.keep(move |shared| keep::checkpoint(shared, shard, epoch, through, changed))
    }

    fn images(&self, shard: ShardId) -> BoxStream<'_, Result<RunImage, ReadError>> {
        let chunks = stream::try_unfold(None, move |merge| async move {
            let shared = Arc::clone(&self.shared);
            let run = self.reading.run(move || {
                let mut merge = match merge {
                    Some(merge) => merge,
                    None => read::images(&shared, shard)?,
                };
                merge.chunk(read::CHUNK_BYTES).map(|chunk| (chunk, merge))
            });
            let (chunk, merge) = run.await.map_err(|_| self.refuse_read())??;
            Ok::<_, ReadError>((!chunk.is_empty()).then_some((chunk, Some(merge))))
        });
        chunks.map_ok(|chunk| stream::iter(chunk.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn trim(&self, shard: ShardId, epoch: Epoch, through: Seq) -> BoxFuture<'_, Result<(), AppendError>> {
        self.keep(move |shared| keep::trim(shared, shard, epoch, through))
    }
}
