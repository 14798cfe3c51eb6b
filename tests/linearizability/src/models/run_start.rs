//! Runs that are started, each once however often it is asked for.
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;

use crate::model::Model;

/// Runs by their ids `R`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunStart<R>(PhantomData<R>);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input<R> {
    /// Start the run of this id (or of the event from which this id derives).
    Start(R),
    /// Is it there? Only while nothing forgets runs that have ended.
    Find(R),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output<R> {
    /// To a start.
    Started {
        /// The id that was answered.
        run: R,
        /// It was there already.
        duplicate: bool,
    },
    /// To a find.
    Found(bool),
}

impl<R: Clone + Ord + Hash + Debug> Model for RunStart<R> {
    /// Whether it was started.
    type State = bool;
    type Input = Input<R>;
    type Output = Output<R>;
    type Key = R;

    fn key(&self, input: &Input<R>) -> R {
        match input {
            Input::Start(run) | Input::Find(run) => run.clone(),
        }
    }

    fn initial(&self) -> bool {
        false
    }

    fn step(&self, is_there: &bool, input: &Input<R>, output: Option<&Output<R>>) -> Option<bool> {
        let (answer, next) = match input {
            Input::Start(run) => (Output::Started { run: run.clone(), duplicate: *is_there }, true),
            Input::Find(_) => (Output::Found(*is_there), *is_there),
        };
        output.is_none_or(|output| *output == answer).then_some(next)
    }

    fn is_read(&self, _: &Input<R>, output: &Output<R>) -> bool {
        matches!(output, Output::Started { duplicate: true, .. } | Output::Found(_))
    }
}
