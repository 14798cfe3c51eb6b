//! Undoing: which units are undone next, in reverse causal order.
//!
//! Owns: what must be undone (what was done, or may have been, and says how) and when (after all that built on it).
use kapell_model::plan::{CompensateRule, PlanStep, StepIndex};
use kapell_model::{Json, Timestamp};

use super::begin::{deadline_of, given_up, item_of};
use crate::entry::Entry;
use crate::error::{ErrorClass, TaskError};
use crate::run::{Forward, Run, StepState};
use crate::unit::{Status, UnitId};
use crate::{Attempt, Context, scope};

/// The units that may be undone now.
pub(super) fn next(run: &Run, at: Timestamp, context: &Context<'_>) -> Vec<Entry> {
    if run.units().any(|(id, unit)| id.side == crate::Side::Forward && unit.is_active()) {
        // What an open call did is not known yet.
        return vec![];
    }
    let pending: Vec<StepIndex> = run
        .steps()
        .iter()
        .filter(|(index, state)| {
            run.plan_step(*index).is_some_and(|step| step.compensate.is_some())
                && forwards(state).any(|one| wants_undo(one) && !one.undo.as_ref().is_some_and(crate::Unit::is_over))
        })
        .map(|(index, _)| *index)
        .collect();
    let blocked = blocked_by(run, &pending);
    pending
        .iter()
        .filter(|index| !blocked[index.0 as usize])
        .filter_map(|index| run.plan_step(*index).map(|step| (*index, step)))
        .flat_map(|(index, step)| of_step(run, at, index, step, context))
        .collect()
}

fn forwards(state: &StepState) -> Box<dyn Iterator<Item = &Forward> + '_> {
    match state {
        StepState::Skipped => Box::new(std::iter::empty()),
        StepState::One(one) => Box::new(std::iter::once(&**one)),
        StepState::Fan(fan) => Box::new(fan.units.iter()),
    }
}

/// Done, or stopped after one of its calls took effect.
fn wants_undo(one: &Forward) -> bool {
    match one.unit.status {
        Status::Done(_) => true,
        Status::Failed(_) | Status::Canceled => one.unit.took_effect(),
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

/// For each step, whether a pending one builds on it, directly or not.
fn blocked_by(run: &Run, pending: &[StepIndex]) -> Vec<bool> {
    let mut blocked = vec![false; run.plan.steps.len()];
    let mut todo: Vec<StepIndex> = pending.to_vec();
    while let Some(index) = todo.pop() {
        let needs = run.plan_step(index).map_or(&[][..], |step| &step.needs);
        for need in needs {
            if !std::mem::replace(&mut blocked[need.0 as usize], true) {
                todo.push(*need);
            }
        }
    }
    blocked
}

fn of_step(run: &Run, at: Timestamp, index: StepIndex, step: &PlanStep, context: &Context<'_>) -> Vec<Entry> {
    let (Some(rule), Some(state)) = (&step.compensate, run.step(index)) else { return vec![] };
    let most = step.foreach.as_ref().map_or(1, |foreach| foreach.concurrency) as usize;
    let active = forwards(state).filter(|one| one.undo.as_ref().is_some_and(|undo| !undo.is_over())).count();
    let fans = matches!(state, StepState::Fan(_));
    forwards(state)
        .enumerate()
        .filter(|(_, one)| wants_undo(one) && one.undo.is_none())
        .take(most.saturating_sub(active))
        .map(|(item, one)| {
            let id = if fans { UnitId::item(index, item as u32) } else { UnitId::step(index) };
            begin(run, at, id, one, rule, context)
        })
        .collect()
}

fn begin(
    run: &Run,
    at: Timestamp,
    id: UnitId,
    one: &Forward,
    rule: &CompensateRule,
    context: &Context<'_>,
) -> Entry {
    let mut seen = scope::of_run(run, rule.input.references());
    seen.set("output", &one.unit.output().map_or(serde_json::Value::Null, Json::value));
    if let Some((item, index)) = item_of(run, id) {
        seen.set("item", &item.value());
        seen.set("index", &serde_json::json!(index));
    }
    let undo = id.undo();
    match rule.input.eval_json(&seen) {
        Ok(input) => {
            let deadline = deadline_of(run, at, undo, context);
            Entry::TaskDispatched { unit: undo, attempt: Attempt(1), input: Some(input), deadline }
        }
        Err(error) => given_up(run, undo, TaskError::new(ErrorClass::Expression, error.to_string())),
    }
}
