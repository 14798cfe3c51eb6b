//! `kapell run`: start, look, steer.
mod explain;
mod list;
mod start;
mod steer;
mod watch;

use clap::{Args, Subcommand};
use kapell_client::v1;

pub(crate) use steer::Actor;

use super::connection::ClientSettings;
use super::failure::{Exit, Failure};
use super::output::{Paint, Table, state, visible};
use super::times::{between, rfc3339};
use super::view::{RunView, class_name, state_name};

/// What can be done with runs.
#[derive(Subcommand, Debug)]
pub(crate) enum RunCommand {
    /// Start a run by hand.
    ///
    /// Example: kapell run start greet --input '{"name": "Ada"}' --wait
    #[command(verbatim_doc_comment)]
    Start(start::Start),
    /// List runs, newest first.
    ///
    /// Example: kapell run list --workflow greet --state failed --since 24h
    #[command(verbatim_doc_comment)]
    List(list::List),
    /// Show one run as it is now.
    ///
    /// Example: kapell run show RUN -o yaml
    #[command(verbatim_doc_comment, visible_alias = "get")]
    Show(RunName),
    /// Follow a run until it has ended.
    ///
    /// Exit code 1 when it fails. With -o json, one object a line after each change.
    /// Example: kapell run watch RUN
    #[command(verbatim_doc_comment)]
    Watch(RunName),
    /// Tell a run's story: what happened, when, and why.
    ///
    /// Example: kapell run explain RUN
    #[command(verbatim_doc_comment)]
    Explain(RunName),
    /// Fold a run's journal anew and compare it with the live state.
    ///
    /// Exit code 1 when they differ.
    /// Example: kapell run replay RUN
    #[command(verbatim_doc_comment)]
    Replay(RunName),
    /// End a run early and undo what it did.
    ///
    /// Example: kapell run cancel RUN --reason "the order was a mistake"
    #[command(verbatim_doc_comment)]
    Cancel(steer::Cancel),
    /// Hold a run: what is under way ends, nothing new begins.
    ///
    /// Example: kapell run pause RUN --reason "the shop is being migrated"
    #[command(verbatim_doc_comment)]
    Pause(steer::Steer),
    /// Let a paused run go on.
    ///
    /// Example: kapell run resume RUN
    #[command(verbatim_doc_comment)]
    Resume(steer::Steer),
    /// Try the failed steps of a failed run again.
    ///
    /// Example: kapell run retry RUN
    #[command(verbatim_doc_comment)]
    Retry(steer::Steer),
    /// Give an event to one run alone; it is kept until a step waits for it.
    ///
    /// Example: kapell run signal RUN --type payment.received --data '{"amount": 12}'
    #[command(verbatim_doc_comment)]
    Signal(steer::Signal),
}

/// Which run.
#[derive(Args, Debug)]
pub(crate) struct RunName {
    /// The run's id, from `kapell run list`.
    #[arg(value_name = "RUN")]
    run: String,
}

impl RunCommand {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        match self {
            RunCommand::Start(start) => start.run(to).await,
            RunCommand::List(list) => list.run(to).await,
            RunCommand::Show(name) => {
                let run = to.client().await?.runs().get(&name.run).await?;
                show(to, &run)
            }
            RunCommand::Watch(name) => watch::watch(to, &name.run).await,
            RunCommand::Explain(name) => explain::explain(to, &name.run).await,
            RunCommand::Replay(name) => explain::replay(to, &name.run).await,
            RunCommand::Cancel(cancel) => cancel.run(to).await,
            RunCommand::Pause(steer) => steer.pause(to).await,
            RunCommand::Resume(steer) => steer.resume(to).await,
            RunCommand::Retry(steer) => steer.retry(to).await,
            RunCommand::Signal(signal) => signal.run(to).await,
        }
    }
}

/// Shows one run.
fn show(to: &ClientSettings, run: &v1::Run) -> Result<(), Failure> {
    to.output().show(&RunView::from(run), |paint| text(run, paint))
}

/// Success only for a run that ended well.
fn judged(run: &v1::Run) -> Result<(), Failure> {
    match run.state() {
        v1::RunState::Completed => Ok(()),
        v1::RunState::Failed
        | v1::RunState::Canceled
        | v1::RunState::Unspecified
        | v1::RunState::Queued
        | v1::RunState::Running
        | v1::RunState::Waiting
        | v1::RunState::Paused
        | v1::RunState::WindingUp => Err(Failure::Shown(Exit::Unsuccessful)),
    }
}

fn has_ended(run: &v1::Run) -> bool {
    match run.state() {
        v1::RunState::Completed | v1::RunState::Failed | v1::RunState::Canceled => true,
        v1::RunState::Unspecified
        | v1::RunState::Queued
        | v1::RunState::Running
        | v1::RunState::Waiting
        | v1::RunState::Paused
        | v1::RunState::WindingUp => false,
    }
}

/// A run for people: its fields, then its steps.
fn text(run: &v1::Run, paint: Paint) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("{} {value}\n", paint.faint(&format!("{name:<11}"))));
        }
    };
    field("run", run.id.clone());
    field("workflow", format!("{}/{}", run.namespace, run.workflow));
    field("version", run.version.clone());
    field("key", visible(&run.key));
    field("parent", run.parent.clone());
    field("schedule", run.schedule.clone());
    field("state", state(paint, state_name(run.state())));
    field("accepted", rfc3339(run.accepted_ms).unwrap_or_default());
    let took = between(run.accepted_ms, run.ended_ms);
    field("ended", rfc3339(run.ended_ms).map(|at| format!("{at} (after {took})")).unwrap_or_default());
    field("output", visible(&run.output));
    field("outcome", run.outcome.clone());
    field("error", run.error.as_ref().map(error_text).unwrap_or_default());
    for what in &run.waiting_for {
        field("waiting for", visible(what));
    }
    if !run.steps.is_empty() {
        let mut table = Table::new(&["STEP", "STATE", "ATTEMPTS", "ITEMS", "RESULT"]);
        for step in &run.steps {
            table.row(step_row(step));
        }
        text.push('\n');
        text.push_str(&table.text(paint));
    }
    text
}

fn step_row(step: &v1::StepView) -> [String; 5] {
    let state = if step.undone { "undone".to_owned() } else { step.state.clone() };
    let attempts = if step.attempts == 0 { String::new() } else { step.attempts.to_string() };
    let items = if step.items == 0 { String::new() } else { format!("{}/{}", step.items_done, step.items) };
    let result = step.error.as_ref().map_or_else(|| shortened(&step.output), error_text);
    [step.id.clone(), state, attempts, items, result]
}

fn error_text(error: &v1::TaskError) -> String {
    format!("{}: {}", class_name(error), visible(&error.message))
}

/// Letters of a result that a table shows; `-o json` has all of it.
const RESULT_LETTERS_MAX: usize = 80;

fn shortened(text: &str) -> String {
    if text.chars().count() <= RESULT_LETTERS_MAX {
        return text.to_owned();
    }
    let kept: String = text.chars().take(RESULT_LETTERS_MAX - 1).collect();
    format!("{kept}…")
}
