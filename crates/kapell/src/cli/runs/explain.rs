//! `kapell run explain` and `kapell run replay`.
use kapell_client::v1;
use serde_json::json;

use super::text;
use crate::cli::connection::ClientSettings;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Paint, visible};
use crate::cli::times::rfc3339;
use crate::cli::view::StoryView;

/// Tells a run's story.
pub(super) async fn explain(to: &ClientSettings, run: &str) -> Result<(), Failure> {
    let answer = to.client().await?.runs().explain(run).await?;
    to.output().show(&StoryView::from(&answer), |paint| story(&answer, paint))
}

/// What happened, with reasons, and how the run stands.
fn story(answer: &v1::ExplainResponse, paint: Paint) -> String {
    let width = answer.lines.iter().map(|line| line.step.chars().count()).max().unwrap_or(0);
    let mut told = String::new();
    for line in &answer.lines {
        let at = rfc3339(line.at_ms).unwrap_or_default();
        // Under the text: after the time, the step and the gaps between them.
        let indent = " ".repeat(at.len() + width + 6);
        let step = format!("{:<width$}", line.step);
        told.push_str(&format!("{}  {}  {}\n", paint.faint(&at), paint.strong(&step), visible(&line.text)));
        for reason in &line.reasons {
            told.push_str(&format!("{indent}{} {}\n", paint.faint("because"), visible(reason)));
        }
    }
    if let Some(run) = &answer.run {
        told.push('\n');
        told.push_str(&text(run, paint));
    }
    told
}

/// Compares a run with its journal.
pub(super) async fn replay(to: &ClientSettings, run: &str) -> Result<(), Failure> {
    let answer = to.client().await?.runs().replay(run).await?;
    let value = json!({
        "run": run,
        "entries": answer.entries,
        "same": answer.same,
        "digest": answer.digest,
        "difference": answer.difference,
    });
    to.output().show(&value, |paint| match answer.same {
        true => format!(
            "{}: {} entries fold to the same state, {}\n",
            paint.good("same"),
            answer.entries,
            answer.digest
        ),
        false => {
            let difference = visible(&answer.difference);
            format!(
                "{}: {} entries fold to another state\n  {difference}\n",
                paint.bad("different"),
                answer.entries
            )
        }
    })?;
    if answer.same { Ok(()) } else { Err(Failure::Shown(Exit::Unsuccessful)) }
}
