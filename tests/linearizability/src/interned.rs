//! States by number, each kept once.
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};
use std::rc::Rc;

/// Hashes alike in every process.
pub(crate) type Hasher = BuildHasherDefault<DefaultHasher>;

/// Numbers for states, in the order in which they were first seen.
#[derive(Debug)]
pub(crate) struct Interned<S> {
    states: Vec<Rc<S>>,
    numbers: HashMap<Rc<S>, u32, Hasher>,
}

impl<S: Eq + Hash> Interned<S> {
    pub(crate) fn new() -> Self {
        Self { states: Vec::new(), numbers: HashMap::default() }
    }

    pub(crate) fn get(&self, number: u32) -> &S {
        &self.states[number as usize]
    }

    pub(crate) fn number(&mut self, state: S) -> u32 {
        if let Some(number) = self.numbers.get(&state) {
            return *number;
        }
        // A step makes at most one state, and steps are counted by a `u32`.
        let (number, state) = (self.states.len() as u32, Rc::new(state));
        self.states.push(Rc::clone(&state));
        self.numbers.insert(state, number);
        number
    }
}
