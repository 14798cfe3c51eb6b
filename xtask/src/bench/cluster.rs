//! W7: several coordinators over one PostgreSQL and one etcd, on the same two cores: what distribution costs.
//!
//! Owns: a cluster for the length of a measurement, and its figures. Never: judges over failures (chaos does).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::figures::{Better, Figure};
use super::site::{self, Running, answer, number};
use super::{Amount, kapell};
use crate::clock::{self, Stopwatch};
use crate::servers;
use crate::workspace::{Profile, Workspace};

/// How many coordinators there are, one after the other.
const COORDINATORS: [usize; 3] = [1, 2, 4];
/// Callers at once.
const CALLERS: [u32; 2] = [64, 512];
/// Time that a cluster gets to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Addresses that a cluster needs besides its coordinators': of etcd, twice, and PostgreSQL.
const SERVERS: usize = 3;

/// Measures the same load on clusters of different sizes.
pub(crate) fn measure(workspace: &Workspace, amount: Amount) -> Result<Vec<Figure>> {
    servers::ensure_all(workspace)?;
    let mut figures = Vec::new();
    for callers in CALLERS {
        let mut of_one = None;
        for coordinators in COORDINATORS {
            let cluster = LocalCluster::start(workspace, coordinators)?;
            let _worker = cluster.worker()?;
            answer(&mut cluster.load(&["first"]))?;
            let (many, secs) = (callers.to_string(), amount.seconds.to_string());
            let answer =
                answer(&mut cluster.load(&["w1", "--callers", &many, "--warm", "3", "--secs", &secs]))?;
            let steps = number(&answer, "steps_per_s")?;
            let of_one = *of_one.get_or_insert(steps);
            let named = Named::of(coordinators).context("a size without names")?;
            let figure = |metric, better, value| kapell::figure("w7", callers, metric, better, value);
            figures.push(figure(named.steps, Better::Higher, steps));
            figures.push(figure(named.p50, Better::Lower, number(&answer, "p50_ms")?));
            figures.push(figure(named.share, Better::Higher, steps / of_one));
        }
    }
    Ok(figures)
}

/// How the figures of one size are called.
struct Named {
    steps: &'static str,
    p50: &'static str,
    share: &'static str,
}

impl Named {
    fn of(coordinators: usize) -> Option<Self> {
        let (steps, p50, share) = match coordinators {
            1 => ("1 coordinator: steps/s", "1 coordinator: p50 ms", "1 coordinator: share of one"),
            2 => ("2 coordinators: steps/s", "2 coordinators: p50 ms", "2 coordinators: share of one"),
            4 => ("4 coordinators: steps/s", "4 coordinators: p50 ms", "4 coordinators: share of one"),
            _ => return None,
        };
        Some(Self { steps, p50, share })
    }
}

/// A cluster as `deploy/local-cluster.sh` starts it; ended in order when dropped.
struct LocalCluster {
    script: Running,
    kapell: PathBuf,
    load: PathBuf,
    folder: PathBuf,
    addresses: Vec<String>,
}

impl LocalCluster {
    fn start(workspace: &Workspace, coordinators: usize) -> Result<Self> {
        let folder = site::fresh_folder(workspace.target(), "kapell-w7")?;
        let addresses = site::free_addresses_in_a_row(coordinators + SERVERS)?;
        let port =
            addresses.first().and_then(|first| first.rsplit_once(':')).context("an address has a port")?.1;
        let kapell = workspace.program(Profile::Release, "kapell");
        let mut script = workspace.command("bash");
        script.arg("deploy/local-cluster.sh").env("KAPELL", &kapell);
        script.args(["--nodes", &coordinators.to_string(), "--port", port]);
        script.arg("--data").arg(folder.join("data"));
        let log = folder.join("cluster.log");
        let cluster = Self {
            script: Running::start(&mut script, &log)?,
            kapell,
            load: workspace.program(Profile::Release, "kapell-load"),
            folder,
            addresses: addresses.into_iter().take(coordinators).collect(),
        };
        cluster.wait(&log)?;
        Ok(cluster)
    }

    fn wait(&self, log: &Path) -> Result<()> {
        let watch = Stopwatch::start();
        while !std::fs::read_to_string(log)?.contains("The cluster is ready") {
            if watch.elapsed() > READY_WITHIN {
                bail!("the cluster does not come up; see {}", log.display());
            }
            clock::pause(Duration::from_millis(50));
        }
        Ok(())
    }

    fn worker(&self) -> Result<Running> {
        let mut command = Command::new(&self.kapell);
        command.args(["worker", "--name", "bench", "--capacity", "10000", "--log", "warn"]);
        command.args(["--coordinator", &self.addresses.join(",")]);
        Running::start(&mut command, &self.folder.join("worker.log"))
    }

    fn load(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.load);
        command.args(["--address", &self.addresses.join(",")]).args(arguments);
        command
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        // The script ends all that it has started.
        if let Err(error) = self.script.end() {
            eprintln!("the cluster did not end in order: {error:#}");
        }
    }
}
