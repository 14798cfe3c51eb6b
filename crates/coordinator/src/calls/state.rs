//! Which connector holds which call. Synchronous; says what to send and what to report, and never sends.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kapell_kernel::{Call, CallOutcome, CallVerdict, ErrorClass, TaskError, UnitId};
use kapell_model::definition::Idempotency;
use kapell_model::{Json, Name};
use kapell_proto::v1;
use kapell_wire::claim::ShardClaim;
use kapell_wire::task::CallKey;
use tokio::time::Instant;

use super::message::{ConnectorIntro, Read, ToConnector};
use crate::definitions::InForce;
use crate::dispatch::{SessionId, Shards};
use crate::limits::READS_MAX;
use crate::shard::{Origin, WorkOrder};

/// What the call desk wants done.
#[derive(Debug)]
pub(super) enum Act {
    /// Send to a connector.
    Send(SessionId, v1::CallOrder),
    /// Tell a connector that shards are here.
    Claim(SessionId, Vec<ShardClaim>),
    /// Tell a run how a call went.
    Finish(CallKey, CallOutcome),
    /// Tell a run what was found out.
    Settle(CallKey, CallVerdict),
    /// Tell a task how a read went.
    ReadDone(Read, Result<Json, TaskError>),
}

/// One connected (or just disconnected) connector.
struct Session {
    name: String,
    instance: Vec<u8>,
    capacity: u32,
    held: BTreeSet<Item>,
    /// Whether it understands claims.
    claims: bool,
    /// Of the definitions that it was told last.
    revision: u64,
    to: Option<ToConnector>,
    heard: Instant,
}

/// Something that a connector does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Call(CallKey),
    Read(u64),
}

struct Work {
    namespace: Name,
    call: Call,
    aim: Aim,
    place: Place,
    /// Since when it is known here with this aim.
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Make,
    FindOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Queued,
    Held(SessionId),
    /// Found in the journal; a connector may hold it.
    Limbo,
    /// What was sent may still take effect until then.
    Settling(Instant),
    /// A read is under way that finds out.
    FindingOut,
    /// The run was told how it ended and has not answered yet; it must not be made again meanwhile.
    Told {
        since: Instant,
    },
}

struct Reading {
    purpose: Purpose,
    until: Instant,
    held: Option<SessionId>,
}

/// What a read is for.
enum Purpose {
    /// A task waits for it.
    Task(Read),
    /// It finds out whether this call took effect.
    FindOut(CallKey),
}

/// Which connector holds which call.
pub(super) struct CallState {
    sessions: BTreeMap<SessionId, Session>,
    calls: BTreeMap<CallKey, Work>,
    reads: BTreeMap<u64, Reading>,
    queue: VecDeque<Item>,
    next_session: u64,
    next_read: u64,
    lease: Duration,
    shards: Shards,
    pub(super) acts: Vec<Act>,
}

/// Pause before somebody asks again whether a call took effect.
const FIND_OUT_AGAIN: Duration = Duration::from_secs(1);

impl CallState {
    pub(super) fn new(lease: Duration) -> CallState {
        CallState {
            sessions: BTreeMap::new(),
            calls: BTreeMap::new(),
            reads: BTreeMap::new(),
            queue: VecDeque::new(),
            next_session: 1,
            next_read: 1,
            lease,
            shards: Shards::new(lease),
            acts: Vec::new(),
        }
    }

    pub(super) fn make(&mut self, now: Instant, order: WorkOrder<(UnitId, Call)>, in_force: &InForce) {
        let (unit, call) = order.work;
        let key = CallKey { run: order.run, unit, no: call.no, attempt: call.attempt };
        if self.calls.get(&key).is_some_and(|work| work.aim == Aim::Make)
            || self.comes_late(&key, order.origin)
        {
            return;
        }
        // What was found in the journal may have been made already, however late it was found: a long recovery must
        // not shorten the time in which connectors come back with what they hold.
        let waits = order.origin == Origin::Recovered;
        if waits {
            self.shards.found(key.run.shard(), now);
        }
        let place = if waits { Place::Limbo } else { Place::Queued };
        self.calls.insert(key, Work { namespace: order.namespace, call, aim: Aim::Make, place, since: now });
        if !waits {
            self.queue.push_back(Item::Call(key));
            self.hand_out(in_force);
        }
    }

    /// Whether the call's shard has left, and its next owner drives it. Only what was found by loading a shard comes
    /// before the word that it is here.
    fn comes_late(&self, key: &CallKey, origin: Origin) -> bool {
        origin == Origin::New && !self.shards.is_here(key.run.shard())
    }

