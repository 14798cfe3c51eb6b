//! Specialists: one supervisor for each, with its task actors below it.
//!
//! Owns: how many of its tasks run at once, what waits, what a death means, and quarantine. Never: talks to a
//! coordinator (the host does).
mod actor;
mod message;
mod state;

use kapell_model::definition::SpecialistLimits;
use kapell_wire::task::TaskKey;
use ractor::{ActorCell, ActorRef};

pub(crate) use actor::{SpecialistActor, SpecialistArguments};
use message::SpecialistMessage;
pub(crate) use state::SlotNo;

use crate::task::Task;

/// Asks a specialist's supervisor. What is sent is bounded by what the host admits.
#[derive(Clone, Debug)]
pub(crate) struct SpecialistHandle(ActorRef<SpecialistMessage>);

impl SpecialistHandle {
    pub(crate) fn cell(&self) -> ActorCell {
        self.0.get_cell()
    }

    /// Works on tasks, in order.
    pub(crate) fn submit(&self, tasks: Vec<Task>) {
        self.send(SpecialistMessage::Submit(tasks));
    }

    /// Stops a task, waiting or under way; nothing is reported.
    pub(crate) fn stop_task(&self, task: TaskKey) {
        self.send(SpecialistMessage::StopTask(task));
    }

    /// The definition changed.
    pub(crate) fn limit(&self, limits: SpecialistLimits) {
        self.send(SpecialistMessage::Limit(limits));
    }

    /// A task actor can take another task.
    pub(crate) fn freed(&self, slot: SlotNo, task: TaskKey) {
        self.send(SpecialistMessage::Freed { slot, task });
    }

    fn send(&self, message: SpecialistMessage) {
        // A dead supervisor is noticed by the host, which answers for its tasks.
        drop(self.0.send_message(message));
    }
}
