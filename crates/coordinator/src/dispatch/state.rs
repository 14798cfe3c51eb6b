//! Who holds which task. Synchronous; says what to send and what to report, and never sends.
//!
//! The tasks that were found in the journal when a shard was loaded may be held by workers that have not said so yet:
//! they are in limbo until a worker comes with them, until all workers have said what they hold, or until the longest
//! lease is over. Nobody gives them out before.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kapell_kernel::{Dispatch, ErrorClass, TaskError};
use kapell_model::definition::Runtime;
use kapell_model::{Name, ShardId, Timestamp};
use kapell_proto::v1;
use kapell_wire::claim::ShardClaim;
use kapell_wire::task::TaskKey;
use tokio::time::Instant;

use super::message::{DispatchStatus, SessionId, Settled, ToWorker, WorkerIntro};
use super::queue::{FairQueue, Pool};
use super::shards::Shards;
use crate::definitions::InForce;
use crate::shard::{Origin, WorkOrder};

/// What the dispatcher wants done.
#[derive(Debug)]
pub(super) enum Act {
    /// Tell a worker that its reports are on disk, or stale.
    Settled(Settled),
    /// Send to a worker.
    Assign(SessionId, v1::Assignment),
    /// Tell a worker that a task is not wanted.
    Cancel(SessionId, TaskKey),
    /// Tell a worker that shards are here.
    Claim(SessionId, Vec<ShardClaim>),
    /// Tell a worker that a shard is not here any more.
    Disown(SessionId, ShardId),
    /// Tell a run that an attempt failed.
    Fail(TaskKey, TaskError),
}

/// One connected (or just disconnected) worker.
pub(super) struct Session {
    name: String,
    instance: Vec<u8>,
    capacity: u32,
    builtin: bool,
    skills: BTreeSet<String>,
    held: BTreeSet<TaskKey>,
    quarantined: BTreeMap<String, String>,
    draining: bool,
    /// Whether it understands claims.
    claims: bool,
    /// Of the definitions that it was told last.
    revision: u64,
    /// `None`: the connection ended; the lease runs.
    pub(super) to: Option<ToWorker>,
    heard: Instant,
}

struct Task {
    namespace: Name,
    work: Dispatch,
    place: Place,
    /// Since when it is known here.
    since: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// In the queue of a pool.
    Queued(Pool),
    /// With a worker.
    Held(SessionId),
    /// Found in the journal; a worker may hold it.
    Limbo,
}

/// Who holds which task.
pub(super) struct DispatchState {
    sessions: BTreeMap<SessionId, Session>,
    tasks: BTreeMap<TaskKey, Task>,
    queues: BTreeMap<Pool, FairQueue>,
    next_session: u64,
    lease: Duration,
    shards: Shards,
    pub(super) acts: Vec<Act>,
}

impl DispatchState {
    pub(super) fn new(lease: Duration) -> DispatchState {
        DispatchState {
            sessions: BTreeMap::new(),
            tasks: BTreeMap::new(),
            queues: BTreeMap::new(),
            next_session: 1,
            lease,
            shards: Shards::new(lease),
            acts: Vec::new(),
        }
    }

    pub(super) fn submit(&mut self, now: Instant, order: WorkOrder<Dispatch>, in_force: &InForce) {
        let key = TaskKey { run: order.run, unit: order.work.unit, attempt: order.work.attempt };
        let shard = key.run.shard();
        if self.tasks.contains_key(&key) {
            // The shard was reloaded and drives its orders again; this one is being driven.
            return;
        }
        if order.origin == Origin::New && !self.shards.is_here(shard) {
            // The shard left, and its next owner drives it. Only what was found by loading a shard comes before the word
            // that it is here.
            return;
        }
        let task = Task { namespace: order.namespace, work: order.work, place: Place::Limbo, since: now };
        self.tasks.insert(key, task);
        match order.origin {
            Origin::New => self.enqueue(key, in_force),
            Origin::Recovered => self.shards.found(shard, now),
        }
    }

