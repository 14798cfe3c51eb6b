//! Calls that do not move: what the doctor asks the call desk.
use std::collections::BTreeSet;

use kapell_wire::task::CallKey;
use tokio::time::Instant;

use super::{CallState, Item, Place, Purpose, Work};
use crate::dispatch::{Grip, OVERDUE_AFTER, RESTART, Stuck};

/// What helps a call that no connector can make.
const START_CONNECTOR: &str = "start a connector; `kapell status` tells who is connected";

impl CallState {
    /// Those of the calls that nobody brings on.
    pub(in crate::calls) fn stuck(&self, now: Instant, keys: &[CallKey]) -> Vec<Stuck<CallKey>> {
        let queued: BTreeSet<Item> = self.queue.iter().copied().collect();
        let found_out: BTreeSet<CallKey> =
            self.reads.values().filter_map(|reading| of(&reading.purpose)).collect();
        let why = |key: &CallKey| match self.calls.get(key) {
            None => Some((Grip::Unknown, "the call desk does not know it", RESTART)),
            Some(work) => match work.place {
                Place::Queued if !queued.contains(&Item::Call(*key)) => {
                    Some((Grip::Stuck, "it waits for a connector and is in no queue", RESTART))
                }
                Place::FindingOut if !found_out.contains(key) => {
                    Some((Grip::Stuck, "nobody is finding out whether it took effect", RESTART))
                }
                Place::Queued
                | Place::FindingOut
                | Place::Held(_)
                | Place::Limbo
                | Place::Settling(_)
                | Place::Told { .. } => self.why_stuck(now, key, work),
            },
        };
        let stuck = |key: &CallKey| {
            why(key).map(|(grip, what, todo)| {
                let what = format!("call {key:?} does not move: {what}");
                Stuck { key: *key, grip, what, todo }
            })
        };
        keys.iter().filter_map(stuck).collect()
    }

    fn why_stuck(
        &self,
        now: Instant,
        key: &CallKey,
        work: &Work,
    ) -> Option<(Grip, &'static str, &'static str)> {
        let stuck = |what| Some((Grip::Stuck, what, RESTART));
        match work.place {
            Place::Held(session) => match self.sessions.get(&session) {
                None => stuck("the session of its connector is gone"),
                Some(session) if !session.held.contains(&Item::Call(*key)) => {
                    stuck("the session of its connector does not count it")
                }
                Some(_) => None,
            },
            Place::Limbo if !self.shards.awaits(key.run.shard()) => stuck(
                "a connector may hold it since its shard was loaded, and nobody waits for that connector any more",
            ),
            Place::Settling(until) if until + OVERDUE_AFTER <= now => {
                stuck("its time to take effect has passed, and nobody finds out whether it did")
            }
            Place::Told { since } if since + OVERDUE_AFTER <= now => {
                stuck("its run was told what became of it and does not answer")
            }
            Place::Queued | Place::Settling(_) | Place::FindingOut => {
                let nobody = !self.sessions.values().any(|session| session.to.is_some());
                let overdue = nobody && work.since + OVERDUE_AFTER <= now;
                overdue.then_some((Grip::Overdue, "no connector is connected", START_CONNECTOR))
            }
            Place::Limbo | Place::Told { .. } => None,
        }
    }
}

fn of(purpose: &Purpose) -> Option<CallKey> {
    match purpose {
        Purpose::FindOut(key) => Some(*key),
        Purpose::Task(_) => None,
    }
}
