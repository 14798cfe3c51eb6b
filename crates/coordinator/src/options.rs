//! Options of a coordinator: raw as they are read, then proven.
use std::time::Duration;

use kapell_cluster::NodeName;
use kapell_model::ShardCount;

/// What a coordinator is told at its start.
#[derive(Clone, Debug)]
pub struct CoordinatorOptions {
    /// `HOST:PORT`; port 0 takes a free one.
    pub listen: String,
    /// Name of the node; no other node of the cluster has it.
    pub node: NodeName,
    /// `HOST:PORT` at which other nodes, workers and connectors reach it; `None`: where it listens.
    pub advertise: Option<String>,
    /// Shards of the store; fixed when it is created.
    pub shards: ShardCount,
    /// Requests that wait in front of a shard.
    pub mailbox_capacity: usize,
    /// How often workers and connectors send a heartbeat.
    pub heartbeat: Duration,
    /// After so much silence their work is given to others. At least three heartbeats.
    pub lease: Duration,
    /// How long ended runs are remembered, so that a late duplicate of their event meets them.
    pub dedupe_window: Duration,
    /// How many ended runs a shard remembers.
    pub dedupe_runs_max: usize,
    /// How many live runs a shard takes.
    pub live_runs_max: usize,
    /// Entries of a shard between two checkpoints.
    pub checkpoint_entries: u64,
    /// Time between two checkpoints of a shard in which anything happened.
    pub checkpoint_every: Duration,
    /// Entries of a shard that are kept for history after a checkpoint covers them.
    pub history_entries: u64,
}

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOptions {
    /// A worker that misses one heartbeat would lose its tasks.
    #[error("a lease of {lease:?} does not hold three heartbeats of {heartbeat:?}; make it longer")]
    ShortLease {
        /// The lease.
        lease: Duration,
        /// The heartbeat.
        heartbeat: Duration,
    },
    /// Nothing could be accepted.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
}

impl Default for CoordinatorOptions {
    fn default() -> CoordinatorOptions {
        CoordinatorOptions {
            listen: "127.0.0.1:7700".to_owned(),
            node: NodeName::local(),
            advertise: None,
            shards: ShardCount::default(),
            mailbox_capacity: 16_384,
            heartbeat: Duration::from_secs(1),
            lease: Duration::from_secs(5),
            dedupe_window: Duration::from_secs(24 * 3600),
            dedupe_runs_max: 500_000,
            live_runs_max: 4_000_000,
            checkpoint_entries: 200_000,
            checkpoint_every: Duration::from_secs(60),
            history_entries: 20_000_000,
        }
    }
}

impl CoordinatorOptions {
    /// Refuses what cannot work.
    pub fn check(&self) -> Result<(), BadOptions> {
        if self.lease < self.heartbeat * 3 {
            return Err(BadOptions::ShortLease { lease: self.lease, heartbeat: self.heartbeat });
        }
        for (name, value) in [("mailbox capacity", self.mailbox_capacity), ("live runs", self.live_runs_max)]
        {
            if value == 0 {
                return Err(BadOptions::Zero(name));
            }
        }
        Ok(())
    }
}
