//! The journal port: the only source of truth for runs.
//!
//! Owns: what a backend promises to a shard. Never: knows what an entry means; records are opaque bytes.
//!
//! The promises, held by one contract suite against every backend:
//! - `append` answers `Ok` only when the records are on disk; per shard, records become durable in the order
//!   of the calls, and a record is never durable without all those before it.
//! - A shard's records are numbered from 1 without gaps. `first` of an append must be the next number.
//! - Only the epoch that acquired the shard last can append, checkpoint or trim; all others are `Fenced`.
//! - What was answered `Ok` is read back unchanged, or reading fails with `Corrupt`. Nothing is skipped.
//! - After a failed append the shard is closed for its owner (`Poisoned`) until it is acquired again.
mod done;

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use kapell_model::{Epoch, RunId, Seq, ShardId};

pub use done::Done;

/// One durable fact, as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The run that it belongs to; history of one run is read by it.
    pub run: RunId,
    /// What happened, encoded by `wire`.
    pub payload: Bytes,
}

/// A record with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Place in the shard.
    pub seq: Seq,
    /// The record.
    pub record: Record,
}

/// Records of one shard that become durable together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The shard.
    pub shard: ShardId,
    /// The epoch under which the shard was acquired.
    pub epoch: Epoch,
    /// Place of the first record.
    pub first: Seq,
    /// At least one record.
    pub records: Vec<Record>,
}

/// What the new owner of a shard finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// Last durable record, or [`Seq::ZERO`].
    pub last: Seq,
    /// The checkpoint covers all records up to here; reading starts after it.
    pub checkpointed: Seq,
    /// Records up to here are gone: whoever reads from an earlier place is told so.
    pub trimmed: Seq,
}

/// State of one run in a checkpoint; `None` says that the run is no longer kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunImage {
    /// The run.
    pub run: RunId,
    /// Its state, encoded by `wire`; `None` removes what an earlier checkpoint held.
    pub state: Option<Bytes>,
}

/// Called once by the backend, from any thread and perhaps inside the call of `append`, when the batch is durable or has
/// failed. Must not block.
pub type AppendDone = Box<dyn FnOnce(Result<(), AppendError>) + Send>;

/// Why an append, checkpoint or trim was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Somebody acquired the shard after us; give it up.
    #[error("shard was acquired under epoch {held_by}")]
    Fenced {
        /// The epoch that holds the shard now.
        held_by: Epoch,
    },
    /// Nothing of the batch is known to be durable; the shard must be acquired and read again.
    #[error("journal cannot write now: {reason}")]
    Unavailable {
        /// What the store said.
        reason: String,
        /// When to acquire the shard again.
        retry_after: Duration,
    },
    /// An earlier append of this shard failed; acquire it again.
    #[error("shard is closed after a failed append")]
    Poisoned,
    /// `first` is not the next place, or a checkpoint or trim reaches beyond what it may: a bug of the caller.
    #[error("append starts at {got}, the next place is {expected}")]
    OutOfOrder {
        /// The next place.
        expected: Seq,
        /// What the batch said.
        got: Seq,
    },
}

/// Why a shard cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Stored bytes are not what was written; a person must decide (see docs/errors).
    #[error("journal is damaged in {segment} at {offset}: {reason}")]
    Corrupt {
        /// File or table.
        segment: String,
        /// Where in it: a byte of the file, or a place of the shard in the table.
        offset: u64,
        /// Which check failed.
        reason: String,
    },
    /// The store cannot be read now.
    #[error("journal cannot be read now: {reason}")]
    Unavailable {
        /// What the store said.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The records asked for were trimmed.
    #[error("records up to {through} were trimmed")]
    Trimmed {
        /// Last trimmed place.
        through: Seq,
    },
}

/// Why a shard could not be acquired.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// A later epoch holds the shard.
    #[error("shard is held under epoch {held_by}")]
    Fenced {
        /// The epoch that holds it.
        held_by: Epoch,
    },
    /// What is stored cannot be trusted or reached.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The ordered, durable log of entries.
pub trait Journal: Send + Sync + 'static {
    /// The highest epoch that ever acquired the shard; the next owner takes a larger one.
    fn epoch(&self, shard: ShardId) -> BoxFuture<'_, Result<Epoch, ReadError>>;

    /// Makes `epoch` the owner of the shard, durably, and heals a failed append. The epoch that holds the shard
    /// may acquire it again; an earlier one is `Fenced`. After a restart every shard must be acquired before it is
    /// written.
    fn acquire(&self, shard: ShardId, epoch: Epoch) -> BoxFuture<'_, Result<Acquired, AcquireError>>;

    /// Queues a batch and returns; `done` is called when it is durable. A backend that has nothing else to do may write it
    /// first, if that takes less than a millisecond or so. Appends of a shard are done in the order of the calls; several
    /// may be under way. The caller bounds how many. Only a refusal (no room in the
    /// queue, or what follows one) may be answered before appends that were called earlier.
    fn append(&self, batch: Batch, done: AppendDone);

    /// All records of a shard after `after`, in order.
    fn read(&self, shard: ShardId, after: Seq) -> BoxStream<'_, Result<Placed, ReadError>>;

    /// The records of one run that were not trimmed, in order, read by index.
    fn history(&self, run: RunId) -> BoxFuture<'_, Result<Vec<Placed>, ReadError>>;

    /// Stores what changed since the last checkpoint; it now covers all records up to `through`. One that goes back, or
    /// beyond what is durable, is `OutOfOrder`. A failed checkpoint or trim does not close the shard.
    fn checkpoint(
        &self,
        shard: ShardId,
        epoch: Epoch,
        through: Seq,
        changed: Vec<RunImage>,
    ) -> BoxFuture<'_, Result<(), AppendError>>;

    /// The runs of the last checkpoint, each once, in the order of their ids.
    fn images(&self, shard: ShardId) -> BoxStream<'_, Result<RunImage, ReadError>>;

    /// Lets go of records up to `through`, which a checkpoint must cover (else `OutOfOrder`). May keep more than it is
    /// asked to.
    fn trim(&self, shard: ShardId, epoch: Epoch, through: Seq) -> BoxFuture<'_, Result<(), AppendError>>;
}
