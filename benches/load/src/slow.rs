//! W4: runs of five steps of 200 ms, whose worker is not killed and records every execution.
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use futures::future::try_join_all;
use kapell_model::Json;
use kapell_proto::v1::run_service_client::RunServiceClient;
use kapell_proto::v1::{RunState, StartRunRequest};
use kapell_runtime::Runtime;
use kapell_worker::{Agent, ErrorClass, Hosted, TaskContext, TaskError, Worker, WorkerOptions};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

/// How long a step takes.
const STEP: Duration = Duration::from_millis(200);
/// All runs have to end within it after the restart.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two tries while nobody answers.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Sleeps, then writes down which step of which run it was.
struct Slow {
    record: File,
}

impl Agent for Slow {
    async fn run(&self, task: TaskContext) -> Result<Json, TaskError> {
        sleep(STEP).await;
        let line = format!("{} {}\n", task.run_id(), task.input().value()["step"]);
        // One write for each line, so that lines of concurrent steps do not mix.
        let written = (&self.record).write_all(line.as_bytes());
        written.map_err(|error| TaskError::new(ErrorClass::Unavailable, error.to_string()))?;
        Ok(Json::of(&json!({})))
    }
}

/// Runs the slow steps until it is killed.
pub(crate) async fn worker(address: &str, record: &Path) -> anyhow::Result<Value> {
    let record = File::options().create(true).append(true).open(record)?;
    let mut options = WorkerOptions::new("slow").with_agent("default/slow.step", Slow { record })?;
    options.coordinators = vec![address.to_owned()];
    options.hosted = Hosted::AgentsOnly;
    let _worker = Worker::start(options, Runtime::system()).await?;
    std::future::pending().await
}

/// Starts so many runs; the request ids name them, so that starting them again starts nothing.
pub(crate) async fn start(channel: Channel, runs: usize) -> anyhow::Result<Value> {
    try_join_all((0..runs).map(|number| ask(&channel, number, None))).await?;
    Ok(json!({ "started": runs }))
}

/// Waits until all of them have ended, over a coordinator that may not be there yet.
pub(crate) async fn wait(channel: Channel, runs: usize) -> anyhow::Result<Value> {
    let end = Instant::now() + PATIENCE;
    let each = (0..runs).map(async |number| {
        while Instant::now() < end {
            let asked = timeout(Duration::from_secs(10), ask(&channel, number, Some(10_000))).await;
            match asked {
                Ok(Ok(Some(RunState::Completed))) => return anyhow::Ok(true),
                Ok(Ok(Some(RunState::Failed | RunState::Canceled))) => return Ok(false),
                _ => sleep(RETRY_AFTER).await,
            }
        }
        Ok(false)
    });
    let completed = try_join_all(each).await?.into_iter().filter(|completed| *completed).count();
    Ok(json!({ "completed": completed }))
}

async fn ask(channel: &Channel, number: usize, wait_ms: Option<u64>) -> anyhow::Result<Option<RunState>> {
    let request = StartRunRequest {
        workflow: "slow-five".to_owned(),
        request_id: format!("slow-{number}"),
        wait_ms,
        ..StartRunRequest::default()
    };
    let answer = RunServiceClient::new(channel.clone()).start(request).await?.into_inner();
    if answer.run.is_empty() {
        bail!("a started run has no name");
    }
    Ok(answer.state.map(|run| run.state()))
}

/// Opens a channel to a coordinator that may not be there yet.
pub(crate) async fn reach(address: &str) -> anyhow::Result<Channel> {
    let end = Instant::now() + PATIENCE;
    loop {
        match kapell_runtime::channel(Arc::new(kapell_runtime::SystemNet), address).await {
            Ok(channel) => return Ok(channel),
            Err(error) if Instant::now() > end => return Err(error.into()),
            Err(_) => sleep(RETRY_AFTER).await,
        }
    }
}
