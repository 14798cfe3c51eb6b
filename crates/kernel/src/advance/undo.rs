//! Undoing: which units are undone next, in reverse causal order.
//!
//! Owns: what must be undone (what was done, or may have been, and says how) and when (after all that built on it).
use kapell_model::plan::{CompensateRule, PlanStep, StepIndex};
use kapell_model::{Json, Timestamp};

use super::begin::{deadline_of, given_up, item_of, next_attempt};
use crate::entry::Entry;
use crate::error::{ErrorClass, TaskError};
use crate::run::{Forward, Run, StepState};
use crate::unit::UnitId;
use crate::{Context, scope};

/// The units that may be undone now.
pub(super) fn next(run: &Run, at: Timestamp, context: &Context<'_>) -> Vec<Entry> {
    if run.active > run.undoing {
        // What an open call did is not known yet.
        return vec![];
    }
    let compensates = |index| run.plan_step(index).is_some_and(|step| step.compensate.is_some());
    let awaits = run.steps().iter().filter(|(index, state)| compensates(*index) && state.awaits_undo());
    let pending: Vec<StepIndex> = awaits.map(|(index, _)| *index).collect();
    let blocked = blocked_by(run, &pending);
    pending
        .iter()
        .filter(|index| !blocked[index.0 as usize])
        .filter_map(|index| run.plan_step(*index).map(|step| (*index, step)))
        .flat_map(|(index, step)| of_step(run, at, index, step, context))
        .collect()
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
    match state {
        StepState::Skipped => vec![],
        StepState::One(one) if one.undo_may_begin() => {
            vec![begin(run, at, UnitId::step(index), one, rule, context)]
        }
        StepState::One(_) => vec![],
        StepState::Fan(fan) => {
            let most = step.foreach.as_ref().map_or(1, |foreach| foreach.concurrency);
            (fan.undo_next..fan.units.len() as u32)
                .map(|item| (UnitId::item(index, item), &fan.units[item as usize]))
                .filter(|(_, one)| one.undo_may_begin())
                .take(most.saturating_sub(fan.undoing) as usize)
                .map(|(id, one)| begin(run, at, id, one, rule, context))
                .collect()
        }
    }
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
            Entry::TaskDispatched {
                unit: undo,
                attempt: next_attempt(run, undo),
                input: Some(input),
                deadline,
            }
        }
        Err(error) => given_up(run, undo, TaskError::new(ErrorClass::Expression, error.to_string())),
    }
}
