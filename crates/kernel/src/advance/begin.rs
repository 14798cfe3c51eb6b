//! How a step, an item or a cleared unit begins.

use kapell_model::definition::EffectClass;
use kapell_model::expr::{EvalError, References, Scope};
use kapell_model::limits::{
    ATTEMPT_TIMEOUT_DEFAULT, FOREACH_INPUT_BYTES_MAX, FOREACH_ITEMS_MAX, KEY_BYTES_MAX, NESTING_MAX,
    PAYLOAD_BYTES_MAX,
};
use kapell_model::plan::{PlanStep, StepIndex, StepKind};
use kapell_model::{Json, RunId, Timestamp};
use serde_json::{Value, json};

use crate::entry::{AfterFailure, Entry};
use crate::error::{ErrorClass, TaskError};
use crate::expr_text::text_of;
use crate::order::{Question, QuestionKind};
use crate::outstanding::skill_of;
use crate::run::{Run, StepState};
use crate::unit::{Side, Status, UnitId};
use crate::{Context, scope};

/// A step whose needs are over.
pub(super) fn step(run: &Run, at: Timestamp, index: StepIndex, context: &Context<'_>) -> Vec<Entry> {
    let Some(step) = run.plan_step(index) else { return vec![] };
    begin_step(run, at, index, step, context)
        .unwrap_or_else(|error| vec![given_up(run, UnitId::step(index), error)])
}

fn begin_step(
    run: &Run,
    at: Timestamp,
    index: StepIndex,
    step: &PlanStep,
    context: &Context<'_>,
) -> Result<Vec<Entry>, TaskError> {
    if let Some(when) = &step.when {
        let truth = when.eval_bool(&scope::of_run(run, when.references())).map_err(expression)?;
        if !truth {
            return Ok(vec![Entry::StepSkipped { step: index }]);
        }
    }
    if let Some(foreach) = &step.foreach {
        let list = foreach.over.eval(&scope::of_run(run, foreach.over.references())).map_err(expression)?;
        return open_fan(run, index, step, list).map(|opened| vec![opened]);
    }
    let input = input_of(&step.kind, &scope::of_run(run, &looks_at(&step.kind))).map_err(expression)?;
    fits(&input)?;
    Ok(unit(run, at, UnitId::step(index), input, context))
}

