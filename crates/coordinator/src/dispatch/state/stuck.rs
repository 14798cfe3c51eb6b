//! Tasks that do not move: what the doctor asks the dispatcher.
use std::collections::BTreeSet;

use kapell_wire::task::TaskKey;
use tokio::time::Instant;

use super::{DispatchState, Place, Task};
use crate::dispatch::queue::{FairQueue, Pool};
use crate::dispatch::{Grip, OVERDUE_AFTER, RESTART, Stuck};

/// What helps a task that no worker can do.
const START_WORKER: &str =
    "start a worker that offers it; `kapell status` tells who is connected and what is in quarantine";

impl DispatchState {
    /// Those of the tasks that nobody brings on.
    pub(in crate::dispatch) fn stuck(&self, now: Instant, keys: &[TaskKey]) -> Vec<Stuck<TaskKey>> {
        let queued: BTreeSet<TaskKey> = self.queues.values().flat_map(FairQueue::tasks).collect();
        let why = |key: &TaskKey| match self.tasks.get(key) {
            None => Some((Grip::Unknown, "the dispatcher does not know it".to_owned(), RESTART)),
            Some(task) => self.why_stuck(now, key, task, &queued),
        };
        let stuck = |key: &TaskKey| {
            why(key).map(|(grip, what, todo)| {
                let what = format!("task {key:?} does not move: {what}");
                Stuck { key: *key, grip, what, todo }
            })
        };
        keys.iter().filter_map(stuck).collect()
    }

    fn why_stuck(
        &self,
        now: Instant,
        key: &TaskKey,
        task: &Task,
        queued: &BTreeSet<TaskKey>,
    ) -> Option<(Grip, String, &'static str)> {
        let stuck = |what: &str| Some((Grip::Stuck, what.to_owned(), RESTART));
        match &task.place {
            Place::Queued(_) if !queued.contains(key) => stuck("it waits for a worker and is in no queue"),
            Place::Queued(pool) => {
                let hosted = self.sessions.values().any(|session| session.hosts(pool));
                let overdue = !hosted && task.since + OVERDUE_AFTER <= now;
                overdue.then(|| (Grip::Overdue, nobody(pool, &task.work.skill), START_WORKER))
            }
            Place::Held(session) => match self.sessions.get(session) {
                None => stuck("the session of its worker is gone"),
                Some(session) if !session.held.contains(key) => {
                    stuck("the session of its worker does not count it")
                }
                Some(_) => None,
            },
            Place::Limbo if !self.shards.awaits(key.run.shard()) => stuck(
                "a worker may hold it since its shard was loaded, and nobody waits for that worker any more",
            ),
            Place::Limbo => None,
        }
    }
}

fn nobody(pool: &Pool, skill: &str) -> String {
    match pool {
        Pool::Builtin => {
            format!("no worker that takes tasks hosts the built-in runtimes, which `{skill}` needs")
        }
        Pool::Remote(skill) => format!("no worker that takes tasks offers `{skill}`"),
    }
}
