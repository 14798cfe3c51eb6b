//! The loop of the dispatcher: take a message, change the state, send what it wants sent.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kapell_kernel::{CallNo, CallState, Command, ErrorClass, TaskError};
use kapell_model::definition::EffectClass;
use kapell_model::{Json, ToolRef};
use kapell_proto::v1::{self, coordinator_message::Kind};
use kapell_runtime::Runtime;
use kapell_wire::claim::{ShardClaim, claim_to};
use kapell_wire::task::{TaskKey, error_to};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use super::message::{DispatchMessage, Joined, SessionId, Settled};
use super::state::{Act, DispatchState, definitions_to};
use crate::answer::answer;
use crate::calls::{CallMessage, Read};
use crate::definitions::{Definitions, InForce};
use crate::links::Links;
use crate::shard::SubmitError;

/// How often leases are looked at.
const TICK_EVERY: Duration = Duration::from_millis(100);
/// Assignments in one frame.
const FRAME_MESSAGES_MAX: usize = 256;

/// The dispatcher.
pub(crate) struct Dispatcher;

/// What the dispatcher needs.
pub(crate) struct DispatcherArguments {
    pub(crate) links: Arc<Links>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) runtime: Runtime,
    pub(crate) lease: Duration,
}

pub(crate) struct Running {
    args: DispatcherArguments,
    state: DispatchState,
}

impl Actor for Dispatcher {
    type Msg = DispatchMessage;
    type State = Running;
    type Arguments = DispatcherArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<DispatchMessage>,
        args: DispatcherArguments,
    ) -> Result<Running, ActorProcessingErr> {
        myself.send_interval(TICK_EVERY, || DispatchMessage::Tick);
        let state = DispatchState::new(args.lease);
        Ok(Running { args, state })
    }

    async fn handle(
        &self,
        _: ActorRef<DispatchMessage>,
        message: DispatchMessage,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        running.take(message);
        running.act();
        Ok(())
    }
}

impl Running {
    /// table: one arm for each message.
    fn take(&mut self, message: DispatchMessage) {
        let now = Instant::now();
        let in_force = self.args.definitions.in_force();
        match message {
            DispatchMessage::Submit { settled, tasks, canceled } => {
                self.state.acts.extend(settled.into_iter().map(Act::Settled));
                tasks.into_iter().for_each(|task| self.state.submit(now, task, &in_force));
                for (run, unit, attempt) in canceled {
                    self.state.cancel(TaskKey { run, unit, attempt });
                }
                self.state.assign();
            }
            DispatchMessage::Own(shard, epoch) => self.state.own(ShardClaim { shard, epoch }),
            DispatchMessage::Disown(shard) => self.state.disown(shard),
            DispatchMessage::Holding(session, shards, keys) => {
                self.state.heard(now, session);
                self.state.holding(now, session, &shards, &keys);
            }
            DispatchMessage::Join(intro, reply) => {
                let session = self.state.join(now, intro, &in_force);
                // The stream that asked may have ended meanwhile; `Left` follows then.
                answer(reply, Joined { session });
            }
            DispatchMessage::Left(session) => self.state.left(now, session),
            DispatchMessage::Finished(session, keys) => {
                self.state.heard(now, session);
                self.state.finished(session, &keys);
            }
            DispatchMessage::Forget(keys) => {
                // Who held one has reported it already, to the node that the shard was at before.
                for key in keys {
                    self.state.forget(key);
                }
                self.state.assign();
            }
            DispatchMessage::Heard(session) => self.state.heard(now, session),
            DispatchMessage::Draining(session) => self.state.draining(session),
            DispatchMessage::Quarantine { session, specialist, reason } => {
                self.state.quarantine(session, specialist, reason);
            }
            DispatchMessage::CallNews(news) => {
                for ((run, unit, attempt), call) in news {
                    let result = match call.state {
                        CallState::Succeeded(output) => Ok(output),
                        CallState::Failed(error) => Err(*error),
                        CallState::Intended | CallState::Unknown { .. } | CallState::Asking { .. } => {
                            continue;
                        }
                    };
                    self.tell_task(TaskKey { run, unit, attempt }, call.no.0, result);
                }
            }
            DispatchMessage::ReadDone { task, no, result } => self.tell_task(task, no.0, result),
            DispatchMessage::Tool { session, task, no, tool, args } => {
                self.call_tool(session, task, no, (tool, args), &in_force);
            }
            DispatchMessage::Define(session) => self.send(session, vec![]),
            DispatchMessage::Tick => self.state.tick(now),
            DispatchMessage::Stuck(keys, reply) => answer(reply, self.state.stuck(now, &keys)),
            DispatchMessage::Status(reply) => answer(reply, self.state.status(now)),
            DispatchMessage::Backlog(reply) => answer(reply, self.state.backlog()),
        }
    }

