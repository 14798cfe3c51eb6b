//! Load generator for the workloads W1 to W7 and for recovery: closed loops against a running coordinator, figures as JSON lines.
//!
//! Owns: the workloads' definitions and callers. Never: starts or stops processes (xtask does).
#![expect(clippy::print_stdout, reason = "figures go to standard output")]
mod definitions;
mod figures;
mod parked;
mod recovery;
mod runs;
mod slow;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use kapell_runtime::{SystemNet, channel};
use tonic::transport::Channel;

/// Load generator for the workloads W1 to W7.
#[derive(Parser)]
struct Load {
    /// HOST:PORT of the coordinator; of several, separated by commas, the runs of W1 go to the owners of their shards.
    #[arg(long, default_value = "127.0.0.1:7700", value_delimiter = ',')]
    address: Vec<String>,
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand)]
enum Workload {
    /// Apply the workloads' definitions, on a node that may still be starting.
    Setup,
    /// W1: runs of five sequential no-op steps.
    W1 {
        /// Callers at once.
        #[arg(long, default_value_t = 64)]
        callers: usize,
        /// How runs are started.
        #[arg(long, value_enum, default_value = "stream")]
        by: runs::By,
        /// Seconds before measuring.
        #[arg(long, default_value_t = 1.0)]
        warm: f64,
        /// Seconds of measuring.
        #[arg(long, default_value_t = 5.0)]
        secs: f64,
    },
    /// W2: fan-out of 100 no-op steps and join, one run at a time.
    W2 {
        /// Runs.
        #[arg(long, default_value_t = 100)]
        runs: usize,
    },
    /// W5: events over unary gRPC, each starting a run that parks at once.
    W5 {
        /// Callers at once.
        #[arg(long, default_value_t = 64)]
        callers: usize,
        /// Events of one request.
        #[arg(long, default_value_t = 1)]
        batch: usize,
        /// Seconds of measuring.
        #[arg(long, default_value_t = 5.0)]
        secs: f64,
    },
    /// The floor of W5: empty unary calls.
    Unary {
        /// Callers at once.
        #[arg(long, default_value_t = 64)]
        callers: usize,
        /// Seconds of measuring.
        #[arg(long, default_value_t = 5.0)]
        secs: f64,
    },
    /// W3: apply the definitions and finish one run of five steps, on a node that may still be starting.
    First,
    /// W4: apply the definitions and finish one slow step, on a node and a worker that may still be starting.
    SlowSetup,
    /// W4: be the worker, and record each execution.
    SlowWorker {
        /// File that gets a line RUN STEP for each executed step.
        #[arg(long)]
        record: PathBuf,
    },
    /// W4: start so many runs of five steps of 200 ms.
    SlowStart {
        /// Runs.
        #[arg(long, default_value_t = 64)]
        runs: usize,
    },
    /// W4: wait until they have ended, on a node that may still be starting.
    SlowWait {
        /// Runs.
        #[arg(long, default_value_t = 64)]
        runs: usize,
    },
    /// W6: wait until so many runs are live, on a node that may still be starting.
    Ready {
        /// Runs.
        #[arg(long, default_value_t = 1_000_000)]
        runs: u64,
    },
    /// Recovery: park runs, wait for a checkpoint, then write so many entries after it.
    RecoverySetup {
        /// Runs.
        #[arg(long, default_value_t = 100_000)]
        runs: usize,
        /// Entries.
        #[arg(long, default_value_t = 200_000)]
        entries: usize,
    },
    /// Recovery: read a run, on a node that may still be starting.
    RecoveryRead {
        /// The run.
        #[arg(long)]
        run: String,
    },
    /// W6: park so many runs.
    Park {
        /// Runs.
        #[arg(long, default_value_t = 1_000_000)]
        runs: usize,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let load = Load::parse();
    let first = load.address.first().context("no address")?;
    let open = async || -> anyhow::Result<Channel> { Ok(channel(Arc::new(SystemNet), first).await?) };
    let figures = match load.workload {
        Workload::Setup => definitions::apply(slow::reach(first).await?).await?,
        Workload::W1 { callers, by, warm, secs } => {
            let (warm, secs) = (Duration::from_secs_f64(warm), Duration::from_secs_f64(secs));
            runs::five(&load.address, by, callers, warm, secs).await?
        }
        Workload::W2 { runs } => runs::fan(open().await?, runs).await?,
        Workload::W5 { callers, batch, secs } => {
            parked::burst(open().await?, callers, batch, Duration::from_secs_f64(secs)).await?
        }
        Workload::Unary { callers, secs } => {
            parked::unary(open().await?, callers, Duration::from_secs_f64(secs)).await?
        }
        Workload::First => runs::first(slow::reach(first).await?, "five").await?,
        Workload::SlowSetup => runs::first(slow::reach(first).await?, "slow-one").await?,
        Workload::SlowWorker { record } => slow::worker(first, &record).await?,
        Workload::SlowStart { runs } => slow::start(open().await?, runs).await?,
        Workload::SlowWait { runs } => slow::wait(slow::reach(first).await?, runs).await?,
        Workload::Ready { runs } => parked::ready(slow::reach(first).await?, runs).await?,
        Workload::RecoverySetup { runs, entries } => recovery::prepare(open().await?, runs, entries).await?,
        Workload::RecoveryRead { run } => recovery::read(first, &run).await?,
        Workload::Park { runs } => parked::park(open().await?, runs).await?,
    };
    println!("{figures}");
    Ok(())
}
