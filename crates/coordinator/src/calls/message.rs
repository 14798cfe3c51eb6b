//! What the call desk may be told.
use std::time::Duration;

use kapell_kernel::{Attempt, Call, CallNo, UnitId};
use kapell_model::{Epoch, Json, Name, RunId, ShardId, ToolRef};
use kapell_proto::v1;
use kapell_wire::task::{CallKey, TaskKey};
use tokio::sync::oneshot;

use crate::dispatch::{SessionId, Stuck};
use crate::session::Outlet;
use crate::shard::WorkOrder;

/// Where frames for a connector go.
pub(crate) type ToConnector = Outlet<v1::CallFrame>;

/// What a connector says of itself.
#[derive(Debug)]
pub(crate) struct ConnectorIntro {
    pub(crate) name: String,
    pub(crate) instance: Vec<u8>,
    pub(crate) capacity: u32,
    pub(crate) holding: Vec<CallKey>,
    /// Whether it understands claims.
    pub(crate) claims: bool,
    /// Of the definitions in its welcome.
    pub(crate) revision: u64,
    pub(crate) to: ToConnector,
}

/// A call without effect.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) task: TaskKey,
    pub(crate) no: CallNo,
    pub(crate) namespace: Name,
    pub(crate) tool: ToolRef,
    pub(crate) args: Json,
    pub(crate) timeout: Duration,
}

/// What the call desk may be told.
pub(crate) enum CallMessage {
    /// Make a call that is journaled as intended.
    Make(WorkOrder<(UnitId, Call)>),
    /// Find out whether a call took effect.
    FindOut(WorkOrder<(UnitId, Call)>),
    /// A call is over.
    Over((RunId, UnitId, CallNo, Attempt)),
    /// Make a read.
    Read(Read),
    /// The shard is here. Comes after the calls that were found in its journal.
    Own(ShardId, Epoch),
    /// The shard left, and its actor has stopped. Its calls are forgotten; the connectors go on.
    Disown(ShardId),
    /// A connector answered a claim.
    Holding(SessionId, Vec<ShardId>, Vec<CallKey>),
    /// A connector connected.
    Join(ConnectorIntro, oneshot::Sender<SessionId>),
    /// A connection ended.
    Left(SessionId),
    /// A connector is still there.
    Heard(SessionId),
    /// A call, a finding-out or a read ended.
    Report(SessionId, Box<v1::CallReport>),
    /// The definitions changed; the connector may not know yet.
    Define(SessionId),
    /// Time has passed.
    Tick,
    /// Which of these calls do not move, those that nobody knows here among them.
    Stuck(Vec<CallKey>, oneshot::Sender<Vec<Stuck<CallKey>>>),
    /// Who is connected.
    Status(oneshot::Sender<Vec<v1::SessionStatus>>),
}
