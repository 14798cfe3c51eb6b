//! The journal of a cluster: in one PostgreSQL database or several, over which the shards are spread.
//!
//! Owns: the schema `kapell_journal` of these databases, group commit, who may write a shard. Never: knows what an entry
//! means, answers an append before its commit is on disk, or touches another schema.
//!
//! Tables and reasons: docs/adr/0009-journal-in-postgresql.md. It needs connections of its own to each server: a pooler
//! that hands a session to others between transactions does not do.
mod database;
mod keep;
mod lane;
mod link;
mod open;
mod options;
mod owner;
mod queue;
mod read;
mod segment;
mod store;
mod trouble;
mod value;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kapell_journal::{
    AcquireError, Acquired, AppendDone, AppendError, Batch, Journal, Placed, ReadError, RunImage,
};
use kapell_model::{Epoch, RunId, Seq, ShardCount, ShardId};

pub use open::OpenError;
pub use options::{Fsync, Options};

use database::Database;
use keep::{Checkpoint, Trim};
use lane::Lane;
use owner::{Acquire, AskEpoch};
use queue::{Hold, Queue};
use read::{History, ImageChunk, ReadChunk, ReadImages};
use segment::Keeper;
use trouble::Trouble;
use writer::{Writers, refusal};

/// See the crate. Dropped, its jobs finish what is queued and end.
pub struct PostgresJournal {
    places: Vec<Place>,
    shards: ShardCount,
    retry_after: Duration,
}

/// One database and the jobs that work with it.
struct Place {
    database: Arc<Database>,
    queue: Arc<Queue>,
    readers: Lane,
    keepers: Lane,
    _writers: Writers,
    _keeper: Keeper,
}

impl PostgresJournal {
    /// How many connections a node takes to each database at most.
    #[must_use]
    pub fn connections(options: &Options) -> usize {
        // One for what is seldom done about segments.
        options.writers.max(1) + options.readers.max(1) + options.keepers.max(1) + 1
    }

    /// How many shards the store was made with.
    #[must_use]
    pub fn shards(&self) -> ShardCount {
        self.shards
    }

    fn place(&self, shard: ShardId) -> &Place {
        &self.places[usize::from(shard.0) % self.places.len()]
    }
}

impl Place {
    /// As what the epoch holds the shard, or what whoever says so is told.
    async fn admit(&self, shard: ShardId, epoch: Epoch, retry_after: Duration) -> Result<Hold, AppendError> {
        match self.queue.hold(shard, epoch) {
            Ok(hold) => Ok(hold),
            Err(Some(error)) => Err(error),
            Err(None) => Err(self.refuse(shard, epoch, retry_after).await),
        }
    }

    async fn refuse(&self, shard: ShardId, epoch: Epoch, retry_after: Duration) -> AppendError {
        match self.readers.run(AskEpoch(shard)).await {
            Ok(held_by) => refusal(epoch, Some(held_by)),
            Err(trouble) => trouble.on_append(retry_after),
        }
    }

    /// What follows from the answer to a checkpoint or trim: when it was refused, by whom.
    async fn kept(
        &self,
        kept: Result<bool, Trouble>,
        (shard, epoch): (ShardId, Epoch),
        retry_after: Duration,
    ) -> Result<(), AppendError> {
        match kept {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.refuse(shard, epoch, retry_after).await),
            Err(trouble) => Err(trouble.on_append(retry_after)),
        }
    }
}

impl Journal for PostgresJournal {
    fn epoch(&self, shard: ShardId) -> BoxFuture<'_, Result<Epoch, ReadError>> {
        let asked = self.place(shard).readers.run(AskEpoch(shard));
        Box::pin(async move { asked.await.map_err(|trouble| trouble.on_read(self.retry_after)) })
    }

    fn acquire(&self, shard: ShardId, epoch: Epoch) -> BoxFuture<'_, Result<Acquired, AcquireError>> {
        let place = self.place(shard);
        let acquired = place.keepers.run(Acquire { shard, epoch });
        Box::pin(async move {
            let acquired = acquired.await.map_err(|trouble| trouble.on_acquire(self.retry_after))?;
            let (hold, trimmed) = acquired.map_err(|held_by| AcquireError::Fenced { held_by })?;
            place.queue.install(shard, hold);
            Ok(Acquired { last: hold.durable, checkpointed: hold.checkpointed, trimmed })
        })
    }

    fn append(&self, batch: Batch, done: AppendDone) {
        self.place(batch.shard).queue.append(batch, done);
    }

    fn read(&self, shard: ShardId, after: Seq) -> BoxStream<'_, Result<Placed, ReadError>> {
        let place = self.place(shard);
        let durable = place.queue.durable(shard);
        let chunks = stream::try_unfold((after, true), move |(after, is_first)| async move {
            let chunk = place.readers.run(ReadChunk { shard, after, is_first, durable }).await;
            let chunk = chunk.map_err(|trouble| trouble.on_read(self.retry_after))?;
            let last = chunk.last().map(|placed| placed.seq);
            Ok::<_, ReadError>(last.map(|last| (chunk, (last, false))))
        });
        chunks.map_ok(|chunk| stream::iter(chunk.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn history(&self, run: RunId) -> BoxFuture<'_, Result<Vec<Placed>, ReadError>> {
        let found = self.place(run.shard()).readers.run(History(run));
        Box::pin(async move { found.await.map_err(|trouble| trouble.on_read(self.retry_after)) })
    }

    fn checkpoint(
        &self,
        shard: ShardId,
        epoch: Epoch,
        through: Seq,
        changed: Vec<RunImage>,
    ) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async move {
            let place = self.place(shard);
            let hold = place.admit(shard, epoch, self.retry_after).await?;
            let refused = |expected| Err(AppendError::OutOfOrder { expected, got: through });
            if through < hold.checkpointed {
                return refused(hold.checkpointed);
            }
            if through > hold.durable {
                return refused(hold.durable);
            }
            let stored = place.keepers.run(Checkpoint::new(shard, hold, through, changed)).await;
            let stored = place.kept(stored, (shard, epoch), self.retry_after).await;
            if stored.is_ok() {
                place.queue.checkpointed(shard, hold, through);
            }
            stored
        })
    }

    fn images(&self, shard: ShardId) -> BoxStream<'_, Result<RunImage, ReadError>> {
        let chunks = stream::try_unfold(Some((RunId::from_bytes([0; 16]), None)), move |from| async move {
            let Some((from, checkpoints)) = from else { return Ok::<_, ReadError>(None) };
            let chunk = self.place(shard).readers.run(ReadImages { shard, from, checkpoints }).await;
            let ImageChunk { images, checkpoints, next } =
                chunk.map_err(|trouble| trouble.on_read(self.retry_after))?;
            Ok(Some((images, next.map(|next| (next, checkpoints)))))
        });
        chunks.map_ok(|chunk| stream::iter(chunk.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn trim(&self, shard: ShardId, epoch: Epoch, through: Seq) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async move {
            let place = self.place(shard);
            let hold = place.admit(shard, epoch, self.retry_after).await?;
            if through > hold.checkpointed {
                return Err(AppendError::OutOfOrder { expected: hold.checkpointed, got: through });
            }
            let trimmed = place.keepers.run(Trim { shard, hold, through }).await;
            place.kept(trimmed, (shard, epoch), self.retry_after).await?;
            place.database.trimmed();
            Ok(())
        })
    }
}
