//! What follows by itself: steps begin, fan-outs join, runs end.
//!
//! Owns: the next entries of a run that nobody has to ask for. Never: changes the run. Called until it gives none.
mod begin;
mod signals;
mod undo;

use kapell_model::limits::{KEY_BYTES_MAX, RUN_OUTPUT_BYTES_MAX};
use kapell_model::plan::StepIndex;
use kapell_model::{Json, Timestamp};
use serde_json::{Map, Value};

pub(crate) use begin::again;
pub(crate) use signals::listener;

use crate::Context;
use crate::decide::wind_up;
use crate::entry::Entry;
use crate::error::{ErrorClass, Failure, TaskError};
use crate::expr_text;
use crate::run::{Ending, Phase, Run, StepState, Undo};
use crate::unit::{Status, UnitId};

/// The next entries, or none when the run waits for the world.
#[must_use]
pub fn advance(run: &Run, at: Timestamp, context: &Context<'_>) -> Vec<Entry> {
    match &run.phase {
        Phase::Running => running(run, at, context),
        Phase::WindingUp { towards, undo } => winding_up(run, at, towards, *undo, context),
        Phase::Queued | Phase::Gathering | Phase::Planning | Phase::Ended(_) => vec![],
    }
}

fn running(run: &Run, at: Timestamp, context: &Context<'_>) -> Vec<Entry> {
    if let Some(failed) = run.failed {
        return vec![fail(run, failed)];
    }
    if run.paused {
        return vec![];
    }
    let mut entries: Vec<Entry> =
        run.cleared.iter().flat_map(|unit| begin::cleared(run, at, *unit, context)).collect();
    entries.extend(run.ready.iter().flat_map(|step| begin::step(run, at, *step, context)));
    for step in &run.fans {
        entries.extend(fan(run, at, *step, context));
    }
    entries.extend(signals::answer(run, &entries));
    if entries.is_empty() && run.active == 0 && run.steps_over as usize == run.plan.steps.len() {
        entries.push(complete(run, at));
    }
    entries
}

fn complete(run: &Run, at: Timestamp) -> Entry {
    let output = output_of(run);
    let (bytes, most) = (output.bytes_len(), RUN_OUTPUT_BYTES_MAX);
    if bytes <= most {
        return end(run, at, Ending::Completed { output });
    }
    let message = format!(
        "the output of the run is {bytes} bytes, at most {most} are allowed; end with one step that passes references"
    );
    wind_up(run, Failure { unit: None, error: TaskError::new(ErrorClass::Permanent, message) })
}

fn fail(run: &Run, failed: UnitId) -> Entry {
    let error = match run.unit(failed).map(|unit| &unit.status) {
        Some(Status::Failed(error)) => (**error).clone(),
        // Only a damaged journal can say that a unit failed which did not.
        Some(_) | None => TaskError::new(ErrorClass::Permanent, "a step failed"),
    };
    wind_up(run, Failure { unit: Some(failed), error })
}

/// Items that may begin now, or the join once all are done.
fn fan(run: &Run, at: Timestamp, step: StepIndex, context: &Context<'_>) -> Vec<Entry> {
    let (Some(StepState::Fan(fan)), Some(plan)) = (run.step(step), run.plan_step(step)) else {
        return vec![];
    };
    if fan.output.is_some() {
        return vec![];
    }
    if fan.done as usize == fan.units.len() {
        return vec![Entry::FanJoined { step, output: joined(&fan.units) }];
    }
    let most = plan.foreach.as_ref().map_or(1, |foreach| foreach.concurrency);
    let room = most.saturating_sub(fan.active) as usize;
    let waiting = (fan.next as usize..fan.units.len())
        .filter(|item| fan.units[*item].unit.status == Status::Waiting)
        .take(room);
    waiting
        .flat_map(|item| {
            let input = fan.units[item].unit.input.clone();
            begin::unit(run, at, UnitId::item(step, item as u32), input, context)
        })
        .collect()
}

fn joined(units: &[crate::run::Forward]) -> Json {
    let null = Json::null();
    let results = Json::list(units.iter().map(|one| one.unit.output().unwrap_or(&null)));
    expr_text::object_of("results", &results)
}

fn winding_up(run: &Run, at: Timestamp, towards: &Ending, undo: Undo, context: &Context<'_>) -> Vec<Entry> {
    let entries = match undo {
        Undo::Steps if !run.paused => undo::next(run, at, context),
        Undo::Steps | Undo::Nothing => vec![],
    };
    if entries.is_empty() && run.active == 0 {
        return vec![end(run, at, towards.clone())];
    }
    entries
}

fn end(run: &Run, at: Timestamp, ending: Ending) -> Entry {
    let outcome = run.workflow().outcome.as_ref().and_then(|rule| {
        let Ending::Completed { .. } = &ending else { return None };
        let correlation = match &rule.correlate {
            Some(template) => {
                let scope = crate::scope::of_run(run, template.references());
                expr_text::text_of(&template.eval(&scope).ok()?)
            }
            None => run.accepted().key.as_deref().unwrap_or_default().to_owned(),
        };
        // No event could have it.
        let fits = correlation.len() <= KEY_BYTES_MAX;
        fits.then(|| (correlation.into(), at.after(rule.within)))
    });
    Entry::RunEnded { ending, at, outcome }
}

/// Output of the last step, or an object of the outputs of all last steps.
fn output_of(run: &Run) -> Json {
    let last: Vec<StepIndex> = run
        .plan
        .indices()
        .filter(|step| run.plan.step(*step).is_some_and(|step| step.feeds.is_empty()))
        .collect();
    if let [only] = last.as_slice() {
        return run.output(*only).unwrap_or_else(Json::null);
    }
    let mut outputs = Map::new();
    for step in last {
        if let (Some(words), Some(output)) = (run.plan.step(step), run.output(step)) {
            outputs.insert(words.id.to_string(), output.value());
        }
    }
    Json::of(&Value::Object(outputs))
}
