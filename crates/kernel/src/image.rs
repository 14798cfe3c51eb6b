//! Images: a run as plain data, for checkpoints.
//!
//! Owns: which parts of a run are stored and how the counters follow from them. Never: encodes (that is `wire`) or
//! changes what a run means; an image is taken after a command was handled to its end.
use std::sync::Arc;

use kapell_model::plan::{Plan, StepIndex};
use kapell_model::{Json, RequestId, RunId, Timestamp};

use crate::entry::Accepted;
use crate::run::{Ended, Ending, Fan, Forward, OutcomeState, OutcomeVerdict, Phase, Run, StepState, Undo};
use crate::unit::{Side, Status, Unit, UnitId};

/// A run as plain data. What can be counted is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunImage {
    /// Who it is.
    pub id: RunId,
    /// What it began with.
    pub accepted: Accepted,
    /// Where it is.
    pub phase: PhaseImage,
    /// Whether a person paused it.
    pub paused: bool,
    /// What was gathered; `null` before.
    pub context: Json,
    /// The plan that was made for it; `None`: the written steps.
    pub plan: Option<Arc<Plan>>,
    /// Whether a plan was adopted.
    pub planned: bool,
    /// Steps that have begun, by index.
    pub steps: Vec<(StepIndex, StepImage)>,
    /// Units that may be begun, in the order in which they became so.
    pub cleared: Vec<UnitId>,
    /// The first unit that failed for good.
    pub failed: Option<UnitId>,
    /// Events that no step has waited for yet.
    pub signals: Vec<Json>,
    /// What people asked and was done, the last of them.
    pub requests: Vec<RequestId>,
    /// When the run has taken too long.
    pub deadline: Option<Timestamp>,
}

/// Where a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PhaseImage {
    /// Behind an earlier run of its key.
    Queued,
    /// Before its context is known.
    Gathering,
    /// Before its plan is made.
    Planning,
    /// Following its plan.
    Running,
    /// Ending.
    WindingUp {
        /// How it will end.
        towards: Ending,
        /// Whether steps are undone first.
        undo: Undo,
    },
    /// Over.
    Ended {
        /// How.
        ending: Ending,
        /// When.
        at: Timestamp,
        /// The parent does not know yet.
        parent_waits: bool,
        /// Whether steps were undone.
        undone: bool,
        /// The business result.
        outcome: OutcomeImage,
    },
}

/// How far the business result is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutcomeImage {
    /// The workflow declares none, or the run did not complete.
    None,
    /// It is known, or was given up.
    Known(OutcomeVerdict),
    /// An event will tell.
    Open {
        /// What the event must carry.
        correlation: Arc<str>,
        /// When it is given up.
        until: Timestamp,
    },
}

/// A step that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepImage {
    /// A step without fan-out.
    One(Box<Forward>),
    /// A fan-out.
    Fan {
        /// What the step fans out over.
        items: Vec<Json>,
        /// One for each item.
        units: Vec<Forward>,
        /// Output of the whole, once every item is over.
        output: Option<Json>,
    },
    /// Its condition was false.
    Skipped,
}

/// Why the parts of an image do not belong together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadImage {
    /// A step that the plan does not have.
    #[error("step {0} is not in a plan of {1} steps")]
    NotInPlan(u32, usize),
    /// Steps are kept by rising index, each once.
    #[error("step {0} is out of order")]
    OutOfOrder(u32),
    /// Each item has its unit.
    #[error("step {step} has {items} items and {units} units")]
    Items {
        /// The step.
        step: u32,
        /// How many items.
        items: usize,
        /// How many units.
        units: usize,
    },
    /// A unit is spoken of that is not there.
    #[error("{0:?} is spoken of and not there")]
    NoUnit(UnitId),
}

impl Run {
    /// The run as plain data.
    #[must_use]
    pub fn to_image(&self) -> RunImage {
        let written = Arc::ptr_eq(&self.plan, &self.workflow().plan) || self.plan == self.workflow().plan;
        RunImage {
            id: self.id,
            accepted: (*self.accepted).clone(),
            phase: phase_to(&self.phase),
            paused: self.paused,
            context: self.context.clone(),
            plan: (!written).then(|| self.plan.clone()),
            planned: self.planned,
            steps: self.steps.iter().map(|(step, state)| (*step, step_to(state))).collect(),
            cleared: self.cleared.clone(),
            failed: self.failed,
            signals: self.signals.clone(),
            requests: self.requests.clone(),
            deadline: self.deadline,
        }
    }

    /// Back from plain data.
    pub fn from_image(image: RunImage) -> Result<Run, BadImage> {
        let plan = image.plan.unwrap_or_else(|| image.accepted.workflow.plan.clone());
        let steps: Vec<(StepIndex, StepState)> =
            image.steps.into_iter().map(|(step, state)| (step, step_from(state))).collect();
        check_steps(&plan, &steps)?;
        let mut run = Run {
            id: image.id,
            accepted: Box::new(image.accepted),
            phase: phase_from(image.phase),
            paused: image.paused,
            context: image.context,
            plan,
            steps,
            missing: Box::default(),
            ready: Vec::new(),
            fans: Vec::new(),
            cleared: image.cleared,
            failed: image.failed,
            planned: image.planned,
            active: 0,
            undoing: 0,
            steps_over: 0,
            signals: image.signals,
            requests: image.requests,
            deadline: image.deadline,
        };
        if let Some(lost) = run.cleared.iter().chain(&run.failed).find(|id| run.unit(**id).is_none()) {
            return Err(BadImage::NoUnit(*lost));
        }
        count(&mut run);
        Ok(run)
    }
}

