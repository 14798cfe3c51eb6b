//! What a specialist's supervisor knows, without its actors.
//!
//! Owns: who runs what, what waits, when deaths are too many. Never: starts or stops an actor.
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::definition::SpecialistLimits;
use kapell_wire::task::TaskKey;
use ractor::ActorRef;
use tokio::time::Instant;

use crate::limits::{DEATHS_WINDOW, IDLE_ACTORS_MAX, OVERDUE_GRACE, QUEUE_TASKS_MAX};
use crate::task::Task;

/// Names one task actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotNo(pub(crate) u64);

impl SlotNo {
    pub(crate) fn of<M>(actor: &ActorRef<M>) -> SlotNo {
        SlotNo(actor.get_id().pid())
    }
}

/// What a specialist's supervisor knows.
#[derive(Debug)]
pub(crate) struct State {
    limits: SpecialistLimits,
    cool_down: Duration,
    busy: BTreeMap<SlotNo, Busy>,
    idle: Vec<SlotNo>,
    queue: VecDeque<Task>,
    deaths: VecDeque<Instant>,
    quarantine: Option<Quarantine>,
}

#[derive(Debug)]
struct Busy {
    key: TaskKey,
    deadline: Instant,
}

/// Why and until when a specialist takes no tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Quarantine {
    reason: String,
    until: Instant,
}

/// What is to be done with a task.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Give it to a free actor.
    Give(SlotNo, Task),
    /// Start an actor for it, then say [`State::started`].
    Start(Task),
    /// It waits.
    Wait,
    /// Report that it was not taken.
    Refuse(TaskKey, TaskError),
}

/// What is to be done with an actor that ended its task.
#[derive(Debug)]
pub(crate) enum Next {
    /// Give it another.
    Give(SlotNo, Task),
    /// Keep it for later.
    Keep,
    /// There are enough.
    Retire(SlotNo),
}

/// What follows a death.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AfterDeath {
    /// Others take its place.
    GoOn,
    /// Too many deaths: the specialist takes no more tasks for a while.
    Quarantine(String),
}

impl State {
    pub(crate) fn new(limits: SpecialistLimits, cool_down: Duration) -> State {
        State {
            limits,
            cool_down,
            busy: BTreeMap::new(),
            idle: Vec::new(),
            queue: VecDeque::new(),
            deaths: VecDeque::new(),
            quarantine: None,
        }
    }

    pub(crate) fn set_limits(&mut self, limits: SpecialistLimits) {
        self.limits = limits;
    }

    fn has_room(&self) -> bool {
        // A limit of 0 would park its tasks for ever.
        self.busy.len() < self.limits.concurrency.max(1) as usize
    }

    /// Whether deadlines or the end of quarantine must be watched.
    pub(crate) fn needs_watch(&self) -> bool {
        !self.busy.is_empty() || !self.queue.is_empty() || self.quarantine.is_some()
    }

    pub(crate) fn submit(&mut self, task: Task) -> Turn {
        if let Some(quarantine) = &self.quarantine {
            return Turn::Refuse(task.key, in_quarantine(&quarantine.reason));
        }
        if self.has_room() && self.queue.is_empty() {
            return self.place(task);
        }
        if self.queue.len() >= QUEUE_TASKS_MAX {
            let text = format!("{QUEUE_TASKS_MAX} tasks wait for the specialist on this worker already");
            return Turn::Refuse(task.key, TaskError::new(ErrorClass::Unavailable, text));
        }
        self.queue.push_back(task);
        Turn::Wait
    }

    fn place(&mut self, task: Task) -> Turn {
        match self.idle.pop() {
            Some(slot) => {
                self.started(slot, &task);
                Turn::Give(slot, task)
            }
            None => Turn::Start(task),
        }
    }

    /// The next waiting task that can run now.
    pub(crate) fn next(&mut self) -> Option<Turn> {
        if !self.has_room() {
            return None;
        }
        let task = self.queue.pop_front()?;
        Some(self.place(task))
    }

