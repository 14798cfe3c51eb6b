//! The vocabulary of Kapell: ids, values, definitions and their validation.
//!
//! Owns: what a workflow, specialist, connector, connection, policy or schedule is, and which of them are valid
//! together. Never: does I/O, awaits, or knows what a run is doing (that is the kernel).
pub mod catalogue;
pub mod cron;
pub mod definition;
pub mod diagnostic;
pub mod expr;
mod field;
mod ids;
mod json;
pub mod limits;
pub mod plan;
mod pointer;
mod schema;
pub mod source;
mod time;
mod tool_ref;
pub mod validate;

pub use ids::{Epoch, Name, NotAName, NotARunId, Origin, RequestId, RunId, Seq, ShardCount, ShardId};
pub use json::{Json, NotJson};
pub use schema::json_schema;
pub use time::{NotASpan, Span, Timestamp};
pub use tool_ref::{NotAToolRef, ToolRef};
