//! What the host knows, without its actors.
//!
//! Owns: what is taken, refused, sent again and forgotten. Never: starts an actor or writes to a connection.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::Epoch;
use kapell_model::definition::SpecialistLimits;
use kapell_proto::v1::coordinator_message::Kind as Said;
use kapell_proto::v1::worker_message::Kind;
use kapell_proto::v1::{
    Assignment, Checkpoint, Draining, Quarantine, TaskReport, ToolRequest, ToolResult, WorkerHello,
    WorkerMessage, task_report, tool_result,
};
use kapell_wire::claim::{Claims, FEATURE};
use kapell_wire::task::{TaskKey, error_from, error_to};
use tokio::time::Instant;

use super::held::{Again, HeldTasks, of};
use super::message::{CallAnswer, CheckpointAnswer, SessionNo, SpecialistNo};
use crate::definitions::{Compiled, How, Skill, SpecialistName};
use crate::limits::{UNACKNOWLEDGED_BYTES_MAX, UNACKNOWLEDGED_MAX};
use crate::options::Hosted;
use crate::task::{Outcome, Task};

/// Who the worker is, as it says in its hello.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) worker: String,
    pub(crate) instance: [u8; 16],
    pub(crate) capacity: u32,
    pub(crate) hosted: Hosted,
    pub(crate) skills: Vec<String>,
}

/// What follows from what the host was told, in order within each list.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) send: Vec<(SessionNo, WorkerMessage)>,
    pub(crate) run: Vec<(SpecialistNo, Task)>,
    pub(crate) stop: Vec<(SpecialistNo, TaskKey)>,
    pub(crate) limit: Vec<(SpecialistNo, SpecialistLimits)>,
}

/// What the host knows.
#[derive(Debug)]
pub(crate) struct State {
    identity: Identity,
    sessions: Vec<Session>,
    tasks: HeldTasks,
    claims: Claims<SessionNo>,
    current: Arc<Compiled>,
    specialists: Vec<Specialist>,
    numbers: BTreeMap<SpecialistName, SpecialistNo>,
    mode: Mode,
}

#[derive(Clone, Debug, Default)]
struct Session {
    link: Link,
    /// What the coordinator said last.
    said: Option<Arc<Compiled>>,
    /// Over this connection.
    has_claimed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    #[default]
    Down,
    Up,
}

