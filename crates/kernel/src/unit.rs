//! Units: the pieces of work of a run, each a step or one item of its fan-out, forwards or undone.
//!
//! Owns: how far one piece is. Never: knows the plan around it.
use std::sync::Arc;

use kapell_model::definition::{EffectClass, OnExpire};
use kapell_model::plan::StepIndex;
use kapell_model::{Json, RunId, Timestamp, ToolRef};

use crate::error::TaskError;
use crate::order::Question;
use crate::run::Undo;

/// Counts tries of one unit, from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The try after this one.
    #[must_use]
    pub fn next(self) -> Attempt {
        Attempt(self.0 + 1)
    }
}

/// Position in a fan-out, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemIndex(pub u32);

/// Number of a tool call within its unit, counted from zero by the agent; the same in every attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallNo(pub u32);

/// Whether a unit does its step or undoes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Does it.
    Forward,
    /// Undoes it.
    Undo,
}

/// Names a unit within its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitId {
    /// The step.
    pub step: StepIndex,
    /// The item of its fan-out.
    pub item: Option<ItemIndex>,
    /// Doing or undoing.
    pub side: Side,
}

impl UnitId {
    /// The unit of a step without fan-out.
    #[must_use]
    pub fn step(step: StepIndex) -> UnitId {
        UnitId { step, item: None, side: Side::Forward }
    }

    /// The unit of one item.
    #[must_use]
    pub fn item(step: StepIndex, item: u32) -> UnitId {
        UnitId { step, item: Some(ItemIndex(item)), side: Side::Forward }
    }

    /// The unit that undoes this one.
    #[must_use]
    pub fn undo(self) -> UnitId {
        UnitId { side: Side::Undo, ..self }
    }
}

/// How far one piece of work is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// What it is doing.
    pub status: Status,
    /// Resolved once, before the first attempt.
    pub input: Json,
    /// The last attempt that was begun; zero before the first.
    pub attempt: Attempt,
    /// Failures that count against the retry rule.
    pub failures: u32,
    /// Tool calls with an effect, by their number.
    pub calls: Vec<Call>,
    /// What the agent wants back when it is resumed, in order.
    pub checkpoints: Vec<Json>,
}

impl Unit {
    /// Not begun.
    #[must_use]
    pub fn new(input: Json) -> Unit {
        let (calls, checkpoints) = (Vec::new(), Vec::new());
        Unit { status: Status::Waiting, input, attempt: Attempt(0), failures: 0, calls, checkpoints }
    }

    /// Whether nothing more will happen to it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.status {
            Status::Done(_) | Status::Failed(_) | Status::Canceled | Status::Skipped => true,
            Status::Waiting
            | Status::Judging
            | Status::Asking(_)
            | Status::Cleared
            | Status::Working { .. }
            | Status::BackingOff { .. }
            | Status::Sleeping { .. }
            | Status::Listening { .. }
            | Status::InChild { .. }
            | Status::Settling => false,
        }
    }

    /// Output, once it is done.
    #[must_use]
    pub fn output(&self) -> Option<&Json> {
        if let Status::Done(output) = &self.status { Some(output) } else { None }
    }

    /// The call of this number.
    #[must_use]
    pub fn call(&self, no: CallNo) -> Option<&Call> {
        self.calls.iter().find(|call| call.no == no)
    }

    /// Bytes of its calls and checkpoints.
    pub(crate) fn kept_bytes(&self) -> usize {
        let result = |call: &Call| match &call.state {
            CallState::Succeeded(result) => result.bytes_len(),
            CallState::Intended
            | CallState::Unknown { .. }
            | CallState::Asking { .. }
            | CallState::Failed(_) => 0,
        };
        let calls: usize = self.calls.iter().map(|call| call.args.bytes_len() + result(call)).sum();
        calls + self.checkpoints.iter().map(Json::bytes_len).sum::<usize>()
    }

    /// Whether the run cannot end because of it: begun and not over, or with an open call.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.has_open_call() || (!self.is_over() && self.status != Status::Waiting)
    }

    /// Whether a call may be under way outside.
    #[must_use]
    pub fn has_open_call(&self) -> bool {
        self.calls.iter().any(|call| call.state.is_open())
    }

    /// Whether any call changed the world.
    #[must_use]
    pub fn took_effect(&self) -> bool {
        let changes = |call: &Call| call.effect != EffectClass::Read;
        self.calls.iter().any(|call| changes(call) && matches!(call.state, CallState::Succeeded(_)))
    }
}

