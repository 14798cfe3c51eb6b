//! What an agent sees of its task.
//!
//! Owns: numbering calls and checkpoints, and refusing a flood of them with typed errors. Never: waits without an
//! end (the task's deadline ends every wait).
use std::sync::{Mutex, MutexGuard, PoisonError};

use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::limits::{CALLS_PER_TASK_MAX, PAYLOAD_BYTES_MAX};
use kapell_model::{Json, NotAToolRef, RunId, ToolRef};
use kapell_wire::task::TaskKey;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::host::HostHandle;
use crate::limits::{CALLS_AT_ONCE_MAX, CHECKPOINTS_PER_TASK_MAX};
use crate::task::Progress;

/// One task, as its agent sees it.
pub struct TaskContext {
    key: TaskKey,
    input: Json,
    checkpoints: Vec<Json>,
    deadline: Instant,
    traceparent: String,
    progress: Mutex<Progress>,
    host: HostHandle,
    ended: watch::Receiver<()>,
}

/// Why a tool call gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It was made, or refused, and failed.
    #[error("{0}")]
    Failed(TaskError),
    /// The name is no `CONNECTION/TOOL`.
    #[error(transparent)]
    NotATool(#[from] NotAToolRef),
    /// The task made as many calls as a task may.
    #[error("the task made {CALLS_PER_TASK_MAX} tool calls, which is all that a task may make")]
    TooMany,
    /// The task waits for as many calls as it may at once.
    #[error("the task waits for {CALLS_AT_ONCE_MAX} tool calls already; await some first")]
    TooManyAtOnce,
    /// The arguments are too large.
    #[error(
        "the arguments are {bytes} bytes, at most {PAYLOAD_BYTES_MAX} are allowed; pass a reference instead"
    )]
    TooLarge {
        /// Their size.
        bytes: usize,
    },
    /// The task is being stopped.
    #[error("the task is being stopped")]
    Stopped,
}

/// Why a checkpoint was not kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The task kept as many as a task may.
    #[error("the task kept {CHECKPOINTS_PER_TASK_MAX} checkpoints, which is all that a task may keep")]
    TooMany,
    /// The data is too large.
    #[error(
        "the checkpoint is {bytes} bytes, at most {PAYLOAD_BYTES_MAX} are allowed; pass a reference instead"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The task is being stopped.
    #[error("the task is being stopped")]
    Stopped,
}

impl From<CallError> for TaskError {
    fn from(error: CallError) -> TaskError {
        match error {
            CallError::Failed(error) => error,
            CallError::NotATool(_)
            | CallError::TooMany
            | CallError::TooManyAtOnce
            | CallError::TooLarge { .. } => TaskError::new(ErrorClass::Permanent, error.to_string()),
            CallError::Stopped => TaskError::new(ErrorClass::Unavailable, error.to_string()),
        }
    }
}

impl From<CheckpointError> for TaskError {
    fn from(error: CheckpointError) -> TaskError {
        let class = match error {
            CheckpointError::TooMany | CheckpointError::TooLarge { .. } => ErrorClass::Permanent,
            CheckpointError::Stopped => ErrorClass::Unavailable,
        };
        TaskError::new(class, error.to_string())
    }
}

/// What a context is made of.
pub(crate) struct Given {
    pub(crate) key: TaskKey,
    pub(crate) input: Json,
    pub(crate) checkpoints: Vec<Json>,
    pub(crate) deadline: Instant,
    pub(crate) traceparent: String,
    /// Closed when the task is over.
    pub(crate) ended: watch::Receiver<()>,
}

impl TaskContext {
    pub(crate) fn new(given: Given, host: HostHandle) -> TaskContext {
        let Given { key, input, checkpoints, deadline, traceparent, ended } = given;
        let kept = u32::try_from(checkpoints.len()).unwrap_or(u32::MAX);
        let progress = Mutex::new(Progress::resumed(kept));
        TaskContext { key, input, checkpoints, deadline, traceparent, progress, host, ended }
    }

    /// What is to be worked on.
    #[must_use]
    pub fn input(&self) -> &Json {
        &self.input
    }

    /// What earlier attempts kept, in order; empty for the first attempt.
    #[must_use]
    pub fn checkpoints(&self) -> &[Json] {
        &self.checkpoints
    }

    /// The run that the task belongs to.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        self.key.run
    }

    /// Counts tries of the same work, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.key.attempt.0
    }

    /// When the attempt is stopped.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// W3C trace context of the run; empty: none.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// Waits until the task is over, however it ends: for what the agent started beside itself.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }
    }

    /// Calls a tool, named `CONNECTION/TOOL`, and waits for its result.
    ///
    /// Calls are numbered in the order in which they begin, and the number is the identity of the call: a later
    /// attempt that begins the same calls in the same order gets the recorded results instead of acting twice. So
    /// begin calls one after the other, or in an order that does not depend on chance.
    pub async fn call_tool(&self, tool: &str, args: &Json) -> Result<Json, CallError> {
        let tool: ToolRef = tool.parse()?;
        let number = self.progress().begin_call(args.bytes_len())?;
        let _end = CallGuard(&self.progress);
        let (answer, result) = oneshot::channel();
        self.host.call(self.key, number, tool.to_string(), args.as_str().to_owned(), answer);
        let output = result.await.map_err(|_| CallError::Stopped)?.map_err(CallError::Failed)?;
        Json::parse(&output).map_err(|error| {
            let text = format!("the result of call {number} is {error}");
            CallError::Failed(TaskError::new(ErrorClass::ContractBroken, text))
        })
    }

    /// The number that the next call gets.
    #[must_use]
    pub fn next_call(&self) -> u32 {
        self.progress().next_call()
    }

    /// Goes on numbering at `number`: for an agent that resumes from a checkpoint behind calls of an earlier
    /// attempt. Keep [`TaskContext::next_call`] in the checkpoint.
    pub fn skip_calls_to(&self, number: u32) {
        self.progress().skip_calls_to(number);
    }

    /// Keeps something for later attempts. When it returns, it is durable.
    pub async fn checkpoint(&self, data: &Json) -> Result<(), CheckpointError> {
        let position = self.progress().begin_checkpoint(data.bytes_len())?;
        let (answer, kept) = oneshot::channel();
        self.host.checkpoint(self.key, position, data.as_str().to_owned(), answer);
        kept.await.map_err(|_| CheckpointError::Stopped)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a call as over, also when the agent stops waiting for it.
struct CallGuard<'a>(&'a Mutex<Progress>);

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        lock(self.0).end_call();
    }
}
