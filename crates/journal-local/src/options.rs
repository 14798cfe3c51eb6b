//! The limits of the local journal.
//!
//! Owns: their defaults. Never: reads a file or the environment.
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

/// What can be chosen. The defaults are for production.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of a segment. A larger one makes trimming coarser. At least 16 KiB are used.
    pub segment_bytes: u64,
    /// Appends that wait for the writer take at most this many bytes together; one alone may be larger.
    pub queue_bytes_max: usize,
    /// A group is closed when it has this many bytes.
    pub group_bytes_max: usize,
    /// A group is closed when it has this many appends.
    pub group_appends_max: usize,
    /// Reads, checkpoints and acquisitions that wait for their thread, each.
    pub jobs_waiting_max: usize,
    /// Checkpoint files of a shard before they are merged into one.
    pub checkpoint_files_max: usize,
    /// A lone append is written by its caller, which saves waking the writer and being woken by it, as long as flushes
    /// take at most this: the caller is held up for as long. Zero: all are written by the writer's thread.
    pub caller_flush_max: Duration,
    /// What a caller that was turned away is told to wait.
    pub retry_after: Duration,
    /// From this the salts of segments are derived; any number, best a different one each time.
    pub salt_seed: u64,
}

/// Smallest segment: header, table and room for a group.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 16 << 10;

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            queue_bytes_max: 64 << 20,
            group_bytes_max: 8 << 20,
            group_appends_max: 4096,
            jobs_waiting_max: 1024,
            checkpoint_files_max: 16,
            caller_flush_max: Duration::from_micros(500),
            retry_after: Duration::from_millis(100),
            salt_seed: std::hash::RandomState::new().build_hasher().finish(),
        }
    }
}