fn open_fan(run: &Run, index: StepIndex, step: &PlanStep, list: Value) -> Result<Entry, TaskError> {
    let Value::Array(values) = list else {
        return Err(TaskError::new(ErrorClass::Expression, format!("foreach needs a list, it got {list}")));
    };
    if values.len() > FOREACH_ITEMS_MAX {
        let message = format!("foreach got {} items, at most {FOREACH_ITEMS_MAX} are allowed", values.len());
        return Err(TaskError::new(ErrorClass::Permanent, message));
    }
    // One scope for all items: only `item` and `index` change.
    let references = looks_at(&step.kind);
    let mut seen = scope::of_run(run, &references);
    let (mut items, mut inputs, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (at, value) in values.iter().enumerate() {
        if references.variables.contains("item") {
            seen.set("item", value);
        }
        seen.set("index", &json!(at));
        let input = input_of(&step.kind, &seen).map_err(expression)?;
        fits(&input)?;
        bytes += input.bytes_len();
        inputs.push(input);
        items.push(Json::of(value));
    }
    if bytes > FOREACH_INPUT_BYTES_MAX {
        let message = format!(
            "the inputs of all items are {bytes} bytes, at most {FOREACH_INPUT_BYTES_MAX} are allowed"
        );
        return Err(TaskError::new(ErrorClass::Permanent, message));
    }
    Ok(Entry::FanOpened { step: index, items, inputs })
}

/// A unit that was judged or approved, or that is begun again after its run was retried.
pub(super) fn cleared(run: &Run, at: Timestamp, id: UnitId, context: &Context<'_>) -> Vec<Entry> {
    let Some(found) = run.unit(id) else { return vec![] };
    match found.status {
        Status::Cleared => dispatch(run, at, id, None, context),
        // Begun again from the start: it may never have got as far as an input. (Items have theirs and wait in
        // their fan-out.)
        Status::Waiting => step(run, at, id.step, context),
        Status::Judging
        | Status::Asking(_)
        | Status::Working { .. }
        | Status::BackingOff { .. }
        | Status::Sleeping { .. }
        | Status::Listening { .. }
        | Status::InChild { .. }
        | Status::Settling
        | Status::Done(_)
        | Status::Failed(_)
        | Status::Canceled
        | Status::Skipped => vec![],
    }
}

/// A unit whose input is known.
pub(super) fn unit(run: &Run, at: Timestamp, id: UnitId, input: Json, context: &Context<'_>) -> Vec<Entry> {
    let Some(step) = run.plan_step(id.step) else { return vec![] };
    match &step.kind {
        StepKind::Task { skill, .. } => task(run, at, id, skill, input, context),
        StepKind::Approval { expires, on_expire, .. } => {
            let value = input.value();
            vec![Entry::ApprovalAsked {
                unit: id,
                attempt: next_attempt(run, id),
                question: Question {
                    kind: QuestionKind::Step,
                    ask: text_of(&value["ask"]).into(),
                    show: Json::of(&value["show"]),
                },
                at,
                expires: at.after(*expires),
                on_expire: *on_expire,
            }]
        }
        StepKind::Sleep { span } => vec![Entry::SleepBegan { unit: id, until: at.after(*span) }],
        StepKind::Until { .. } => {
            let text = text_of(&input.value());
            match Timestamp::from_rfc3339(&text) {
                Some(until) => vec![Entry::SleepBegan { unit: id, until }],
                None => {
                    let message = format!("`{text}` is no point in time; RFC 3339 is needed");
                    vec![given_up(run, id, TaskError::new(ErrorClass::Expression, message))]
                }
            }
        }
        StepKind::Event { event_type, .. } => {
            let correlation = text_of(&input.value());
            let bytes = correlation.len();
            if bytes > KEY_BYTES_MAX {
                let message = format!("`correlate` gave {bytes} bytes, at most {KEY_BYTES_MAX} are allowed");
                return vec![given_up(run, id, TaskError::new(ErrorClass::Expression, message))];
            }
            let (event_type, correlation) = (event_type.clone(), correlation.into());
            let until = step.timeout.map(|span| at.after(span));
            vec![Entry::WaitBegan { unit: id, event_type, correlation, until }]
        }
        StepKind::Subworkflow { .. } => child(run, at, id, input, context),
    }
}

fn task(run: &Run, at: Timestamp, id: UnitId, name: &str, input: Json, context: &Context<'_>) -> Vec<Entry> {
    let namespace = &run.workflow().namespace;
    let Some(skill) = context.catalogue.skill(namespace, name) else {
        let message = format!(
            "no specialist of namespace `{namespace}` offers `{name}`; apply one, then retry the run"
        );
        return vec![given_up(run, id, TaskError::new(ErrorClass::NoSpecialist, message))];
    };
    if let Err(violation) = skill.input.check(&input) {
        let message = format!("the input does not fit the schema of `{name}`: {violation}");
        return vec![given_up(run, id, TaskError::new(ErrorClass::BadRequest, message))];
    }
    match skill.effect {
        EffectClass::Read => dispatch(run, at, id, Some(input), context),
        EffectClass::Write | EffectClass::Irreversible => vec![Entry::JudgementAsked { unit: id, input }],
    }
}

fn dispatch(run: &Run, at: Timestamp, id: UnitId, input: Option<Json>, context: &Context<'_>) -> Vec<Entry> {
    let deadline = deadline_of(run, at, id, context);
    vec![Entry::TaskDispatched { unit: id, attempt: next_attempt(run, id), input, deadline }]
}

/// Another attempt with the same input.
pub(crate) fn again(run: &Run, at: Timestamp, id: UnitId, context: &Context<'_>) -> Vec<Entry> {
    let kind = run.plan_step(id.step).map(|step| &step.kind);
    match (kind, run.unit(id)) {
        (Some(StepKind::Subworkflow { .. }), Some(unit)) if id.side == Side::Forward => {
            child(run, at, id, unit.input.clone(), context)
        }
        (_, _) => dispatch(run, at, id, None, context),
    }
}

fn child(run: &Run, at: Timestamp, id: UnitId, input: Json, context: &Context<'_>) -> Vec<Entry> {
    if run.accepted().nesting >= NESTING_MAX {
        let message = format!("subworkflows are nested deeper than {NESTING_MAX}");
        return vec![given_up(run, id, TaskError::new(ErrorClass::Permanent, message))];
    }
    let attempt = next_attempt(run, id);
    let step = run.plan_step(id.step);
    let name = step.map_or("", |step| &*step.id);
    let child = RunId::of_child(context.shards, run.id, name, id.item.map(|item| item.0), attempt.0);
    // Unlike a task's, it has no default: a subworkflow may last for years.
    let deadline = step.and_then(|step| step.timeout).map(|span| at.after(span));
    vec![Entry::ChildBegan { unit: id, attempt, child, input, deadline }]
}

/// When an attempt that begins at `at` has taken too long.
pub(crate) fn deadline_of(run: &Run, at: Timestamp, id: UnitId, context: &Context<'_>) -> Timestamp {
    let namespace = &run.workflow().namespace;
    let of_step = run.plan_step(id.step).and_then(|step| step.timeout).filter(|_| id.side == Side::Forward);
    let of_skill = || {
        skill_of(run, id)
            .and_then(|name| context.catalogue.skill(namespace, &name))
            .map(|skill| skill.timeout)
    };
    at.after(of_step.or_else(of_skill).unwrap_or(ATTEMPT_TIMEOUT_DEFAULT))
}

pub(super) fn next_attempt(run: &Run, id: UnitId) -> crate::unit::Attempt {
    run.unit(id).map_or(crate::unit::Attempt(0), |unit| unit.attempt).next()
}

/// The entry of a unit that could not begin.
pub(super) fn given_up(run: &Run, id: UnitId, error: TaskError) -> Entry {
    Entry::AttemptFailed { unit: id, attempt: next_attempt(run, id), error, then: AfterFailure::GiveUp }
}

fn looks_at(kind: &StepKind) -> References {
    match kind {
        StepKind::Task { input, .. } | StepKind::Subworkflow { input, .. } => input.references().clone(),
        StepKind::Approval { ask, show, .. } => {
            let mut references = ask.references().clone();
            references.extend(show.references());
            references
        }
        StepKind::Sleep { .. } => References::default(),
        StepKind::Until { at } => at.references().clone(),
        StepKind::Event { correlate, .. } => correlate.references().clone(),
    }
}

/// What a unit of this kind is given, as one value.
fn input_of(kind: &StepKind, seen: &Scope) -> Result<Json, EvalError> {
    match kind {
        StepKind::Task { input, .. } | StepKind::Subworkflow { input, .. } => input.eval_json(seen),
        StepKind::Approval { ask, show, .. } => {
            Ok(Json::of(&json!({ "ask": ask.eval(seen)?, "show": show.eval(seen)? })))
        }
        StepKind::Sleep { .. } => Ok(Json::null()),
        StepKind::Until { at } => at.eval_json(seen),
        StepKind::Event { correlate, .. } => correlate.eval_json(seen),
    }
}

fn expression(error: EvalError) -> TaskError {
    TaskError::new(ErrorClass::Expression, error.to_string())
}

fn fits(input: &Json) -> Result<(), TaskError> {
    if input.bytes_len() <= PAYLOAD_BYTES_MAX {
        return Ok(());
    }
    let bytes = input.bytes_len();
    let message =
        format!("the input is {bytes} bytes, at most {PAYLOAD_BYTES_MAX} are allowed; pass a reference");
    Err(TaskError::new(ErrorClass::Permanent, message))
}

/// The list that an undo needs: the item and the index of a unit.
pub(super) fn item_of(run: &Run, id: UnitId) -> Option<(Json, u32)> {
    match (run.step(id.step)?, id.item) {
        (StepState::Fan(fan), Some(item)) => Some((fan.items.get(item.0 as usize)?.clone(), item.0)),
        (StepState::Fan(_) | StepState::One(_) | StepState::Skipped, _) => None,
    }
}
