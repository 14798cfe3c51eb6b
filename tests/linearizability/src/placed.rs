//! Which operations have their place in the order already, and a short form of it to remember.
//!
//! Owns: the set. Never: knows what an operation is.

/// A set of small numbers that fill up roughly from below.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    words: Vec<u64>,
    /// Words below are all ones.
    full: usize,
    /// Words from here on are zero.
    top: usize,
}

const BITS: usize = u64::BITS as usize;

impl Window {
    /// For numbers below `len`.
    pub(crate) fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(BITS)], full: 0, top: 0 }
    }

    pub(crate) fn contains(&self, number: usize) -> bool {
        self.words[number / BITS] >> (number % BITS) & 1 == 1
    }

    pub(crate) fn insert(&mut self, number: usize) {
        self.words[number / BITS] |= 1 << (number % BITS);
        self.top = self.top.max(number / BITS + 1);
        while self.words.get(self.full) == Some(&u64::MAX) {
            self.full += 1;
        }
    }

    pub(crate) fn remove(&mut self, number: usize) {
        self.words[number / BITS] &= !(1 << (number % BITS));
        self.full = self.full.min(number / BITS);
        while self.top > 0 && self.words[self.top - 1] == 0 {
            self.top -= 1;
        }
    }

    /// The words that are neither all ones nor beyond the last number: few, however long the history is.
    fn middle(&self) -> &[u64] {
        &self.words[self.full..self.top.max(self.full)]
    }
}

/// The operations that returned and those that did not, apart: the latter stay out for long, and would keep the window
/// of the former open.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) returned: Window,
    pub(crate) open: Window,
}

impl Placed {
    /// Writes the set and the number of a state so that two pairs are written alike only when they are alike.
    pub(crate) fn write(&self, state: u32, key: &mut Vec<u64>) {
        let (returned, open) = (self.returned.middle(), self.open.middle());
        key.clear();
        key.push(u64::from(state) << 32 | self.returned.full as u64);
        key.push((returned.len() as u64) << 32 | self.open.full as u64);
        key.extend_from_slice(returned);
        key.extend_from_slice(open);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn written(placed: &Placed, state: u32) -> Vec<u64> {
        let mut key = Vec::new();
        placed.write(state, &mut key);
        key
    }

    #[test]
    fn a_long_history_is_written_short() {
        let mut placed = Placed { returned: Window::new(100_000), open: Window::new(1_000) };
        (0..90_000).for_each(|number| placed.returned.insert(number));
        placed.returned.insert(90_007);
        placed.open.insert(3);
        assert!(written(&placed, 1).len() <= 4, "{:?}", written(&placed, 1));
    }

    proptest! {
        /// Sets that are reached in different ways are written alike when they are equal, and else not.
        #[test]
        fn what_is_written_is_the_set(changes in proptest::collection::vec((any::<bool>(), 0..200_usize), 0..300)) {
            let mut placed = Placed { returned: Window::new(200), open: Window::new(200) };
            let mut sets = (BTreeSet::new(), BTreeSet::new());
            let mut seen = BTreeMap::new();
            for (is_open, number) in changes {
                let (window, set) = if is_open {
                    (&mut placed.open, &mut sets.1)
                } else {
                    (&mut placed.returned, &mut sets.0)
                };
                // Runs of numbers, so that words fill up.
                for number in number..(number + 70).min(200) {
                    if set.insert(number) {
                        window.insert(number);
                    } else {
                        set.remove(&number);
                        window.remove(number);
                    }
                    prop_assert_eq!(window.contains(number), set.contains(&number));
                }
                let before = seen.entry(written(&placed, 0)).or_insert_with(|| sets.clone());
                prop_assert_eq!(&*before, &sets);
            }
            let mut again = Placed { returned: Window::new(200), open: Window::new(200) };
            sets.0.iter().for_each(|number| again.returned.insert(*number));
            sets.1.iter().for_each(|number| again.open.insert(*number));
            prop_assert_eq!(written(&again, 5), written(&placed, 5));
            prop_assert_ne!(written(&again, 5), written(&placed, 6));
        }
    }
}
