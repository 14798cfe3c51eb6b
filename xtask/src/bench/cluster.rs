//! W7: several coordinators over one PostgreSQL and one etcd, on the same two cores: what distribution costs.
//!
//! Owns: a cluster for the length of a measurement, and its figures. Never: judges over failures (chaos does).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Amount;
use super::figures::{Better, Figure};
use super::kapell::{self, figure};
use super::site::{self, Running, answer, number};
use crate::clock::{self, Stopwatch};
use crate::workspace::{Profile, Workspace};
use crate::{process, servers};

/// How many coordinators there are, one after the other.
const COORDINATORS: [usize; 3] = [1, 2, 4];
/// Callers at once, at which a peer is measured too.
pub(crate) const CALLERS: [u32; 2] = [64, 512];
/// So many that the groups of four coordinators are as full as those of one.
const FULL: u32 = 2_048;
/// Load before it is measured.
const WARM_SECS: &str = "3";
/// Time that a cluster gets to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Addresses that a cluster needs besides its coordinators': of etcd, twice, and PostgreSQL.
const SERVERS: usize = 3;

/// Measures the same load on clusters of different sizes.
pub(crate) fn measure(workspace: &Workspace, amount: Amount) -> Result<Vec<Figure>> {
    servers::ensure_all(workspace)?;
    let mut figures = Vec::new();
    for callers in CALLERS.into_iter().chain([FULL]) {
        let mut of_one = None;
        for coordinators in COORDINATORS {
            let cell = LocalCluster::start(workspace, coordinators)?.measure(callers, amount.seconds)?;
            let share = cell.steps_per_s / *of_one.get_or_insert(cell.steps_per_s);
            let mut add = |what, better, value| {
                figures.push(figure("w7", callers, metric(coordinators, what), better, value));
            };
            add("steps/s", Better::Higher, cell.steps_per_s);
            add("p50 ms", Better::Lower, cell.p50_ms);
            add("share of one", Better::Higher, share);
            for (what, spent) in COSTS.into_iter().zip(cell.costs) {
                add(what, Better::Lower, spent);
            }
        }
    }
    figures.extend(journal_alone(workspace)?);
    Ok(figures)
}

/// What the cluster's journal takes from appenders of its own, beside bare inserts.
fn journal_alone(workspace: &Workspace) -> Result<Vec<Figure>> {
    let mut bench = kapell::benchmark(workspace, "kapell-journal-postgres");
    bench.env("KAPELL_TEST_SERVERS", "required");
    let table = process::output(&mut bench)?;
    eprint!("{table}");
    let mut figures = Vec::new();
    for appenders in [64, 1024] {
        let (ours, floor) = kapell::appends(&table, appenders)?;
        figures.push(figure("w7", appenders, "journal alone, appends/s", Better::Higher, ours));
        figures.push(figure("w7", appenders, "floor: bare inserts, rows/s", Better::Higher, floor));
    }
    Ok(figures)
}

/// What a figure of so many coordinators is called.
pub(crate) fn metric(coordinators: usize, what: &str) -> String {
    format!("{coordinators} coordinator{}: {what}", if coordinators == 1 { "" } else { "s" })
}

/// What a step costs: processor time of each, and what goes over the network. `docs/scaling.md` counts on them.
const COSTS: [&str; 5] = [
    "coordinators us a step",
    "worker us a step",
    "PostgreSQL us a step",
    "etcd us a step",
    "network bytes a step",
];

/// What was measured of one cluster.
struct Cell {
    steps_per_s: f64,
    p50_ms: f64,
    /// As named in [`COSTS`].
    costs: [f64; COSTS.len()],
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

    fn measure(&self, callers: u32, secs: u32) -> Result<Cell> {
        let worker = self.worker()?;
        answer(&mut self.load(&["first"]))?;
        let (callers, secs) = (callers.to_string(), secs.to_string());
        let load =
            |secs| answer(&mut self.load(&["w1", "--callers", &callers, "--warm", "0", "--secs", secs]));
        load(WARM_SECS)?;
        let before = self.spent(&worker)?;
        let answer = load(&secs)?;
        let after = self.spent(&worker)?;
        let steps_per_s = number(&answer, "steps_per_s")?;
        let steps = steps_per_s * secs.parse::<f64>()?;
        let mut costs = after;
        costs.iter_mut().zip(before).for_each(|(cost, before)| *cost = (*cost - before) / steps);
        Ok(Cell { steps_per_s, p50_ms: number(&answer, "p50_ms")?, costs })
    }

    /// All that was spent so far, as named in [`COSTS`]: microseconds, and bytes.
    fn spent(&self, worker: &Running) -> Result<[f64; COSTS.len()]> {
        let mut coordinators = 0.0;
        for number in 1..=self.addresses.len() {
            coordinators += self.processor_secs(&format!("coordinator-{number}"))?;
        }
        let (postgres, etcd) = (self.processor_secs("postgres")?, self.processor_secs("etcd")?);
        let micros = [coordinators, worker.processor_secs()?, postgres, etcd].map(|secs| secs * 1e6);
        let [coordinators, worker, postgres, etcd] = micros;
        Ok([coordinators, worker, postgres, etcd, site::loopback_bytes()?])
    }

    /// Of what the script has started under that name.
    fn processor_secs(&self, name: &str) -> Result<f64> {
        let process = std::fs::read_to_string(self.folder.join(format!("data/{name}.pid")))?;
        site::processor_secs(process.trim().parse()?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::targets::target;

    #[test]
    fn what_is_promised_of_clusters_is_found_under_the_names_of_their_figures() {
        assert!(target("w7", 64, &metric(1, "steps/s")).is_some());
        assert!(
            COORDINATORS[1..].iter().all(|many| target("w7", 64, &metric(*many, "share of one")).is_some())
        );
    }
}
