//! Chaos: everything that happens to clusters, judged by the books of the business.
//!
//! Owns: where it runs. Never: judges (`kapell-crash` does), or touches the machine's own network.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::report::{Format, Verdict};
use crate::workspace::{Profile, Workspace};
use crate::{crash, process, servers};

/// Let everything happen to a cluster that happens to clusters, and judge by the books of the business
///
/// Starts three coordinators, three workers, two connectors, three members of etcd and PostgreSQL, most of them on hosts
/// of their own (network namespaces, which needs root), keeps orders in flight against a business system that does
/// everything twice that it is told twice, and lets faults happen in random order: kills, standstills, partitions,
/// restarts, steps of a clock. Holds when no accepted order is lost, done twice, stuck or failed, `doctor` finds nothing,
/// and events are accepted in time while an owner's shards move. The seed decides what happens when and is printed.
/// Logs, and the stories of runs that went wrong, stay in target/crash/chaos. Twenty times each take about an hour.
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
    /// Do not judge how long events wait: for a machine that does other things too
    #[arg(long)]
    any_pace: bool,
    /// Another version of `kapell`, for a rolling upgrade and back: each process is of that and of this one in turn
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
}

/// A command runs in a network of its own behind this.
const APART: [&str; 2] = ["unshare", "--net"];
/// What a network of its own has to allow.
const TRY: &str = "ip link set lo up && ip link add try0 type veth peer name try1 && \
                   echo 1 > /proc/sys/net/ipv4/ip_forward";

impl Args {
    /// Chaos small enough to run with the tests.
    pub(crate) fn small() -> Self {
        Self { times: 1, fault: Vec::new(), seed: None, any_pace: true, beside: None }
    }

    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        self.run_as(workspace, Profile::Release)
    }

    /// As a stage of the tests: with the release build where there is one, and not at all where networks of their own
    /// are not allowed.
    pub(crate) fn run_as_built(&self, workspace: &Workspace) -> Result<Verdict> {
        let [program, option] = APART;
        if let Err(error) = process::output(Command::new(program).args([option, "sh", "-c", TRY])) {
            eprintln!("SKIPPED: no network of its own here (hint: it needs root and iproute2): {error:#}");
            return Ok(Verdict::Holds);
        }
        self.run_as(workspace, crash::as_built(workspace))
    }

    fn run_as(&self, workspace: &Workspace, profile: Profile) -> Result<Verdict> {
        servers::ensure_all(workspace)?;
        servers::ensure_clock(workspace)?;
        let times = self.times.to_string();
        let mut chaos = crash::trial(workspace, profile, Some(&APART), &["chaos", "--times", &times])?;
        if self.any_pace {
            chaos.arg("--any-pace");
        }
        self.fault.iter().for_each(|fault| _ = chaos.args(["--fault", fault]));
        if let Some(seed) = self.seed {
            chaos.args(["--seed", &seed.to_string()]);
        }
        crash::beside(&mut chaos, self.beside.as_deref())?;
        process::watched(&mut chaos, Format::Table)
    }
}