    /// An actor has the task.
    pub(crate) fn started(&mut self, slot: SlotNo, task: &Task) {
        let before = self.busy.insert(slot, Busy { key: task.key, deadline: task.deadline });
        debug_assert!(before.is_none(), "an actor has one task at a time");
    }

    /// An actor ended its task. One that was stopped meanwhile is no longer known.
    pub(crate) fn freed(&mut self, slot: SlotNo, key: TaskKey) -> Next {
        if self.busy.get(&slot).is_none_or(|busy| busy.key != key) {
            return Next::Retire(slot);
        }
        self.busy.remove(&slot);
        if self.has_room()
            && let Some(task) = self.queue.pop_front()
        {
            self.started(slot, &task);
            return Next::Give(slot, task);
        }
        if self.idle.len() < IDLE_ACTORS_MAX {
            self.idle.push(slot);
            return Next::Keep;
        }
        Next::Retire(slot)
    }

    /// Forgets a task; the actor that is to be stopped, if it runs.
    pub(crate) fn stop_task(&mut self, key: TaskKey) -> Option<SlotNo> {
        let slot = self.busy.iter().find(|(_, busy)| busy.key == key).map(|(slot, _)| *slot);
        match slot {
            Some(slot) => {
                self.busy.remove(&slot);
            }
            None => self.queue.retain(|task| task.key != key),
        }
        slot
    }

    /// An actor is gone: the task that it had, if it was not stopped on purpose.
    pub(crate) fn gone(&mut self, slot: SlotNo) -> Option<TaskKey> {
        self.idle.retain(|idle| *idle != slot);
        self.busy.remove(&slot).map(|busy| busy.key)
    }

    /// Counts a death within the window.
    pub(crate) fn died(&mut self, now: Instant, how: &str) -> AfterDeath {
        self.deaths.push_back(now);
        while self.deaths.front().is_some_and(|at| now.duration_since(*at) >= DEATHS_WINDOW) {
            self.deaths.pop_front();
        }
        let most = self.limits.restarts_per_minute;
        if self.deaths.len() <= most as usize || self.quarantine.is_some() {
            return AfterDeath::GoOn;
        }
        let reason =
            format!("it died {} times within a minute, {most} are allowed; last: {how}", self.deaths.len());
        self.deaths.clear();
        self.quarantine = Some(Quarantine { reason: reason.clone(), until: now + self.cool_down });
        AfterDeath::Quarantine(reason)
    }

    /// Every waiting task, when none of them will be taken.
    pub(crate) fn refuse_waiting(&mut self) -> Vec<(TaskKey, TaskError)> {
        let Some(quarantine) = &self.quarantine else { return Vec::new() };
        let error = in_quarantine(&quarantine.reason);
        self.queue.drain(..).map(|task| (task.key, error.clone())).collect()
    }

    /// Whether quarantine ends now.
    pub(crate) fn recovers(&mut self, now: Instant) -> bool {
        self.quarantine.take_if(|quarantine| quarantine.until <= now).is_some()
    }

    /// Tasks whose actors did not stop in time, forgotten.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<(SlotNo, TaskKey)> {
        let late = |busy: &Busy| now.saturating_duration_since(busy.deadline) > OVERDUE_GRACE;
        let found: Vec<_> =
            self.busy.iter().filter(|(_, busy)| late(busy)).map(|(slot, busy)| (*slot, busy.key)).collect();
        for (slot, _) in &found {
            self.busy.remove(slot);
        }
        found
    }

    /// Tasks whose time ran out while they waited, forgotten.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<TaskKey> {
        let (expired, waiting): (VecDeque<_>, VecDeque<_>) =
            self.queue.drain(..).partition(|task| task.deadline <= now);
        self.queue = waiting;
        expired.into_iter().map(|task| task.key).collect()
    }
}

fn in_quarantine(reason: &str) -> TaskError {
    TaskError::new(ErrorClass::NoSpecialist, format!("the specialist is in quarantine: {reason}"))
}

#[cfg(test)]
mod tests;
