//! W1 and W2: runs that are waited for.
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use futures::future::try_join_all;
use kapell_client::{AnswerWhen, Client, Starter};
use kapell_proto::v1::run_service_client::RunServiceClient;
use kapell_proto::v1::{RunState, StartRunRequest, StartRunResponse};
use kapell_runtime::{SystemNet, channel};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::figures::Figures;

/// A node that has finished no run after so long will not.
const FIRST_WITHIN: Duration = Duration::from_secs(30);

/// How a run is started.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum By {
    /// By the client library's starter: the callers share one stream to each address.
    Stream,
    /// By a unary call for each; the callers are shared out among the addresses.
    Call,
}

/// One caller's way to the coordinator.
#[derive(Clone)]
enum Caller {
    Stream(Starter),
    Call(RunServiceClient<Channel>),
}

/// Five sequential steps, `callers` at once.
pub(crate) async fn five(
    addresses: &[String],
    by: By,
    callers: usize,
    warm: Duration,
    secs: Duration,
) -> anyhow::Result<Value> {
    let begin = Instant::now() + warm;
    let end = begin + secs;
    let mut ways = Vec::new();
    match by {
        By::Stream => {
            ways.push(Caller::Stream(Client::connect(&addresses.join(",")).await?.runs().starter()))
        }
        By::Call => {
            for address in addresses {
                let channel = channel(Arc::new(SystemNet), address).await?;
                ways.push(Caller::Call(RunServiceClient::new(channel)));
            }
        }
    }
    let loops = ways.into_iter().cycle().take(callers).map(|way| caller(way, begin, end));
    let mut all = Figures::new()?;
    for figures in try_join_all(loops).await? {
        all.add(&figures)?;
    }
    let mut answer = all.json(secs);
    answer["callers"] = json!(callers);
    answer["steps_per_s"] = json!(answer["per_s"].as_f64().unwrap_or_default() * 5.0);
    Ok(answer)
}

async fn caller(mut by: Caller, begin: Instant, end: Instant) -> anyhow::Result<Figures> {
    let mut figures = Figures::new()?;
    loop {
        let at = Instant::now();
        if at >= end {
            return Ok(figures);
        }
        match &mut by {
            Caller::Stream(starter) => {
                completed(starter.start(request("five", ""), AnswerWhen::Ended).await?)?;
            }
            Caller::Call(client) => complete(client, "five", "").await?,
        }
        if at >= begin {
            figures.record(at.elapsed());
        }
    }
}

fn request(workflow: &str, input: &str) -> StartRunRequest {
    StartRunRequest {
        workflow: workflow.to_owned(),
        input: input.to_owned(),
        wait_ms: Some(60_000),
        ..StartRunRequest::default()
    }
}

async fn complete(client: &mut RunServiceClient<Channel>, workflow: &str, input: &str) -> anyhow::Result<()> {
    completed(client.start(request(workflow, input)).await?.into_inner())
}

fn completed(answer: StartRunResponse) -> anyhow::Result<()> {
    let state = answer.state.map(|run| run.state());
    if state != Some(RunState::Completed) {
        bail!("run {} is {state:?}", answer.run);
    }
    Ok(())
}

/// A fan-out of 100 and join, one run at a time.
pub(crate) async fn fan(channel: Channel, runs: usize) -> anyhow::Result<Value> {
    let items: Vec<u32> = (0..100).collect();
    let input = json!({ "items": items }).to_string();
    let mut client = RunServiceClient::new(channel);
    for _ in 0..10 {
        complete(&mut client, "fan", &input).await?;
    }
    let (mut figures, begin) = (Figures::new()?, Instant::now());
    for _ in 0..runs {
        let at = Instant::now();
        complete(&mut client, "fan", &input).await?;
        figures.record(at.elapsed());
    }
    Ok(figures.json(begin.elapsed()))
}

/// Applies the definitions and finishes one run, trying again until the node and its worker are there.
pub(crate) async fn first(channel: Channel, workflow: &str) -> anyhow::Result<Value> {
    let begin = Instant::now();
    let again = |error: anyhow::Error| if begin.elapsed() > FIRST_WITHIN { Err(error) } else { Ok(()) };
    while let Err(error) = crate::definitions::apply(channel.clone()).await {
        again(error)?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut client = RunServiceClient::new(channel);
    while let Err(error) = complete(&mut client, workflow, "").await {
        again(error)?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(json!({ "secs": begin.elapsed().as_secs_f64() }))
}
