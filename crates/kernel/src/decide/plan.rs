//! Plans: which may be followed, and what a repair may change.
use std::collections::BTreeSet;
use std::sync::Arc;

use kapell_model::limits::{ATTEMPTS_MAX, PLAN_STEPS_MAX};
use kapell_model::plan::{Plan, PlanStep, StepIndex};

use super::Decided;
use crate::command::PlanSource;
use crate::entry::Entry;
use crate::error::Rejected;
use crate::order::OrderKey;
use crate::run::{Phase, Run};

/// The first plan, or a repaired one while the run goes on.
pub(super) fn adopt(run: &Run, source: PlanSource, reasons: Vec<Arc<str>>) -> Decided {
    match (&run.phase, &source) {
        (Phase::Planning, PlanSource::Written) => {}
        (Phase::Planning, PlanSource::Made(plan)) => sound(plan)?,
        (Phase::Running, PlanSource::Made(plan)) => {
            sound(plan)?;
            keeps_history(run, plan)?;
        }
        (
            Phase::Queued | Phase::Gathering | Phase::Running | Phase::WindingUp { .. } | Phase::Ended(_),
            _,
        ) => {
            return Err(Rejected::Stale(OrderKey::Plan));
        }
    }
    Ok(vec![Entry::PlanMade { source, reasons }])
}

fn keeps_history(run: &Run, plan: &Plan) -> Result<(), Rejected> {
    for (index, _) in run.steps() {
        let (Some(before), now) = (run.plan_step(*index), plan.step(*index)) else { continue };
        if !now.is_some_and(|now| is_same(before, now)) {
            return Err(Rejected::PlanChangesHistory(before.id.to_string()));
        }
    }
    Ok(())
}

/// Whether a step is as it was. What it feeds may change: that is about the steps after it.
fn is_same(before: &PlanStep, now: &PlanStep) -> bool {
    let PlanStep { id, kind, needs, feeds: _, when, foreach, timeout, retry, compensate } = before;
    *id == now.id
        && *kind == now.kind
        && *needs == now.needs
        && *when == now.when
        && *foreach == now.foreach
        && *timeout == now.timeout
        && *retry == now.retry
        && *compensate == now.compensate
}

/// Refuses a plan that would leave a run stuck.
fn sound(plan: &Plan) -> Result<(), Rejected> {
    let wrong = |what: String| Err(Rejected::UnsoundPlan(what));
    if plan.steps.len() > PLAN_STEPS_MAX {
        return wrong(format!("it has {} steps, at most {PLAN_STEPS_MAX} are allowed", plan.steps.len()));
    }
    let mut names = BTreeSet::new();
    let mut feeds = vec![Vec::new(); plan.steps.len()];
    for (index, step) in plan.indices().zip(&plan.steps) {
        if !names.insert(&step.id) {
            return wrong(format!("it has two steps `{}`", step.id));
        }
        if !(1..=ATTEMPTS_MAX).contains(&step.retry.attempts_max) {
            return wrong(format!("`{}` may be tried 1 to {ATTEMPTS_MAX} times", step.id));
        }
        if step.foreach.as_ref().is_some_and(|foreach| foreach.concurrency == 0) {
            return wrong(format!("`{}` works on no item at once", step.id));
        }
        for need in &step.needs {
            match feeds.get_mut(need.0 as usize) {
                Some(fed) => fed.push(index),
                None => return wrong(format!("`{}` needs a step that is not there", step.id)),
            }
        }
    }
    if let Some((step, _)) = plan.steps.iter().zip(&feeds).find(|(step, fed)| step.feeds != **fed) {
        return wrong(format!("`{}` feeds other steps than those that need it", step.id));
    }
    match in_a_circle(plan) {
        Some(step) => wrong(format!("`{}` needs itself", step.id)),
        None => Ok(()),
    }
}

/// A step on or behind a circle of needs.
fn in_a_circle(plan: &Plan) -> Option<&PlanStep> {
    let mut missing: Vec<usize> = plan.steps.iter().map(|step| step.needs.len()).collect();
    let mut free: Vec<StepIndex> = plan.indices().filter(|index| missing[index.0 as usize] == 0).collect();
    while let Some(step) = free.pop().and_then(|index| plan.step(index)) {
        for fed in &step.feeds {
            missing[fed.0 as usize] -= 1;
            if missing[fed.0 as usize] == 0 {
                free.push(*fed);
            }
        }
    }
    let at = missing.iter().position(|count| *count > 0)?;
    plan.steps.get(at)
}