    /// Begins to find out, by the means that the tool declares.
    pub(super) fn find_out(&mut self, now: Instant, order: WorkOrder<(UnitId, Call)>, in_force: &InForce) {
        let (unit, call) = order.work;
        let key = CallKey { run: order.run, unit, no: call.no, attempt: call.attempt };
        let known = self.calls.get(&key).is_some_and(|work| work.aim == Aim::FindOut);
        if known || self.comes_late(&key, order.origin) {
            return;
        }
        let Some(entry) = in_force.catalogue.tool(&order.namespace, &call.tool) else {
            let reason = format!("the tool `{}` is not defined any more", call.tool).into();
            self.acts.push(Act::Settle(key, CallVerdict::CannotTell { reason }));
            return;
        };
        match (&entry.tool.idempotency, &entry.tool.reconcile) {
            (Idempotency::Natural | Idempotency::Key { .. }, _) => {
                self.acts.push(Act::Settle(key, CallVerdict::SafeToRepeat));
            }
            (Idempotency::None, Some(_)) => {
                // A connector may still begin the call it holds within one timeout, and what it sent may take effect
                // within another: a read before that could miss it.
                let place = Place::Settling(now + entry.timeout * 2);
                self.calls.insert(
                    key,
                    Work { namespace: order.namespace, call, aim: Aim::FindOut, place, since: now },
                );
            }
            (Idempotency::None, None) => {
                let reason = format!("the tool `{}` declares no way to find out", call.tool).into();
                self.acts.push(Act::Settle(key, CallVerdict::CannotTell { reason }));
            }
        }
    }

    pub(super) fn over(&mut self, key: CallKey) {
        if let Some(work) = self.calls.remove(&key)
            && let Place::Held(session) = work.place
            && let Some(session) = self.sessions.get_mut(&session)
        {
            session.held.remove(&Item::Call(key));
        }
    }

    pub(super) fn read(&mut self, now: Instant, read: Read, in_force: &InForce) {
        if self.reads.len() >= READS_MAX {
            let message = format!("{READS_MAX} reads are under way already");
            self.acts.push(Act::ReadDone(read, Err(TaskError::new(ErrorClass::RateLimited, message))));
            return;
        }
        let until = now + read.timeout * 2;
        self.begin_read(Purpose::Task(read), until);
        self.hand_out(in_force);
    }

    fn begin_read(&mut self, purpose: Purpose, until: Instant) {
        let id = self.next_read;
        self.next_read += 1;
        self.reads.insert(id, Reading { purpose, until, held: None });
        self.queue.push_back(Item::Read(id));
    }

