//! The dispatcher: tasks in, assignments to workers out.
//!
//! Owns: who hosts what, who holds which task, fairness between namespaces. Never: decides whether a task is wanted
//! (that is its run) or what a lost worker means for it (it reports `worker_lost`, the run decides).
mod acknowledgement;
mod actor;
mod message;
mod queue;
mod shards;
mod state;
mod stuck;

pub(crate) use acknowledgement::Acknowledgement;
pub(crate) use actor::{Dispatcher, DispatcherArguments};
pub(crate) use message::{DispatchMessage, SessionId, WorkerIntro};
pub(crate) use shards::Shards;
pub(crate) use state::{definitions_to, hex};
pub(crate) use stuck::{Grip, OVERDUE_AFTER, RESTART, Stuck};
