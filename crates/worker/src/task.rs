//! Task actors: each works on one task at a time.
//!
//! Owns: running one task within its time. Never: decides whether it may run. A task actor is kept for the next
//! task of its specialist (starting an actor costs ten times what a message costs); one that panics or is stopped
//! dies with its task.
mod actor;
mod message;
mod state;

pub(crate) use actor::{TaskActor, too_late};
pub(crate) use message::{Outcome, Task, TaskMessage};
pub(crate) use state::Progress;
