//! A plan that was made or repaired for one run, as a workflow spec in JSON.
//!
//! Owns: writing a plan back as the text that compiles to it. Nothing is lost: a plan holds the sources of all its
//! expressions. Never: stores the compiled form, which may change with every version.
use std::sync::Arc;

use kapell_model::definition::{
    API_VERSION, ApprovalStep, Backoff, Compensation, Document, EventWait, Metadata, Retry, Step, WaitStep,
    Workflow,
};
use kapell_model::expr::{Expr, Template};
use kapell_model::plan::{Plan, PlanStep, StepKind, compile};
use kapell_model::{Json, Name, Span};
use serde_json::Value;
use std::time::Duration;

use crate::error::DecodeError;
use crate::field::Field;

/// The spec that compiles to this plan.
pub(crate) fn spec_of(plan: &Plan) -> Json {
    let spec = Workflow {
        on: None,
        key: None,
        goal: String::new(),
        input: None,
        context: Vec::new(),
        steps: plan.steps.iter().map(|step| written(plan, step)).collect(),
        on_failure: plan.on_failure,
        timeout: None,
        outcome: None,
    };
    // Only maps with keys that are not text cannot be written, and a workflow has none.
    Json::of(&serde_json::to_value(&spec).unwrap_or(Value::Null))
}

/// The plan that a stored spec compiles to.
pub(crate) fn plan_of(field: Field, spec: &str) -> Result<Arc<Plan>, DecodeError> {
    if spec.is_empty() {
        return Err(DecodeError::Missing { field });
    }
    let damaged = |reason: String| DecodeError::Damaged { field, reason };
    let spec = serde_json::from_str(spec).map_err(|error| damaged(error.to_string()))?;
    // A plan knows nothing of its workflow's name.
    let namespace = Name::default_namespace();
    let metadata = Metadata { name: namespace.clone(), namespace, labels: [].into(), annotations: [].into() };
    let document = Document { api_version: API_VERSION.to_owned(), metadata, spec };
    let workflow =
        compile(&document).map_err(|errors| damaged(format!("it does not compile: {errors:?}")))?;
    Ok(workflow.plan)
}

fn written(plan: &Plan, step: &PlanStep) -> Step {
    let mut spec = Step {
        id: step.id.to_string(),
        // All needs are named, those that expressions imply too: compiling takes the union.
        after: step
            .needs
            .iter()
            .filter_map(|need| plan.step(*need))
            .map(|need| need.id.to_string())
            .collect(),
        when: step.when.as_ref().map(source),
        foreach: step.foreach.as_ref().map(|foreach| value(&foreach.over)),
        concurrency: step.foreach.as_ref().map(|foreach| foreach.concurrency),
        timeout: step.timeout.map(span),
        retry: Some(Retry {
            attempts: Some(step.retry.attempts_max),
            backoff: Some(Backoff { initial: span(step.retry.initial), max: span(step.retry.max) }),
        }),
        compensate: step
            .compensate
            .as_ref()
            .map(|rule| Compensation { skill: rule.skill.to_string(), with: Some(value(&rule.input)) }),
        ..Step::default()
    };
    match &step.kind {
        StepKind::Task { skill, input } => {
            (spec.skill, spec.with) = (Some(skill.to_string()), Some(value(input)));
        }
        StepKind::Approval { ask, show, expires, on_expire } => {
            let (ask, show, expires) = (text(ask), Some(value(show)), Some(span(*expires)));
            spec.approval = Some(ApprovalStep { ask, show, expires, on_expire: *on_expire });
        }
        StepKind::Sleep { span: length } => {
            spec.wait = Some(WaitStep { span: Some(span(*length)), ..WaitStep::default() });
        }
        StepKind::Until { at } => spec.wait = Some(WaitStep { until: Some(text(at)), ..WaitStep::default() }),
        StepKind::Event { event_type, correlate, by } => {
            let event = EventWait {
                event_type: event_type.to_string(),
                correlate: text(correlate),
                by: by.as_ref().map(source),
            };
            spec.wait = Some(WaitStep { event: Some(event), ..WaitStep::default() });
        }
        StepKind::Subworkflow { workflow, input } => {
            (spec.workflow, spec.with) = (Some(workflow.clone()), Some(value(input)));
        }
    }
    spec
}

fn source(expr: &Expr) -> String {
    expr.source().to_owned()
}

fn value(template: &Template) -> Value {
    template.source().value()
}

/// The source of a template that was written as a text.
fn text(template: &Template) -> String {
    let source = value(template);
    source.as_str().map_or_else(|| source.to_string(), str::to_owned)
}

fn span(length: Duration) -> Span {
    Span::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}
