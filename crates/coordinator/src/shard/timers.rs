//! Timers of a shard: what is due when.
use std::collections::{BTreeSet, HashMap};

use kapell_kernel::TimerKey;
use kapell_model::{RunId, Timestamp};

/// Every timer that is set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Timestamp, RunId, TimerKey)>,
    /// Nobody goes through them: where random ids are only looked up, a hash is found sooner than a place in order.
    at: HashMap<(RunId, TimerKey), Timestamp>,
}

impl Timers {
    pub(super) fn set(&mut self, run: RunId, key: TimerKey, at: Timestamp) {
        if let Some(before) = self.at.insert((run, key), at) {
            self.due.remove(&(before, run, key));
        }
        self.due.insert((at, run, key));
    }

    pub(super) fn cancel(&mut self, run: RunId, key: TimerKey) {
        if let Some(at) = self.at.remove(&(run, key)) {
            self.due.remove(&(at, run, key));
        }
    }

    /// Takes at most `most` timers that are due.
    pub(super) fn take_due(&mut self, now: Timestamp, most: usize) -> Vec<(RunId, TimerKey)> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some((at, run, key)) = self.due.first().copied()
            && at <= now
        {
            self.due.pop_first();
            self.at.remove(&(run, key));
            taken.push((run, key));
        }
        taken
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, ..)| *at)
    }

    pub(super) fn is_set(&self, run: RunId, key: TimerKey) -> bool {
        self.at.contains_key(&(run, key))
    }
}

#[cfg(test)]
mod tests {
    use kapell_model::ShardId;

    use super::*;

    #[test]
    fn a_timer_fires_once_at_its_last_time_and_never_when_canceled() {
        let run = RunId::new(ShardId(0), 1);
        let mut timers = Timers::default();
        timers.set(run, TimerKey::Run, Timestamp(10));
        timers.set(run, TimerKey::Run, Timestamp(20));
        timers.set(run, TimerKey::Outcome, Timestamp(5));
        timers.cancel(run, TimerKey::Outcome);
        assert!(timers.take_due(Timestamp(19), 9).is_empty());
        assert_eq!(timers.next(), Some(Timestamp(20)));
        assert_eq!(timers.take_due(Timestamp(20), 9), [(run, TimerKey::Run)]);
        assert!(timers.take_due(Timestamp(99), 9).is_empty());
    }
}
