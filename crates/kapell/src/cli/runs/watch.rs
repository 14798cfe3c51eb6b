//! `kapell run watch`: a line for each change, and on a terminal a line that lives.
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, stderr, stdout};
use std::time::Duration;

use kapell_client::{ClientError, v1};

use super::{error_text, has_ended, judged};
use crate::cli::connection::ClientSettings;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Paint, say_err, state, visible};
use crate::cli::times::{now, short};
use crate::cli::view::{RunView, state_name};

/// Between two pictures of the living line.
const TICK: Duration = Duration::from_millis(120);
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// Streams that may break without any news before it is given up.
const BREAKS_MAX: u32 = 5;

/// Follows a run until it has ended.
pub(super) async fn watch(to: &ClientSettings, run: &str) -> Result<(), Failure> {
    let runs = to.client().await?.runs();
    let mut seen = Seen::default();
    let mut breaks = 0;
    loop {
        let mut changes = runs.watch(run).await?;
        let broken = loop {
            match next(&mut changes, &mut seen).await {
                Ok(Some(run)) => {
                    if seen.take(to, run)? {
                        breaks = 0;
                    }
                }
                Ok(None) => break None,
                // The coordinator restarts: the next stream begins with the run as it is then.
                Err(error @ ClientError::Unavailable { .. }) => break Some(error),
                Err(error) => return Err(error.into()),
            }
        };
        if let Some(run) = seen.run.as_ref().filter(|run| has_ended(run)) {
            return judged(run);
        }
        breaks += 1;
        if breaks > BREAKS_MAX {
            return Err(broken.map_or_else(
                || Failure::Error {
                    exit: Exit::RefusedForNow,
                    message: format!("the coordinator stopped telling about run {run}, which has not ended"),
                    hint: Some("try again; `kapell run show` says how it stands".to_owned()),
                },
                Failure::from,
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The next change; until then the living line moves.
async fn next(
    changes: &mut kapell_client::RunChanges,
    seen: &mut Seen,
) -> Result<Option<v1::Run>, ClientError> {
    let waiting = changes.next();
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            change = &mut waiting => {
                seen.wipe();
                return change;
            }
            () = tokio::time::sleep(TICK) => seen.draw(),
        }
    }
}

/// What was told already.
#[derive(Default)]
struct Seen {
    run: Option<v1::Run>,
    steps: BTreeMap<String, String>,
    picture: usize,
    drawn: bool,
}

impl Seen {
    /// Tells what is new about the run; whether there was anything.
    fn take(&mut self, to: &ClientSettings, run: v1::Run) -> Result<bool, Failure> {
        if self.run.as_ref() == Some(&run) {
            return Ok(false);
        }
        let output = to.output();
        match output.format {
            Format::Json | Format::Yaml => {
                output.show_one_of_many(&RunView::from(&run), |_| String::new())?
            }
            Format::Table => {
                let lines = self.news(&run, output.paint());
                crate::cli::output::say(&lines)?;
            }
        }
        self.run = Some(run);
        Ok(true)
    }

    fn news(&mut self, run: &v1::Run, paint: Paint) -> String {
        let at = now();
        let mut lines = String::new();
        let mut line = |text: String| lines.push_str(&format!("{}  {text}\n", paint.faint(&at.to_string())));
        let known = self.run.as_ref().map(v1::Run::state);
        let first = known.is_none();
        if first {
            line(format!("{} of {}/{}", run.id, run.namespace, run.workflow));
        }
        for step in &run.steps {
            let stands = stands(step);
            let before = self.steps.insert(step.id.clone(), stands.clone());
            let untouched = before.is_none() && step.state == "waiting";
            if before.as_ref() != Some(&stands) && !untouched {
                let error =
                    step.error.as_ref().map(|error| format!(": {}", error_text(error))).unwrap_or_default();
                line(format!("  {} {stands}{error}", paint.strong(&step.id)));
            }
        }
        if known != Some(run.state()) {
            let mut text = state(paint, state_name(run.state()));
            if let Some(error) = &run.error {
                text.push_str(&format!(": {}", error_text(error)));
            } else if !run.output.is_empty() {
                text.push_str(&format!(": {}", visible(&run.output)));
            }
            line(text);
        }
        lines
    }

    /// Draws the living line, on a terminal only.
    fn draw(&mut self) {
        let Some(run) = &self.run else { return };
        if !(stderr().is_terminal() && stdout().is_terminal()) {
            return;
        }
        let done = run.steps.iter().filter(|step| matches!(step.state.as_str(), "done" | "skipped")).count();
        let since = u64::try_from(run.accepted_ms).unwrap_or(now().0);
        let running = short(Duration::from_millis(now().0.saturating_sub(since)));
        let waits =
            run.waiting_for.first().map(|what| format!(", waits for {}", visible(what))).unwrap_or_default();
        let line = format!("{} {done}/{} steps, {running}{waits}", SPINNER[self.picture], run.steps.len());
        // One line, whatever it waits for: a wrapped line could not be wiped.
        let line: String = line.chars().take(78).collect();
        say_err(&format!("\r\u{1b}[2K{line}"));
        self.picture = (self.picture + 1) % SPINNER.len();
        self.drawn = true;
    }

    fn wipe(&mut self) {
        if std::mem::take(&mut self.drawn) {
            say_err("\r\u{1b}[2K");
        }
    }
}

fn stands(step: &v1::StepView) -> String {
    let mut text = if step.undone { "undone".to_owned() } else { step.state.clone() };
    if step.items > 0 {
        text.push_str(&format!(" {}/{}", step.items_done, step.items));
    }
    if step.attempts > 1 {
        text.push_str(&format!(" (attempt {})", step.attempts));
    }
    text
}
