//! Chaos: everything that happens to clusters, judged by the books of the business.
//!
//! Owns: where it runs. Never: judges (`kapell-crash` does), or touches the machine's own network.

use anyhow::Result;

use crate::report::{Format, Verdict};
use crate::workspace::{Profile, Workspace};
use crate::{crash, process, servers};

/// Let everything happen to a cluster that happens to clusters, and judge by the books of the business
///
/// Starts three coordinators, three workers, two connectors, three members of etcd and PostgreSQL, most of them on hosts
/// of their own (network namespaces, which needs root), keeps orders in flight against a business system that does
/// everything twice that it is told twice, and lets faults happen in random order: kills, standstills, partitions,
/// restarts, steps of a clock. Holds when no accepted order is lost, done twice, stuck or failed, `doctor` finds nothing, and events are
/// accepted in time while an owner's shards move. The seed decides what happens when and is printed. Logs, and the
/// stories of runs that went wrong, stay in target/crash/chaos. Twenty times each take about an hour.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Times that each fault happens
    #[arg(long, default_value_t = 20)]
    times: u32,
    /// Only this fault; may be given again; `--fault help` lists them
    #[arg(long)]
    fault: Vec<String>,
    /// Repeat the order of an earlier one
    #[arg(long)]
    seed: Option<u64>,
}

impl Args {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        servers::ensure_all(workspace)?;
        servers::ensure_clock(workspace)?;
        let times = self.times.to_string();
        let apart = ["unshare", "--net"];
        let mut chaos =
            crash::trial(workspace, Profile::Release, Some(&apart), &["chaos", "--times", &times])?;
        self.fault.iter().for_each(|fault| _ = chaos.args(["--fault", fault]));
        if let Some(seed) = self.seed {
            chaos.args(["--seed", &seed.to_string()]);
        }
        process::watched(&mut chaos, Format::Table)
    }
}
