//! The vocabulary of Kapell: ids, values, definitions and their validation.
//!
//! Owns: what a workflow, specialist, connector, connection, policy or schedule is, and which of them are valid
//! together. Never: does I/O, awaits, or knows what a run is doing (that is the kernel).
pub mod catalogue;
pub mod definition;
pub mod expr;
mod ids;
mod json;
pub mod limits;
pub mod plan;
mod schema;
mod time;
mod tool_ref;

pub use ids::{Epoch, Name, NotAName, NotARunId, Origin, RunId, Seq, ShardCount, ShardId};
pub use json::{Json, NotJson};
pub use tool_ref::{NotAToolRef, ToolRef};
pub use time::{NotASpan, Span, Timestamp};
