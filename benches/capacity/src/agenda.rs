//! What happens when, in simulated time.
//!
//! Owns: order; what is for the same moment happens in the order in which it was put down. Never: knows what happens.
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Nanoseconds since the simulation began.
pub(crate) type Moment = u64;

pub(crate) struct Agenda<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    now: Moment,
    count: u64,
}

struct Entry<T> {
    at: Moment,
    number: u64,
    what: T,
}

impl<T> Agenda<T> {
    pub(crate) fn new() -> Agenda<T> {
        Agenda { heap: BinaryHeap::new(), now: 0, count: 0 }
    }

    pub(crate) fn now(&self) -> Moment {
        self.now
    }

    /// Puts down what happens so many nanoseconds from now.
    pub(crate) fn after(&mut self, nanos: u64, what: T) {
        self.count += 1;
        self.heap.push(Reverse(Entry { at: self.now + nanos, number: self.count, what }));
    }

    /// What happens next, unless that is after `end`. The time is then the time when it happens.
    pub(crate) fn next_until(&mut self, end: Moment) -> Option<T> {
        if self.heap.peek()?.0.at > end {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.what)
    }
}

impl<T> Entry<T> {
    fn place(&self) -> (Moment, u64) {
        (self.at, self.number)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.place() == other.place()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Entry<T>) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

#[cfg(test)]
mod tests {
    use super::Agenda;

    #[test]
    fn what_is_due_first_happens_first_and_the_end_is_kept() {
        let mut agenda = Agenda::new();
        agenda.after(5, "c");
        agenda.after(2, "a");
        agenda.after(2, "b");
        assert_eq!(
            [agenda.next_until(4), agenda.next_until(4), agenda.next_until(4)],
            [Some("a"), Some("b"), None]
        );
        assert_eq!(agenda.now(), 2);
        agenda.after(1, "before c");
        assert_eq!([agenda.next_until(9), agenda.next_until(9)], [Some("before c"), Some("c")]);
    }
}
