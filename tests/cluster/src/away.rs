//! A journal that is out of reach for a while.
//!
//! Owns: what is refused meanwhile: to acquire, to append, to read, to say an epoch. Never: answers anything by itself otherwise.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, ready};
use futures::stream::{BoxStream, StreamExt as _, once};
use kapell_journal::{
    AcquireError, Acquired, AppendDone, AppendError, Batch, Journal, Placed, ReadError, RunImage,
};
use kapell_model::{Epoch, RunId, Seq, ShardId};

/// One node's way to the journal.
pub struct Away {
    journal: Arc<dyn Journal>,
    is_away: AtomicBool,
    keeps_shards: AtomicBool,
}

impl Away {
    /// In reach at first.
    #[must_use]
    pub fn new(journal: Arc<dyn Journal>) -> Away {
        Away { journal, is_away: AtomicBool::new(false), keeps_shards: AtomicBool::new(false) }
    }

    /// Out of reach from now on.
    pub fn go(&self) {
        self.is_away.store(true, Ordering::SeqCst);
    }

    /// Out of reach whenever a shard is to be acquired, as if it went away between joining and loading.
    pub fn keep_shards(&self) {
        self.keeps_shards.store(true, Ordering::SeqCst);
    }

    /// In reach from now on.
    pub fn back(&self) {
        self.is_away.store(false, Ordering::SeqCst);
        self.keeps_shards.store(false, Ordering::SeqCst);
    }

    fn look(&self) -> Result<(), ReadError> {
        if self.is_away.load(Ordering::SeqCst) { Err(away()) } else { Ok(()) }
    }
}

fn away() -> ReadError {
    ReadError::Unavailable { reason: "it is away".to_owned(), retry_after: Duration::from_millis(10) }
}

impl Journal for Away {
    fn acquire(&self, shard: ShardId, epoch: Epoch) -> BoxFuture<'_, Result<Acquired, AcquireError>> {
        if self.keeps_shards.load(Ordering::SeqCst) {
            return ready(Err(away().into())).boxed();
        }
        match self.look() {
            Ok(()) => self.journal.acquire(shard, epoch),
            Err(error) => ready(Err(error.into())).boxed(),
        }
    }

    fn epoch(&self, shard: ShardId) -> BoxFuture<'_, Result<Epoch, ReadError>> {
        match self.look() {
            Ok(()) => self.journal.epoch(shard),
            Err(error) => ready(Err(error)).boxed(),
        }
    }

    fn append(&self, batch: Batch, done: AppendDone) {
        match self.look() {
            Ok(()) => self.journal.append(batch, done),
            Err(error) => {
                let (reason, retry_after) = (error.to_string(), Duration::from_millis(10));
                done(Err(AppendError::Unavailable { reason, retry_after }));
            }
        }
    }

    fn read(&self, shard: ShardId, after: Seq) -> BoxStream<'_, Result<Placed, ReadError>> {
        match self.look() {
            Ok(()) => self.journal.read(shard, after),
            Err(error) => once(ready(Err(error))).boxed(),
        }
    }

    fn history(&self, run: RunId) -> BoxFuture<'_, Result<Vec<Placed>, ReadError>> {
        match self.look() {
            Ok(()) => self.journal.history(run),
            Err(error) => ready(Err(error)).boxed(),
        }
    }

    fn checkpoint(
        &self,
        shard: ShardId,
        epoch: Epoch,
        through: Seq,
        changed: Vec<RunImage>,
    ) -> BoxFuture<'_, Result<(), AppendError>> {
        self.journal.checkpoint(shard, epoch, through, changed)
    }

    fn images(&self, shard: ShardId) -> BoxStream<'_, Result<RunImage, ReadError>> {
        self.journal.images(shard)
    }

    fn trim(&self, shard: ShardId, epoch: Epoch, through: Seq) -> BoxFuture<'_, Result<(), AppendError>> {
        self.journal.trim(shard, epoch, through)
    }
}