    /// Reads are made at once; a call with an effect is journaled as intended first.
    fn call_tool(
        &mut self,
        session: SessionId,
        task: TaskKey,
        no: CallNo,
        (tool, args): (ToolRef, Json),
        in_force: &InForce,
    ) {
        // A task that its session does not hold here: it was given up, or its shard left. No answer is the right one only
        // because the worker asks its new home again when that claims the shard.
        let Some((namespace, skill)) = self.state.held_by(&task, session) else { return };
        let mandate =
            in_force.catalogue.skill(&namespace, &skill).filter(|skill| skill.mandate.contains(&tool));
        let found = mandate.and_then(|_| in_force.catalogue.tool(&namespace, &tool));
        let Some(entry) = found else {
            let message = format!("skill `{skill}` has no mandate for `{tool}`; list it under spec.tools");
            self.tell_task(task, no.0, Err(TaskError::new(ErrorClass::Denied, message)));
            return;
        };
        if let Err(violation) = entry.input.check(&args) {
            let message = format!("the arguments do not fit `{tool}`: {violation}");
            self.tell_task(task, no.0, Err(TaskError::new(ErrorClass::BadRequest, message)));
            return;
        }
        if entry.tool.effect == EffectClass::Read {
            let timeout = entry.timeout;
            self.args.links.tell_calls(CallMessage::Read(Read { task, no, namespace, tool, args, timeout }));
            return;
        }
        let (links, effect) = (self.args.links.clone(), entry.tool.effect);
        let intend = Command::IntendCall { unit: task.unit, attempt: task.attempt, no, tool, args, effect };
        let refused = Box::new(move |result: Result<(), SubmitError>| {
            if let Err(error) = result {
                let result = Err(TaskError::new(ErrorClass::Denied, error.to_string()));
                links.tell_dispatch(DispatchMessage::ReadDone { task, no, result });
            }
        });
        self.args.links.tell_run(task.run, intend, refused);
    }

    fn tell_task(&mut self, task: TaskKey, no: u32, result: Result<Json, TaskError>) {
        let Some(session) = self.state.holder(&task) else { return };
        let result = match result {
            Ok(output) => v1::tool_result::Result::Output(output.to_string()),
            Err(error) => v1::tool_result::Result::Error(error_to(&error)),
        };
        let news = v1::ToolResult { task: Some(task.to_proto()), no, result: Some(result) };
        self.send(session, vec![Kind::ToolResult(news)]);
    }

    /// Does what the state wants done.
    fn act(&mut self) {
        let now = self.args.runtime.clock.now();
        let mut frames: BTreeMap<SessionId, Vec<Kind>> = BTreeMap::new();
        for act in std::mem::take(&mut self.state.acts) {
            match act {
                Act::Assign(session, mut assignment) => {
                    let key = TaskKey::from_proto(assignment.task.as_ref()).ok();
                    let deadline = key.and_then(|key| self.state.deadline(&key)).unwrap_or(now);
                    assignment.timeout_ms =
                        u64::try_from(now.until(deadline).as_millis()).unwrap_or(u64::MAX);
                    frames.entry(session).or_default().push(Kind::Assignment(assignment));
                }
                // A worker that is gone sends its reports again when it is back.
                Act::Settled(Settled { session, keys }) => {
                    let acks = keys.into_iter().map(|key| Kind::ReportAck(key.to_proto()));
                    frames.entry(session).or_default().extend(acks);
                }
                Act::Cancel(session, key) => {
                    frames.entry(session).or_default().push(Kind::Cancel(key.to_proto()));
                }
                Act::Claim(session, claims) => {
                    frames.entry(session).or_default().push(Kind::Claim(claim_to(&claims)));
                }
                Act::Disown(session, shard) => {
                    let disowned = v1::Disowned { shards: vec![u32::from(shard.0)] };
                    frames.entry(session).or_default().push(Kind::Disowned(disowned));
                }
                Act::Fail(key, error) => self.fail(key, error),
            }
        }
        for (session, messages) in frames {
            self.send(session, messages);
        }
    }

    fn fail(&self, key: TaskKey, error: TaskError) {
        let command = Command::FinishTask { unit: key.unit, attempt: key.attempt, result: Err(error) };
        self.args.links.tell_run(key.run, command, Box::new(|_| {}));
    }

    /// Sends in frames. Definitions that the worker does not know go first: what it is told may have been decided under
    /// them, and nobody else sends them, so that nothing overtakes them. A worker whose queue is full is cut off: it
    /// comes back and says what it holds.
    fn send(&mut self, session: SessionId, messages: Vec<Kind>) {
        let in_force = self.args.definitions.in_force();
        let news = self.state.must_hear_of(session, in_force.revision);
        let news = news.then(|| Kind::Definitions(definitions_to(&in_force)));
        let mut messages = news
            .into_iter()
            .chain(messages)
            .map(|kind| v1::CoordinatorMessage { kind: Some(kind) })
            .peekable();
        while messages.peek().is_some() {
            let frame =
                v1::CoordinatorFrame { messages: messages.by_ref().take(FRAME_MESSAGES_MAX).collect() };
            let Some(to) = self.state.sender(session) else { return };
            if to.offer(frame).is_err() {
                tracing::warn!(?session, "a worker does not read its frames; its session is ended");
                self.state.left(Instant::now(), session);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
