//! What the host may be asked.
use std::sync::Arc;

use kapell_kernel::TaskError;
use kapell_proto::v1::CoordinatorMessage;
use kapell_wire::task::TaskKey;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::definitions::Compiled;
use crate::outbox::Frames;
use crate::task::Outcome;

/// Position of a coordinator in the worker's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionNo(pub(crate) usize);

/// Names a specialist within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SpecialistNo(pub(crate) usize);

/// Where the result of a tool call goes; JSON, not proven.
pub(crate) type CallAnswer = oneshot::Sender<Result<String, TaskError>>;

/// Told when a checkpoint is durable.
pub(crate) type CheckpointAnswer = oneshot::Sender<()>;

/// What the host may be asked.
pub(crate) enum HostMessage {
    /// A connection is up.
    Connected(SessionNo, oneshot::Sender<Frames>),
    /// It is gone.
    Disconnected(SessionNo),
    /// The coordinator was silent for too long.
    LeaseLost(SessionNo),
    /// What it said. The permit is given back when it is handled.
    Inbound(SessionNo, Vec<CoordinatorMessage>, OwnedSemaphorePermit),
    /// The definitions in force.
    Definitions(SessionNo, Arc<Compiled>),
    /// A task ended.
    Ended(TaskKey, Outcome),
    /// A task wants a tool called.
    Call { task: TaskKey, no: u32, tool: String, args: String, answer: CallAnswer },
    /// A task wants something kept.
    Checkpoint { task: TaskKey, position: u32, data: String, answer: CheckpointAnswer },
    /// A specialist takes no tasks for a reason, or again.
    Quarantined(SpecialistNo, String),
    /// Take no more tasks; tell when none is held.
    Drain(oneshot::Sender<()>),
    /// How many are held.
    CountHeld(oneshot::Sender<usize>),
}
