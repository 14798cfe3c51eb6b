//! What the dispatcher may be told.
use kapell_kernel::{Attempt, Call, CallNo, Dispatch, UnitId};
use kapell_model::{Epoch, Json, RunId, ShardId, ToolRef};
use kapell_proto::v1;
use kapell_wire::task::TaskKey;
use tokio::sync::oneshot;

use super::stuck::Stuck;
use crate::session::Outlet;
use crate::shard::WorkOrder;

/// One connection of a worker. A worker that comes back has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// Where frames for a worker go.
pub(crate) type ToWorker = Outlet<v1::CoordinatorFrame>;

/// What a worker says of itself.
#[derive(Debug)]
pub(crate) struct WorkerIntro {
    pub(crate) name: String,
    pub(crate) instance: Vec<u8>,
    pub(crate) capacity: u32,
    pub(crate) builtin: bool,
    /// NAMESPACE/SKILL.
    pub(crate) skills: Vec<String>,
    pub(crate) holding: Vec<TaskKey>,
    /// Whether it understands claims.
    pub(crate) claims: bool,
    /// Of the definitions in its welcome.
    pub(crate) revision: u64,
    pub(crate) to: ToWorker,
}

/// The worker is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joined {
    pub(crate) session: SessionId,
}

/// Reports of a worker that are on disk, or stale.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) session: SessionId,
    pub(crate) keys: Vec<TaskKey>,
}

/// What the dispatcher may be told.
pub(crate) enum DispatchMessage {
    /// Reports that workers may forget, tasks to hand out, and tasks that are no longer wanted.
    Submit { settled: Vec<Settled>, tasks: Vec<WorkOrder<Dispatch>>, canceled: Vec<(RunId, UnitId, Attempt)> },
    /// The shard is here. Comes after the tasks that were found in its journal, so that none of those which workers
    /// answer with is unknown. A shard that is loaded anew says so again, under its new epoch.
    Own(ShardId, Epoch),
    /// The shard left, and its actor has stopped. Its tasks are forgotten without a word to their workers, who go on.
    Disown(ShardId),
    /// A worker answered a claim.
    Holding(SessionId, Vec<ShardId>, Vec<TaskKey>),
    /// A worker connected.
    Join(WorkerIntro, oneshot::Sender<Joined>),
    /// A connection ended.
    Left(SessionId),
    /// A worker reported that tasks are over; its slots are free.
    Finished(SessionId, Vec<TaskKey>),
    /// Tasks are over: their reports came by way of another node.
    Forget(Vec<TaskKey>),
    /// A worker is still there.
    Heard(SessionId),
    /// A worker takes no more tasks.
    Draining(SessionId),
    /// A specialist (NAMESPACE/SPECIALIST) keeps dying on this worker, or may be tried again.
    Quarantine { session: SessionId, specialist: String, reason: String },
    /// How tool calls went, for the tasks that wait for them.
    CallNews(Vec<((RunId, UnitId, Attempt), Call)>),
    /// A read is over, for the task that waits for it.
    ReadDone { task: TaskKey, no: CallNo, result: Result<Json, kapell_kernel::TaskError> },
    /// A task wants a tool called.
    Tool { session: SessionId, task: TaskKey, no: CallNo, tool: ToolRef, args: Json },
    /// The definitions changed; the worker may not know yet.
    Define(SessionId),
    /// Time has passed.
    Tick,
    /// Which of these tasks do not move, those that nobody knows here among them.
    Stuck(Vec<TaskKey>, oneshot::Sender<Vec<Stuck<TaskKey>>>),
    /// Who is connected.
    Status(oneshot::Sender<DispatchStatus>),
    /// What there is to do.
    Backlog(oneshot::Sender<Vec<v1::SkillBacklog>>),
}

/// Who is connected, and what waits.
#[derive(Debug, Default)]
pub(crate) struct DispatchStatus {
    pub(crate) workers: Vec<v1::SessionStatus>,
    pub(crate) queued: u64,
}
