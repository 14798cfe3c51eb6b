//! The Workflow kind.
//!
//! Owns: its shape. Never: compiles an expression (that is `plan`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Name, Span};

/// What triggers work, its goal, and its written steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workflow {
    /// The events that start a run. Left out: it is started by hand, schedule or another workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Trigger>,
    /// CEL; runs of one key are handled in order of arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What must be true in the business when the run is done, in words.
    #[serde(default)]
    pub goal: String,
    /// JSON Schema of `event.data`; an event that does not fit is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What to know before the first step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<ContextQuery>,
    /// The written procedure.
    pub steps: Vec<Step>,
    /// What happens when a step has failed for good.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Time that the whole run may take; without it a run may last for years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// How the business result is learned later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// Which events start a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trigger {
    /// CloudEvents `type`, exactly.
    #[serde(rename = "type")]
    pub event_type: String,
    /// CloudEvents `source`, exactly; left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// CEL over `event`; left out: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

/// One piece of context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ContextQuery {
    /// Earlier runs.
    Recall(Recall),
    /// Entities near one in the graph of the business.
    Related(Related),
}

/// Earlier runs about the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recall {
    /// Template of the entity, such as `vendor:${event.data.vendor_id}`; left out: the run's own key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// At most so many, newest first.
    #[serde(default = "five")]
    pub limit: u32,
}

fn five() -> u32 {
    5
}

/// Entities near one in the graph of the business.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Related {
    /// Template of the entity to start from.
    pub from: String,
    /// Relations to follow.
    pub via: Vec<String>,
    /// How far.
    #[serde(default = "one")]
    pub depth: u32,
}

fn one() -> u32 {
    1
}

/// One node of the procedure. Exactly one of `skill`, `approval`, `wait` and `workflow` says what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// Unique in the workflow: `a-z`, then `a-z 0-9 _`; expressions say `steps.ID`.
    pub id: String,
    /// Steps that must be over first, beside those that expressions name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// CEL; the step is skipped when it is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// A task: the kind of work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// A question to a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalStep>,
    /// A timer or an event to wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<WaitStep>,
    /// Another workflow to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Name>,
    /// Template of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Value>,
    /// Template of a list; the step runs once for each item, seen as `item` and `index`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreach: Option<Value>,
    /// Items worked on at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Time that one attempt may take. The run of a subworkflow that takes longer is canceled, and undone before
    /// another attempt begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// When a failed attempt is made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How to undo it when the run fails later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<Compensation>,
}

/// A question to a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovalStep {
    /// Template of the question.
    pub ask: String,
    /// Template of what the person sees beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show: Option<Value>,
    /// Time to answer; 24 h when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Span>,
    /// What silence means.
    #[serde(default)]
    pub on_expire: OnExpire,
}

/// What an approval that nobody answered means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnExpire {
    /// No.
    #[default]
    Reject,
    /// Yes.
    Approve,
}

/// A timer or an event to wait for; exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WaitStep {
    /// This long.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// Until this point in time: a template that gives RFC 3339 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Until such an event arrives; the step's `timeout` ends the wait as a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventWait>,
}

/// Which event ends a wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventWait {
    /// CloudEvents `type`, exactly.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Template of the value that the event's `subject` must have, or else its `data` field named by `field`.
    pub correlate: String,
    /// CEL over `event` of the arriving one, giving the value to compare; left out: `event.subject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// When a failed attempt is made again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// Attempts in all, the first included; 5 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Delays between them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
}

/// Exponential delays with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backoff {
    /// Before the second attempt.
    pub initial: Span,
    /// Never longer.
    pub max: Span,
}

/// How to undo a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Compensation {
    /// The kind of work.
    pub skill: String,
    /// Template of its input; sees `output` (of what is undone) beside all that the step sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Value>,
}

/// What happens when a step has failed for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// Undo the steps that say how, in reverse causal order, then end as failed.
    #[default]
    Compensate,
    /// End as failed and leave things as they are; a person may retry the failed step.
    Stop,
}

/// How the business result is learned later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outcome {
    /// Counted from the end of the run; nothing heard by then is recorded as unknown.
    pub within: Span,
    /// The event that tells.
    pub on: OutcomeEvent,
    /// CEL over `event` (the one that tells) and `run`; true: it was a success.
    pub success: String,
}

/// The event that tells how a run turned out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutcomeEvent {
    /// CloudEvents `type`, exactly.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Template of the value that the event's `subject` must have; left out: the run's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlate: Option<String>,
}

impl Workflow {
    /// The step of this id.
    #[must_use]
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == id)
    }
}
