//! W5 and W6: events that start runs which park at once.
use std::time::Duration;

use anyhow::bail;
use futures::future::try_join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kapell_proto::cloudevents::CloudEvent;
use kapell_proto::cloudevents::cloud_event::Data;
use kapell_proto::v1::event_service_client::EventServiceClient;
use kapell_proto::v1::{PublishRequest, StatusRequest};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::figures::Figures;

/// Requests of W6 that are under way at once, and events of each.
const PARK_REQUESTS: usize = 16;
const PARK_BATCH: usize = 500;

/// A node that does not have all runs by then has lost some.
const READY_WITHIN: Duration = Duration::from_secs(300);

pub(crate) fn event(kind: &str, id: String) -> CloudEvent {
    CloudEvent {
        id,
        source: "/bench".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: kind.to_owned(),
        data: Some(Data::TextData("{\"order\":1}".to_owned())),
        attributes: [].into(),
    }
}

async fn publish(client: &mut EventServiceClient<Channel>, events: Vec<CloudEvent>) -> anyhow::Result<()> {
    let request = PublishRequest { namespace: String::new(), events };
    for result in client.publish(request).await?.into_inner().results {
        if let Some(refusal) = result.refusal {
            bail!("an event was refused: {}", refusal.message);
        }
    }
    Ok(())
}

/// Events from `callers` at once, `batch` in each request.
pub(crate) async fn burst(
    channel: Channel,
    callers: usize,
    batch: usize,
    secs: Duration,
) -> anyhow::Result<Value> {
    let begin = Instant::now();
    let stamp = std::process::id();
    let loops = (0..callers).map(|caller| {
        let mut client = EventServiceClient::new(channel.clone());
        async move {
            let (mut figures, mut count) = (Figures::new()?, 0_u64);
            while begin.elapsed() < secs {
                let at = Instant::now();
                let events = (0..batch)
                    .map(|n| event("bench.park", format!("{stamp}-{caller}-{count}-{n}")))
                    .collect();
                publish(&mut client, events).await?;
                count += 1;
                figures.record(at.elapsed());
            }
            anyhow::Ok(figures)
        }
    });
    let mut all = Figures::new()?;
    for figures in try_join_all(loops).await? {
        all.add(&figures)?;
    }
    let mut answer = all.json(begin.elapsed());
    answer["callers"] = json!(callers);
    answer["batch"] = json!(batch);
    answer["events_per_s"] = json!(answer["per_s"].as_f64().unwrap_or_default() * batch as f64);
    Ok(answer)
}

/// The floor: calls that do nothing but answer.
pub(crate) async fn unary(channel: Channel, callers: usize, secs: Duration) -> anyhow::Result<Value> {
    let begin = Instant::now();
    let loops = (0..callers).map(|_| {
        let mut client = kapell_proto::v1::admin_service_client::AdminServiceClient::new(channel.clone());
        async move {
            let mut figures = Figures::new()?;
            while begin.elapsed() < secs {
                let at = Instant::now();
                client.ping(StatusRequest {}).await?;
                figures.record(at.elapsed());
            }
            anyhow::Ok(figures)
        }
    });
    let mut all = Figures::new()?;
    for figures in try_join_all(loops).await? {
        all.add(&figures)?;
    }
    let mut answer = all.json(begin.elapsed());
    answer["callers"] = json!(callers);
    Ok(answer)
}

/// Parks so many runs, as fast as they are taken.
pub(crate) async fn park(channel: Channel, runs: usize) -> anyhow::Result<Value> {
    let begin = Instant::now();
    let requests = runs.div_ceil(PARK_BATCH);
    stream::iter(0..requests)
        .map(|request| {
            let mut client = EventServiceClient::new(channel.clone());
            let first = request * PARK_BATCH;
            let events =
                (first..runs.min(first + PARK_BATCH)).map(|n| event("bench.park", format!("park-{n}")));
            let events: Vec<CloudEvent> = events.collect();
            async move { publish(&mut client, events).await }
        })
        .buffer_unordered(PARK_REQUESTS)
        .try_collect::<Vec<()>>()
        .await?;
    let secs = begin.elapsed().as_secs_f64();
    Ok(json!({ "runs": runs, "secs": secs, "per_s": runs as f64 / secs }))
}

/// Waits until so many runs are live, and nothing is queued.
pub(crate) async fn ready(channel: Channel, runs: u64) -> anyhow::Result<Value> {
    let begin = Instant::now();
    let mut client = kapell_proto::v1::admin_service_client::AdminServiceClient::new(channel);
    while begin.elapsed() < READY_WITHIN {
        if let Ok(answer) = client.status(StatusRequest {}).await {
            let shards = answer.into_inner().shards;
            let live: u64 = shards.iter().map(|shard| shard.live_runs).sum();
            if live >= runs {
                return Ok(json!({ "live": live, "secs": begin.elapsed().as_secs_f64() }));
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!("{runs} runs were not live within {READY_WITHIN:?}")
}
