//! The cluster port: which nodes are there, and which of them owns which shard.
//!
//! Owns: what a backend promises to a node. Never: decides which node should own a shard, or stops a late writer: the
//! journal does that, by the epochs that are handed out here.
//!
//! The promises, held by one contract suite against every backend:
//! - A shard has at most one owner. It goes to another only after it was released, its session left, or its session's
//!   `valid_until` has passed; or after a process of the same name and address took its place.
//! - An epoch is larger than every epoch handed out before it, for whichever shard and to whomever, and larger than the
//!   floor of everybody who joined before. An acquisition that is asked for again has the same epoch again.
//! - What a watch shows was so, as a whole, at one moment. It never goes back, it wakes nobody without a change, and it
//!   comes to what is there now for as long as the session lives.
//! - A session that is lost stays lost, and takes nothing on but to leave.
//!
//! Nothing here is lost with the backend: a cluster that forgot everything is joined again, and what the nodes did is
//! in the journal.
mod solo;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kapell_model::{Epoch, Name, NotAName, ShardId};
use tokio::sync::watch;
use tokio::time::Instant;

pub use solo::Solo;

/// What a node is called. Its own within the cluster, and the same after a restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Name);

impl NodeName {
    /// Checks the text, which must be a name as Kubernetes has it.
    pub fn new(text: &str) -> Result<NodeName, NotAName> {
        Name::new(text).map(NodeName)
    }

    /// The only node of a cluster of one.
    #[must_use]
    pub fn local() -> NodeName {
        NodeName(Name::default_namespace())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The plain name, for storing.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0
    }
}

impl From<Name> for NodeName {
    fn from(name: Name) -> NodeName {
        NodeName(name)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A node, as it tells the others about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is called.
    pub node: NodeName,
    /// `HOST:PORT` where other nodes and clients reach it.
    pub address: String,
    /// Version of its program, for people and for upgrades.
    pub version: String,
    /// It is going: it is to own no shard, and has those still that it did not hand over yet.
    pub leaving: bool,
}

impl Member {
    /// One that is there to stay.
    #[must_use]
    pub fn new(node: NodeName, address: String, version: String) -> Member {
        Member { node, address, version, leaving: false }
    }
}

/// The live nodes, by name.
pub type Members = BTreeMap<NodeName, Member>;

/// Who owns a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The node.
    pub node: NodeName,
    /// `HOST:PORT` where it is reached.
    pub address: String,
    /// The epoch under which it acquired the shard.
    pub epoch: Epoch,
}

/// The shards that have an owner.
pub type Owners = BTreeMap<ShardId, Owner>;

/// Counters that say "this changed, read it again". Compare with the value seen last: whether it is another one is all
/// that a value says.
pub type Revisions = BTreeMap<Name, u64>;

/// Why a session cannot be trusted any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It left.
    #[error("the node left the cluster")]
    Left,
    /// The cluster could not be reached in time, or has given the session up for the same reason.
    #[error("the cluster was not reached in time")]
    Expired,
    /// Somebody deleted its record, or the cluster forgot it.
    #[error("the node's record is gone from the cluster")]
    Removed,
    /// Another process joined under the same name. Do not join again without asking: two nodes that were given one
    /// name would throw each other out for ever.
    #[error("a process at {address} joined under the same name")]
    Replaced {
        /// Where that one is reached.
        address: String,
    },
}

/// Why a node could not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// A node of that name is there, or was there a moment ago.
    #[error("the name {node} is taken by a node at {address}")]
    NameTaken {
        /// The name.
        node: NodeName,
        /// Where the other one is reached.
        address: String,
        /// By then it is gone, if it is dead.
        retry_after: Duration,
    },
    /// The cluster will not have us; a person must look at the settings.
    #[error("the cluster refuses this node: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// The cluster cannot be reached now.
    #[error("the cluster cannot be reached now: {reason}")]
    Unavailable {
        /// What was tried, and what came of it.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
}

/// Why a shard was not acquired.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// Somebody else has it.
    #[error("the shard is held by {} at {} under epoch {}", .0.node, .0.address, .0.epoch)]
    HeldBy(Owner),
    /// The session is over; join again.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// Whether the shard was acquired is not known: acquire it again, which has the same epoch if it was.
    #[error("the cluster cannot be reached now: {reason}")]
    Unavailable {
        /// What was tried, and what came of it.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The session is over; join again.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// Whether it was done is not known; it may be asked for again.
    #[error("the cluster cannot be reached now: {reason}")]
    Unavailable {
        /// What was tried, and what came of it.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
}

/// What nodes meet in.
pub trait Cluster: Send + Sync + 'static {
    /// Registers a node. `floor` is the highest epoch that any shard of the journal knows: the cluster may have
    /// forgotten what it handed out, the journal has not.
    ///
    /// Join only when the member's address is already listened on: a registration of the same name and the same
    /// address is taken over at once, since whoever made it cannot be listening there any more. A process that lives on
    /// without its socket finds itself `Replaced`; until it does, the journal's fencing stands between it and its former
    /// shards. A registration of the same name at another address may be a second node with a wrong name; it is
    /// `NameTaken` until it is gone.
    fn join(&self, member: Member, floor: Epoch) -> BoxFuture<'_, Result<Arc<dyn Session>, JoinError>>;
}

/// One registration of one node. Dropping it is dying: the cluster gives it up when its time has passed.
pub trait Session: Send + Sync + 'static {
    /// The live nodes, this one among them.
    fn members(&self) -> watch::Receiver<Arc<Members>>;

    /// Who owns which shard.
    fn owners(&self) -> watch::Receiver<Arc<Owners>>;

    /// The counters of [`Session::bump`].
    fn revisions(&self) -> watch::Receiver<Arc<Revisions>>;

    /// Why the session is over, once it is. After that the other watches stand still.
    fn lost(&self) -> watch::Receiver<Option<Lost>>;

    /// Until then the session's shards are given to nobody else, whatever happens. Moves on while the cluster is
    /// reached. Whoever acts without a fenced write looks here first: a thread that slept may be ahead of the news.
    fn valid_until(&self) -> Instant;

    /// Asks the cluster for a sign of life: it has one leader now and takes changes, and the session lives. What cannot
    /// be had back is given up after this, not before.
    fn ping(&self) -> BoxFuture<'_, Result<(), SessionError>>;

    /// Tells everybody that the node is leaving: others are to own its shards, which stay its own until it releases them.
    /// The answer is a sign of life as that of [`Session::ping`]. What joins later under the same name stays.
    fn retire(&self) -> BoxFuture<'_, Result<(), SessionError>>;

    /// Makes this session the owner of a shard, or says who is. The owner has the same epoch again.
    fn acquire(&self, shard: ShardId) -> BoxFuture<'_, Result<Epoch, AcquireError>>;

    /// Gives up a shard that was acquired under `epoch`. If it was acquired anew since, or by somebody else, that stays.
    fn release(&self, shard: ShardId, epoch: Epoch) -> BoxFuture<'_, Result<(), SessionError>>;

    /// Changes a counter, for all nodes to see. It outlives the session.
    fn bump(&self, name: &Name) -> BoxFuture<'_, Result<(), SessionError>>;

    /// Ends the session, a lost one too, and gives up everything that it holds, at once. If the cluster is not reached,
    /// that happens when its time has passed.
    fn leave(&self) -> BoxFuture<'_, Result<(), SessionError>>;
}