    pub(super) fn join(&mut self, now: Instant, intro: ConnectorIntro, in_force: &InForce) -> SessionId {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        self.shards.came(now);
        let earlier: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.name == intro.name)
            .map(|(id, _)| *id)
            .collect();
        let mut before = BTreeSet::new();
        for old in earlier {
            let same = self.sessions.get(&old).is_some_and(|session| session.instance == intro.instance);
            if same {
                before.extend(self.sessions.remove(&old).map(|session| session.held).unwrap_or_default());
            } else {
                self.lose(now, old, "another process took the connector's place");
            }
        }
        let holding: BTreeSet<Item> = intro.holding.iter().copied().map(Item::Call).collect();
        let session = Session {
            name: intro.name,
            instance: intro.instance,
            capacity: intro.capacity,
            held: BTreeSet::new(),
            claims: intro.claims,
            revision: intro.revision,
            to: Some(intro.to),
            heard: now,
        };
        self.sessions.insert(id, session);
        if intro.claims {
            // Also if it is nothing: what was claimed over an earlier connection does not count any more.
            self.acts.push(Act::Claim(id, self.shards.claims()));
        }
        intro.holding.iter().for_each(|key| self.claim(id, *key));
        // Sent, but the connector never got it: nothing was begun.
        for item in before.difference(&holding) {
            self.requeue(*item);
        }
        self.hand_out(in_force);
        id
    }

    fn claim(&mut self, session: SessionId, key: CallKey) {
        if let Some(work) = self.calls.get_mut(&key)
            && work.aim == Aim::Make
            && matches!(work.place, Place::Limbo | Place::Held(_) | Place::Queued)
        {
            work.place = Place::Held(session);
            self.queue.retain(|item| *item != Item::Call(key));
            if let Some(session) = self.sessions.get_mut(&session) {
                session.held.insert(Item::Call(key));
            }
        }
    }

    fn requeue(&mut self, item: Item) {
        match item {
            Item::Call(key) => {
                let Some(work) = self.calls.get_mut(&key) else { return };
                work.place = Place::Queued;
            }
            Item::Read(id) => {
                let Some(reading) = self.reads.get_mut(&id) else { return };
                reading.held = None;
            }
        }
        self.queue.push_back(item);
    }

    pub(super) fn left(&mut self, now: Instant, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.to = None;
            session.heard = now;
        }
    }

    pub(super) fn heard(&mut self, now: Instant, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.heard = now;
        }
    }

    /// A call ended; its run is told, and it must not be made again meanwhile.
    pub(super) fn made(&mut self, now: Instant, session: SessionId, key: CallKey) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.held.remove(&Item::Call(key));
        }
        // A report may come after its session was given up. By then it is being found out how the call ended, and that
        // goes on: the run takes no other answer any more.
        if self.calls.get(&key).is_some_and(|work| work.aim == Aim::Make) {
            self.told(now, key);
        }
    }

    /// A read ended.
    pub(super) fn read_done(
        &mut self,
        now: Instant,
        session: SessionId,
        id: u64,
        result: Result<Json, TaskError>,
    ) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.held.remove(&Item::Read(id));
        }
        match self.reads.remove(&id).map(|reading| reading.purpose) {
            Some(Purpose::Task(read)) => self.acts.push(Act::ReadDone(read, result)),
            Some(Purpose::FindOut(key)) => self.found_out(now, key, result),
            None => {}
        }
    }

    fn found_out(&mut self, now: Instant, key: CallKey, result: Result<Json, TaskError>) {
        if !self.calls.contains_key(&key) {
            // It is over, or its shard left and the next owner finds out.
            return;
        }
        let verdict = match result {
            Ok(found) => verdict_of(&found),
            Err(error) if !error.class.is_retryable() => {
                Some(CallVerdict::CannotTell { reason: error.to_string().into() })
            }
            Err(_) => None,
        };
        match verdict {
            Some(verdict) => {
                self.told(now, key);
                self.acts.push(Act::Settle(key, verdict));
            }
            None => self.find_out_later(now, key),
        }
    }

    fn told(&mut self, now: Instant, key: CallKey) {
        if let Some(work) = self.calls.get_mut(&key) {
            work.place = Place::Told { since: now };
        }
    }

    /// The finding-out failed; it is tried again.
    fn find_out_later(&mut self, now: Instant, key: CallKey) {
        if let Some(work) = self.calls.get_mut(&key) {
            work.place = Place::Settling(now + FIND_OUT_AGAIN);
        }
    }

    pub(super) fn tick(&mut self, now: Instant, in_force: &InForce) {
        let silent = |session: &Session| session.heard + self.lease <= now;
        let lost: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| silent(session)).map(|(id, _)| *id).collect();
        for id in lost {
            self.lose(now, id, "the connector was silent for longer than its lease");
        }
        self.end_limbo(now);
        let settled: Vec<CallKey> = self
            .calls
            .iter()
            .filter(|(_, work)| matches!(work.place, Place::Settling(until) if until <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in settled {
            self.begin_find_out(now, key, in_force);
        }
        let late = self.reads.iter().filter(|(_, reading)| reading.until <= now);
        let late: Vec<(u64, Option<SessionId>)> = late.map(|(id, reading)| (*id, reading.held)).collect();
        for (id, held) in late {
            let error = TaskError::new(ErrorClass::Unavailable, "no connector answered in time");
            self.read_done(now, held.unwrap_or(SessionId(0)), id, Err(error));
        }
        self.hand_out(in_force);
    }

    /// What nobody will come with any more: it may have been made.
    fn end_limbo(&mut self, now: Instant) {
        for shard in self.shards.adopted(now, self.sessions.keys().copied()) {
            let found = self.calls.range(CallKey::of_shard(shard));
            let limbo: Vec<CallKey> =
                found.filter(|(_, work)| work.place == Place::Limbo).map(|(key, _)| *key).collect();
            for key in limbo {
                self.told(now, key);
                let reason: Arc<str> = "no connector came with the call after its shard was loaded".into();
                self.acts.push(Act::Finish(key, CallOutcome::Unknown { reason }));
            }
        }
    }

    fn begin_find_out(&mut self, now: Instant, key: CallKey, in_force: &InForce) {
        let Some(work) = self.calls.get_mut(&key) else { return };
        let tool = in_force.catalogue.tool(&work.namespace, &work.call.tool);
        let until = now + tool.map_or(FIND_OUT_AGAIN, |tool| tool.timeout) * 2;
        work.place = Place::FindingOut;
        self.begin_read(Purpose::FindOut(key), until);
    }

    fn lose(&mut self, now: Instant, id: SessionId, why: &str) {
        let Some(session) = self.sessions.remove(&id) else { return };
        for item in session.held {
            match item {
                // One whose shard left is its next owner's.
                Item::Call(key) if !self.calls.contains_key(&key) => {}
                Item::Call(key) => {
                    self.told(now, key);
                    self.acts.push(Act::Finish(key, CallOutcome::Unknown { reason: why.into() }));
                }
                Item::Read(id) => {
                    let error = TaskError::new(ErrorClass::Unavailable, why);
                    self.read_done(now, SessionId(0), id, Err(error));
                }
            }
        }
    }

    /// Hands waiting work to connectors with room, the one with the most room first.
    fn hand_out(&mut self, in_force: &InForce) {
        while !self.queue.is_empty() {
            let room = |session: &Session| session.capacity.saturating_sub(session.held.len() as u32);
            let best = self
                .sessions
                .iter()
                .filter(|(_, session)| session.to.is_some() && room(session) > 0)
                .max_by_key(|(_, session)| room(session))
                .map(|(id, _)| *id);
            // Nothing is taken from the queue while nobody has room for it.
            let Some(session) = best else { return };
            let Some(item) = self.queue.pop_front() else { return };
            if let Some(order) = self.order(session, item, in_force) {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.held.insert(item);
                }
                self.acts.push(Act::Send(session, order));
            }
        }
    }

    fn order(&mut self, session: SessionId, item: Item, in_force: &InForce) -> Option<v1::CallOrder> {
        match item {
            Item::Call(key) => {
                let work = self.calls.get_mut(&key).filter(|work| work.place == Place::Queued)?;
                work.place = Place::Held(session);
                let timeout =
                    in_force.catalogue.tool(&work.namespace, &work.call.tool).map(|tool| tool.timeout);
                Some(v1::CallOrder {
                    which: Some(v1::call_order::Which::Call(key.to_proto())),
                    namespace: work.namespace.to_string(),
                    tool: work.call.tool.to_string(),
                    args: work.call.args.to_string(),
                    key: idempotency_key(&key),
                    begin_within_ms: timeout.map_or(0, |timeout| timeout.as_millis() as u64),
                    mode: v1::CallMode::Call.into(),
                    epoch: self.shards.epoch(key.run.shard()),
                })
            }
            Item::Read(id) => {
                let reading = self.reads.get_mut(&id)?;
                reading.held = Some(session);
                let which = Some(v1::call_order::Which::Read(id));
                match &reading.purpose {
                    Purpose::Task(read) => Some(v1::CallOrder {
                        which,
                        namespace: read.namespace.to_string(),
                        tool: read.tool.to_string(),
                        args: read.args.to_string(),
                        key: String::new(),
                        begin_within_ms: read.timeout.as_millis() as u64,
                        mode: v1::CallMode::Call.into(),
                        epoch: 0,
                    }),
                    Purpose::FindOut(key) => {
                        let work = self.calls.get(key)?;
                        let tool = in_force.catalogue.tool(&work.namespace, &work.call.tool);
                        Some(v1::CallOrder {
                            which,
                            namespace: work.namespace.to_string(),
                            tool: work.call.tool.to_string(),
                            args: work.call.args.to_string(),
                            key: idempotency_key(key),
                            begin_within_ms: tool.map_or(0, |tool| tool.timeout.as_millis() as u64),
                            mode: v1::CallMode::Reconcile.into(),
                            epoch: 0,
                        })
                    }
                }
            }
        }
    }

    /// Whether the connector must be told of these definitions before any call that was decided under them. Asked once
    /// for each: from then on it counts as told.
    pub(super) fn must_hear_of(&mut self, session: SessionId, revision: u64) -> bool {
        let behind = self.sessions.get_mut(&session).filter(|session| session.revision < revision);
        behind.map(|session| session.revision = revision).is_some()
    }

    pub(super) fn sender(&self, session: SessionId) -> Option<&ToConnector> {
        self.sessions.get(&session)?.to.as_ref()
    }

    pub(super) fn status(&self, now: Instant) -> Vec<v1::SessionStatus> {
        let sessions = self.sessions.values().map(|session| v1::SessionStatus {
            name: session.name.clone(),
            instance: crate::dispatch::hex(&session.instance),
            capacity: session.capacity,
            busy: session.held.len() as u32,
            silent_ms: i64::try_from(now.duration_since(session.heard).as_millis()).unwrap_or(i64::MAX),
            quarantined: vec![],
        });
        sessions.collect()
    }
}

fn verdict_of(found: &Json) -> Option<CallVerdict> {
    let value = found.value();
    if value["took_effect"].as_bool()? {
        Some(CallVerdict::TookEffect(Json::of(&value["result"])))
    } else {
        Some(CallVerdict::SafeToRepeat)
    }
}

/// The same in every making of the call: what `idempotency: key` carries.
fn idempotency_key(key: &CallKey) -> String {
    let unit = kapell_wire::task::unit_to(key.unit);
    let item = unit.item.map_or_else(String::new, |item| format!(".{item}"));
    let undo = if unit.undo { "u" } else { "" };
    format!("{}-{}{item}{undo}-{}", key.run, unit.step, key.no.0)
}

mod moves;
mod stuck;
#[cfg(test)]
mod tests;
