//! Keys: runs of one key are handled in order of arrival.
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kapell_model::limits::KEY_QUEUE_MAX;
use kapell_model::{Name, RunId};

/// Who holds each key and who waits behind.
#[derive(Debug, Default)]
pub(super) struct Keys {
    lines: BTreeMap<(Name, Arc<str>), VecDeque<RunId>>,
}

/// Too many wait behind a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyQueueFull {
    /// How many.
    pub(super) waiting: usize,
}

impl Keys {
    /// Whether a new run of the key would have to wait.
    pub(super) fn would_wait(&self, namespace: &Name, key: &Arc<str>) -> Result<bool, KeyQueueFull> {
        match self.lines.get(&(namespace.clone(), key.clone())) {
            None => Ok(false),
            Some(line) if line.len() > KEY_QUEUE_MAX => Err(KeyQueueFull { waiting: line.len() - 1 }),
            Some(_) => Ok(true),
        }
    }

    /// A run stands in line; the first has the turn.
    pub(super) fn join(&mut self, namespace: &Name, key: &Arc<str>, run: RunId) {
        self.lines.entry((namespace.clone(), key.clone())).or_default().push_back(run);
    }

    /// A run that has the turn goes before all that wait, whatever order they were loaded in.
    pub(super) fn join_first(&mut self, namespace: &Name, key: &Arc<str>, run: RunId) {
        self.lines.entry((namespace.clone(), key.clone())).or_default().push_front(run);
    }

    /// A run is over, or gave up waiting; says whose turn it is now.
    pub(super) fn leave(&mut self, namespace: &Name, key: &Arc<str>, run: RunId) -> Option<RunId> {
        let at = (namespace.clone(), key.clone());
        let line = self.lines.get_mut(&at)?;
        let had_turn = line.front() == Some(&run);
        line.retain(|waiting| *waiting != run);
        let next = line.front().copied();
        if next.is_none() {
            self.lines.remove(&at);
        }
        next.filter(|_| had_turn)
    }

    /// Whether the run stands in line for the key.
    pub(super) fn knows(&self, namespace: &Name, key: &Arc<str>, run: RunId) -> bool {
        self.lines.get(&(namespace.clone(), key.clone())).is_some_and(|line| line.contains(&run))
    }
}

#[cfg(test)]
mod tests {
    use kapell_model::ShardId;

    use super::*;

    #[test]
    fn the_turn_goes_down_the_line_and_a_waiting_run_may_leave_it() {
        let (namespace, key) = (Name::default_namespace(), Arc::from("v"));
        let [a, b, c] = [1, 2, 3].map(|n| RunId::new(ShardId(0), n));
        let mut keys = Keys::default();
        assert_eq!(keys.would_wait(&namespace, &key), Ok(false));
        for run in [a, b, c] {
            keys.join(&namespace, &key, run);
        }
        assert_eq!(keys.would_wait(&namespace, &key), Ok(true));
        assert_eq!(keys.leave(&namespace, &key, b), None, "b only waited");
        assert_eq!(keys.leave(&namespace, &key, a), Some(c));
        assert_eq!(keys.leave(&namespace, &key, c), None);
        assert_eq!(keys.would_wait(&namespace, &key), Ok(false));
    }

    #[test]
    fn the_line_has_an_end() {
        let (namespace, key) = (Name::default_namespace(), Arc::from("v"));
        let mut keys = Keys::default();
        for n in 0..=KEY_QUEUE_MAX {
            assert!(keys.would_wait(&namespace, &key).is_ok());
            keys.join(&namespace, &key, RunId::new(ShardId(0), n as u128));
        }
        assert_eq!(keys.would_wait(&namespace, &key), Err(KeyQueueFull { waiting: KEY_QUEUE_MAX }));
    }
}