#[derive(Debug)]
struct Specialist {
    name: SpecialistName,
    limits: SpecialistLimits,
    /// Why it takes no tasks.
    quarantine: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Mode {
    Open,
    Draining,
}

impl State {
    pub(crate) fn new(identity: Identity, sessions: usize) -> State {
        State {
            identity,
            sessions: vec![Session::default(); sessions],
            tasks: HeldTasks::new(sessions),
            claims: Claims::default(),
            current: Arc::default(),
            specialists: Vec::new(),
            numbers: BTreeMap::new(),
            mode: Mode::Open,
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn limits(&self, specialist: SpecialistNo) -> SpecialistLimits {
        self.specialists[specialist.0].limits
    }

    /// What a new connection begins with: the hello, then all that the coordinator may have missed.
    pub(crate) fn connected(&mut self, session: SessionNo) -> Vec<WorkerMessage> {
        let connection = &mut self.sessions[session.0];
        (connection.link, connection.has_claimed) = (Link::Up, false);
        let hello = WorkerHello {
            worker: self.identity.worker.clone(),
            instance: self.identity.instance.to_vec(),
            capacity: self.identity.capacity,
            builtin: match self.identity.hosted {
                Hosted::Everything => true,
                Hosted::AgentsOnly => false,
            },
            skills: self.identity.skills.clone(),
            holding: self.tasks.holding(session),
            features: vec![FEATURE.to_owned()],
        };
        let mut first = vec![of(Kind::Hello(hello))];
        first.extend(self.specialists.iter().filter_map(|specialist| {
            specialist.quarantine.as_ref().map(|reason| quarantine(&specialist.name, reason.clone()))
        }));
        match self.mode {
            Mode::Open => {}
            Mode::Draining => first.push(of(Kind::Draining(Draining {}))),
        }
        first.extend(self.tasks.unanswered(session));
        first
    }

    pub(crate) fn disconnected(&mut self, session: SessionNo) {
        self.sessions[session.0].link = Link::Down;
    }

    /// Stops what is under way for a coordinator that may have given it to others by now. What another has claimed is
    /// not its own any more and goes on.
    pub(crate) fn lease_lost(&mut self, session: SessionNo, effects: &mut Effects) {
        self.claims.forget(session);
        let lost = self.tasks.abandon(session);
        effects.stop.extend(lost.into_iter().map(|(key, specialist)| (specialist, key)));
    }

    /// Follows the newest revision of those that the connected coordinators know.
    pub(crate) fn definitions(&mut self, session: SessionNo, compiled: Arc<Compiled>, effects: &mut Effects) {
        self.sessions[session.0].said = Some(compiled);
        let connected = self.sessions.iter().filter(|session| session.link == Link::Up);
        let newest = connected.filter_map(|session| session.said.as_ref()).max_by_key(|said| said.revision);
        let Some(newest) = newest.cloned() else { return };
        if Arc::ptr_eq(&newest, &self.current) {
            return;
        }
        self.current = newest;
        let current = Arc::clone(&self.current);
        for skill in current.skills.values().flat_map(BTreeMap::values) {
            let no = self.number(skill);
            let known = &mut self.specialists[no.0];
            if known.limits != skill.limits {
                known.limits = skill.limits;
                effects.limit.push((no, skill.limits));
            }
        }
    }

    fn number(&mut self, skill: &Skill) -> SpecialistNo {
        if let Some(no) = self.numbers.get(&skill.specialist) {
            return *no;
        }
        let no = SpecialistNo(self.specialists.len());
        let name = skill.specialist.clone();
        self.specialists.push(Specialist { name: name.clone(), limits: skill.limits, quarantine: None });
        self.numbers.insert(name, no);
        no
    }

    /// What a coordinator said. What names nothing is passed over: nobody could be answered. Acknowledgements count
    /// from everybody (what is on disk is on disk), everything else about a task only from its home.
    pub(crate) fn inbound(&mut self, from: SessionNo, said: Said, now: Instant, effects: &mut Effects) {
        match said {
            Said::Assignment(assignment) => self.assigned(from, assignment, now, effects),
            Said::ToolResult(result) => self.tool_result(from, result),
            Said::Claim(claim) => self.claimed(from, &claim, effects),
            Said::Disowned(disowned) => self.disowned(from, &disowned),
            Said::CheckpointAck(ack) => {
                let key = TaskKey::from_proto(ack.task.as_ref());
                let waiting = key.ok().and_then(|key| self.tasks.running(&key).map(|(_, running)| running));
                if let Some((_, answer)) =
                    waiting.and_then(|running| running.checkpoints.remove(&ack.position))
                {
                    // Nobody waits any more: the agent went on.
                    let _gone = answer.send(());
                }
            }
            Said::ReportAck(task) => match TaskKey::from_proto(Some(&task)) {
                Ok(key) => self.tasks.acknowledged(&key),
                Err(error) => tracing::warn!(%error, "an acknowledgement names no task"),
            },
            Said::Cancel(task) => match TaskKey::from_proto(Some(&task)) {
                Ok(key) => {
                    effects.stop.extend(self.tasks.cancel(&key, from).map(|specialist| (specialist, key)));
                }
                Err(error) => tracing::warn!(%error, "a cancelation names no task"),
            },
            // The session handles these before the host sees them.
            Said::Welcome(_) | Said::Definitions(_) | Said::Heartbeat(_) => {}
        }
    }

    fn assigned(&mut self, from: SessionNo, assignment: Assignment, now: Instant, effects: &mut Effects) {
        let key = match TaskKey::from_proto(assignment.task.as_ref()) {
            Ok(key) => key,
            Err(error) => return tracing::warn!(%error, "an assignment names no task"),
        };
        if self.claims.is_stale(key.run.shard(), Epoch(assignment.epoch)) {
            // No report: the owner of the shard would take it for the end of the attempt, which it has given to others.
            return tracing::debug!(task = ?key, "a coordinator assigned a task of a shard that it has lost");
        }
        match self.tasks.assigned_again(&key, from) {
            None => {}
            Some(Again::Running(unanswered)) => {
                return effects.send.extend(unanswered.into_iter().map(|message| (from, message)));
            }
            Some(Again::Ended(report)) => return effects.send.push((from, report)),
        }
        match self.admit(from, &assignment) {
            Ok((specialist, skill)) => {
                self.tasks.begin(key, from, specialist);
                effects.run.push((specialist, task(key, skill, assignment, now)));
            }
            // Not held: a coordinator that does not hear it finds the task missing in the next hello.
            Err(error) => effects.send.push((from, of(Kind::Report(report(&key, Err(error)))))),
        }
    }

    fn admit(
        &self,
        from: SessionNo,
        assignment: &Assignment,
    ) -> Result<(SpecialistNo, Arc<Skill>), TaskError> {
        let counts = self.tasks.counts(from);
        let full = counts.running >= self.identity.capacity as usize
            || counts.unacknowledged >= UNACKNOWLEDGED_MAX
            || counts.unacknowledged_bytes >= UNACKNOWLEDGED_BYTES_MAX;
        if self.mode == Mode::Draining {
            return Err(TaskError::new(ErrorClass::Unavailable, "the worker is draining"));
        }
        if full {
            let text = format!("the worker has {} tasks, which is all that it takes", counts.running);
            return Err(TaskError::new(ErrorClass::Unavailable, text));
        }
        let nobody = |reason: &str| {
            let text = format!("worker `{}` {reason} `{}`", self.identity.worker, assignment.skill);
            TaskError::new(ErrorClass::NoSpecialist, text)
        };
        let of_namespace = self.current.skills.get(assignment.namespace.as_str());
        let skill = of_namespace.and_then(|skills| skills.get(assignment.skill.as_str()));
        let skill = skill.ok_or_else(|| nobody("knows no specialist that offers"))?;
        match skill.how {
            How::Elsewhere => return Err(nobody("has no agent for")),
            How::Constant(_) | How::Rules(_) | How::Call(_, _) | How::Agent(_) => {}
        }
        let no = *self.numbers.get(&skill.specialist).ok_or_else(|| nobody("has no supervisor for"))?;
        match &self.specialists[no.0].quarantine {
            Some(reason) => Err(nobody(&format!("has the specialist in quarantine ({reason}) of"))),
            None => Ok((no, Arc::clone(skill))),
        }
    }

    /// One that does not come from the home is no answer: the home was asked again, and a coordinator that has lost the
    /// shard may refuse what its successor allows.
    fn tool_result(&mut self, from: SessionNo, result: ToolResult) {
        let Ok(key) = TaskKey::from_proto(result.task.as_ref()) else {
            return tracing::warn!("the result of a tool call names no task");
        };
        let running = self.tasks.running(&key).filter(|(home, _)| *home == from);
        let waiting = running.and_then(|(_, running)| running.calls.remove(&result.no));
        let Some((_, answer)) = waiting else { return };
        let outcome = match result.result {
            Some(tool_result::Result::Output(output)) => Ok(output),
            Some(tool_result::Result::Error(error)) => Err(error_from(error)
                .unwrap_or_else(|unknown| TaskError::new(ErrorClass::Permanent, unknown.to_string()))),
            None => Err(TaskError::new(ErrorClass::Permanent, "the coordinator sent no result")),
        };
        // Nobody waits any more: the agent went on.
        let _gone = answer.send(outcome);
    }

    pub(crate) fn ended(&mut self, key: TaskKey, outcome: Outcome, effects: &mut Effects) {
        effects.send.extend(self.tasks.end(&key, report(&key, outcome)));
    }

    /// Sends a tool request and keeps it until it is answered. Dropping `answer` tells the task that it is stopped.
    pub(crate) fn call(
        &mut self,
        request: ToolRequest,
        key: TaskKey,
        answer: CallAnswer,
        effects: &mut Effects,
    ) {
        if let Some((home, running)) = self.tasks.running(&key) {
            effects.send.push((home, of(Kind::Tool(request.clone()))));
            running.calls.insert(request.no, (request, answer));
        }
    }

    /// As [`State::call`], for a checkpoint.
    pub(crate) fn checkpoint(
        &mut self,
        checkpoint: Checkpoint,
        key: TaskKey,
        answer: CheckpointAnswer,
        effects: &mut Effects,
    ) {
        if let Some((home, running)) = self.tasks.running(&key) {
            effects.send.push((home, of(Kind::Checkpoint(checkpoint.clone()))));
            running.checkpoints.insert(checkpoint.position, (checkpoint, answer));
        }
    }

    /// An empty reason ends the quarantine.
    pub(crate) fn quarantined(&mut self, specialist: SpecialistNo, reason: String, effects: &mut Effects) {
        let known = &mut self.specialists[specialist.0];
        known.quarantine = (!reason.is_empty()).then(|| reason.clone());
        let message = quarantine(&known.name, reason);
        effects.send.extend(self.up().map(|session| (session, message.clone())));
    }

    /// The supervisor of a specialist died: a defect of this program, not of an agent.
    pub(crate) fn supervisor_died(&mut self, specialist: SpecialistNo, text: &str, effects: &mut Effects) {
        for key in self.tasks.of_specialist(specialist) {
            self.ended(key, Err(TaskError::new(ErrorClass::Panicked, text)), effects);
        }
        if self.specialists[specialist.0].quarantine.is_some() {
            // Its memory of the quarantine died with it.
            self.quarantined(specialist, String::new(), effects);
        }
    }

    pub(crate) fn drain(&mut self, effects: &mut Effects) {
        if self.mode == Mode::Open {
            self.mode = Mode::Draining;
            effects.send.extend(self.up().map(|session| (session, of(Kind::Draining(Draining {})))));
        }
    }

    fn up(&self) -> impl Iterator<Item = SessionNo> {
        let linked = self.sessions.iter().enumerate().filter(|(_, session)| session.link == Link::Up);
        linked.map(|(at, _)| SessionNo(at))
    }
}

fn quarantine(specialist: &SpecialistName, reason: String) -> WorkerMessage {
    of(Kind::Quarantine(Quarantine { specialist: specialist.to_string(), reason }))
}

fn task(key: TaskKey, skill: Arc<Skill>, assignment: Assignment, now: Instant) -> Task {
    // 0 is what a sender leaves out: then the skill's own time holds.
    let time = match assignment.timeout_ms {
        0 => skill.timeout,
        millis => Duration::from_millis(millis),
    };
    // The bound keeps the sum from overflowing; nobody waits so long.
    let deadline = now + time.min(Duration::from_secs(366 * 24 * 3600));
    let Assignment { input, checkpoints, traceparent, .. } = assignment;
    Task { key, skill, input, checkpoints, deadline, traceparent }
}

fn report(key: &TaskKey, outcome: Outcome) -> TaskReport {
    let result = match outcome {
        Ok(output) => task_report::Result::Output(output),
        Err(error) => task_report::Result::Error(error_to(&error)),
    };
    TaskReport { task: Some(key.to_proto()), result: Some(result) }
}

mod shards;
#[cfg(test)]
mod tests;
