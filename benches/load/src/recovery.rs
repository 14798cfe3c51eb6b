//! Recovery: live runs under a checkpoint, and entries after it.
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kapell_proto::v1::admin_service_client::AdminServiceClient;
use kapell_proto::v1::event_service_client::EventServiceClient;
use kapell_proto::v1::run_service_client::RunServiceClient;
use kapell_proto::v1::{GetRunRequest, PublishRequest, RunState, ShardStatus, SignalRequest, StatusRequest};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use crate::parked::event;
use crate::slow::reach;

/// Requests that are under way at once.
const REQUESTS: usize = 256;
/// Events of one request.
const BATCH: usize = 500;
/// Shards are checkpointed every minute in which anything happened.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(180);
/// A node that answers no read by then will not.
const READ_WITHIN: Duration = Duration::from_secs(120);

/// Parks runs, waits until a checkpoint holds them all, and then gives them as many signals as entries are wanted.
pub(crate) async fn prepare(channel: Channel, runs: usize, entries: usize) -> anyhow::Result<Value> {
    let ids = park(&channel, runs).await?;
    checkpointed(&channel).await?;
    stream::iter(ids.iter().cycle().take(entries))
        .map(|run| {
            let (mut client, run) = (RunServiceClient::new(channel.clone()), run.clone());
            let signal = SignalRequest { run, r#type: "bench.note".to_owned(), ..SignalRequest::default() };
            async move { client.signal(signal).await.map(drop) }
        })
        .buffer_unordered(REQUESTS)
        .try_collect::<Vec<()>>()
        .await?;
    let tail = tail(&shards(&channel).await?).unwrap_or(0);
    if tail < entries as u64 {
        bail!("a checkpoint was stored meanwhile, {tail} entries are left; the machine is too busy");
    }
    Ok(json!({ "run": ids.first().context("no run")?, "live": ids.len(), "entries": tail }))
}

async fn park(channel: &Channel, runs: usize) -> anyhow::Result<Vec<String>> {
    let parked: Vec<Vec<String>> = stream::iter((0..runs).step_by(BATCH))
        .map(|first| {
            let mut client = EventServiceClient::new(channel.clone());
            let events = (first..runs.min(first + BATCH)).map(|n| event("bench.park", format!("live-{n}")));
            let request = PublishRequest { namespace: String::new(), events: events.collect() };
            async move {
                let results = client.publish(request).await?.into_inner().results;
                let ids: Vec<String> =
                    results.into_iter().flat_map(|one| one.runs).map(|run| run.run).collect();
                anyhow::Ok(ids)
            }
        })
        .buffer_unordered(REQUESTS / 16)
        .try_collect()
        .await?;
    let ids: Vec<String> = parked.into_iter().flatten().collect();
    if ids.len() < runs {
        bail!("{} runs of {runs} were started", ids.len());
    }
    Ok(ids)
}

async fn shards(channel: &Channel) -> anyhow::Result<Vec<ShardStatus>> {
    Ok(AdminServiceClient::new(channel.clone()).status(StatusRequest {}).await?.into_inner().shards)
}

/// Entries after the checkpoints; `None`: one is being stored.
fn tail(shards: &[ShardStatus]) -> Option<u64> {
    shards.iter().map(|shard| Some(shard.last_seq - shard.checkpointed_seq?)).sum()
}

/// Waits until nothing is after the checkpoints.
async fn checkpointed(channel: &Channel) -> anyhow::Result<()> {
    let begin = Instant::now();
    while tail(&shards(channel).await?) != Some(0) {
        if begin.elapsed() > CHECKPOINT_WITHIN {
            bail!("no checkpoint held all runs within {CHECKPOINT_WITHIN:?}");
        }
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Reads one run as soon as the node answers, which may still be starting.
pub(crate) async fn read(address: &str, run: &str) -> anyhow::Result<Value> {
    let begin = Instant::now();
    let channel = reach(address).await?;
    let mut client = RunServiceClient::new(channel);
    loop {
        match client.get(GetRunRequest { run: run.to_owned() }).await {
            Ok(seen) if seen.get_ref().state() == RunState::Waiting => {
                return Ok(json!({ "secs": begin.elapsed().as_secs_f64() }));
            }
            Ok(seen) => bail!("run {run} is {:?}", seen.get_ref().state()),
            Err(error) if begin.elapsed() > READ_WITHIN => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}
