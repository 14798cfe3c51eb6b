//! What must be driven now.
//!
//! Owns: deriving orders from a state. `evolve` reports the difference of two such lists, so both agree.
use kapell_model::RunId;
use kapell_model::plan::StepKind;

use crate::command::CancelMode;
use crate::order::{ApprovalKey, Dispatch, Order, Question, QuestionKind, TimerKey};
use crate::run::{Ending, OutcomeState, Phase, Run, Undo};
use crate::unit::{Attempt, Call, CallState, Side, Status, Unit, UnitId};

/// Everything that the run is waiting for, in a stable order.
#[must_use]
pub fn outstanding(run: &Run) -> Vec<Order> {
    let mut orders = run_orders(run);
    for (id, unit) in run.units() {
        unit_orders(run, id, unit, &mut orders);
    }
    orders
}

/// What the run as a whole is waiting for.
pub(crate) fn run_orders(run: &Run) -> Vec<Order> {
    let mut orders = Vec::new();
    let timed = match &run.phase {
        Phase::Queued => {
            orders.push(Order::AwaitTurn);
            false
        }
        Phase::Gathering => {
            orders.push(Order::GatherContext);
            false
        }
        Phase::Planning => {
            orders.push(Order::MakePlan);
            true
        }
        Phase::Running => true,
        Phase::WindingUp { .. } => false,
        Phase::Ended(ended) => {
            if let (true, Some(parent)) = (ended.parent_waits, run.accepted.parent) {
                orders.push(Order::TellParent(parent));
            }
            if let (OutcomeState::Open { correlation, until }, Some(outcome)) =
                (&ended.outcome, &run.accepted.workflow.outcome)
            {
                let event_type = outcome.event_type.as_str().into();
                orders.push(Order::BindOutcome { event_type, correlation: correlation.clone() });
                orders.push(Order::SetTimer { key: TimerKey::Outcome, at: *until });
            }
            false
        }
    };
    if let (true, Some(at)) = (timed, run.deadline) {
        orders.push(Order::SetTimer { key: TimerKey::Run, at });
    }
    if run.paused {
        orders.push(Order::AwaitResume);
    }
    orders
}

/// What one unit is waiting for.
pub(crate) fn unit_orders(run: &Run, id: UnitId, unit: &Unit, orders: &mut Vec<Order>) {
    let (attempt, next) = (unit.attempt, unit.attempt.next());
    match &unit.status {
        Status::Judging => orders.push(Order::Judge { unit: id, attempt: next }),
        Status::Asking(asked) => {
            let key = ApprovalKey::Unit(id, next);
            let (question, since) = (asked.question.clone(), asked.since);
            orders.push(Order::AskApproval { key, question, since, expires: Some(asked.expires) });
            orders.push(Order::SetTimer { key: TimerKey::Approval(id, next), at: asked.expires });
        }
        Status::Working { deadline } => {
            orders.push(dispatch(run, id, unit, *deadline));
            orders.push(Order::SetTimer { key: TimerKey::Attempt(id, attempt), at: *deadline });
        }
        Status::BackingOff { until } => {
            // A paused run begins nothing: its retries are due when it is resumed.
            if !run.paused {
                orders.push(Order::SetTimer { key: TimerKey::Retry(id, attempt), at: *until });
            }
        }
        Status::Sleeping { until } => {
            orders.push(Order::SetTimer { key: TimerKey::Sleep(id, attempt), at: *until });
        }
        Status::Listening { event_type, correlation, until } => {
            let (event_type, correlation) = (event_type.clone(), correlation.clone());
            orders.push(Order::AwaitEvent { unit: id, attempt, event_type, correlation });
            if let Some(until) = until {
                orders.push(Order::SetTimer { key: TimerKey::Wait(id, attempt), at: *until });
            }
        }
        Status::InChild { child, deadline, timed_out } => {
            if let Some(undo) = timed_out {
                orders.push(cancel_late_child((id, attempt), *child, run, *undo));
            } else if let Phase::WindingUp { towards, undo } = &run.phase {
                orders.push(cancel_child((id, attempt), *child, run, (towards, *undo)));
            } else if let Some(StepKind::Subworkflow { workflow, .. }) =
                run.plan_step(id.step).map(|step| &step.kind)
            {
                let (workflow, input) = (workflow.clone(), unit.input.clone());
                orders.push(Order::StartChild { unit: id, attempt, child: *child, workflow, input });
                if let Some(at) = *deadline {
                    orders.push(Order::SetTimer { key: TimerKey::Attempt(id, attempt), at });
                }
            }
        }
        Status::Waiting
        | Status::Cleared
        | Status::Settling
        | Status::Done(_)
        | Status::Failed(_)
        | Status::Canceled
        | Status::Skipped => {}
    }
    orders.extend(unit.calls.iter().filter_map(|call| call_order(id, call)));
}

