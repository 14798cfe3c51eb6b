//! What a task actor may be asked.
use std::sync::Arc;

use kapell_kernel::TaskError;
use kapell_wire::task::TaskKey;
use tokio::time::Instant;

use crate::definitions::Skill;

/// One task that was admitted.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) key: TaskKey,
    pub(crate) skill: Arc<Skill>,
    /// JSON, not proven.
    pub(crate) input: String,
    /// JSON each, not proven.
    pub(crate) checkpoints: Vec<String>,
    pub(crate) deadline: Instant,
    pub(crate) traceparent: String,
}

/// How a task ended; the output is JSON.
pub(crate) type Outcome = Result<String, TaskError>;

/// What a task actor may be asked.
#[derive(Debug)]
pub(crate) enum TaskMessage {
    Run(Task),
}
