//! The loop of the call desk: take a message, change the state, send what it wants sent.
use std::sync::Arc;
use std::time::Duration;

use kapell_kernel::{CallOutcome, CallVerdict, Command, ErrorClass, TaskError};
use kapell_model::Json;
use kapell_proto::v1::{self, call_message::Kind, call_report};
use kapell_wire::claim::{ShardClaim, claim_to};
use kapell_wire::task::{CallKey, error_from};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use super::message::CallMessage;
use super::state::{Act, CallState};
use crate::answer::answer;
use crate::definitions::Definitions;
use crate::dispatch::{DispatchMessage, SessionId, definitions_to};
use crate::links::Links;
use crate::session::is_settled;

/// How often leases and waiting times are looked at.
const TICK_EVERY: Duration = Duration::from_millis(100);

/// The call desk.
pub(crate) struct CallDesk;

/// What the call desk needs.
pub(crate) struct CallDeskArguments {
    pub(crate) links: Arc<Links>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) lease: Duration,
}

pub(crate) struct Running {
    args: CallDeskArguments,
    state: CallState,
}

impl Actor for CallDesk {
    type Msg = CallMessage;
    type State = Running;
    type Arguments = CallDeskArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<CallMessage>,
        args: CallDeskArguments,
    ) -> Result<Running, ActorProcessingErr> {
        myself.send_interval(TICK_EVERY, || CallMessage::Tick);
        let state = CallState::new(args.lease);
        Ok(Running { args, state })
    }

    async fn handle(
        &self,
        _: ActorRef<CallMessage>,
        message: CallMessage,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        running.take(message);
        running.act();
        Ok(())
    }
}

impl Running {
    /// table: one arm for each message.
    fn take(&mut self, message: CallMessage) {
        let now = Instant::now();
        let in_force = self.args.definitions.in_force();
        match message {
            CallMessage::Make(order) => self.state.make(now, order, &in_force),
            CallMessage::FindOut(order) => self.state.find_out(now, order, &in_force),
            CallMessage::Over((run, unit, no, attempt)) => {
                self.state.over(CallKey { run, unit, no, attempt })
            }
            CallMessage::Read(read) => self.state.read(now, read, &in_force),
            CallMessage::Own(shard, epoch) => self.state.own(ShardClaim { shard, epoch }),
            CallMessage::Disown(shard) => self.state.disown(shard),
            CallMessage::Holding(session, shards, keys) => {
                self.state.heard(now, session);
                self.state.holding(now, session, &shards, &keys);
            }
            CallMessage::Join(intro, reply) => {
                let session = self.state.join(now, intro, &in_force);
                // The stream that asked may have ended meanwhile; `Left` follows then.
                answer(reply, session);
            }
            CallMessage::Left(session) => self.state.left(now, session),
            CallMessage::Heard(session) => self.state.heard(now, session),
            CallMessage::Report(session, report) => {
                self.state.heard(now, session);
                self.report(now, session, *report);
                self.state.tick(now, &in_force);
            }
            CallMessage::Define(session) => self.send(session, None),
            CallMessage::Tick => self.state.tick(now, &in_force),
            CallMessage::Stuck(keys, reply) => answer(reply, self.state.stuck(now, &keys)),
            CallMessage::Status(reply) => answer(reply, self.state.status(now)),
        }
    }

    fn report(&mut self, now: Instant, session: SessionId, report: v1::CallReport) {
        let outcome = outcome_of(report.result);
        match report.which {
            Some(call_report::Which::Read(id)) => {
                let result = match outcome {
                    CallOutcome::Succeeded(output) => Ok(output),
                    CallOutcome::Failed(error) => Err(error),
                    CallOutcome::Unknown { reason } => Err(TaskError::new(ErrorClass::Unavailable, &*reason)),
                };
                self.state.read_done(now, session, id, result);
            }
            Some(call_report::Which::Call(call)) => match CallKey::from_proto(Some(&call)) {
                Ok(key) => {
                    self.state.made(now, session, key);
                    self.finish(session, key, outcome);
                }
                Err(error) => tracing::warn!(%error, "a connector reported a call that is none"),
            },
            None => tracing::warn!("a connector reported nothing"),
        }
    }

