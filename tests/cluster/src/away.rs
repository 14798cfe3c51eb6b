//! A journal that is out of reach for a while.
//!
//! Owns: which requests are refused meanwhile: shards cannot be acquired. Never: answers anything by itself otherwise.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, ready};
use futures::stream::BoxStream;
use kapell_journal::{
    AcquireError, Acquired, AppendDone, AppendError, Batch, Journal, Placed, ReadError, RunImage,
};
use kapell_model::{Epoch, RunId, Seq, ShardId};

/// A journal that is out of reach until it is told to be back.
pub struct Away {
    journal: Arc<dyn Journal>,
    is_back: AtomicBool,
}

impl Away {
    /// Out of reach from now on.
    #[must_use]
    pub fn new(journal: Arc<dyn Journal>) -> Away {
        Away { journal, is_back: AtomicBool::new(false) }
    }

    /// In reach from now on.
    pub fn back(&self) {
        self.is_back.store(true, Ordering::SeqCst);
    }
}

impl Journal for Away {
    fn acquire(&self, shard: ShardId, epoch: Epoch) -> BoxFuture<'_, Result<Acquired, AcquireError>> {
        if self.is_back.load(Ordering::SeqCst) {
            return self.journal.acquire(shard, epoch);
        }
        let (reason, retry_after) = ("it is away".to_owned(), Duration::from_millis(10));
        ready(Err(AcquireError::Read(ReadError::Unavailable { reason, retry_after }))).boxed()
    }

    fn epoch(&self, shard: ShardId) -> BoxFuture<'_, Result<Epoch, ReadError>> {
        self.journal.epoch(shard)
    }

    fn append(&self, batch: Batch, done: AppendDone) {
        self.journal.append(batch, done);
    }

    fn read(&self, shard: ShardId, after: Seq) -> BoxStream<'_, Result<Placed, ReadError>> {
        self.journal.read(shard, after)
    }

    fn history(&self, run: RunId) -> BoxFuture<'_, Result<Vec<Placed>, ReadError>> {
        self.journal.history(run)
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
