//! One run: all that later commands need to know of it.
//!
//! Owns: its state and reading it. Never: changes it (that is `evolve`).
use std::sync::Arc;

use kapell_model::plan::{CompiledWorkflow, Plan, PlanStep, StepIndex};
use kapell_model::{Json, RequestId, RunId, Timestamp};

use crate::entry::Accepted;
use crate::error::Failure;
use crate::unit::{Attempt, Side, Status, Unit, UnitId};

/// One execution of a workflow, pinned to the definition that it began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Who it is.
    pub id: RunId,
    /// What it began with.
    pub(crate) accepted: Box<Accepted>,
    pub(crate) phase: Phase,
    pub(crate) paused: bool,
    /// What was gathered; `null` before.
    pub(crate) context: Json,
    /// What is followed; the written steps before planning.
    pub(crate) plan: Arc<Plan>,
    /// Steps that have begun, by index.
    pub(crate) steps: Vec<(StepIndex, StepState)>,
    /// How many needs of each step are not over.
    pub(crate) missing: Box<[u32]>,
    /// Steps whose needs are over and that have not begun, sorted.
    pub(crate) ready: Vec<StepIndex>,
    /// Fan-outs that have not been joined, sorted.
    pub(crate) fans: Vec<StepIndex>,
    /// Units that may be begun (again): judged or approved, or to be retried. In the order they became so.
    pub(crate) cleared: Vec<UnitId>,
    /// The first unit that failed for good.
    pub(crate) failed: Option<UnitId>,
    /// Whether a plan was adopted.
    pub(crate) planned: bool,
    /// Units that have begun and are not over, or have an open call.
    pub(crate) active: u32,
    /// Those of them that undo.
    pub(crate) undoing: u32,
    /// Steps that are over.
    pub(crate) steps_over: u32,
    /// Events sent to this run that no step has waited for yet.
    pub(crate) signals: Vec<Json>,
    /// What people asked and was done, the last of them.
    pub(crate) requests: Vec<RequestId>,
    /// When the run has taken too long.
    pub(crate) deadline: Option<Timestamp>,
}

/// Where a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Behind an earlier run of its key.
    Queued,
    /// Before its context is known.
    Gathering,
    /// Before its plan is made.
    Planning,
    /// Following its plan.
    Running,
    /// Letting open calls and children end, then undoing, then ending as this says.
    WindingUp {
        /// How it will end.
        towards: Box<Ending>,
        /// Whether steps are undone first.
        undo: Undo,
    },
    /// Over.
    Ended(Box<Ended>),
}

/// Whether steps are undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// In reverse causal order.
    Steps,
    /// Things stay as they are.
    Nothing,
}

/// What becomes of the children that go on when a run is wound up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// They are canceled, and the run waits for their ends.
    Canceled,
    /// They go on, and nobody waits for them: so it was before they were canceled.
    LeftAlone,
}

/// What is left to know of a run that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub ending: Ending,
    /// When.
    pub at: Timestamp,
    /// The parent does not know yet.
    pub(crate) parent_waits: bool,
    /// The business result.
    pub(crate) outcome: OutcomeState,
    /// Whether steps were undone, and none of those that had to be could not.
    pub undone: bool,
}

/// How far the business result is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutcomeState {
    /// The workflow declares none, or it is known.
    Settled(Option<OutcomeVerdict>),
    /// An event will tell.
    Open { correlation: Arc<str>, until: Timestamp },
}

/// The business result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeVerdict {
    /// The goal was met.
    Success,
    /// It was not.
    Failure,
    /// Nobody told in time.
    Unknown,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every step is over, none failed.
    Completed {
        /// Output of the last step, or an object of the outputs of all last steps.
        output: Json,
    },
    /// A step failed for good, or the run as a whole did.
    Failed(Failure),
    /// Somebody canceled it.
    Canceled {
        /// Who.
        by: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
}

/// Who started a run and is told how it ended: a unit of another run, or a schedule, with the number of the start as
/// its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// The run.
    pub run: RunId,
    /// Its unit.
    pub unit: UnitId,
    /// The unit's attempt.
    pub attempt: Attempt,
}

/// A step that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepState {
    /// A step without fan-out.
    One(Box<Forward>),
    /// A fan-out.
    Fan(Box<Fan>),
    /// Its condition was false.
    Skipped,
}

/// A unit and, once the run is wound up, the unit that undoes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Does it.
    pub unit: Unit,
    /// Undoes it.
    pub undo: Option<Unit>,
}

/// The items of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fan {
    /// What the step fans out over.
    pub items: Vec<Json>,
    /// One for each item.
    pub units: Vec<Forward>,
    /// No item before this one waits to be begun.
    pub next: u32,
    /// Items that have begun and are not over.
    pub active: u32,
    /// Items that are done.
    pub done: u32,
    /// Output of the whole, once every item is over.
    pub output: Option<Json>,
    /// Their outputs together.
    pub(crate) output_bytes: usize,
    /// Items that must be undone, should the run be, and are not.
    pub(crate) to_undo: u32,
    /// Items that are being undone.
    pub(crate) undoing: u32,
    /// No item before this one waits to be undone, once the run is wound up.
    pub(crate) undo_next: u32,
}

