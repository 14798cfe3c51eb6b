//! The workloads on Restate: its server from the npm registry, a service in Rust from benches/peers.
//!
//! Owns: installing, starting and loading the peer. Never: tunes it; it runs as its makers ship it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use super::figures::{Better, Figure};
use super::kapell::{Executions, figure, latencies};
use super::site::{self, Running, answer, fresh_folder, number};
use super::{Amount, Workload, cluster};
use crate::clock::{self, Stopwatch};
use crate::process;
use crate::report::Verdict;
use crate::workspace::Workspace;

/// Runs of w4.
const KILLED_RUNS: u32 = 64;
/// Into the second or third step of every run.
const KILL_AFTER: Duration = Duration::from_millis(500);
/// Until memory has settled.
const IDLE: Duration = Duration::from_secs(5);

/// An installed peer.
pub(crate) struct Restate {
    server: PathBuf,
    service: PathBuf,
    load: PathBuf,
    target: PathBuf,
}

/// A running peer: server and service.
struct Pair {
    server: Running,
    _service: Running,
    folder: PathBuf,
    ingress: String,
    admin: String,
    node: String,
}

impl Restate {
    /// Fetches the server with npm, and builds the service and the load generator.
    pub(crate) fn install(workspace: &Workspace) -> Result<Self> {
        let peers = workspace.root().join("benches/peers");
        let home = workspace.target().join("peers");
        std::fs::create_dir_all(&home)?;
        std::fs::copy(peers.join("package.json"), home.join("package.json"))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund"]).current_dir(&home);
        let mut cargo = workspace.command("cargo");
        cargo.args(["build", "--release", "--manifest-path"]).arg(peers.join("Cargo.toml"));
        cargo.arg("--target-dir").arg(home.join("target"));
        for command in [&mut npm, &mut cargo] {
            match process::watched(command, crate::report::Format::JsonLines)? {
                Verdict::Holds => {}
                Verdict::Broken => bail!("`{}` failed", process::shown(command)),
            }
        }
        let built = home.join("target/release");
        Ok(Self {
            server: home.join("node_modules/@restatedev/restate-server-linux-x64/bin/restate-server"),
            service: built.join("peer-restate"),
            load: built.join("peer-load"),
            target: workspace.target().to_owned(),
        })
    }

    /// Measures one workload on fresh processes; nothing where the peer has no such thing.
    pub(crate) fn measure(&self, workload: Workload, amount: Amount) -> Result<Vec<Figure>> {
        match workload {
            Workload::W1 => self.sequence(amount),
            Workload::W2 => self.fan_out(),
            Workload::W3 => self.first_run(),
            Workload::W4 => self.killed(),
            Workload::W7 => self.alone(amount),
            Workload::W5 | Workload::W6 | Workload::Recovery => Ok(Vec::new()),
        }
    }

    fn start(&self, name: &str) -> Result<Pair> {
        let folder = fresh_folder(&self.target, &format!("restate-{name}"))?;
        let addresses = site::free_addresses(4)?;
        let [ingress, admin, node, service] = addresses.as_slice() else {
            bail!("four ports were asked for")
        };
        let mut command = Command::new(&self.service);
        command.arg(service).env("PEER_EXECUTED", folder.join("executed.log"));
        let pair = Pair {
            server: self.server(&folder, ingress, admin, node)?,
            _service: Running::start(&mut command, &folder.join("service.log"))?,
            folder,
            ingress: ingress.clone(),
            admin: admin.clone(),
            node: node.clone(),
        };
        answer(Command::new(&self.load).args(["register", admin, &format!("http://{service}")]))?;
        answer(Command::new(&self.load).args(["first", ingress, "/Bench/five"]))?;
        Ok(pair)
    }

    fn server(&self, folder: &std::path::Path, ingress: &str, admin: &str, node: &str) -> Result<Running> {
        let mut command = Command::new(&self.server);
        command.args(["--no-logo", "--base-dir"]).arg(folder.join("data"));
        let (ip, port) = node.split_once(':').unwrap_or((node, ""));
        let environment = [
            ("DO_NOT_TRACK", "1"),
            ("RESTATE_DISABLE_TELEMETRY", "true"),
            ("RESTATE_LISTEN_MODE", "tcp"),
            ("RESTATE_BIND_IP", ip),
            ("RESTATE_BIND_PORT", port),
            ("RESTATE_NODE_NAME", "bench"),
            ("RESTATE_INGRESS__BIND_ADDRESS", ingress),
            ("RESTATE_ADMIN__BIND_ADDRESS", admin),
            ("RESTATE_LOG_FILTER", "warn"),
        ];
        command.envs(environment);
        Running::start(&mut command, &folder.join("server.log"))
    }

