//! Commands, exactly as the kernel has them.
//!
//! Owns: the two tables. Where the entry that follows says all of a command, its message and conversion serve.
mod read;
mod write;

pub use read::command_from;
pub use write::command_to;
