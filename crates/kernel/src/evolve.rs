//! What an entry changes. No judgement; stable for ever.
//!
//! Owns: the state after an entry, and the difference that it makes to what is outstanding.
//! Never: refuses. An entry that does not fit the state (which only a damaged journal can hold) changes nothing.
mod steps;
mod unit;

use kapell_model::limits::REQUESTS_KEPT;
use kapell_model::{Json, RequestId, RunId};

use crate::command::PlanSource;
use crate::entry::{Accepted, Entry};
use crate::order::{ApprovalKey, Order, OrderKey};
use crate::outstanding::{call_order, outstanding, run_orders, unit_orders};
use crate::run::{Ended, OutcomeState, Phase, Run, StepState};
use crate::unit::{CallNo, Side, Unit, UnitId};

/// What an entry made outstanding, and what it made obsolete. Whoever follows it takes away what was closed first:
/// an order that changed is closed and opened under the same key.
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
            // What was opened and closed within one command was opened a moment ago.
            match self.opened.iter().rposition(|order| order.key() == key) {
                Some(at) => {
                    self.opened.remove(at);
                }
                None => self.closed.push(key),
            }
        }
        self.opened.extend(next.opened);
    }

    fn between(before: Vec<Order>, after: Vec<Order>) -> Delta {
        let (was, is) = (by_key(&before), by_key(&after));
        let missing = |list: &[(OrderKey, &Order)], order: &Order| {
            let found = list.binary_search_by_key(&order.key(), |(key, _)| *key);
            !found.is_ok_and(|at| list[at].1.is_same(order))
        };
        let closed = before.iter().filter(|order| missing(&is, order)).map(Order::key).collect();
        let opened = after.iter().filter(|order| missing(&was, order)).cloned().collect();
        Delta { opened, closed }
    }
}

fn by_key(orders: &[Order]) -> Vec<(OrderKey, &Order)> {
    let mut sorted: Vec<_> = orders.iter().map(|order| (order.key(), order)).collect();
    sorted.sort_unstable_by_key(|(key, _)| *key);
    sorted
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
        planned: false,
        active: 0,
        undoing: 0,
        steps_over: 0,
        signals: Vec::new(),
        requests: Vec::new(),
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
            let before = orders_of(run, id);
            change(run, id, entry);
            Delta::between(before, orders_of(run, id))
        }
        Touched::Call(id, no) => {
            let before = order_of_call(run, id, no);
            change(run, id, entry);
            Delta::between(before, order_of_call(run, id, no))
        }
        Touched::Kept(id) => {
            change(run, id, entry);
            Delta::default()
        }
        Touched::Run => {
            let before = run_orders(run);
            apply(run, entry);
            Delta::between(before, run_orders(run))
        }
        Touched::Everything => {
            let before = outstanding(run);
            apply(run, entry);
            steps::count_active(run);
            Delta::between(before, outstanding(run))
        }
    }
}

/// Applies an entry about one unit and keeps count of the active ones.
fn change(run: &mut Run, id: UnitId, entry: &Entry) {
    let was_active = run.unit(id).is_some_and(Unit::is_active);
    unit::apply(run, id, entry);
    let is_active = run.unit(id).is_some_and(Unit::is_active);
    let counted = |count: u32| count + u32::from(is_active) - u32::from(was_active);
    run.active = counted(run.active);
    if id.side == Side::Undo {
        run.undoing = counted(run.undoing);
    }
}

enum Touched {
    /// Orders of one unit may change.
    Unit(UnitId),
    /// The order of one call may change; an agent makes thousands of them.
    Call(UnitId, CallNo),
    /// Something is kept for one unit; no order changes.
    Kept(UnitId),
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
        | Entry::UnitDone { unit, .. }
        | Entry::AttemptFailed { unit, .. }
        | Entry::SleepBegan { unit, .. }
        | Entry::WaitBegan { unit, .. }
        | Entry::ChildBegan { unit, .. }
        | Entry::ChildTimedOut { unit, .. }
        | Entry::UnitSettled { unit } => Touched::Unit(*unit),
        Entry::ApprovalDecided { key: ApprovalKey::Unit(unit, _), .. } => Touched::Unit(*unit),
        Entry::CallIntended { unit, no, .. }
        | Entry::CallFinished { unit, no, .. }
        | Entry::CallSettled { unit, no, .. }
        | Entry::ApprovalDecided { key: ApprovalKey::Call(unit, no, _), .. } => Touched::Call(*unit, *no),
        Entry::CheckpointSaved { unit, .. } => Touched::Kept(*unit),
        Entry::TurnTaken
        | Entry::ContextGathered { .. }
        | Entry::StepSkipped { .. }
        | Entry::FanOpened { .. }
        | Entry::FanJoined { .. }
        | Entry::SignalReceived { .. }
        | Entry::SignalTaken { .. }
        | Entry::RequestDone { .. }
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

fn order_of_call(run: &Run, id: UnitId, no: CallNo) -> Vec<Order> {
    run.unit(id).and_then(|unit| unit.call(no)).and_then(|call| call_order(id, call)).into_iter().collect()
}

fn remember(run: &mut Run, request: RequestId) {
    if run.requests.len() == REQUESTS_KEPT {
        run.requests.remove(0);
    }
    run.requests.push(request);
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
            run.planned = true;
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
        Entry::RequestDone { request } => remember(run, *request),
        Entry::RunPaused { .. } => run.paused = true,
        Entry::RunResumed { .. } => run.paused = false,
        Entry::WindUpBegan { towards, undo, children } => {
            run.phase = Phase::WindingUp { towards: Box::new(towards.clone()), undo: *undo };
            run.paused = false;
            steps::stop(run, *children);
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
            run.phase = if run.planned { Phase::Running } else { Phase::Planning };
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
        | Entry::ChildTimedOut { .. }
        | Entry::UnitSettled { .. } => {}
    }
}

fn end(
    run: &mut Run,
    ending: &crate::run::Ending,
    at: kapell_model::Timestamp,
    outcome: Option<(std::sync::Arc<str>, kapell_model::Timestamp)>,
) {
    let undos = || run.units().filter(|(id, _)| id.side == Side::Undo);
    let undone = undos().next().is_some() && undos().all(|(_, unit)| unit.output().is_some());
    let outcome = match outcome {
        Some((correlation, until)) => OutcomeState::Open { correlation, until },
        None => OutcomeState::Settled(None),
    };
    let parent_waits = run.accepted.parent.is_some();
    run.paused = false;
    run.phase = Phase::Ended(Box::new(Ended { ending: ending.clone(), at, parent_waits, outcome, undone }));
}
