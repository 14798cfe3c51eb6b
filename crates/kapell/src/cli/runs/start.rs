//! `kapell run start`.
use std::time::Duration;

use clap::Args;
use kapell_client::v1;
use kapell_model::Span;
use kapell_runtime::{Entropy as _, SystemEntropy};
use serde_json::json;
use tokio::time::Instant;

use super::{has_ended, judged, show};
use crate::cli::connection::ClientSettings;
use crate::cli::failure::Failure;
use crate::cli::given::{JsonArgument, json_or_empty};
use crate::cli::output::say_err;

/// Which workflow, with what.
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// The workflow's name.
    workflow: String,
    /// What the run is given as `event.data`: JSON, @FILE, or @- for standard input.
    #[arg(long, value_name = "JSON|@FILE")]
    input: Option<JsonArgument>,
    /// Wait until the run has ended, at most so long if a time is given (--wait=30s); exit code 1 unless it completes.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "36500d")]
    wait: Option<Span>,
    /// The same id starts the same run, however often it is sent; left out: a new run each time.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// One request waits at most so long, so that a coordinator that restarts is asked again soon.
const SLICE: Duration = Duration::from_secs(20);

impl Start {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        let request = v1::StartRunRequest {
            namespace: to.namespace(),
            workflow: self.workflow,
            input: json_or_empty(self.input.as_ref(), "--input")?,
            request_id: self.request_id.unwrap_or_else(|| format!("{:032x}", SystemEntropy.next_u128())),
            wait_ms: None,
        };
        match self.wait {
            None => started(to, request).await,
            Some(wait) => ended(to, request, wait.get()).await,
        }
    }
}

async fn started(to: &ClientSettings, request: v1::StartRunRequest) -> Result<(), Failure> {
    let answer = to.client().await?.runs().start(request).await?;
    let value = json!({ "id": answer.run, "duplicate": answer.duplicate });
    to.output().show(&value, |paint| match answer.duplicate {
        false => format!("{}\n", answer.run),
        true => format!("{} {}\n", answer.run, paint.faint("(started before by the same request id)")),
    })
}

/// The request id makes it harmless to send the request again, so waiting is asking again and again.
async fn ended(to: &ClientSettings, mut request: v1::StartRunRequest, wait: Duration) -> Result<(), Failure> {
    let runs = to.client().await?.runs();
    let begun = Instant::now();
    loop {
        let left = wait.saturating_sub(begun.elapsed());
        request.wait_ms = Some(u64::try_from(left.min(SLICE).as_millis()).unwrap_or(u64::MAX));
        let answer = runs.start(request.clone()).await?;
        let Some(run) = answer.state else {
            return Err(Failure::from(anyhow::anyhow!(
                "the coordinator did not say how run {} stands",
                answer.run
            )));
        };
        let over = has_ended(&run);
        if over || begun.elapsed() >= wait {
            show(to, &run)?;
            if !over {
                say_err(&format!("the run goes on; `kapell run watch {}` follows it\n", run.id));
            }
            return judged(&run);
        }
    }
}
