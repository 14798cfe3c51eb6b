//! One value that is read, written, and compared and set.
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;

use crate::model::Model;

/// A register; it begins without a value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register<V>(PhantomData<V>);

/// What it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input<V> {
    /// What is there?
    Read,
    /// Be this.
    Write(V),
    /// If it is `from`, be `to`.
    CompareAndSet {
        /// What it must be.
        from: V,
        /// What it shall be.
        to: V,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output<V> {
    /// To a read.
    Value(Option<V>),
    /// To a write.
    Written,
    /// To a comparison: whether it was so.
    Matched(bool),
}

impl<V: Clone + Eq + Hash + Debug> Model for Register<V> {
    type State = Option<V>;
    type Input = Input<V>;
    type Output = Output<V>;
    type Key = ();

    fn key(&self, _: &Input<V>) {}

    fn initial(&self) -> Option<V> {
        None
    }

    fn step(&self, state: &Option<V>, input: &Input<V>, output: Option<&Output<V>>) -> Option<Option<V>> {
        let (answer, next) = match input {
            Input::Read => (Output::Value(state.clone()), state.clone()),
            Input::Write(value) => (Output::Written, Some(value.clone())),
            Input::CompareAndSet { from, to } => {
                let matched = state.as_ref() == Some(from);
                (Output::Matched(matched), if matched { Some(to.clone()) } else { state.clone() })
            }
        };
        output.is_none_or(|output| *output == answer).then_some(next)
    }

    fn is_read(&self, _: &Input<V>, output: &Output<V>) -> bool {
        matches!(output, Output::Value(_) | Output::Matched(false))
    }
}
