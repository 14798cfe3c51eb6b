//! `kapell run list`.
use clap::{Args, ValueEnum};
use kapell_client::v1;

use crate::cli::connection::ClientSettings;
use crate::cli::failure::Failure;
use crate::cli::given::Since;
use crate::cli::output::{Table, say_err};
use crate::cli::times::{age, between, now};
use crate::cli::view::{RunView, RunsView, state_name};

/// Which runs.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only of this workflow.
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Only in this state; may be given several times.
    #[arg(long, value_enum, value_delimiter = ',')]
    state: Vec<State>,
    /// Only with this key.
    #[arg(long)]
    key: Option<String>,
    /// Only about this entity, such as vendor:V-100.
    #[arg(long, value_name = "TYPE:ID")]
    entity: Option<String>,
    /// Only accepted since then: a duration such as 2h, or a time such as 2026-05-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on from an earlier list: its nextCursor in -o json.
    #[arg(long, conflicts_with = "all")]
    cursor: Option<String>,
    /// All of them, up to 100,000.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// States of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "camelCase")]
enum State {
    Queued,
    Running,
    Waiting,
    Paused,
    WindingUp,
    Completed,
    Failed,
    Canceled,
}

impl From<State> for v1::RunState {
    fn from(state: State) -> v1::RunState {
        match state {
            State::Queued => v1::RunState::Queued,
            State::Running => v1::RunState::Running,
            State::Waiting => v1::RunState::Waiting,
            State::Paused => v1::RunState::Paused,
            State::WindingUp => v1::RunState::WindingUp,
            State::Completed => v1::RunState::Completed,
            State::Failed => v1::RunState::Failed,
            State::Canceled => v1::RunState::Canceled,
        }
    }
}

/// Most runs of `--all`.
const ALL_MAX: usize = 100_000;
/// Runs of one request of `--all`.
const PAGE: u32 = 1_000;

impl List {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        let all = self.all;
        let mut request = self.request(to.namespace());
        let runs = to.client().await?.runs();
        let mut answer = runs.list(request.clone()).await?;
        while all && !answer.next_cursor.is_empty() && answer.runs.len() < ALL_MAX {
            request.cursor.clone_from(&answer.next_cursor);
            let page = runs.list(request.clone()).await?;
            answer.runs.extend(page.runs);
            answer.next_cursor = page.next_cursor;
            answer.behind = page.behind;
        }
        let seen = RunsView {
            runs: answer.runs.iter().map(RunView::from).collect(),
            next_cursor: answer.next_cursor.clone(),
            ledger_behind: answer.behind,
        };
        to.output().show(&seen, |paint| table(&answer).text(paint))?;
        if answer.behind > 0 {
            say_err(&format!(
                "the list is {} entries behind; `kapell run show RUN` is always fresh\n",
                answer.behind
            ));
        }
        if !answer.next_cursor.is_empty() {
            say_err("there are more: use --all, or --cursor with nextCursor of -o json\n");
        }
        Ok(())
    }

    fn request(self, namespace: String) -> v1::ListRunsRequest {
        v1::ListRunsRequest {
            namespace,
            workflow: self.workflow.unwrap_or_default(),
            states: self.state.into_iter().map(|state| v1::RunState::from(state).into()).collect(),
            key: self.key.unwrap_or_default(),
            accepted_after_ms: self.since.map(|since| since.millis(now())),
            accepted_before_ms: None,
            cursor: self.cursor.unwrap_or_default(),
            limit: if self.all { PAGE } else { self.limit },
            entity: self.entity.unwrap_or_default(),
        }
    }
}

fn table(answer: &v1::ListRunsResponse) -> Table {
    let now = now();
    let mut table = Table::new(&["RUN", "WORKFLOW", "STATE", "AGE", "TOOK", "KEY"]);
    for run in &answer.runs {
        table.row([
            run.id.clone(),
            run.workflow.clone(),
            state_name(run.state()).to_owned(),
            age(run.accepted_ms, now),
            between(run.accepted_ms, run.ended_ms),
            run.key.clone(),
        ]);
    }
    table
}
