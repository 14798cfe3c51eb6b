//! Tasks that wait for a worker, fair between namespaces.
use std::collections::{BTreeMap, VecDeque};

use kapell_model::Name;
use kapell_wire::task::TaskKey;

/// Which workers can do a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pool {
    /// Any that hosts the built-in runtimes.
    Builtin,
    /// Those that implement this skill (NAMESPACE/SKILL).
    Remote(String),
}

/// Waiting tasks of one pool.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    lanes: BTreeMap<Name, VecDeque<TaskKey>>,
    /// The namespace that was served last.
    last: Option<Name>,
    len: usize,
}

impl FairQueue {
    pub(super) fn push(&mut self, namespace: &Name, task: TaskKey) {
        self.len += 1;
        match self.lanes.get_mut(namespace) {
            Some(lane) => lane.push_back(task),
            None => {
                self.lanes.insert(namespace.clone(), VecDeque::from([task]));
            }
        }
    }

    /// The next task: one of each namespace in turn.
    pub(super) fn pop(&mut self) -> Option<TaskKey> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.last.as_ref().and_then(|last| {
            self.lanes.range::<Name, _>((Excluded(last), Unbounded)).next().map(|(name, _)| name.clone())
        });
        let name = after.or_else(|| self.lanes.keys().next().cloned())?;
        let lane = self.lanes.get_mut(&name)?;
        let task = lane.pop_front();
        if lane.is_empty() {
            self.lanes.remove(&name);
        }
        self.last = Some(name);
        self.len -= usize::from(task.is_some());
        task
    }

    pub(super) fn remove(&mut self, namespace: &Name, task: TaskKey) {
        let Some(lane) = self.lanes.get_mut(namespace) else { return };
        let before = lane.len();
        lane.retain(|waiting| *waiting != task);
        self.len -= before - lane.len();
        if lane.is_empty() {
            self.lanes.remove(namespace);
        }
    }

    /// Forgets all others.
    pub(super) fn retain(&mut self, stays: impl Fn(&TaskKey) -> bool) {
        for lane in self.lanes.values_mut() {
            lane.retain(&stays);
        }
        self.lanes.retain(|_, lane| !lane.is_empty());
        self.len = self.lanes.values().map(VecDeque::len).sum();
    }

    /// All that wait.
    pub(super) fn tasks(&self) -> impl Iterator<Item = TaskKey> {
        self.lanes.values().flatten().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use kapell_kernel::{Attempt, UnitId};
    use kapell_model::plan::StepIndex;
    use kapell_model::{RunId, ShardId};

    use super::*;

    #[test]
    fn a_namespace_with_many_tasks_does_not_hold_up_one_with_few() {
        let task = |n| TaskKey {
            run: RunId::new(ShardId(0), n),
            unit: UnitId::step(StepIndex(0)),
            attempt: Attempt(1),
        };
        let [loud, quiet] = ["loud", "quiet"].map(|name| Name::new(name).unwrap());
        let mut queue = FairQueue::default();
        (0..100).for_each(|n| queue.push(&loud, task(n)));
        queue.push(&quiet, task(1_000));
        queue.push(&quiet, task(1_001));
        let first: Vec<TaskKey> = std::iter::from_fn(|| queue.pop()).take(4).collect();
        assert_eq!(first, [task(0), task(1_000), task(1), task(1_001)]);
        queue.remove(&loud, task(5));
        assert_eq!(queue.len(), 97);
        queue.retain(|waiting| *waiting != task(6));
        assert_eq!(queue.len(), 96);
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), 96);
    }
}
