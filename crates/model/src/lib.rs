//! The vocabulary of Kapell: ids, values, definitions and their validation.
//!
//! Owns: what a workflow, specialist, connector, connection, policy or schedule is, and which of them are valid
//! together. Never: does I/O, awaits, or knows what a run is doing (that is the kernel).
mod ids;

pub use ids::{Epoch, Name, NotAName, NotARunId, Origin, RunId, Seq, ShardCount, ShardId};