    fn closed_loop(&self, pair: &Pair, path: &str, callers: u32, seconds: u32) -> Result<serde_json::Value> {
        let (callers, seconds) = (callers.to_string(), seconds.to_string());
        answer(Command::new(&self.load).args(["loop", &pair.ingress, path, &callers, "3", &seconds]))
    }

    fn sequence(&self, amount: Amount) -> Result<Vec<Figure>> {
        let pair = self.start("w1")?;
        let mut figures = Vec::new();
        for callers in [1, 64, 512] {
            let answer = self.closed_loop(&pair, "/Bench/five", callers, amount.seconds)?;
            figures.extend(latencies("w1", callers, &answer)?);
            figures.push(figure("w1", callers, "steps/s", Better::Higher, number(&answer, "per_s")? * 5.0));
        }
        Ok(figures)
    }

    /// The load of W7, which is that of W1, on one server with its own log: beside our coordinators over PostgreSQL.
    fn alone(&self, amount: Amount) -> Result<Vec<Figure>> {
        let pair = self.start("w7")?;
        let figures = cluster::CALLERS.map(|callers| {
            let answer = self.closed_loop(&pair, "/Bench/five", callers, amount.seconds)?;
            let steps = number(&answer, "per_s")? * 5.0;
            Ok(figure("w7", callers, cluster::metric(1, "steps/s"), Better::Higher, steps))
        });
        figures.into_iter().collect()
    }

    fn fan_out(&self) -> Result<Vec<Figure>> {
        let pair = self.start("w2")?;
        let answer = self.closed_loop(&pair, "/Bench/fan", 1, 8)?;
        Ok(vec![
            figure("w2", 1, "p50 ms", Better::Lower, number(&answer, "p50_ms")?),
            figure("w2", 1, "p99 ms", Better::Lower, number(&answer, "p99_ms")?),
        ])
    }

    fn first_run(&self) -> Result<Vec<Figure>> {
        let watch = Stopwatch::start();
        let pair = self.start("w3")?;
        let first = watch.elapsed().as_secs_f64();
        clock::pause(IDLE);
        Ok(vec![
            figure("w3", 1, "exec to first run s", Better::Lower, first),
            figure("w3", 1, "idle memory MiB", Better::Lower, pair.server.memory_mib()?),
            figure("w3", 1, "binary MiB", Better::Lower, site::size_mib(&self.server)?),
        ])
    }

    fn killed(&self) -> Result<Vec<Figure>> {
        let mut pair = self.start("w4")?;
        let runs = KILLED_RUNS.to_string();
        answer(Command::new(&self.load).args(["send", &pair.ingress, "/Bench/slow_five/send", &runs]))?;
        clock::pause(KILL_AFTER);
        pair.server.kill()?;
        let watch = Stopwatch::start();
        pair.server = self.server(&pair.folder, &pair.ingress, &pair.admin, &pair.node)?;
        let record = pair.folder.join("executed.log");
        // A finished run records one more line than it has steps.
        let completed = answer(Command::new(&self.load).arg("wait").arg(&record).arg(&runs))?;
        let took = watch.elapsed().as_secs_f64();
        let executions = Executions::read(&std::fs::read_to_string(&record)?);
        #[expect(clippy::cast_precision_loss, reason = "there are 384 lines")]
        let twice = executions.twice as f64;
        Ok(vec![
            figure("w4", KILLED_RUNS, "all done after restart s", Better::Lower, took),
            figure(
                "w4",
                KILLED_RUNS,
                "lost runs",
                Better::Zero,
                f64::from(KILLED_RUNS) - number(&completed, "completed")?,
            ),
            figure("w4", KILLED_RUNS, "steps executed twice", Better::Lower, twice),
        ])
    }
}
