//! Runs that are over: remembered for a while, so that a late duplicate of their event meets them.
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use kapell_model::{RunId, Timestamp};

/// The ids of runs that are over, oldest forgotten first.
#[derive(Debug)]
pub(super) struct EndedRuns {
    ids: HashMap<RunId, Timestamp>,
    by_time: BTreeSet<(Timestamp, RunId)>,
    window: Duration,
    most: usize,
}

impl EndedRuns {
    pub(super) fn new(window: Duration, most: usize) -> EndedRuns {
        EndedRuns { ids: HashMap::new(), by_time: BTreeSet::new(), window, most }
    }

    pub(super) fn insert(&mut self, run: RunId, at: Timestamp) {
        if let Some(before) = self.ids.insert(run, at) {
            self.by_time.remove(&(before, run));
        }
        self.by_time.insert((at, run));
    }

    pub(super) fn remove(&mut self, run: RunId) {
        if let Some(at) = self.ids.remove(&run) {
            self.by_time.remove(&(at, run));
        }
    }

    pub(super) fn contains(&self, run: RunId) -> bool {
        self.ids.contains_key(&run)
    }

    /// Every id that is remembered, in no order.
    pub(super) fn ids(&self) -> impl Iterator<Item = RunId> {
        self.ids.keys().copied()
    }

    pub(super) fn at(&self, run: RunId) -> Option<Timestamp> {
        self.ids.get(&run).copied()
    }

    /// Forgets what is outside the window or above the bound; says what.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<RunId> {
        let mut forgotten = Vec::new();
        while let Some((at, run)) = self.by_time.first().copied() {
            let old = at.after(self.window) <= now;
            if !old && self.by_time.len() <= self.most {
                break;
            }
            self.by_time.pop_first();
            self.ids.remove(&run);
            forgotten.push(run);
        }
        forgotten
    }
}
