//! What an entry changes. No judgement; stable for ever.
//!
//! Owns: the state after an entry, and the difference that it makes to what is outstanding.
//! Never: refuses. An entry that does not fit the state (which only a damaged journal can hold) changes nothing.
mod steps;
mod unit;

use std::collections::BTreeSet;

use kapell_model::plan::StepIndex;
use kapell_model::{Json, RunId};

use crate::command::PlanSource;
use crate::entry::{Accepted, Entry};
use crate::order::{ApprovalKey, Order, OrderKey};
use crate::outstanding::{outstanding, run_orders, unit_orders};
use crate::run::{Ended, OutcomeState, Phase, Run, StepState};
use crate::unit::{Status, UnitId};

/// What an entry made outstanding, and what it made obsolete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// To be driven from now on.
    pub opened: Vec<Order>,
    /// To be driven no longer.
    pub closed: Vec<OrderKey>,
}

impl Delta {
    /// Adds what happened next: an order that was opened and closed in between is neither.
    pub fn then(&mut self, next: Delta) {
        for key in next.closed {
            match self.opened.iter().position(|order| order.key() == key) {
                Some(at) => {
                    self.opened.remove(at);
                }
                None => self.closed.push(key),
            }
        }
        self.opened.extend(next.opened);
    }

    fn between(before: Vec<Order>, after: Vec<Order>) -> Delta {
        let missing = |list: &[Order], order: &Order| !list.iter().any(|other| other.is_same(order));
        let closed = before.iter().filter(|order| missing(&after, order)).map(Order::key).collect();
        let opened = after.into_iter().filter(|order| missing(&before, order)).collect();
        Delta { opened, closed }
    }
}

/// The run that an acceptance begins, and what it is waiting for.
#[must_use]
pub fn accept(id: RunId, accepted: Accepted) -> (Run, Delta) {
    let phase = if accepted.queued { Phase::Queued } else { Phase::Gathering };
    let plan = accepted.workflow.plan.clone();
    let mut run = Run {
        id,
        accepted: Box::new(accepted),
        phase,
        paused: false,
        context: Json::null(),
        plan,
        steps: Vec::new(),
        missing: Box::default(),
        ready: Vec::new(),
        fans: Vec::new(),
        cleared: Vec::new(),
        failed: None,
        active: 0,
        steps_over: 0,
        signals: Vec::new(),
        deadline: None,
    };
    steps::index(&mut run);
    let opened = outstanding(&run);
    (run, Delta { opened, closed: Vec::new() })
}

/// Applies one entry.
pub fn evolve(run: &mut Run, entry: &Entry) -> Delta {
    match touched(entry) {
        Touched::Unit(id) => {
            let before = (run_orders(run), orders_of(run, id));
            let was_active = run.unit(id).is_some_and(crate::unit::Unit::is_active);
            unit::apply(run, id, entry);
            let is_active = run.unit(id).is_some_and(crate::unit::Unit::is_active);
            run.active = run.active + u32::from(is_active) - u32::from(was_active);
            let mut delta = Delta::between(before.0, run_orders(run));
            let units = Delta::between(before.1, orders_of(run, id));
            delta.opened.extend(units.opened);
            delta.closed.extend(units.closed);
            delta
        }
        Touched::Run => {
            let before = run_orders(run);
            apply(run, entry);
            Delta::between(before, run_orders(run))
        }
        Touched::Everything => {
            let before = outstanding(run);
            apply(run, entry);
            run.active = run.units().filter(|(_, unit)| unit.is_active()).count() as u32;
            Delta::between(before, outstanding(run))
        }
    }
}

enum Touched {
    /// Orders of the run and of one unit may change.
    Unit(UnitId),
    /// Orders of the run may change.
    Run,
    /// Any order may change.
    Everything,
}

fn touched(entry: &Entry) -> Touched {
    match entry {
        Entry::JudgementAsked { unit, .. }
        | Entry::Judged { unit, .. }
        | Entry::ApprovalAsked { unit, .. }
        | Entry::TaskDispatched { unit, .. }
        | Entry::CheckpointSaved { unit, .. }
        | Entry::CallIntended { unit, .. }
        | Entry::CallFinished { unit, .. }
        | Entry::CallSettled { unit, .. }
        | Entry::UnitDone { unit, .. }
        | Entry::AttemptFailed { unit, .. }
        | Entry::SleepBegan { unit, .. }
        | Entry::WaitBegan { unit, .. }
        | Entry::ChildBegan { unit, .. }
        | Entry::UnitSettled { unit } => Touched::Unit(*unit),
        Entry::ApprovalDecided { key: ApprovalKey::Unit(unit, _) | ApprovalKey::Call(unit, ..), .. } => {
            Touched::Unit(*unit)
        }
        Entry::TurnTaken
        | Entry::ContextGathered { .. }
        | Entry::StepSkipped { .. }
        | Entry::FanOpened { .. }
        | Entry::FanJoined { .. }
        | Entry::SignalReceived { .. }
        | Entry::SignalTaken { .. }
        | Entry::RunEnded { .. }
        | Entry::ParentTold
        | Entry::OutcomeBound { .. } => Touched::Run,
        Entry::RunAccepted(_)
        | Entry::PlanMade { .. }
        | Entry::RunPaused { .. }
        | Entry::RunResumed { .. }
        | Entry::WindUpBegan { .. }
        | Entry::RunRetried { .. } => Touched::Everything,
    }
}

