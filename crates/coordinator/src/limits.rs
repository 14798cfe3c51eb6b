//! Limits of one node, beside those of a run and its definition (`kapell_model::limits`).
//!
//! Owns: the numbers. Never: enforces them; the code that does names them.

/// Open connections; further ones wait until one ends.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;
/// Streams that are open: sessions of workers and connectors, watches, streams of starts and of events.
pub(crate) const STREAMS_MAX: usize = 20_000;
/// Streams that watch one run.
pub(crate) const WATCHERS_PER_RUN_MAX: usize = 100;
/// Requests that wait for the end of one run.
pub(crate) const WAITERS_PER_RUN_MAX: usize = 1_000;
/// Reads of tools that tasks wait for.
pub(crate) const READS_MAX: usize = 100_000;
/// Largest request that applies definitions, in bytes: all that a store may hold, with room for comments.
pub(crate) const APPLY_BYTES_MAX: usize = 64 << 20;
