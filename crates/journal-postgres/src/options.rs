//! The limits of the journal in PostgreSQL.
//!
//! Owns: their defaults. Never: reads a file or the environment.
use std::time::Duration;

use kapell_model::ShardCount;

/// What can be chosen. The defaults are for production.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many shards a store gets that is made now. One that exists keeps what it has.
    pub shards: ShardCount,
    /// Groups that are committed at the same time, each over a connection of its own to each database.
    pub writers: usize,
    /// Connections for reading, to each database.
    pub readers: usize,
    /// Connections for acquisitions, checkpoints and trims, to each database.
    pub keepers: usize,
    /// Appends that wait for a writer of one database take at most this many bytes together; one alone may be larger.
    pub queue_bytes_max: usize,
    /// A group is closed when it has this many bytes.
    pub group_bytes_max: usize,
    /// A group is closed when it has this many records.
    pub group_records_max: usize,
    /// Batches that a group has at least while another one is under way and does not hang: a commit costs a database what
    /// some dozens of records cost, and what waits meanwhile goes together.
    pub group_beside_min: usize,
    /// Reads, or acquisitions, checkpoints and trims, that wait for a connection to one database.
    pub jobs_waiting_max: usize,
    /// A segment (a table of entries, dropped as a whole when nobody needs it) is closed when it has this many bytes. As
    /// long as it is open, the history of a run reads what its shard has in it.
    pub segment_bytes: u64,
    /// Time between two looks for segments that nobody needs.
    pub sweep_every: Duration,
    /// What a caller that was turned away is told to wait.
    pub retry_after: Duration,
    /// Longest time to reach a server.
    pub connect_within: Duration,
    /// Longest time for a statement. Whoever waits longer is told that the outcome is unknown.
    pub answer_within: Duration,
    /// Whether a server may answer before a commit is on its disk.
    pub fsync: Fsync,
}

/// Whether a server may answer before a commit is on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// No: a server with `fsync=off` is refused.
    Required,
    /// It may: what was accepted can be lost. For tests about something else.
    NotForTests,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            shards: ShardCount::SHARED,
            writers: 3,
            readers: 2,
            keepers: 2,
            queue_bytes_max: 64 << 20,
            group_bytes_max: 4 << 20,
            group_records_max: 4096,
            group_beside_min: 32,
            jobs_waiting_max: 4096,
            segment_bytes: 512 << 20,
            sweep_every: Duration::from_secs(10),
            retry_after: Duration::from_millis(500),
            connect_within: Duration::from_secs(10),
            answer_within: Duration::from_secs(30),
            fsync: Fsync::Required,
        }
    }
}
