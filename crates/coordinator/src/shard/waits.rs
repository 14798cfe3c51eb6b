//! Waits of a shard: which steps and outcomes an event reaches.
//!
//! Owns: finding them without looking at every wait: a million runs may wait for the same type of event.
use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_kernel::{Attempt, UnitId, correlation_of};
use kapell_model::expr::Expr;
use kapell_model::{Json, Name, RunId};

/// Who waits for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Waiter {
    /// A step.
    Unit(RunId, UnitId, Attempt),
    /// The outcome of a run that has ended.
    Outcome(RunId),
}

/// Everything that waits for events.
#[derive(Debug, Default)]
pub(super) struct Waits {
    groups: Vec<Group>,
    by_type: BTreeMap<(Name, Arc<str>), Vec<usize>>,
    places: BTreeMap<Waiter, Place>,
}

/// Waits of one type whose definitions read the value from the event in the same way.
#[derive(Debug)]
struct Group {
    by: Option<Expr>,
    values: BTreeMap<Arc<str>, Vec<Waiter>>,
}

#[derive(Debug)]
struct Place {
    group: usize,
    correlation: Arc<str>,
}

impl Waits {
    pub(super) fn add(
        &mut self,
        (namespace, event_type): (&Name, &Arc<str>),
        by: Option<&Expr>,
        correlation: &Arc<str>,
        waiter: Waiter,
    ) {
        let group = self.group(namespace, event_type, by);
        self.groups[group].values.entry(correlation.clone()).or_default().push(waiter);
        self.places.insert(waiter, Place { group, correlation: correlation.clone() });
    }

    fn group(&mut self, namespace: &Name, event_type: &Arc<str>, by: Option<&Expr>) -> usize {
        let known = self.by_type.entry((namespace.clone(), event_type.clone())).or_default();
        if let Some(found) = known.iter().find(|group| self.groups[**group].by.as_ref() == by) {
            return *found;
        }
        self.groups.push(Group { by: by.cloned(), values: BTreeMap::new() });
        known.push(self.groups.len() - 1);
        self.groups.len() - 1
    }

    pub(super) fn remove(&mut self, waiter: Waiter) {
        let Some(Place { group, correlation }) = self.places.remove(&waiter) else { return };
        let values = &mut self.groups[group].values;
        if let Some(waiters) = values.get_mut(&correlation) {
            waiters.retain(|other| *other != waiter);
            if waiters.is_empty() {
                values.remove(&correlation);
            }
        }
    }

    /// Those whom this event reaches.
    pub(super) fn reached(&self, namespace: &Name, event_type: &Arc<str>, event: &Json) -> Vec<Waiter> {
        let groups = self.by_type.get(&(namespace.clone(), event_type.clone()));
        let mut reached = Vec::new();
        for group in groups.into_iter().flatten().map(|at| &self.groups[*at]) {
            if group.values.is_empty() {
                continue;
            }
            if let Some(value) = correlation_of(event, group.by.as_ref()) {
                reached.extend(group.values.get(value.as_str()).into_iter().flatten());
            }
        }
        reached
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn knows(&self, waiter: Waiter) -> bool {
        self.places.contains_key(&waiter)
    }
}

#[cfg(test)]
mod tests {
    use kapell_model::ShardId;

    use super::*;

    #[test]
    fn an_event_reaches_those_who_wait_for_its_type_and_value() {
        let (namespace, paid) = (Name::default_namespace(), Arc::from("paid"));
        let by = Expr::compile("event.data.order").unwrap();
        let waiters = [1, 2, 3].map(|n| Waiter::Outcome(RunId::new(ShardId(0), n)));
        let mut waits = Waits::default();
        waits.add((&namespace, &paid), None, &Arc::from("a"), waiters[0]);
        waits.add((&namespace, &paid), Some(&by), &Arc::from("a"), waiters[1]);
        waits.add((&namespace, &paid), None, &Arc::from("b"), waiters[2]);
        let event = Json::parse(r#"{"type":"paid","subject":"b","data":{"order":"a"}}"#).unwrap();
        assert_eq!(waits.reached(&namespace, &paid, &event), [waiters[2], waiters[1]]);
        waits.remove(waiters[1]);
        assert_eq!(waits.reached(&namespace, &paid, &event), [waiters[2]]);
        assert!(waits.reached(&namespace, &Arc::from("other"), &event).is_empty());
    }
}
