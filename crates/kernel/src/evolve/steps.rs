//! Steps and fan-outs: which have begun, which may begin, which are over.
//!
//! Owns: the counters that make advancing cheap.
use kapell_model::plan::StepIndex;
use kapell_model::Json;

use super::{may_be_reopened, over_steps, sorted_insert};
use crate::run::{Fan, Forward, Run, StepState};
use crate::unit::{Status, Unit, UnitId};

/// Counts anew what each step needs, after the plan changed.
pub(super) fn index(run: &mut Run) {
    let over = over_steps(run);
    run.steps_over = over.len() as u32;
    run.missing = run
        .plan
        .steps
        .iter()
        .map(|step| step.needs.iter().filter(|need| !over.contains(need)).count() as u32)
        .collect();
    run.ready = run
        .plan
        .indices()
        .filter(|step| run.missing[step.0 as usize] == 0 && run.step(*step).is_none())
        .collect();
}

pub(super) fn is_over(state: &StepState) -> bool {
    match state {
        StepState::Skipped => true,
        StepState::One(one) => one.unit.output().is_some(),
        StepState::Fan(fan) => fan.output.is_some(),
    }
}

/// Records that a step has begun.
pub(super) fn begin(run: &mut Run, step: StepIndex, state: StepState) {
    if let Ok(at) = run.ready.binary_search(&step) {
        run.ready.remove(at);
    }
    match run.steps.binary_search_by_key(&step, |(known, _)| *known) {
        Ok(at) => run.steps[at].1 = state,
        Err(at) => run.steps.insert(at, (step, state)),
    }
}

/// The unit of a step without fan-out, begun if need be.
pub(super) fn begin_unit(run: &mut Run, id: UnitId) {
    run.cleared.retain(|cleared| *cleared != id);
    if id.item.is_none() && run.step(id.step).is_none() {
        begin(run, id.step, StepState::One(Box::new(Forward { unit: Unit::new(Json::null()), undo: None })));
    }
}

/// Lets the steps begin that needed only this one.
pub(super) fn over(run: &mut Run, step: StepIndex) {
    run.steps_over += 1;
    let plan = run.plan.clone();
    let Some(over) = plan.step(step) else { return };
    for fed in &over.feeds {
        let Some(missing) = run.missing.get_mut(fed.0 as usize) else { continue };
        *missing = missing.saturating_sub(1);
        if *missing == 0 && run.step(*fed).is_none() {
            sorted_insert(&mut run.ready, *fed);
        }
    }
}

pub(super) fn open_fan(run: &mut Run, step: StepIndex, items: &[Json], inputs: &[Json]) {
    let units = inputs.iter().map(|input| Forward { unit: Unit::new(input.clone()), undo: None }).collect();
    let fan = Fan { items: items.to_vec(), units, next: 0, active: 0, done: 0, output: None };
    run.cleared.retain(|cleared| cleared.step != step);
    begin(run, step, StepState::Fan(Box::new(fan)));
    sorted_insert(&mut run.fans, step);
}

pub(super) fn join_fan(run: &mut Run, step: StepIndex, output: &Json) {
    if let Some(StepState::Fan(fan)) = run.step_mut(step) {
        fan.output = Some(output.clone());
        run.fans.retain(|open| *open != step);
        over(run, step);
    }
}

/// Keeps the counters of the unit's fan-out.
pub(super) fn count_item(run: &mut Run, id: UnitId, before: &Status, after: &Status) {
    let Some(StepState::Fan(fan)) = run.step_mut(id.step) else { return };
    let working = |status: &Status| !matches!(status, Status::Waiting) && !over_status(status);
    let done = |status: &Status| matches!(status, Status::Done(_));
    fan.active = fan.active + u32::from(working(after)) - u32::from(working(before));
    fan.done = fan.done + u32::from(done(after)) - u32::from(done(before));
    while fan.units.get(fan.next as usize).is_some_and(|one| one.unit.status != Status::Waiting) {
        fan.next += 1;
    }
}

fn over_status(status: &Status) -> bool {
    matches!(status, Status::Done(_) | Status::Failed(_) | Status::Canceled | Status::Skipped)
}

/// Stops every unit: those with an open call once it is over, all others at once.
pub(super) fn stop(run: &mut Run) {
    run.ready.clear();
    run.cleared.clear();
    let ids: Vec<UnitId> = run.units().filter(|(_, unit)| !unit.is_over()).map(|(id, _)| id).collect();
    for id in ids {
        let Some(unit) = run.unit_mut(id) else { continue };
        let after = if unit.has_open_call() { Status::Settling } else { Status::Canceled };
        let before = std::mem::replace(&mut unit.status, after.clone());
        count_item(run, id, &before, &after);
    }
}

/// Makes failed and stopped units ready to be begun again. What their calls did and what they kept stays.
pub(super) fn reopen(run: &mut Run) {
    run.failed = None;
    let ids: Vec<UnitId> =
        run.units().filter(|(_, unit)| may_be_reopened(&unit.status)).map(|(id, _)| id).collect();
    for id in ids {
        let Some(unit) = run.unit_mut(id) else { continue };
        unit.failures = 0;
        let before = std::mem::replace(&mut unit.status, Status::Waiting);
        count_item(run, id, &before, &Status::Waiting);
        match run.step_mut(id.step) {
            Some(StepState::Fan(fan)) => fan.next = 0,
            Some(StepState::One(_)) => run.cleared.push(id),
            Some(StepState::Skipped) | None => {}
        }
    }
    run.fans = run
        .steps
        .iter()
        .filter(|(_, state)| matches!(state, StepState::Fan(fan) if fan.output.is_none()))
        .map(|(step, _)| *step)
        .collect();
    index(run);
}