/// A child ends as its parent does: whoever canceled that cancels this, and what is undone there is undone here.
fn cancel_child(
    (unit, attempt): (UnitId, Attempt),
    child: RunId,
    run: &Run,
    (towards, undo): (&Ending, Undo),
) -> Order {
    let (by, reason) = match towards {
        Ending::Canceled { by, reason } => (by.clone(), reason.clone()),
        Ending::Failed(failure) => {
            (format!("run {}", run.id).into(), format!("it failed: {}", failure.error).into())
        }
        // No run is wound up towards it.
        Ending::Completed { .. } => (format!("run {}", run.id).into(), "it is over".into()),
    };
    Order::CancelChild { unit, attempt, child, by, reason, mode: mode_of(undo) }
}

/// A child that took too long is canceled once, whatever becomes of its parent meanwhile.
fn cancel_late_child((unit, attempt): (UnitId, Attempt), child: RunId, run: &Run, undo: Undo) -> Order {
    let (by, reason) =
        (format!("run {}", run.id).into(), "it took longer than the timeout of its step".into());
    Order::CancelChild { unit, attempt, child, by, reason, mode: mode_of(undo) }
}

fn mode_of(undo: Undo) -> CancelMode {
    match undo {
        Undo::Steps => CancelMode::Undo,
        Undo::Nothing => CancelMode::Leave,
    }
}

fn dispatch(run: &Run, id: UnitId, unit: &Unit, deadline: kapell_model::Timestamp) -> Order {
    Order::Dispatch(Box::new(Dispatch {
        unit: id,
        attempt: unit.attempt,
        skill: skill_of(run, id).unwrap_or_else(|| "".into()),
        input: unit.input.clone(),
        checkpoints: unit.checkpoints.clone(),
        deadline,
    }))
}

/// The skill that a unit needs.
pub(crate) fn skill_of(run: &Run, id: UnitId) -> Option<std::sync::Arc<str>> {
    let step = run.plan_step(id.step)?;
    match (id.side, &step.kind, &step.compensate) {
        (Side::Forward, StepKind::Task { skill, .. }, _) => Some(skill.clone()),
        (Side::Undo, _, Some(rule)) => Some(rule.skill.clone()),
        (Side::Undo, _, None)
        | (
            Side::Forward,
            StepKind::Approval { .. }
            | StepKind::Sleep { .. }
            | StepKind::Until { .. }
            | StepKind::Event { .. }
            | StepKind::Subworkflow { .. },
            _,
        ) => None,
    }
}

/// What one call is waiting for.
pub(crate) fn call_order(unit: UnitId, call: &Call) -> Option<Order> {
    match &call.state {
        CallState::Intended => Some(Order::Call { unit, call: Box::new(call.clone()) }),
        CallState::Unknown { .. } => Some(Order::Reconcile { unit, call: Box::new(call.clone()) }),
        CallState::Asking { since } => Some(Order::AskApproval {
            key: ApprovalKey::Call(unit, call.no, call.attempt),
            question: Question {
                kind: QuestionKind::CallOutcome,
                ask: format!("Did the call of `{}` take effect? Its answer was lost.", call.tool).into(),
                show: call.args.clone(),
            },
            since: *since,
            expires: None,
        }),
        CallState::Succeeded(_) | CallState::Failed(_) => None,
    }
}

/// The attempt that a question of this unit gates.
pub(crate) fn gated(unit: &Unit) -> Attempt {
    unit.attempt.next()
}