    fn enqueue(&mut self, key: TaskKey, in_force: &InForce) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        let pool = match in_force
            .catalogue
            .skill(&task.namespace, &task.work.skill)
            .map(|skill| &skill.skill.runtime)
        {
            Some(Runtime::Remote(_)) => Pool::Remote(format!("{}/{}", task.namespace, task.work.skill)),
            Some(Runtime::Call(_) | Runtime::Rules(_)) | None => Pool::Builtin,
        };
        self.queues.entry(pool.clone()).or_default().push(&task.namespace, key);
        task.place = Place::Queued(pool);
    }

    pub(super) fn cancel(&mut self, key: TaskKey) {
        if let Some(session) = self.forget(key) {
            self.acts.push(Act::Cancel(session, key));
        }
    }

    /// Lets go of a task that needs nobody any more; says who held it.
    pub(super) fn forget(&mut self, key: TaskKey) -> Option<SessionId> {
        let task = self.tasks.remove(&key)?;
        match task.place {
            Place::Queued(pool) => {
                if let Some(queue) = self.queues.get_mut(&pool) {
                    queue.remove(&task.namespace, key);
                }
                None
            }
            Place::Held(session) => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.held.remove(&key);
                }
                Some(session)
            }
            Place::Limbo => None,
        }
    }

    /// A worker connected. The same instance takes up what it held; another instance of the name replaces it.
    pub(super) fn join(&mut self, now: Instant, intro: WorkerIntro, in_force: &InForce) -> SessionId {
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
                self.lose(old, "another process took the worker's place");
            }
        }
        let holding: BTreeSet<TaskKey> = intro.holding.iter().copied().collect();
        self.sessions.insert(
            id,
            Session {
                name: intro.name,
                instance: intro.instance,
                capacity: intro.capacity,
                builtin: intro.builtin,
                skills: intro.skills.into_iter().collect(),
                held: BTreeSet::new(),
                quarantined: BTreeMap::new(),
                draining: false,
                claims: intro.claims,
                revision: intro.revision,
                to: Some(intro.to),
                heard: now,
            },
        );
        if intro.claims {
            // Also if it is nothing: what was claimed over an earlier connection does not count any more.
            self.acts.push(Act::Claim(id, self.shards.claims()));
        }
        for key in &holding {
            self.claim(id, *key);
        }
        // Assigned, but the worker never got it: nobody has begun it.
        for key in before.difference(&holding) {
            if self.tasks.contains_key(key) {
                self.enqueue(*key, in_force);
            }
        }
        self.assign();
        id
    }

    fn claim(&mut self, session: SessionId, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else {
            // Canceled or finished meanwhile; a report of it is answered all the same. Of a shard that is not here (yet)
            // nothing is known: its owner says what is wanted.
            if self.shards.is_here(key.run.shard()) {
                self.acts.push(Act::Cancel(session, key));
            }
            return;
        };
        match &task.place {
            // A session that is gone holds nothing: its worker has just come back under another.
            Place::Held(other) if *other != session && self.sessions.contains_key(other) => {
                self.acts.push(Act::Cancel(session, key));
                return;
            }
            Place::Queued(pool) => {
                if let Some(queue) = self.queues.get_mut(pool) {
                    queue.remove(&task.namespace, key);
                }
            }
            Place::Held(_) | Place::Limbo => {}
        }
        task.place = Place::Held(session);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.held.insert(key);
        }
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

    pub(super) fn draining(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.draining = true;
        }
    }

    pub(super) fn quarantine(&mut self, session: SessionId, specialist: String, reason: String) {
        let Some(session) = self.sessions.get_mut(&session) else { return };
        if reason.is_empty() {
            session.quarantined.remove(&specialist);
        } else {
            session.quarantined.insert(specialist, reason);
        }
    }

    /// Tasks are over; the slots are free.
    pub(super) fn finished(&mut self, session: SessionId, keys: &[TaskKey]) {
        for key in keys {
            if let Some(session) = self.sessions.get_mut(&session) {
                session.held.remove(key);
            }
            match self.tasks.get(key).map(|task| &task.place) {
                Some(Place::Held(holder)) if *holder != session => {}
                Some(Place::Queued(_)) => self.cancel(*key),
                Some(Place::Held(_) | Place::Limbo) => {
                    self.tasks.remove(key);
                }
                None => {}
            }
        }
        self.assign();
    }

    /// Leases that ran out, and the end of limbo.
    pub(super) fn tick(&mut self, now: Instant) {
        let silent: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.heard + self.lease <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            self.lose(id, "the worker was silent for longer than its lease");
        }
        self.end_limbo(now);
        self.assign();
    }

    /// Gives up what nobody will come with any more.
    fn end_limbo(&mut self, now: Instant) {
        for shard in self.shards.adopted(now, self.sessions.keys().copied()) {
            let found = self.tasks.range(TaskKey::of_shard(shard));
            let limbo: Vec<TaskKey> =
                found.filter(|(_, task)| task.place == Place::Limbo).map(|(key, _)| *key).collect();
            for key in limbo {
                // If somebody is at work on it after all, another attempt says so to a late answer.
                self.tasks.remove(&key);
                let why = "no worker came with the task after its shard was loaded";
                self.acts.push(Act::Fail(key, lost(why)));
            }
        }
    }

    fn lose(&mut self, id: SessionId, why: &str) {
        let Some(session) = self.sessions.remove(&id) else { return };
        for key in session.held {
            // One whose shard left is its next owner's.
            if self.tasks.remove(&key).is_some() {
                self.acts.push(Act::Fail(key, lost(why)));
            }
        }
    }

    /// Hands waiting tasks to workers with room, the one with the most room first.
    pub(super) fn assign(&mut self) {
        let pools: Vec<Pool> =
            self.queues.iter().filter(|(_, queue)| queue.len() > 0).map(|(pool, _)| pool.clone()).collect();
        for pool in pools {
            let mut rooms: Vec<(u32, SessionId)> = self
                .sessions
                .iter()
                .filter(|(_, session)| session.hosts(&pool))
                .map(|(id, session)| (session.room(), *id))
                .filter(|(room, _)| *room > 0)
                .collect();
            while let Some(at) = (0..rooms.len()).max_by_key(|at| rooms[*at].0) {
                let Some(key) = self.queues.get_mut(&pool).and_then(FairQueue::pop) else { break };
                self.hand_over(rooms[at].1, key);
                rooms[at].0 -= 1;
                if rooms[at].0 == 0 {
                    rooms.swap_remove(at);
                }
            }
        }
    }

    fn hand_over(&mut self, session: SessionId, key: TaskKey) {
        let Some(task) = self.tasks.get_mut(&key) else { return };
        task.place = Place::Held(session);
        let assignment = v1::Assignment {
            task: Some(key.to_proto()),
            namespace: task.namespace.to_string(),
            skill: task.work.skill.to_string(),
            input: task.work.input.to_string(),
            checkpoints: task.work.checkpoints.iter().map(ToString::to_string).collect(),
            timeout_ms: 0,
            traceparent: String::new(),
            epoch: self.shards.epoch(key.run.shard()),
        };
        if let Some(session) = self.sessions.get_mut(&session) {
            session.held.insert(key);
        }
        self.acts.push(Act::Assign(session, assignment));
    }

    /// When an attempt is over by its deadline.
    pub(super) fn deadline(&self, key: &TaskKey) -> Option<Timestamp> {
        self.tasks.get(key).map(|task| task.work.deadline)
    }

    /// Tenant and skill of a task, if this session holds it.
    pub(super) fn held_by(&self, key: &TaskKey, session: SessionId) -> Option<(Name, Arc<str>)> {
        let task = self.tasks.get(key)?;
        (task.place == Place::Held(session)).then(|| (task.namespace.clone(), task.work.skill.clone()))
    }

    /// Where the task's worker is reached.
    pub(super) fn holder(&self, key: &TaskKey) -> Option<SessionId> {
        match self.tasks.get(key)?.place {
            Place::Held(session) => Some(session),
            Place::Queued(_) | Place::Limbo => None,
        }
    }

    /// Whether the worker must be told of these definitions before anything that was decided under them. Asked once
    /// for each: from then on it counts as told.
    pub(super) fn must_hear_of(&mut self, session: SessionId, revision: u64) -> bool {
        let behind = self.sessions.get_mut(&session).filter(|session| session.revision < revision);
        behind.map(|session| session.revision = revision).is_some()
    }

    pub(super) fn sender(&self, session: SessionId) -> Option<&ToWorker> {
        self.sessions.get(&session)?.to.as_ref()
    }

    pub(super) fn status(&self, now: Instant) -> DispatchStatus {
        let workers = self.sessions.values().map(|session| v1::SessionStatus {
            name: session.name.clone(),
            instance: hex(&session.instance),
            capacity: session.capacity,
            busy: session.held.len() as u32,
            silent_ms: i64::try_from(now.duration_since(session.heard).as_millis()).unwrap_or(i64::MAX),
            quarantined: session.quarantined.iter().map(|(name, why)| format!("{name}: {why}")).collect(),
        });
        let queued = self.queues.values().map(|queue| queue.len() as u64).sum();
        DispatchStatus { workers: workers.collect(), queued }
    }

    pub(super) fn backlog(&self) -> Vec<v1::SkillBacklog> {
        let mut counts: BTreeMap<(&Name, &str), (u64, u64)> = BTreeMap::new();
        for task in self.tasks.values() {
            let (queued, held) = counts.entry((&task.namespace, &task.work.skill)).or_default();
            match task.place {
                Place::Queued(_) => *queued += 1,
                Place::Held(_) | Place::Limbo => *held += 1,
            }
        }
        let part = |((namespace, skill), (queued, held))| v1::SkillBacklog {
            skill: format!("{namespace}/{skill}"),
            queued,
            held,
        };
        counts.into_iter().map(part).collect()
    }
}

impl Session {
    fn hosts(&self, pool: &Pool) -> bool {
        let able = match pool {
            Pool::Builtin => self.builtin,
            Pool::Remote(skill) => self.skills.contains(skill),
        };
        able && !self.draining && self.to.is_some()
    }

    fn room(&self) -> u32 {
        self.capacity.saturating_sub(self.held.len() as u32)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lost(why: &str) -> TaskError {
    TaskError::new(ErrorClass::WorkerLost, why)
}

/// Kept by sessions that want the definitions with their first frame.
pub(crate) fn definitions_to(in_force: &Arc<InForce>) -> v1::Definitions {
    v1::Definitions {
        revision: in_force.revision,
        documents: in_force.documents.iter().map(ToString::to_string).collect(),
    }
}

mod moves;
mod stuck;
#[cfg(test)]
mod tests;
