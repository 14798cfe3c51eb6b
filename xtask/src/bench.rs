//! The workloads by which speed is judged, ours and a peer's in one run on one machine.
//!
//! Owns: which workload is measured when, and the table. Never: compares figures of different runs.

mod cluster;
mod figures;
mod kapell;
mod restate;
mod site;
mod targets;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::report::Verdict;
use crate::workspace::{Profile, Workspace};
use figures::Figures;

/// Measure the workloads, with real durability, on this machine
///
/// Builds release binaries, starts coordinator and worker as processes of their own with data under target/bench, and
/// puts load on them. With --peer the same workloads run on the peer, alternately, and every line gets a ratio: how
/// many times better Kapell is, so that more than 1 is always good. Fails when a target does not hold; they are meant
/// for two quiet cores. Says how busy the machine was before; figures of a busy machine say little.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which; left out: all
    #[arg(value_enum)]
    workloads: Vec<Workload>,
    /// Measure this one too
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    /// Parked runs of w6
    #[arg(long, default_value_t = 1_000_000)]
    runs: u32,
    /// Seconds that each cell of w1 and w5 is measured
    #[arg(long, default_value_t = 10)]
    secs: u32,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Workload {
    /// Runs of five sequential steps, at 1, 64 and 512 callers
    W1,
    /// Fan-out of 100 steps and join
    W2,
    /// From exec to the first finished run; memory when idle; size
    W3,
    /// kill -9 of the coordinator with 64 runs in flight
    W4,
    /// A burst of events
    W5,
    /// Parked runs: memory, and time to be ready after a restart
    W6,
    /// 1, 2 and 4 coordinators over one PostgreSQL and etcd, under the load of w1
    W7,
    /// 100,000 live runs and 200,000 entries after the checkpoint: time to the first answered read
    Recovery,
}

/// What it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// Restate server with a service in Rust; w1 to w4
    Restate,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    /// Of a measured cell.
    pub(crate) seconds: u32,
    /// Of w6.
    pub(crate) parked_runs: u32,
}

impl Args {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        let amount = Amount { seconds: self.secs, parked_runs: self.runs };
        match workspace.build(Profile::Release, &["kapell", "kapell-load"])? {
            Verdict::Holds => {}
            Verdict::Broken => bail!("what is measured does not build"),
        }
        let peer = match self.peer {
            Some(Peer::Restate) => Some(restate::Restate::install(workspace)?),
            None => None,
        };
        eprintln!("load of the machine before: {}", std::fs::read_to_string("/proc/loadavg")?.trim());
        let mut figures = Figures::default();
        let measured = self.chosen().into_iter().try_for_each(|workload| {
            eprintln!("== {workload:?}");
            figures.add_ours(kapell::measure(workspace, workload, amount)?);
            if let Some(peer) = &peer {
                figures.add_theirs(peer.measure(workload, amount)?);
            }
            anyhow::Ok(())
        });
        // Also what was measured before one failed: it took minutes.
        figures.rows().print(workspace.format());
        measured?;
        Ok(figures.verdict())
    }

    fn chosen(&self) -> Vec<Workload> {
        if self.workloads.is_empty() { Workload::value_variants().to_vec() } else { self.workloads.clone() }
    }
}