fn orders_of(run: &Run, id: UnitId) -> Vec<Order> {
    let mut orders = Vec::new();
    if let Some(unit) = run.unit(id) {
        unit_orders(run, id, unit, &mut orders);
    }
    orders
}

/// table: one line for each entry that is about the run as a whole.
fn apply(run: &mut Run, entry: &Entry) {
    match entry {
        Entry::TurnTaken => run.phase = Phase::Gathering,
        Entry::ContextGathered { context, deadline, .. } => {
            run.context = context.clone();
            run.deadline = *deadline;
            run.phase = Phase::Planning;
        }
        Entry::PlanMade { source, .. } => {
            if let PlanSource::Made(plan) = source {
                run.plan = plan.clone();
            }
            run.phase = Phase::Running;
            steps::index(run);
        }
        Entry::StepSkipped { step } => {
            steps::begin(run, *step, StepState::Skipped);
            steps::over(run, *step);
        }
        Entry::FanOpened { step, items, inputs } => steps::open_fan(run, *step, items, inputs),
        Entry::FanJoined { step, output } => steps::join_fan(run, *step, output),
        Entry::SignalReceived { event } => run.signals.push(event.clone()),
        Entry::SignalTaken { position } => {
            if (*position as usize) < run.signals.len() {
                run.signals.remove(*position as usize);
            }
        }
        Entry::RunPaused { .. } => run.paused = true,
        Entry::RunResumed { .. } => run.paused = false,
        Entry::WindUpBegan { towards, undo } => {
            run.phase = Phase::WindingUp { towards: Box::new(towards.clone()), undo: *undo };
            run.paused = false;
            steps::stop(run);
        }
        Entry::RunEnded { ending, at, outcome } => end(run, ending, *at, outcome.clone()),
        Entry::ParentTold => {
            if let Phase::Ended(ended) = &mut run.phase {
                ended.parent_waits = false;
            }
        }
        Entry::OutcomeBound { verdict, .. } => {
            if let Phase::Ended(ended) = &mut run.phase {
                ended.outcome = OutcomeState::Settled(Some(*verdict));
            }
        }
        Entry::RunRetried { deadline, .. } => {
            run.phase = Phase::Running;
            run.deadline = *deadline;
            steps::reopen(run);
        }
        Entry::RunAccepted(_)
        | Entry::JudgementAsked { .. }
        | Entry::Judged { .. }
        | Entry::ApprovalAsked { .. }
        | Entry::ApprovalDecided { .. }
        | Entry::TaskDispatched { .. }
        | Entry::CheckpointSaved { .. }
        | Entry::CallIntended { .. }
        | Entry::CallFinished { .. }
        | Entry::CallSettled { .. }
        | Entry::UnitDone { .. }
        | Entry::AttemptFailed { .. }
        | Entry::SleepBegan { .. }
        | Entry::WaitBegan { .. }
        | Entry::ChildBegan { .. }
        | Entry::UnitSettled { .. } => {}
    }
}

fn end(
    run: &mut Run,
    ending: &crate::run::Ending,
    at: kapell_model::Timestamp,
    outcome: Option<(std::sync::Arc<str>, kapell_model::Timestamp)>,
) {
    let undone = run.units().any(|(id, unit)| id.side == crate::unit::Side::Undo && unit.output().is_some());
    let outcome = match outcome {
        Some((correlation, until)) => OutcomeState::Open { correlation, until },
        None => OutcomeState::Settled(None),
    };
    let parent_waits = run.accepted.parent.is_some();
    run.paused = false;
    run.phase = Phase::Ended(Box::new(Ended { ending: ending.clone(), at, parent_waits, outcome, undone }));
}

/// Steps that cannot be reached from a set of positions more than once.
pub(crate) fn sorted_insert(list: &mut Vec<StepIndex>, step: StepIndex) {
    if let Err(at) = list.binary_search(&step) {
        list.insert(at, step);
    }
}

/// Whether a status says that the unit may be tried again when its run is retried.
fn may_be_reopened(status: &Status) -> bool {
    matches!(status, Status::Failed(_) | Status::Canceled)
}

/// The steps that are over, for counting anew.
fn over_steps(run: &Run) -> BTreeSet<StepIndex> {
    run.steps.iter().filter(|(_, state)| steps::is_over(state)).map(|(step, _)| *step).collect()
}
