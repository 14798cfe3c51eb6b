//! Runs from their start to their end: signals, pause, resume, cancel, and what a reader sees.
//!
//! What a run does by itself is an operation that is invoked together with its start and never returns: put
//! [`Ask::End`] and [`Ask::WindUp`] into the history once for each run. Runs that judgements pause, that are retried,
//! or that are forgotten after their end are not for this model.
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;

use crate::model::Model;

/// Runs by their ids `R`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunLife<R>(PhantomData<R>);

/// What is asked of one run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input<R> {
    /// Which.
    pub run: R,
    /// What.
    pub ask: Ask,
}

/// What may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// Begin.
    Start,
    /// Take this event.
    Signal,
    /// Begin nothing new.
    Pause,
    /// Go on.
    Resume,
    /// End.
    Cancel,
    /// By itself: it fails or takes too long, and undoes what it did.
    WindUp,
    /// By itself: it is over.
    End,
    /// How is it?
    Read,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// To a start.
    Started {
        /// It was there already.
        duplicate: bool,
    },
    /// It was done.
    Done,
    /// It was not, for this reason.
    Refused(Refusal),
    /// To a read.
    Seen {
        /// How far it is.
        phase: Phase,
        /// Signals that it took, if the reader sees them.
        signals: Option<u32>,
    },
}

/// Why a run does not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It was never started.
    NotFound,
    /// It is paused already.
    Paused,
    /// It is not paused.
    NotPaused,
    /// It is being wound up.
    WindingUp,
    /// It is over.
    Ended,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not started.
    Absent,
    /// Going on.
    Live,
    /// Waiting for a person.
    Paused,
    /// Ending.
    WindingUp,
    /// Over.
    Ended,
}

/// What a run remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// How far it is.
    pub phase: Phase,
    /// Signals that it took.
    pub signals: u32,
}

impl<R: Clone + Ord + Hash + Debug> Model for RunLife<R> {
    type State = State;
    type Input = Input<R>;
    type Output = Output;
    type Key = R;

    fn key(&self, input: &Input<R>) -> R {
        input.run.clone()
    }

    fn initial(&self) -> State {
        State { phase: Phase::Absent, signals: 0 }
    }

    fn step(&self, state: &State, input: &Input<R>, output: Option<&Output>) -> Option<State> {
        let (answer, next) = if input.ask == Ask::Read {
            let signals = match output {
                Some(Output::Seen { signals: None, .. }) => None,
                Some(_) | None => Some(state.signals),
            };
            (Output::Seen { phase: state.phase, signals }, *state)
        } else {
            change(*state, input.ask)
        };
        output.is_none_or(|output| *output == answer).then_some(next)
    }

    fn is_read(&self, _: &Input<R>, output: &Output) -> bool {
        matches!(output, Output::Started { duplicate: true } | Output::Refused(_) | Output::Seen { .. })
    }
}

/// table: what each phase does with each question but a read.
fn change(state: State, ask: Ask) -> (Output, State) {
    let to = |phase| (Output::Done, State { phase, ..state });
    let refused = |refusal| (Output::Refused(refusal), state);
    match (state.phase, ask) {
        (Phase::Absent, Ask::Start) => {
            (Output::Started { duplicate: false }, State { phase: Phase::Live, ..state })
        }
        (_, Ask::Start) => (Output::Started { duplicate: true }, state),
        (Phase::Live | Phase::Paused, Ask::Signal) => {
            (Output::Done, State { signals: state.signals + 1, ..state })
        }
        (Phase::Live, Ask::Pause) => to(Phase::Paused),
        (Phase::Paused, Ask::Resume) => to(Phase::Live),
        (Phase::Live | Phase::Paused, Ask::Cancel | Ask::WindUp) => to(Phase::WindingUp),
        // A paused run begins nothing new, not even its end.
        (Phase::Live | Phase::WindingUp, Ask::End) => to(Phase::Ended),
        (Phase::Absent, _) => refused(Refusal::NotFound),
        (Phase::Paused, _) => refused(Refusal::Paused),
        (Phase::Live, _) => refused(Refusal::NotPaused),
        (Phase::WindingUp, _) => refused(Refusal::WindingUp),
        (Phase::Ended, _) => refused(Refusal::Ended),
    }
}
