//! Supervises the task actors of one specialist.
use std::collections::BTreeMap;
use std::time::Duration;

use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::definition::SpecialistLimits;
use kapell_wire::task::TaskKey;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;

use super::SpecialistHandle;
use super::message::SpecialistMessage;
use super::state::{AfterDeath, Next, SlotNo, State, Turn};
use crate::host::{HostHandle, SpecialistNo};
use crate::limits::WATCH_EVERY;
use crate::task::{Task, TaskActor, TaskMessage, too_late};

/// Supervises the task actors of one specialist.
pub(crate) struct SpecialistActor {
    pub(crate) no: SpecialistNo,
    pub(crate) host: HostHandle,
}

/// What it begins with.
pub(crate) struct SpecialistArguments {
    pub(crate) limits: SpecialistLimits,
    pub(crate) cool_down: Duration,
}

/// What it knows, and its actors.
pub(crate) struct Supervised {
    state: State,
    slots: BTreeMap<SlotNo, ActorRef<TaskMessage>>,
    watch: Watch,
}

#[derive(PartialEq, Eq)]
enum Watch {
    Off,
    Due,
}

impl SpecialistActor {
    pub(crate) async fn spawn(
        self,
        arguments: SpecialistArguments,
        supervisor: ActorCell,
    ) -> Result<SpecialistHandle, ractor::SpawnErr> {
        let (actor, _) = Actor::spawn_linked(None, self, arguments, supervisor).await?;
        Ok(SpecialistHandle(actor))
    }
}

impl Actor for SpecialistActor {
    type Msg = SpecialistMessage;
    type State = Supervised;
    type Arguments = SpecialistArguments;

    async fn pre_start(
        &self,
        _: ActorRef<SpecialistMessage>,
        arguments: SpecialistArguments,
    ) -> Result<Supervised, ActorProcessingErr> {
        let state = State::new(arguments.limits, arguments.cool_down);
        Ok(Supervised { state, slots: BTreeMap::new(), watch: Watch::Off })
    }

    async fn handle(
        &self,
        myself: ActorRef<SpecialistMessage>,
        message: SpecialistMessage,
        own: &mut Supervised,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SpecialistMessage::Submit(tasks) => {
                for task in tasks {
                    let turn = own.state.submit(task);
                    self.turn(&myself, own, turn).await;
                }
            }
            SpecialistMessage::Freed { slot, task } => own.freed(slot, task),
            SpecialistMessage::StopTask(key) => {
                if let Some(slot) = own.state.stop_task(key) {
                    own.kill(slot);
                }
                self.refill(&myself, own).await;
            }
            SpecialistMessage::Limit(limits) => {
                own.state.set_limits(limits);
                self.refill(&myself, own).await;
            }
            SpecialistMessage::Watch => {
                own.watch = Watch::Off;
                self.watch(&myself, own).await;
            }
        }
        own.keep_watch(&myself);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SpecialistMessage>,
        event: SupervisionEvent,
        own: &mut Supervised,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, panic) => {
                let text = format!("the specialist panicked: {panic}");
                self.lost(own, &cell, &text);
            }
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                let text = format!("the task actor ended: {}", reason.unwrap_or_default());
                self.lost(own, &cell, &text);
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        }
        self.refill(&myself, own).await;
        own.keep_watch(&myself);
        Ok(())
    }
}

impl SpecialistActor {
    async fn turn(&self, myself: &ActorRef<SpecialistMessage>, own: &mut Supervised, turn: Turn) {
        match turn {
            Turn::Give(slot, task) => own.give(slot, task),
            Turn::Start(task) => self.start(myself, own, task).await,
            Turn::Wait => {}
            Turn::Refuse(key, error) => self.host.ended(key, Err(error)),
        }
    }

    async fn start(&self, myself: &ActorRef<SpecialistMessage>, own: &mut Supervised, task: Task) {
        let actor = TaskActor { specialist: SpecialistHandle(myself.clone()), host: self.host.clone() };
        match Actor::spawn_linked(None, actor, (), myself.get_cell()).await {
            Ok((actor, _)) => {
                let slot = SlotNo::of(&actor);
                own.state.started(slot, &task);
                own.slots.insert(slot, actor);
                own.give(slot, task);
            }
            Err(error) => {
                let text = format!("no task actor could be started: {error}");
                self.host.ended(task.key, Err(TaskError::new(ErrorClass::Unavailable, text)));
            }
        }
    }

    async fn refill(&self, myself: &ActorRef<SpecialistMessage>, own: &mut Supervised) {
        while let Some(turn) = own.state.next() {
            self.turn(myself, own, turn).await;
        }
    }

    /// An actor is gone. Without a task it was stopped on purpose.
    fn lost(&self, own: &mut Supervised, cell: &ActorCell, text: &str) {
        let slot = SlotNo(cell.get_id().pid());
        own.slots.remove(&slot);
        if let Some(key) = own.state.gone(slot) {
            self.host.ended(key, Err(TaskError::new(ErrorClass::Panicked, text)));
            self.death(own, text);
        }
    }

    fn death(&self, own: &mut Supervised, text: &str) {
        match own.state.died(Instant::now(), text) {
            AfterDeath::GoOn => {}
            AfterDeath::Quarantine(reason) => {
                tracing::warn!(specialist = self.no.0, reason, "quarantine begins");
                self.host.quarantined(self.no, reason);
                for (key, error) in own.state.refuse_waiting() {
                    self.host.ended(key, Err(error));
                }
            }
        }
    }

    async fn watch(&self, myself: &ActorRef<SpecialistMessage>, own: &mut Supervised) {
        let now = Instant::now();
        if own.state.recovers(now) {
            self.host.quarantined(self.no, String::new());
        }
        for (slot, key) in own.state.overdue(now) {
            // It may never end: its thread is busy in code that does not await. Its place is given to others.
            own.kill(slot);
            self.host.ended(key, Err(too_late()));
            self.death(own, "a task did not stop at its deadline");
        }
        for key in own.state.expired(now) {
            self.host.ended(key, Err(too_late()));
        }
        self.refill(myself, own).await;
    }
}

impl Supervised {
    fn freed(&mut self, slot: SlotNo, key: TaskKey) {
        match self.state.freed(slot, key) {
            Next::Give(slot, task) => self.give(slot, task),
            Next::Keep => {}
            Next::Retire(slot) => {
                if let Some(actor) = self.slots.remove(&slot) {
                    actor.stop(None);
                }
            }
        }
    }

    fn give(&self, slot: SlotNo, task: Task) {
        if let Some(actor) = self.slots.get(&slot) {
            // An actor that died meanwhile is reported by its supervision event, with this task.
            drop(actor.send_message(TaskMessage::Run(task)));
        }
    }

    fn kill(&mut self, slot: SlotNo) {
        if let Some(actor) = self.slots.remove(&slot) {
            actor.kill();
        }
    }

    fn keep_watch(&mut self, myself: &ActorRef<SpecialistMessage>) {
        if self.watch == Watch::Off && self.state.needs_watch() {
            self.watch = Watch::Due;
            drop(myself.send_after(WATCH_EVERY, || SpecialistMessage::Watch));
        }
    }
}
