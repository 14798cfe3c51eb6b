//! The workloads as a Restate service: its lightest form, a service handler whose steps are `ctx.run`.
//!
//! Owns: the handlers. Never: does anything in a step but what the workload says.
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use restate_sdk::context::RequestTarget;
use restate_sdk::prelude::*;

/// What a slow step takes.
const SLOW: Duration = Duration::from_millis(200);
/// Width of the fan-out.
const WIDTH: u64 = 100;

struct Bench;

#[restate_sdk::service]
impl Bench {
    /// W1.
    #[handler]
    async fn five(&self, ctx: Context<'_>, run: u64) -> Result<u64, HandlerError> {
        let mut last = run;
        for step in 0..5_u64 {
            last = ctx.run(move || async move { Ok(step) }).name("step").await?;
        }
        Ok(last)
    }

    /// A step of the fan-out.
    #[handler]
    async fn noop(&self, _ctx: Context<'_>, item: u64) -> Result<u64, HandlerError> {
        Ok(item)
    }

    /// W2.
    #[handler]
    async fn fan(&self, ctx: Context<'_>, _run: u64) -> Result<u64, HandlerError> {
        let mut open = DurableFuturesUnordered::new();
        for item in 0..WIDTH {
            open.push(ctx.request::<u64, u64>(RequestTarget::service("Bench", "noop"), item).call());
        }
        let mut done = 0;
        while let Some((_, answer)) = open.next().await? {
            answer?;
            done += 1;
        }
        Ok(done)
    }

    /// W4.
    #[handler]
    async fn slow_five(&self, ctx: Context<'_>, run: u64) -> Result<u64, HandlerError> {
        for step in 1..=5_u64 {
            let work = move || async move {
                tokio::time::sleep(SLOW).await;
                record(run, &step.to_string())?;
                Ok(step)
            };
            ctx.run(work).name("step").await?;
        }
        record(run, "end")?;
        Ok(run)
    }
}

/// One line for each executed step, in one write.
fn record(run: u64, step: &str) -> Result<(), HandlerError> {
    let path = std::env::var_os("PEER_EXECUTED").ok_or_else(|| TerminalError::new("PEER_EXECUTED is not set"))?;
    let mut file = File::options().create(true).append(true).open(path)?;
    file.write_all(format!("{run} {step}\n").as_bytes())?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9080".to_owned());
    HttpServer::new(Endpoint::builder().bind(Bench).build()).listen_and_serve(listen.parse()?).await;
    Ok(())
}
