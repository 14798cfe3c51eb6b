//! The host: root of the supervision tree, and the table of all tasks that the worker holds.
//!
//! Owns: which task belongs to which coordinator, what was not acknowledged yet, and which specialist works on
//! what. Never: does I/O or runs a task.
mod actor;
mod held;
mod message;
mod state;

use std::sync::Arc;

use kapell_proto::v1::CoordinatorMessage;
use kapell_wire::task::TaskKey;
use ractor::ActorRef;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

pub(crate) use actor::{HostActor, HostArguments};
use message::HostMessage;
pub(crate) use message::{CallAnswer, CheckpointAnswer, SessionNo, SpecialistNo};
pub(crate) use state::Identity;

use crate::definitions::Compiled;
use crate::outbox::Frames;
use crate::task::Outcome;

/// Asks the host. Every sender is bounded: sessions by frames, tasks by their number and their limits.
#[derive(Clone, Debug)]
pub(crate) struct HostHandle(ActorRef<HostMessage>);

impl HostHandle {
    /// A connection is up: what is to be written to it, beginning with the hello. `None`: the worker is stopping.
    pub(crate) async fn connected(&self, session: SessionNo) -> Option<Frames> {
        let (answer, frames) = oneshot::channel();
        self.send(HostMessage::Connected(session, answer));
        frames.await.ok()
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&self, session: SessionNo) {
        self.send(HostMessage::Disconnected(session));
    }

    /// The coordinator was silent for longer than its lease.
    pub(crate) fn lease_lost(&self, session: SessionNo) {
        self.send(HostMessage::LeaseLost(session));
    }

    /// What a coordinator said.
    pub(crate) fn inbound(
        &self,
        session: SessionNo,
        said: Vec<CoordinatorMessage>,
        permit: OwnedSemaphorePermit,
    ) {
        self.send(HostMessage::Inbound(session, said, permit));
    }

    /// The definitions in force, as a coordinator knows them.
    pub(crate) fn definitions(&self, session: SessionNo, compiled: Arc<Compiled>) {
        self.send(HostMessage::Definitions(session, compiled));
    }

    /// A task ended.
    pub(crate) fn ended(&self, task: TaskKey, outcome: Outcome) {
        self.send(HostMessage::Ended(task, outcome));
    }

    /// A task wants a tool called. Not answered: the task is being stopped.
    pub(crate) fn call(&self, task: TaskKey, no: u32, tool: String, args: String, answer: CallAnswer) {
        self.send(HostMessage::Call { task, no, tool, args, answer });
    }

    /// A task wants something kept. Not answered: the task is being stopped.
    pub(crate) fn checkpoint(&self, task: TaskKey, position: u32, data: String, answer: CheckpointAnswer) {
        self.send(HostMessage::Checkpoint { task, position, data, answer });
    }

    /// A specialist takes no more tasks, or (without a reason) takes them again.
    pub(crate) fn quarantined(&self, specialist: SpecialistNo, reason: String) {
        self.send(HostMessage::Quarantined(specialist, reason));
    }

    /// Takes no more tasks; told when none is held.
    pub(crate) async fn drain(&self) {
        let (answer, drained) = oneshot::channel();
        self.send(HostMessage::Drain(answer));
        // A host that is gone holds nothing.
        drop(drained.await);
    }

    /// How many tasks are held.
    pub(crate) async fn held(&self) -> usize {
        let (answer, held) = oneshot::channel();
        self.send(HostMessage::CountHeld(answer));
        held.await.unwrap_or(0)
    }

    /// Stops everything and waits until it is stopped.
    pub(crate) async fn stop(&self) {
        // An error says that it has stopped already.
        drop(self.0.kill_and_wait(None).await);
    }

    fn send(&self, message: HostMessage) {
        // The host only dies with the worker; then nobody is left who could act on the message.
        drop(self.0.send_message(message));
    }
}
