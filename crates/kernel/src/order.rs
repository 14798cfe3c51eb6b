//! Orders: what a run is waiting for the world to do.
//!
//! Owns: their shape and keys. A key is natural: it is the same however often the order is derived again.
use std::sync::Arc;

use kapell_model::{Json, Name, RunId, Timestamp};

use crate::command::CancelMode;
use crate::run::ParentRef;
use crate::unit::{Attempt, Call, CallNo, UnitId};

/// What a run is waiting for the world to do. Carries all that is needed to do it, twice if need be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Say when no earlier run of the same key is left.
    AwaitTurn,
    /// Collect what is known about the event.
    GatherContext,
    /// Say which steps to follow.
    MakePlan,
    /// Say whether a consequential attempt may be made.
    Judge {
        /// The unit.
        unit: UnitId,
        /// The attempt that it gates.
        attempt: Attempt,
    },
    /// Hand work to a specialist.
    Dispatch(Box<Dispatch>),
    /// Make a tool call.
    Call {
        /// The unit.
        unit: UnitId,
        /// What to call.
        call: Box<Call>,
    },
    /// Find out whether a call took effect.
    Reconcile {
        /// The unit.
        unit: UnitId,
        /// What was called.
        call: Box<Call>,
    },
    /// Ask a person.
    AskApproval {
        /// Which question.
        key: ApprovalKey,
        /// What is asked.
        question: Question,
        /// Since when, if that is known.
        since: Option<Timestamp>,
        /// When silence becomes an answer; `None`: never.
        expires: Option<Timestamp>,
    },
    /// Wake the run.
    SetTimer {
        /// Which timer.
        key: TimerKey,
        /// When.
        at: Timestamp,
    },
    /// Bring an event.
    AwaitEvent {
        /// The unit.
        unit: UnitId,
        /// The attempt.
        attempt: Attempt,
        /// CloudEvents `type`.
        event_type: Arc<str>,
        /// The value that the event must carry.
        correlation: Arc<str>,
    },
    /// Run another workflow, once.
    StartChild {
        /// The unit.
        unit: UnitId,
        /// The attempt.
        attempt: Attempt,
        /// The id that the child must get.
        child: RunId,
        /// The workflow.
        workflow: Name,
        /// `event.data` of the child.
        input: Json,
    },
    /// Cancel the run of a subworkflow, and tell how it ended.
    CancelChild {
        /// The unit.
        unit: UnitId,
        /// The attempt.
        attempt: Attempt,
        /// The child.
        child: RunId,
        /// Who says so.
        by: Arc<str>,
        /// Why.
        reason: Arc<str>,
        /// How.
        mode: CancelMode,
    },
    /// Tell the run that started this one how it ended.
    TellParent(ParentRef),
    /// A person paused the run; wait for a person.
    AwaitResume,
    /// Learn the business result.
    BindOutcome {
        /// CloudEvents `type` of the event that tells.
        event_type: Arc<str>,
        /// The subject that the event must have.
        correlation: Arc<str>,
    },
}

/// Work for a specialist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The unit.
    pub unit: UnitId,
    /// The attempt.
    pub attempt: Attempt,
    /// The kind of work.
    pub skill: Arc<str>,
    /// Its input.
    pub input: Json,
    /// What earlier attempts left.
    pub checkpoints: Vec<Json>,
    /// When the attempt has taken too long.
    pub deadline: Timestamp,
}

/// Names an order within its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrderKey {
    /// [`Order::AwaitTurn`].
    Turn,
    /// [`Order::GatherContext`].
    Context,
    /// [`Order::MakePlan`].
    Plan,
    /// [`Order::Judge`].
    Judge(UnitId, Attempt),
    /// [`Order::Dispatch`].
    Dispatch(UnitId, Attempt),
    /// [`Order::Call`], with how often it was made.
    Call(UnitId, CallNo, Attempt),
    /// [`Order::Reconcile`], with how often the call was made.
    Reconcile(UnitId, CallNo, Attempt),
    /// [`Order::AskApproval`].
    Approval(ApprovalKey),
    /// [`Order::SetTimer`].
    Timer(TimerKey),
    /// [`Order::AwaitEvent`].
    Event(UnitId, Attempt),
    /// [`Order::StartChild`].
    Child(UnitId, Attempt),
    /// [`Order::CancelChild`].
    CancelChild(UnitId, Attempt),
    /// [`Order::TellParent`].
    Parent,
    /// [`Order::AwaitResume`].
    Resume,
    /// [`Order::BindOutcome`].
    Outcome,
}

/// Names a question within its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApprovalKey {
    /// May this attempt be made; or, for an approval step, the question itself.
    Unit(UnitId, Attempt),
    /// Did this call take effect.
    Call(UnitId, CallNo, Attempt),
}

/// Names a timer within its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKey {
    /// The attempt has taken too long.
    Attempt(UnitId, Attempt),
    /// Another attempt is due after this one.
    Retry(UnitId, Attempt),
    /// The sleep is over.
    Sleep(UnitId, Attempt),
    /// The wait for an event has taken too long.
    Wait(UnitId, Attempt),
    /// Nobody answered.
    Approval(UnitId, Attempt),
    /// The run has taken too long.
    Run,
    /// Nobody told how the run turned out.
    Outcome,
}

/// What a person is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Why it is asked.
    pub kind: QuestionKind,
    /// In words.
    pub ask: Arc<str>,
    /// What to see beside it.
    pub show: Json,
}

/// Why a person is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionKind {
    /// The procedure has an approval step.
    Step,
    /// A policy or the autonomy level wants a person to agree first.
    Agree,
    /// The specialist may only suggest: a person does it and answers with the result.
    Suggestion,
    /// Nobody could find out whether a call took effect.
    CallOutcome,
}

impl Order {
    /// Whether driving one is driving the other. What a dispatched task has kept since does not count: whoever
    /// hands it out again reads that from the run.
    #[must_use]
    pub fn is_same(&self, other: &Order) -> bool {
        match (self, other) {
            (Order::SetTimer { key, at }, Order::SetTimer { key: other_key, at: other_at }) => {
                key == other_key && at == other_at
            }
            (this, that) => this.key() == that.key(),
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> OrderKey {
        match self {
            Order::AwaitTurn => OrderKey::Turn,
            Order::GatherContext => OrderKey::Context,
            Order::MakePlan => OrderKey::Plan,
            Order::Judge { unit, attempt } => OrderKey::Judge(*unit, *attempt),
            Order::Dispatch(dispatch) => OrderKey::Dispatch(dispatch.unit, dispatch.attempt),
            Order::Call { unit, call } => OrderKey::Call(*unit, call.no, call.attempt),
            Order::Reconcile { unit, call } => OrderKey::Reconcile(*unit, call.no, call.attempt),
            Order::AskApproval { key, .. } => OrderKey::Approval(*key),
            Order::SetTimer { key, .. } => OrderKey::Timer(*key),
            Order::AwaitEvent { unit, attempt, .. } => OrderKey::Event(*unit, *attempt),
            Order::StartChild { unit, attempt, .. } => OrderKey::Child(*unit, *attempt),
            Order::CancelChild { unit, attempt, .. } => OrderKey::CancelChild(*unit, *attempt),
            Order::TellParent(_) => OrderKey::Parent,
            Order::AwaitResume => OrderKey::Resume,
            Order::BindOutcome { .. } => OrderKey::Outcome,
        }
    }
}