impl Forward {
    /// Done, or stopped after one of its calls took effect.
    pub(crate) fn wants_undo(&self) -> bool {
        match self.unit.status {
            Status::Done(_) => true,
            Status::Failed(_) | Status::Canceled => self.unit.took_effect(),
            Status::Waiting
            | Status::Judging
            | Status::Asking(_)
            | Status::Cleared
            | Status::Working { .. }
            | Status::BackingOff { .. }
            | Status::Sleeping { .. }
            | Status::Listening { .. }
            | Status::InChild { .. }
            | Status::Settling
            | Status::Skipped => false,
        }
    }

    /// Whether it must be undone, and that is not over.
    pub(crate) fn awaits_undo(&self) -> bool {
        self.wants_undo() && !self.undo.as_ref().is_some_and(Unit::is_over)
    }

    /// Whether it must be undone, and that has not begun.
    pub(crate) fn undo_may_begin(&self) -> bool {
        self.wants_undo() && self.undo.as_ref().is_none_or(|undo| undo.status == Status::Waiting)
    }
}

impl StepState {
    /// Whether anything of it must be undone, should the run be, and is not.
    pub(crate) fn awaits_undo(&self) -> bool {
        match self {
            StepState::Skipped => false,
            StepState::One(one) => one.awaits_undo(),
            StepState::Fan(fan) => fan.to_undo > 0,
        }
    }
}

impl Run {
    /// What it began with.
    #[must_use]
    pub fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    /// The definition that it is pinned to.
    #[must_use]
    pub fn workflow(&self) -> &Arc<CompiledWorkflow> {
        &self.accepted.workflow
    }

    /// What it follows.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Where it is.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether a person paused it.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether it is remembered that this was done.
    #[must_use]
    pub fn has_done(&self, request: RequestId) -> bool {
        self.requests.contains(&request)
    }

    /// What was gathered before the first step.
    #[must_use]
    pub fn context(&self) -> &Json {
        &self.context
    }

    /// How it ended.
    #[must_use]
    pub fn ended(&self) -> Option<&Ended> {
        match &self.phase {
            Phase::Ended(ended) => Some(ended),
            Phase::Queued | Phase::Gathering | Phase::Planning | Phase::Running | Phase::WindingUp { .. } => {
                None
            }
        }
    }

    /// The business result, once it is known.
    #[must_use]
    pub fn outcome(&self) -> Option<OutcomeVerdict> {
        match self.ended().map(|ended| &ended.outcome) {
            Some(OutcomeState::Settled(verdict)) => *verdict,
            Some(OutcomeState::Open { .. }) | None => None,
        }
    }

    /// The steps that have begun, in order of the plan.
    #[must_use]
    pub fn steps(&self) -> &[(StepIndex, StepState)] {
        &self.steps
    }

    /// A step's state, once it has begun.
    #[must_use]
    pub fn step(&self, step: StepIndex) -> Option<&StepState> {
        let at = self.steps.binary_search_by_key(&step, |(index, _)| *index).ok()?;
        Some(&self.steps[at].1)
    }

    /// The plan's words for a step.
    #[must_use]
    pub fn plan_step(&self, step: StepIndex) -> Option<&PlanStep> {
        self.plan.step(step)
    }

    /// One unit.
    #[must_use]
    pub fn unit(&self, id: UnitId) -> Option<&Unit> {
        let forward = match (self.step(id.step)?, id.item) {
            (StepState::One(one), None) => &**one,
            (StepState::Fan(fan), Some(item)) => fan.units.get(item.0 as usize)?,
            (StepState::One(_) | StepState::Fan(_) | StepState::Skipped, _) => return None,
        };
        match id.side {
            Side::Forward => Some(&forward.unit),
            Side::Undo => forward.undo.as_ref(),
        }
    }

    pub(crate) fn step_mut(&mut self, step: StepIndex) -> Option<&mut StepState> {
        let at = self.steps.binary_search_by_key(&step, |(index, _)| *index).ok()?;
        Some(&mut self.steps[at].1)
    }

    pub(crate) fn forward_mut(&mut self, id: UnitId) -> Option<&mut Forward> {
        match (self.step_mut(id.step)?, id.item) {
            (StepState::One(one), None) => Some(one),
            (StepState::Fan(fan), Some(item)) => fan.units.get_mut(item.0 as usize),
            (StepState::One(_) | StepState::Fan(_) | StepState::Skipped, _) => None,
        }
    }

    /// Every unit that exists, in order of steps and items, forwards before undone.
    pub fn units(&self) -> impl Iterator<Item = (UnitId, &Unit)> {
        self.steps.iter().flat_map(|(step, state)| units_of(*step, state))
    }

    /// Output of a step that is over; `null` for a skipped one.
    #[must_use]
    pub fn output(&self, step: StepIndex) -> Option<Json> {
        match self.step(step)? {
            StepState::Skipped => Some(Json::null()),
            StepState::One(one) => one.unit.output().cloned(),
            StepState::Fan(fan) => fan.output.clone(),
        }
    }
}

/// The units of one step.
pub(crate) fn units_of(step: StepIndex, state: &StepState) -> Box<dyn Iterator<Item = (UnitId, &Unit)> + '_> {
    match state {
        StepState::Skipped => Box::new(std::iter::empty()),
        StepState::One(one) => Box::new(both(UnitId::step(step), one)),
        StepState::Fan(fan) => Box::new(
            fan.units.iter().enumerate().flat_map(move |(at, one)| both(UnitId::item(step, at as u32), one)),
        ),
    }
}

fn both(id: UnitId, forward: &Forward) -> impl Iterator<Item = (UnitId, &Unit)> {
    std::iter::once((id, &forward.unit)).chain(forward.undo.as_ref().map(|undo| (id.undo(), undo)))
}