/// Everything that follows from the steps and the plan.
fn count(run: &mut Run) {
    let (mut active, mut undoing) = (0, 0);
    for (id, _) in run.units().filter(|(_, unit)| unit.is_active()) {
        active += 1;
        undoing += u32::from(id.side == Side::Undo);
    }
    (run.active, run.undoing) = (active, undoing);
    let is_over = |step: StepIndex| run.step(step).is_some_and(is_over);
    let missing: Box<[u32]> = run
        .plan
        .steps
        .iter()
        .map(|step| step.needs.iter().filter(|need| !is_over(**need)).count() as u32)
        .collect();
    let steps_over = run.plan.indices().filter(|step| is_over(*step)).count() as u32;
    // Nothing new begins in a run that is being wound up, or is over.
    let ready = match run.phase {
        Phase::Queued | Phase::Gathering | Phase::Planning | Phase::Running => run
            .plan
            .indices()
            .filter(|step| missing[step.0 as usize] == 0 && run.step(*step).is_none())
            .collect(),
        Phase::WindingUp { .. } | Phase::Ended(_) => Vec::new(),
    };
    run.fans = run.steps.iter().filter(|(_, state)| is_open_fan(state)).map(|(step, _)| *step).collect();
    (run.missing, run.steps_over, run.ready) = (missing, steps_over, ready);
}

fn is_over(state: &StepState) -> bool {
    match state {
        StepState::Skipped => true,
        StepState::One(one) => one.unit.output().is_some(),
        StepState::Fan(fan) => fan.output.is_some(),
    }
}

fn is_open_fan(state: &StepState) -> bool {
    match state {
        StepState::Fan(fan) => fan.output.is_none(),
        StepState::One(_) | StepState::Skipped => false,
    }
}

fn check_steps(plan: &Plan, steps: &[(StepIndex, StepState)]) -> Result<(), BadImage> {
    let mut before = None;
    for (step, state) in steps {
        if plan.step(*step).is_none() {
            return Err(BadImage::NotInPlan(step.0, plan.steps.len()));
        }
        if before >= Some(*step) {
            return Err(BadImage::OutOfOrder(step.0));
        }
        before = Some(*step);
        if let StepState::Fan(fan) = state
            && fan.items.len() != fan.units.len()
        {
            return Err(BadImage::Items { step: step.0, items: fan.items.len(), units: fan.units.len() });
        }
    }
    Ok(())
}

fn step_to(state: &StepState) -> StepImage {
    match state {
        StepState::One(one) => StepImage::One(one.clone()),
        StepState::Fan(fan) => {
            StepImage::Fan { items: fan.items.clone(), units: fan.units.clone(), output: fan.output.clone() }
        }
        StepState::Skipped => StepImage::Skipped,
    }
}

fn step_from(image: StepImage) -> StepState {
    match image {
        StepImage::One(one) => StepState::One(one),
        StepImage::Fan { items, units, output } => StepState::Fan(Box::new(fan_of(items, units, output))),
        StepImage::Skipped => StepState::Skipped,
    }
}

fn fan_of(items: Vec<Json>, units: Vec<Forward>, output: Option<Json>) -> Fan {
    let count = |counts: fn(&Forward) -> bool| units.iter().filter(|one| counts(one)).count() as u32;
    let begun = |unit: &Unit| unit.status != Status::Waiting && !unit.is_over();
    let active = units.iter().filter(|one| begun(&one.unit)).count() as u32;
    let undoing = units.iter().filter(|one| one.undo.as_ref().is_some_and(begun)).count() as u32;
    let output_bytes = units.iter().filter_map(|one| one.unit.output()).map(Json::bytes_len).sum();
    let (done, to_undo) = (count(|one| one.unit.output().is_some()), count(Forward::awaits_undo));
    // The two hints where to look next are lower bounds: zero costs one look at each item.
    Fan { items, next: 0, active, done, output, output_bytes, to_undo, undoing, undo_next: 0, units }
}

fn phase_to(phase: &Phase) -> PhaseImage {
    match phase {
        Phase::Queued => PhaseImage::Queued,
        Phase::Gathering => PhaseImage::Gathering,
        Phase::Planning => PhaseImage::Planning,
        Phase::Running => PhaseImage::Running,
        Phase::WindingUp { towards, undo } => {
            PhaseImage::WindingUp { towards: (**towards).clone(), undo: *undo }
        }
        Phase::Ended(ended) => PhaseImage::Ended {
            ending: ended.ending.clone(),
            at: ended.at,
            parent_waits: ended.parent_waits,
            undone: ended.undone,
            outcome: match &ended.outcome {
                OutcomeState::Settled(None) => OutcomeImage::None,
                OutcomeState::Settled(Some(verdict)) => OutcomeImage::Known(*verdict),
                OutcomeState::Open { correlation, until } => {
                    OutcomeImage::Open { correlation: correlation.clone(), until: *until }
                }
            },
        },
    }
}

fn phase_from(image: PhaseImage) -> Phase {
    match image {
        PhaseImage::Queued => Phase::Queued,
        PhaseImage::Gathering => Phase::Gathering,
        PhaseImage::Planning => Phase::Planning,
        PhaseImage::Running => Phase::Running,
        PhaseImage::WindingUp { towards, undo } => Phase::WindingUp { towards: Box::new(towards), undo },
        PhaseImage::Ended { ending, at, parent_waits, undone, outcome } => {
            let outcome = match outcome {
                OutcomeImage::None => OutcomeState::Settled(None),
                OutcomeImage::Known(verdict) => OutcomeState::Settled(Some(verdict)),
                OutcomeImage::Open { correlation, until } => OutcomeState::Open { correlation, until },
            };
            Phase::Ended(Box::new(Ended { ending, at, parent_waits, outcome, undone }))
        }
    }
}
