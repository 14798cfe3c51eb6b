//! What placement is told.
use std::sync::Arc;

use kapell_cluster::{Members, Owners, Session};
use kapell_model::{Epoch, ShardId};
use ractor::ActorCell;
use tokio::sync::oneshot;

use super::state::Death;

/// What placement is told.
pub(crate) enum PlacementMessage {
    /// The node is a member from now on.
    Joined(Arc<dyn Session>),
    /// Members came or went.
    Members(Arc<Members>),
    /// Shards changed owners.
    Owners(Arc<Owners>),
    /// The session can no longer be trusted.
    Lost,
    /// The cluster gave us a shard, or did not.
    Acquired {
        /// Under which session it was asked.
        session: SessionNo,
        /// Which.
        shard: ShardId,
        /// What the cluster said.
        given: Given,
    },
    /// Time to ask for the shard again.
    AcquireAgain(ShardId),
    /// A shard's actor has loaded it, or could not.
    Loaded {
        /// Which.
        shard: ShardId,
        /// Under which epoch.
        epoch: Epoch,
        /// The actor, or why there is none.
        result: Result<ActorCell, LoadFailure>,
    },
    /// Time to load the shard again.
    LoadAgain(ShardId, Epoch),
    /// The cluster has given a sign of life, under this session.
    Answered(SessionNo),
    /// The cluster was told, under this session, that the node is leaving.
    Retired(SessionNo),
    /// The cluster was told, under this session, that the shard is free.
    Released(SessionNo, ShardId),
    /// The next owner of a shard serves it.
    Served(ShardId),
    /// A shard that was handed over is not known to be served after a while.
    Overdue(ShardId),
    /// Answer when every shard of this node is loaded, or why one cannot be.
    Settle(oneshot::Sender<Result<(), String>>),
    /// Tell what is known of the cluster.
    Look(oneshot::Sender<Known>),
    /// Hand everything over, then answer.
    Leave(oneshot::Sender<()>),
}

/// What came of asking the cluster for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// It is ours under this epoch.
    Ours(Epoch),
    /// It is not ours: somebody else has it, or the session is over.
    Not,
    /// There was no answer: it may be ours.
    Unknown,
}

/// What this node knows of the cluster.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) joined: bool,
    pub(crate) members: Members,
    pub(crate) owners: Owners,
}

/// Counts the sessions of this process. What an earlier one gave went with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionNo(pub(super) u64);

/// Why a shard could not be loaded.
#[derive(Debug)]
pub(crate) struct LoadFailure {
    pub(crate) why: Death,
    /// Whether it may go by itself.
    pub(crate) may_pass: bool,
    pub(crate) text: String,
}
