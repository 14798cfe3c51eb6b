//! Answers as scripts see them: field names in camelCase, times in RFC 3339, embedded JSON as JSON.
//!
//! Owns: the stable names that `-o json` and `-o yaml` promise. Never: asks or prints.
use kapell_client::v1;
use serde::Serialize;
use serde_json::Value;

use super::times::rfc3339;

/// A run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunView {
    id: String,
    namespace: String,
    workflow: String,
    version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    pub(crate) state: &'static str,
    accepted: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StepView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waiting_for: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    schedule: String,
}

/// A step.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepView {
    id: String,
    state: String,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items_done: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    undone: bool,
}

/// Why something failed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorView {
    class: String,
    message: String,
}

/// A page of runs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunsView {
    pub(crate) runs: Vec<RunView>,
    /// For `--cursor`; empty: that was all.
    pub(crate) next_cursor: String,
    /// Entries that the ledger has not seen yet.
    pub(crate) ledger_behind: u64,
}

/// The story of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoryView {
    run: Option<RunView>,
    story: Vec<StoryLineView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StoryLineView {
    seq: u64,
    at: Option<String>,
    entry: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    step: String,
    text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// JSON in a field of an answer; empty: nothing. What is no JSON is shown as the text that it is.
pub(crate) fn embedded(text: &str) -> Option<Value> {
    if text.is_empty() {
        return None;
    }
    Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())))
}

/// The name of a run's state.
pub(crate) fn state_name(state: v1::RunState) -> &'static str {
    match state {
        v1::RunState::Unspecified => "unknown",
        v1::RunState::Queued => "queued",
        v1::RunState::Running => "running",
        v1::RunState::Waiting => "waiting",
        v1::RunState::Paused => "paused",
        v1::RunState::WindingUp => "windingUp",
        v1::RunState::Completed => "completed",
        v1::RunState::Failed => "failed",
        v1::RunState::Canceled => "canceled",
    }
}

/// `rate_limited` and so on: the names of docs/errors.
pub(crate) fn class_name(error: &v1::TaskError) -> String {
    let name = error.class().as_str_name();
    name.strip_prefix("ERROR_CLASS_").unwrap_or(name).to_ascii_lowercase()
}

fn error_view(error: &v1::TaskError) -> ErrorView {
    ErrorView { class: class_name(error), message: error.message.clone() }
}

impl From<&v1::Run> for RunView {
    fn from(run: &v1::Run) -> RunView {
        RunView {
            id: run.id.clone(),
            namespace: run.namespace.clone(),
            workflow: run.workflow.clone(),
            version: run.version.clone(),
            key: run.key.clone(),
            state: state_name(run.state()),
            accepted: rfc3339(run.accepted_ms),
            ended: rfc3339(run.ended_ms),
            output: embedded(&run.output),
            error: run.error.as_ref().map(error_view),
            steps: run.steps.iter().map(StepView::from).collect(),
            waiting_for: run.waiting_for.clone(),
            outcome: run.outcome.clone(),
            event: embedded(&run.event),
            parent: run.parent.clone(),
            schedule: run.schedule.clone(),
        }
    }
}

impl From<&v1::StepView> for StepView {
    fn from(step: &v1::StepView) -> StepView {
        let fan = step.items > 0;
        StepView {
            id: step.id.clone(),
            state: step.state.clone(),
            attempts: step.attempts,
            items: fan.then_some(step.items),
            items_done: fan.then_some(step.items_done),
            output: embedded(&step.output),
            error: step.error.as_ref().map(error_view),
            undone: step.undone,
        }
    }
}

impl From<&v1::ExplainResponse> for StoryView {
    fn from(answer: &v1::ExplainResponse) -> StoryView {
        let story = answer.lines.iter().map(|line| StoryLineView {
            seq: line.seq,
            at: rfc3339(line.at_ms),
            entry: line.entry.clone(),
            step: line.step.clone(),
            text: line.text.clone(),
            reasons: line.reasons.clone(),
        });
        StoryView { run: answer.run.as_ref().map(RunView::from), story: story.collect() }
    }
}
