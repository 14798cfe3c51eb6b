//! Hosts specialists as supervised actors and runs their tasks.
//!
//! Owns: the supervision tree (host, one supervisor for each specialist, task actors), the sessions with the
//! coordinators, and the promise that a panic, a hang or a flood of one task costs that task alone. Never: decides
//! what is to be done, calls an outside system (tools are called through the coordinator), or keeps anything on disk.
mod agent;
mod context;
mod definitions;
mod host;
pub mod limits;
mod options;
mod outbox;
mod session;
mod specialist;
mod task;
mod worker;

pub use agent::{Agent, NotASkill, SkillName};
pub use context::{CallError, CheckpointError, TaskContext};
pub use kapell_kernel::{ErrorClass, TaskError};
pub use options::{Hosted, WorkerOptions};
pub use worker::{Drained, StartError, Worker, WorkerHandle};