/// What a unit is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// An item whose turn has not come.
    Waiting,
    /// Before a consequential attempt: may it be done?
    Judging,
    /// A person is asked.
    Asking(Box<Asked>),
    /// May be begun, as soon as the run is not paused.
    Cleared,
    /// Handed to a worker.
    Working {
        /// When the attempt has taken too long.
        deadline: Timestamp,
    },
    /// Failed; another attempt follows.
    BackingOff {
        /// When.
        until: Timestamp,
    },
    /// Waits for a point in time.
    Sleeping {
        /// When.
        until: Timestamp,
    },
    /// Waits for an event.
    Listening {
        /// CloudEvents `type`.
        event_type: Arc<str>,
        /// The value that the event must carry.
        correlation: Arc<str>,
        /// When the wait has taken too long.
        until: Option<Timestamp>,
    },
    /// Another workflow runs; once this run is wound up or the time is up, it is being canceled.
    InChild {
        /// Its run.
        child: RunId,
        /// When the attempt has taken too long; `None`: never.
        deadline: Option<Timestamp>,
        /// It has taken too long, and is canceled so.
        timed_out: Option<Undo>,
    },
    /// The run is failing or canceled, and a tool call of this unit is still open.
    Settling,
    /// Succeeded, with its output.
    Done(Json),
    /// Failed for good.
    Failed(Box<TaskError>),
    /// Stopped because the run is failing or canceled.
    Canceled,
    /// Never begun, because its condition was false.
    Skipped,
}

/// A question that a person has not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What is asked.
    pub question: Question,
    /// Since when; `None`: a checkpoint from before it was kept does not tell.
    pub since: Option<Timestamp>,
    /// When silence becomes an answer.
    pub expires: Timestamp,
    /// Which.
    pub on_expire: OnExpire,
}

/// One tool call with an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub no: CallNo,
    /// What is called.
    pub tool: ToolRef,
    /// With what.
    pub args: Json,
    /// What the tool does to the world.
    pub effect: EffectClass,
    /// Counts how often it was really made, from one.
    pub attempt: Attempt,
    /// When it was last intended.
    pub intended: Timestamp,
    /// How far it is.
    pub state: CallState,
}

/// How far a tool call is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallState {
    /// Journaled; it may be under way.
    Intended,
    /// Its answer was lost; somebody finds out.
    Unknown {
        /// Why nobody knows.
        reason: Arc<str>,
    },
    /// Nobody could find out; a person is asked.
    Asking {
        /// Since when; `None`: a checkpoint from before it was kept does not tell.
        since: Option<Timestamp>,
    },
    /// It took effect, with this result.
    Succeeded(Json),
    /// It did not take effect.
    Failed(Box<TaskError>),
}

impl CallState {
    /// Whether the call may be under way, or nobody knows what it did.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            CallState::Intended | CallState::Unknown { .. } | CallState::Asking { .. } => true,
            CallState::Succeeded(_) | CallState::Failed(_) => false,
        }
    }
}

/// How a tool call ended, as a connector reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It took effect (or read), with this result.
    Succeeded(Json),
    /// It certainly took no effect.
    Failed(TaskError),
    /// Nobody knows.
    Unknown {
        /// Why.
        reason: Arc<str>,
    },
}
