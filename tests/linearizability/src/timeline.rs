//! The operations of one key, as invocations and returns in the order in which they happened.
use crate::history::Operation;

/// One side of an operation. `operation` is its place in the list that the timeline was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) operation: usize,
    pub(crate) side: Side,
}

/// Invocations are before returns of the same time: such operations overlap, which never accuses anybody falsely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Invocation,
    Return,
}

/// All events in order. Every first part of it is what had happened at some moment.
pub(crate) fn events<I, O>(operations: &[&Operation<I, O>]) -> Vec<Event> {
    let mut timed = Vec::with_capacity(2 * operations.len());
    for (at, operation) in operations.iter().enumerate() {
        timed.push((operation.invoked, Side::Invocation, at));
        timed.extend(operation.returned.iter().map(|returned| (returned.at, Side::Return, at)));
    }
    timed.sort_unstable();
    timed.into_iter().map(|(_, side, operation)| Event { operation, side }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{ClientId, Returned};

    #[test]
    fn of_one_time_invocations_come_first() {
        let operation = |invoked, returned: Option<u64>| {
            let returned = returned.map(|at| Returned { at, output: () });
            Operation { client: ClientId(0), input: (), invoked, returned }
        };
        let (early, late, open) = (operation(1, Some(2)), operation(2, Some(2)), operation(0, None));
        let events = events(&[&late, &early, &open]);
        let order = events.iter().map(|event| (event.operation, event.side)).collect::<Vec<_>>();
        assert_eq!(
            order,
            [
                (2, Side::Invocation),
                (1, Side::Invocation),
                (0, Side::Invocation),
                (0, Side::Return),
                (1, Side::Return),
            ]
        );
    }
}