    fn finish(&self, session: SessionId, key: CallKey, outcome: CallOutcome) {
        let command = Command::FinishCall { unit: key.unit, no: key.no, attempt: key.attempt, outcome };
        let ack = self.ack(session, key);
        // Durable, or not wanted: either way the connector may forget it. If not, it reports again.
        let answered = move |result| {
            if is_settled(&result) {
                ack();
            }
        };
        self.args.links.tell_run(key.run, command, Box::new(answered));
    }

    fn settle(&self, key: CallKey, verdict: CallVerdict) {
        let command = Command::SettleCall { unit: key.unit, no: key.no, attempt: key.attempt, verdict };
        self.args.links.tell_run(key.run, command, Box::new(|_| {}));
    }

    fn ack(&self, session: SessionId, key: CallKey) -> impl FnOnce() + Send + use<> {
        let to = self.state.sender(session).cloned();
        move || {
            let message = v1::CallMessage { kind: Some(Kind::ReportAck(key.to_proto())) };
            // A connector that does not read is cut off by its stream; it sends the report again when it is back.
            if let Some(to) = to {
                drop(to.offer(v1::CallFrame { messages: vec![message] }));
            }
        }
    }

    fn act(&mut self) {
        for act in std::mem::take(&mut self.state.acts) {
            match act {
                Act::Send(session, order) => self.send(session, Some(Kind::Call(order))),
                Act::Claim(session, claims) => self.send(session, Some(Kind::Claim(claim_to(&claims)))),
                Act::Finish(key, outcome) => {
                    let command =
                        Command::FinishCall { unit: key.unit, no: key.no, attempt: key.attempt, outcome };
                    self.args.links.tell_run(key.run, command, Box::new(|_| {}));
                }
                Act::Settle(key, verdict) => self.settle(key, verdict),
                Act::ReadDone(read, result) => self.args.links.tell_dispatch(DispatchMessage::ReadDone {
                    task: read.task,
                    no: read.no,
                    result,
                }),
            }
        }
    }

    /// Definitions that the connector does not know go first: the call may have been decided under them, and nobody else
    /// sends them, so that nothing overtakes them.
    fn send(&mut self, session: SessionId, said: Option<Kind>) {
        let in_force = self.args.definitions.in_force();
        let news = self.state.must_hear_of(session, in_force.revision);
        let news = news.then(|| Kind::Definitions(definitions_to(&in_force)));
        let messages: Vec<_> =
            news.into_iter().chain(said).map(|kind| v1::CallMessage { kind: Some(kind) }).collect();
        if messages.is_empty() {
            return;
        }
        let frame = v1::CallFrame { messages };
        let sent = self.state.sender(session).is_some_and(|to| to.offer(frame).is_ok());
        if !sent {
            tracing::warn!(?session, "a connector does not read its frames; its session is ended");
            self.state.left(Instant::now(), session);
        }
    }
}

fn outcome_of(result: Option<call_report::Result>) -> CallOutcome {
    let broken = |why: String| CallOutcome::Unknown { reason: why.into() };
    match result {
        Some(call_report::Result::Output(text)) => match Json::parse(&text) {
            Ok(output) => CallOutcome::Succeeded(output),
            // The call took effect; only its answer cannot be kept.
            Err(_) => CallOutcome::Succeeded(Json::null()),
        },
        Some(call_report::Result::Error(error)) => match error_from(error) {
            Ok(error) => CallOutcome::Failed(error),
            Err(error) => broken(error.to_string()),
        },
        Some(call_report::Result::Unknown(reason)) => broken(reason),
        None => broken("the connector reported no result".to_owned()),
    }
}

#[cfg(test)]
mod tests;
