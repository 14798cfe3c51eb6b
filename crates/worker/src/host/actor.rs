//! Does what the host's state decides.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kapell_proto::v1::{Checkpoint, ToolRequest};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::HostHandle;
use super::message::{HostMessage, SpecialistNo};
use super::state::{Effects, Identity, State};
use crate::outbox::Outbox;
use crate::specialist::{SpecialistActor, SpecialistArguments, SpecialistHandle};
use crate::task::Task;

/// Root of the supervision tree.
pub(crate) struct HostActor;

/// What it begins with.
pub(crate) struct HostArguments {
    pub(crate) identity: Identity,
    /// One for each coordinator.
    pub(crate) outboxes: Vec<Arc<Outbox>>,
    pub(crate) cool_down: Duration,
}

/// What it knows, and its actors.
pub(crate) struct Hosting {
    state: State,
    outboxes: Vec<Arc<Outbox>>,
    cool_down: Duration,
    specialists: BTreeMap<SpecialistNo, SpecialistHandle>,
    /// Emptied after each message.
    effects: Effects,
    drained: Vec<oneshot::Sender<()>>,
}

impl HostActor {
    pub(crate) async fn spawn(
        arguments: HostArguments,
    ) -> Result<(HostHandle, JoinHandle<()>), ractor::SpawnErr> {
        let (actor, ended) = Actor::spawn(None, HostActor, arguments).await?;
        Ok((HostHandle(actor), ended))
    }
}

impl Actor for HostActor {
    type Msg = HostMessage;
    type State = Hosting;
    type Arguments = HostArguments;

    async fn pre_start(
        &self,
        _: ActorRef<HostMessage>,
        arguments: HostArguments,
    ) -> Result<Hosting, ActorProcessingErr> {
        let HostArguments { identity, outboxes, cool_down } = arguments;
        Ok(Hosting {
            state: State::new(identity, outboxes.len()),
            outboxes,
            cool_down,
            specialists: BTreeMap::new(),
            effects: Effects::default(),
            drained: Vec::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<HostMessage>,
        message: HostMessage,
        own: &mut Hosting,
    ) -> Result<(), ActorProcessingErr> {
        own.take(message);
        own.carry_out(&HostHandle(myself)).await;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<HostMessage>,
        event: SupervisionEvent,
        own: &mut Hosting,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, text) = match event {
            SupervisionEvent::ActorFailed(cell, panic) => (cell, panic.to_string()),
            SupervisionEvent::ActorTerminated(cell, _, reason) => (cell, reason.unwrap_or_default()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        let dead = own.specialists.iter().find(|(_, handle)| handle.cell().get_id() == cell.get_id());
        if let Some(no) = dead.map(|(no, _)| *no) {
            own.specialists.remove(&no);
            tracing::error!(specialist = no.0, text, "a specialist's supervisor died");
            let text = format!("the specialist's supervisor died: {text}");
            own.state.supervisor_died(no, &text, &mut own.effects);
            own.carry_out(&HostHandle(myself)).await;
        }
        Ok(())
    }
}

impl Hosting {
    fn take(&mut self, message: HostMessage) {
        let (state, effects) = (&mut self.state, &mut self.effects);
        match message {
            HostMessage::Connected(session, answer) => {
                let frames = self.outboxes[session.0].open(state.connected(session));
                // The session gave up meanwhile; it says so next.
                let _gone = answer.send(frames);
            }
            HostMessage::Disconnected(session) => {
                self.outboxes[session.0].close();
                state.disconnected(session);
            }
            HostMessage::LeaseLost(session) => state.lease_lost(session, effects),
            HostMessage::Inbound(session, said, permit) => {
                let now = Instant::now();
                for said in said.into_iter().filter_map(|message| message.kind) {
                    state.inbound(session, said, now, effects);
                }
                drop(permit);
            }
            HostMessage::Definitions(session, compiled) => state.definitions(session, compiled, effects),
            HostMessage::Ended(key, outcome) => state.ended(key, outcome, effects),
            HostMessage::Call { task, no, tool, args, answer } => {
                let request = ToolRequest { task: Some(task.to_proto()), no, tool, args };
                state.call(request, task, answer, effects);
            }
            HostMessage::Checkpoint { task, position, data, answer } => {
                let checkpoint = Checkpoint { task: Some(task.to_proto()), position, data };
                state.checkpoint(checkpoint, task, answer, effects);
            }
            HostMessage::Quarantined(no, reason) => state.quarantined(no, reason, effects),
            HostMessage::Drain(answer) => {
                state.drain(effects);
                self.drained.push(answer);
            }
            HostMessage::CountHeld(answer) => {
                // Whoever asked went away.
                let _gone = answer.send(state.held());
            }
        }
    }

    async fn carry_out(&mut self, myself: &HostHandle) {
        for (session, message) in self.effects.send.drain(..) {
            self.outboxes[session.0].extend([message]);
        }
        for (no, key) in self.effects.stop.drain(..) {
            if let Some(specialist) = self.specialists.get(&no) {
                specialist.stop_task(key);
            }
        }
        for (no, limits) in self.effects.limit.drain(..) {
            if let Some(specialist) = self.specialists.get(&no) {
                specialist.limit(limits);
            }
        }
        if !self.effects.run.is_empty() {
            self.run(myself).await;
        }
        if self.state.held() == 0 {
            for drained in self.drained.drain(..) {
                // Whoever asked went away.
                let _gone = drained.send(());
            }
        }
    }

    /// Hands tasks to their specialists, those of one specialist together.
    async fn run(&mut self, myself: &HostHandle) {
        let mut batches: Vec<(SpecialistNo, Vec<Task>)> = Vec::new();
        for (no, task) in std::mem::take(&mut self.effects.run) {
            match batches.iter_mut().find(|(of, _)| *of == no) {
                Some((_, batch)) => batch.push(task),
                None => batches.push((no, vec![task])),
            }
        }
        for (no, batch) in batches {
            match self.specialist(no, myself).await {
                Ok(specialist) => specialist.submit(batch),
                Err(error) => {
                    let text = format!("the specialist's supervisor could not be started: {error}");
                    self.state.supervisor_died(no, &text, &mut self.effects);
                    for (session, message) in self.effects.send.drain(..) {
                        self.outboxes[session.0].extend([message]);
                    }
                }
            }
        }
    }

    async fn specialist(
        &mut self,
        no: SpecialistNo,
        myself: &HostHandle,
    ) -> Result<SpecialistHandle, ractor::SpawnErr> {
        if let Some(specialist) = self.specialists.get(&no) {
            return Ok(specialist.clone());
        }
        let arguments = SpecialistArguments { limits: self.state.limits(no), cool_down: self.cool_down };
        let actor = SpecialistActor { no, host: myself.clone() };
        let handle = actor.spawn(arguments, myself.0.get_cell()).await?;
        self.specialists.insert(no, handle.clone());
        Ok(handle)
    }
}
