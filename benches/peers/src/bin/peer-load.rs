//! Load for a peer that speaks HTTP: one keep-alive connection for each caller, figures as one line of JSON.
//!
//! Owns: the closed loop, and waiting for a peer. Never: starts or stops processes (xtask does).
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// A peer that has not answered by then will not.
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let answer = match words.as_slice() {
        ["register", admin, service] => until_it_works(admin, "/deployments", &json!({ "uri": service })).await?,
        ["first", host, path] => until_it_works(host, path, &json!(0)).await?,
        ["send", host, path, runs] => send(host, path, runs.parse()?).await?,
        ["wait", record, runs] => wait(record, runs.parse()?).await?,
        ["loop", host, path, callers, warm, secs] => {
            let (warm, secs) = (Duration::from_secs_f64(warm.parse()?), Duration::from_secs_f64(secs.parse()?));
            closed_loop(host, path, callers.parse()?, warm, secs).await?
        }
        _ => bail!("peer-load register|first|send|wait|loop ARGUMENTS; see the source"),
    };
    println!("{answer}");
    Ok(())
}

struct Caller {
    host: String,
    connection: SendRequest<Full<Bytes>>,
}

impl Caller {
    async fn dial(host: &str) -> anyhow::Result<Caller> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        Ok(Caller { host: host.to_owned(), connection })
    }

    async fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<()> {
        let request = Request::post(path)
            .header("host", &self.host)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        // The body of the last answer is read; the connection itself may not have noticed yet.
        self.connection.ready().await?;
        let answer = self.connection.send_request(request).await?;
        let status = answer.status();
        let text = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{path}: {status} {}", String::from_utf8_lossy(&text));
        }
        Ok(())
    }
}

async fn until_it_works(host: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let begin = Instant::now();
    loop {
        let tried = async { Caller::dial(host).await?.post(path, body).await };
        match tried.await {
            Ok(()) => return Ok(json!({ "secs": begin.elapsed().as_secs_f64() })),
            Err(error) if begin.elapsed() > PATIENCE => return Err(error),
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

async fn send(host: &str, path: &str, runs: u64) -> anyhow::Result<Value> {
    let mut caller = Caller::dial(host).await?;
    for run in 0..runs {
        caller.post(path, &json!(run)).await?;
    }
    Ok(json!({ "sent": runs }))
}

/// Until so many runs have recorded their end.
async fn wait(record: &str, runs: usize) -> anyhow::Result<Value> {
    let begin = Instant::now();
    loop {
        let text = std::fs::read_to_string(record).context("no record")?;
        let ended: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_suffix(" end")).collect();
        if ended.len() >= runs || begin.elapsed() > PATIENCE {
            return Ok(json!({ "completed": ended.len() }));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn closed_loop(
    host: &str,
    path: &str,
    callers: usize,
    warm: Duration,
    secs: Duration,
) -> anyhow::Result<Value> {
    let (begin, end) = (Instant::now() + warm, Instant::now() + warm + secs);
    let each = (0..callers).map(async |_| {
        let mut caller = Caller::dial(host).await?;
        let mut micros = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3)?;
        loop {
            let at = Instant::now();
            if at >= end {
                return anyhow::Ok(micros);
            }
            caller.post(path, &json!(0)).await?;
            if at >= begin {
                micros.saturating_record(u64::try_from(at.elapsed().as_micros())?);
            }
        }
    });
    let mut all = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3)?;
    for micros in try_join_all(each).await? {
        all.add(&micros)?;
    }
    let at = |quantile| all.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(json!({
        "n": all.len(), "secs": secs.as_secs_f64(), "per_s": all.len() as f64 / secs.as_secs_f64(),
        "p50_ms": at(0.50), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": at(1.0),
    }))
}
