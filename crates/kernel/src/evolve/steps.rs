//! Steps and fan-outs: which have begun, which may begin, which are over.
//!
//! Owns: the counters that make advancing cheap.
use std::collections::BTreeSet;

use kapell_model::Json;
use kapell_model::plan::StepIndex;

use crate::run::{Children, Fan, Forward, Phase, Run, StepState};
use crate::unit::{Side, Status, Unit, UnitId};

/// Counts anew what each step needs, after the plan changed.
pub(super) fn index(run: &mut Run) {
    let over: BTreeSet<StepIndex> =
        run.steps.iter().filter(|(_, state)| is_over(state)).map(|(step, _)| *step).collect();
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

fn is_over(state: &StepState) -> bool {
    match state {
        StepState::Skipped => true,
        StepState::One(one) => one.unit.output().is_some(),
        StepState::Fan(fan) => fan.output.is_some(),
    }
}

/// Records that a step has begun.
pub(super) fn begin(run: &mut Run, step: StepIndex, state: StepState) {
    run.cleared.retain(|cleared| cleared.step != step);
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
    // Nothing new begins once the run is wound up; a child may end well even so.
    let goes_on = !matches!(run.phase, Phase::WindingUp { .. });
    let plan = run.plan.clone();
    let Some(over) = plan.step(step) else { return };
    for fed in &over.feeds {
        let Some(missing) = run.missing.get_mut(fed.0 as usize) else { continue };
        *missing = missing.saturating_sub(1);
        if goes_on && *missing == 0 && run.step(*fed).is_none() {
            sorted_insert(&mut run.ready, *fed);
        }
    }
}

pub(super) fn open_fan(run: &mut Run, step: StepIndex, items: &[Json], inputs: &[Json]) {
    let units = inputs.iter().map(|input| Forward { unit: Unit::new(input.clone()), undo: None }).collect();
    let fan = Fan {
        items: items.to_vec(),
        units,
        next: 0,
        active: 0,
        done: 0,
        output: None,
        output_bytes: 0,
        to_undo: 0,
        undoing: 0,
        undo_next: 0,
    };
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

fn sorted_insert(list: &mut Vec<StepIndex>, step: StepIndex) {
    if let Err(at) = list.binary_search(&step) {
        list.insert(at, step);
    }
}

/// What a fan-out counts, for one item.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    working: u32,
    done: u32,
    output_bytes: usize,
    to_undo: u32,
    undoing: u32,
}

impl Counted {
    pub(super) fn of(one: &Forward) -> Counted {
        let undoing = |undo: &Unit| undo.status != Status::Waiting && !undo.is_over();
        Counted {
            working: u32::from(one.unit.status != Status::Waiting && !one.unit.is_over()),
            done: u32::from(one.unit.output().is_some()),
            output_bytes: one.unit.output().map_or(0, Json::bytes_len),
            to_undo: u32::from(one.awaits_undo()),
            undoing: u32::from(one.undo.as_ref().is_some_and(undoing)),
        }
    }
}

/// Keeps the counters of a unit's fan-out after it changed.
pub(super) fn count_item(run: &mut Run, id: UnitId, before: Counted) {
    let (Some(StepState::Fan(fan)), Some(item)) = (run.step_mut(id.step), id.item) else { return };
    let Some(one) = fan.units.get(item.0 as usize) else { return };
    let after = Counted::of(one);
    fan.active = fan.active + after.working - before.working;
    fan.done = fan.done + after.done - before.done;
    fan.output_bytes = fan.output_bytes + after.output_bytes - before.output_bytes;
    fan.to_undo = fan.to_undo + after.to_undo - before.to_undo;
    fan.undoing = fan.undoing + after.undoing - before.undoing;
    let units = &fan.units;
    let passed = |hint: &mut u32, waits: fn(&Forward) -> bool| {
        while units.get(*hint as usize).is_some_and(|one| !waits(one)) {
            *hint += 1;
        }
    };
    match id.side {
        Side::Forward => passed(&mut fan.next, |one| one.unit.status == Status::Waiting),
        Side::Undo => passed(&mut fan.undo_next, Forward::undo_may_begin),
    }
}

/// Counts a fan-out anew, after many of its items changed at once.
fn recount(fan: &mut Fan) {
    (fan.next, fan.undo_next) = (0, 0);
    (fan.active, fan.done, fan.to_undo, fan.undoing) = (0, 0, 0, 0);
    fan.output_bytes = 0;
    for counted in fan.units.iter().map(Counted::of) {
        fan.active += counted.working;
        fan.done += counted.done;
        fan.output_bytes += counted.output_bytes;
        fan.to_undo += counted.to_undo;
        fan.undoing += counted.undoing;
    }
}

/// Counts the active units anew.
pub(super) fn count_active(run: &mut Run) {
    let active = |side: Option<Side>| {
        let of_side = |id: &UnitId| side.is_none_or(|side| side == id.side);
        run.units().filter(|(id, unit)| of_side(id) && unit.is_active()).count() as u32
    };
    let (all, undoing) = (active(None), active(Some(Side::Undo)));
    (run.active, run.undoing) = (all, undoing);
}

/// Stops every unit: those with an open call or a child that is canceled once it is over, all others at once.
pub(super) fn stop(run: &mut Run, children: Children) {
    run.ready.clear();
    run.cleared.clear();
    for (_, state) in &mut run.steps {
        forwards_mut(state).for_each(|one| stop_unit(&mut one.unit, children));
        recount_state(state);
    }
}

fn stop_unit(unit: &mut Unit, children: Children) {
    let awaits_child = matches!(unit.status, Status::InChild { .. }) && children == Children::Canceled;
    if !unit.is_over() && !awaits_child {
        unit.status = if unit.has_open_call() { Status::Settling } else { Status::Canceled };
    }
}

/// Makes failed and stopped units ready to be begun again. What their calls did and what they kept stays.
pub(super) fn reopen(run: &mut Run) {
    run.failed = None;
    run.cleared.clear();
    run.fans.clear();
    for (step, state) in &mut run.steps {
        for one in forwards_mut(state) {
            one.undo.iter_mut().for_each(reopen_unit);
            reopen_unit(&mut one.unit);
        }
        recount_state(state);
        match state {
            StepState::One(one) if one.unit.status == Status::Waiting => {
                run.cleared.push(UnitId::step(*step))
            }
            StepState::Fan(fan) if fan.output.is_none() => run.fans.push(*step),
            StepState::One(_) | StepState::Fan(_) | StepState::Skipped => {}
        }
    }
    index(run);
}

fn reopen_unit(unit: &mut Unit) {
    if matches!(unit.status, Status::Failed(_) | Status::Canceled) {
        unit.failures = 0;
        unit.status = Status::Waiting;
    }
}

fn forwards_mut(state: &mut StepState) -> std::slice::IterMut<'_, Forward> {
    match state {
        StepState::Skipped => [].iter_mut(),
        StepState::One(one) => std::slice::from_mut(&mut **one).iter_mut(),
        StepState::Fan(fan) => fan.units.iter_mut(),
    }
}

fn recount_state(state: &mut StepState) {
    match state {
        StepState::Fan(fan) => recount(fan),
        StepState::One(_) | StepState::Skipped => {}
    }
}
