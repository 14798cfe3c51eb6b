//! The workloads on Kapell: coordinator and worker as processes of their own, load from `kapell-load`.
//!
//! Owns: how each workload is set up here and which figures it gives. Never: compares.

use std::borrow::Cow;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::figures::{Better, Figure};
use super::site::{self, Running, answer, fresh_folder, number};
use super::{Amount, Workload, cluster};
use crate::clock::{self, Stopwatch};
use crate::process;
use crate::workspace::{Profile, Workspace};

/// Runs of w4, and steps of each.
const KILLED_RUNS: u32 = 64;
const KILLED_STEPS: u32 = 5;
/// Into the second or third step of every run.
const KILL_AFTER: Duration = Duration::from_millis(500);
/// Live runs of the recovery, and entries after the checkpoint.
const RECOVERED_RUNS: u32 = 100_000;
const RECOVERED_ENTRIES: u32 = 200_000;
/// Until memory has settled.
const IDLE: Duration = Duration::from_secs(5);

/// Measures one workload on fresh processes.
pub(crate) fn measure(workspace: &Workspace, workload: Workload, amount: Amount) -> Result<Vec<Figure>> {
    let site = Site::new(workspace, workload)?;
    match workload {
        Workload::W1 => site.sequence(amount),
        Workload::W2 => site.fan_out(),
        Workload::W3 => site.first_run(),
        Workload::W4 => site.killed(),
        Workload::W5 => site.burst(workspace, amount),
        Workload::W6 => site.parked(amount),
        Workload::W7 => cluster::measure(workspace, amount),
        Workload::Recovery => site.recovery(),
    }
}

struct Site {
    kapell: PathBuf,
    load: PathBuf,
    folder: PathBuf,
    address: String,
}

impl Site {
    fn new(workspace: &Workspace, workload: Workload) -> Result<Self> {
        Ok(Self {
            kapell: workspace.program(Profile::Release, "kapell"),
            load: workspace.program(Profile::Release, "kapell-load"),
            folder: fresh_folder(workspace.target(), &format!("kapell-{workload:?}").to_lowercase())?,
            address: site::free_address()?,
        })
    }

    fn coordinator(&self, role: &str) -> Result<Running> {
        let mut command = Command::new(&self.kapell);
        command.arg(role).arg("--data").arg(self.folder.join("data")).args(["--listen", &self.address]);
        command.args(["--log", "warn"]);
        Running::start(&mut command, &self.folder.join(format!("{role}.log")))
    }

    fn worker(&self) -> Result<Running> {
        let mut command = Command::new(&self.kapell);
        command.args(["worker", "--name", "bench", "--capacity", "10000", "--log", "warn"]);
        command.args(["--coordinator", &self.address]);
        Running::start(&mut command, &self.folder.join("worker.log"))
    }

    fn load(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.load);
        command.args(["--address", &self.address]).args(arguments);
        command
    }

    /// Coordinator, worker, definitions, and one finished run that shows that they have found each other.
    fn both(&self) -> Result<(Running, Running)> {
        let pair = (self.coordinator("coordinator")?, self.worker()?);
        answer(&mut self.load(&["first"]))?;
        Ok(pair)
    }

    fn sequence(&self, amount: Amount) -> Result<Vec<Figure>> {
        let _both = self.both()?;
        let secs = amount.seconds.to_string();
        let mut figures = Vec::new();
        for callers in [1, 64, 512] {
            let arguments = ["w1", "--callers", &callers.to_string(), "--warm", "3", "--secs", &secs];
            let answer = answer(&mut self.load(&arguments))?;
            figures.extend(latencies("w1", callers, &answer)?);
            figures.push(figure("w1", callers, "steps/s", Better::Higher, number(&answer, "steps_per_s")?));
        }
        Ok(figures)
    }

    fn fan_out(&self) -> Result<Vec<Figure>> {
        let _both = self.both()?;
        let answer = answer(&mut self.load(&["w2", "--runs", "200"]))?;
        Ok(vec![
            figure("w2", 1, "p50 ms", Better::Lower, number(&answer, "p50_ms")?),
            figure("w2", 1, "p99 ms", Better::Lower, number(&answer, "p99_ms")?),
        ])
    }

    fn first_run(&self) -> Result<Vec<Figure>> {
        let watch = Stopwatch::start();
        let dev = self.coordinator("dev")?;
        answer(&mut self.load(&["first"]))?;
        let first = watch.elapsed().as_secs_f64();
        clock::pause(IDLE);
        let memory = dev.memory_mib()?;
        Ok(vec![
            figure("w3", 1, "exec to first run s", Better::Lower, first),
            figure("w3", 1, "idle memory MiB", Better::Lower, memory),
            figure("w3", 1, "binary MiB", Better::Lower, site::size_mib(&self.kapell)?),
        ])
    }

    fn killed(&self) -> Result<Vec<Figure>> {
        let mut coordinator = self.coordinator("coordinator")?;
        let executed = self.folder.join("executed.log");
        let mut worker = Command::new(&self.load);
        worker.args(["--address", &self.address, "slow-worker", "--record"]).arg(&executed);
        let _worker = Running::start(&mut worker, &self.folder.join("slow-worker.log"))?;
        answer(&mut self.load(&["slow-setup"]))?;
        let runs = KILLED_RUNS.to_string();
        answer(&mut self.load(&["slow-start", "--runs", &runs]))?;
        clock::pause(KILL_AFTER);
        coordinator.kill()?;
        let watch = Stopwatch::start();
        let _coordinator = self.coordinator("coordinator")?;
        let ended = answer(&mut self.load(&["slow-wait", "--runs", &runs]))?;
        let took = watch.elapsed().as_secs_f64();
        let completed = number(&ended, "completed")?;
        let executions = Executions::read(&std::fs::read_to_string(&executed)?);
        if executions.steps < u64::from(KILLED_STEPS) {
            bail!("the worker recorded next to nothing");
        }
        #[expect(clippy::cast_precision_loss, reason = "there are 320 steps")]
        let twice = executions.twice as f64;
        Ok(vec![
            figure("w4", KILLED_RUNS, "all done after restart s", Better::Lower, took),
            figure("w4", KILLED_RUNS, "lost runs", Better::Zero, f64::from(KILLED_RUNS) - completed),
            figure("w4", KILLED_RUNS, "steps executed twice", Better::Lower, twice),
        ])
    }

    fn burst(&self, workspace: &Workspace, amount: Amount) -> Result<Vec<Figure>> {
        let _coordinator = self.coordinator("coordinator")?;
        answer(&mut self.load(&["setup"]))?;
        let secs = amount.seconds.to_string();
        let floor = answer(&mut self.load(&["unary", "--secs", &secs]))?;
        let single = answer(&mut self.load(&["w5", "--secs", &secs]))?;
        let batched = answer(&mut self.load(&["w5", "--secs", &secs, "--batch", "64"]))?;
        Ok(vec![
            figure("w5", 64, "floor: empty calls/s", Better::Higher, number(&floor, "per_s")?),
            figure(
                "w5",
                64,
                "floor: journal alone, appends/s",
                Better::Higher,
                journal_alone(workspace, self)?,
            ),
            figure("w5", 64, "single events/s", Better::Higher, number(&single, "events_per_s")?),
            figure("w5", 64, "single p99 ms", Better::Lower, number(&single, "p99_ms")?),
            figure("w5", 64, "events/s in batches of 64", Better::Higher, number(&batched, "events_per_s")?),
            figure("w5", 64, "batch p99 ms", Better::Lower, number(&batched, "p99_ms")?),
        ])
    }

    fn parked(&self, amount: Amount) -> Result<Vec<Figure>> {
        let mut coordinator = self.coordinator("coordinator")?;
        answer(&mut self.load(&["setup"]))?;
        let empty = coordinator.memory_mib()?;
        let runs = amount.parked_runs.to_string();
        let parked = answer(&mut self.load(&["park", "--runs", &runs]))?;
        answer(&mut self.load(&["ready", "--runs", &runs]))?;
        clock::pause(IDLE);
        let full = coordinator.memory_mib()?;
        coordinator.kill()?;
        let watch = Stopwatch::start();
        let _coordinator = self.coordinator("coordinator")?;
        answer(&mut self.load(&["ready", "--runs", &runs]))?;
        let ready = watch.elapsed().as_secs_f64();
        let each = (full - empty) * 1024.0 * 1024.0 / f64::from(amount.parked_runs);
        Ok(vec![
            figure("w6", amount.parked_runs, "parked/s", Better::Higher, number(&parked, "per_s")?),
            figure("w6", amount.parked_runs, "memory a run bytes", Better::Lower, each),
            figure("w6", amount.parked_runs, "ready after kill -9 s", Better::Lower, ready),
        ])
    }
}

impl Site {
    /// What a restart has to do: load the checkpoint, evolve the tail, drive what is outstanding.
    fn recovery(&self) -> Result<Vec<Figure>> {
        let mut coordinator = self.coordinator("coordinator")?;
        answer(&mut self.load(&["setup"]))?;
        let (runs, entries) = (RECOVERED_RUNS.to_string(), RECOVERED_ENTRIES.to_string());
        let prepared = answer(&mut self.load(&["recovery-setup", "--runs", &runs, "--entries", &entries]))?;
        let run = prepared["run"].as_str().context("no run to read")?;
        coordinator.kill()?;
        let watch = Stopwatch::start();
        let _coordinator = self.coordinator("coordinator")?;
        answer(&mut self.load(&["recovery-read", "--run", run]))?;
        let took = watch.elapsed().as_secs_f64();
        let entries = number(&prepared, "entries")?;
        Ok(vec![
            figure("recovery", RECOVERED_RUNS, "entries after the checkpoint", Better::Higher, entries),
            figure("recovery", RECOVERED_RUNS, "exec to first answered read s", Better::Lower, took),
        ])
    }
}

/// What the load generator says about a closed loop.
pub(crate) fn latencies(workload: &'static str, callers: u32, answer: &Value) -> Result<Vec<Figure>> {
    Ok(vec![
        figure(workload, callers, "runs/s", Better::Higher, number(answer, "per_s")?),
        figure(workload, callers, "p50 ms", Better::Lower, number(answer, "p50_ms")?),
        figure(workload, callers, "p95 ms", Better::Lower, number(answer, "p95_ms")?),
        figure(workload, callers, "p99 ms", Better::Lower, number(answer, "p99_ms")?),
    ])
}

/// Group commits of 64 appenders, as the journal's own benchmark measures them.
fn journal_alone(workspace: &Workspace, site: &Site) -> Result<f64> {
    let mut bench = benchmark(workspace, "kapell-journal-local");
    bench.env("KAPELL_BENCH_DIR", &site.folder);
    Ok(appends(&process::output(&mut bench)?, 64)?.0)
}

/// A journal's own benchmark.
pub(crate) fn benchmark(workspace: &Workspace, package: &str) -> Command {
    let mut bench = workspace.command("cargo");
    bench.args(["bench", "-p", package, "--bench", "append"]);
    bench
}

/// What it prints of so many appenders, in appends a second: the journal, and the floor.
pub(crate) fn appends(table: &str, appenders: u32) -> Result<(f64, f64)> {
    read_appends(table, appenders).context("the journal's benchmark prints another table than it did")
}

/// `64 RATIO | APPENDS/S P50 P99 | floor APPENDS/S …`.
fn read_appends(table: &str, appenders: u32) -> Option<(f64, f64)> {
    let of_these = |line: &&str| line.split_whitespace().next() == Some(&appenders.to_string());
    let mut parts = table.lines().find(of_these)?.split('|').skip(1);
    let mut rate =
        || parts.next()?.trim().trim_start_matches("floor").split_whitespace().next()?.parse().ok();
    Some((rate()?, rate()?))
}

/// Which steps a slow worker executed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Executions {
    pub(crate) steps: u64,
    /// Steps that were executed more than once.
    pub(crate) twice: u64,
}

impl Executions {
    /// From lines `RUN STEP`; a last line that is cut off counts as it stands.
    pub(crate) fn read(text: &str) -> Self {
        let mut counts = std::collections::BTreeMap::<&str, u64>::new();
        text.lines().for_each(|line| *counts.entry(line).or_default() += 1);
        let twice = counts.values().filter(|count| **count > 1).count();
        Self { steps: counts.len() as u64, twice: twice as u64 }
    }
}

pub(crate) fn figure(
    workload: &'static str,
    concurrency: u32,
    metric: impl Into<Cow<'static, str>>,
    better: Better,
    value: f64,
) -> Figure {
    Figure { workload, concurrency, metric: metric.into(), better, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_recorded_again_was_executed_twice() {
        let expected = Executions { steps: 3, twice: 1 };
        assert_eq!(Executions::read("a 1\na 2\nb 1\na 2\na 2\n"), expected);
    }

    #[test]
    fn the_journals_table_is_understood() {
        let text = "appenders  ratio | appends/s\n        1   0.95 |        3000    0.3  0.5 | floor 1 2 3\n       64   0.91 |       85000    0.7    1.9 | floor       93000 0.6 1.8\n";
        assert_eq!(read_appends(text, 64), Some((85_000.0, 93_000.0)));
        assert_eq!(read_appends(text, 1), Some((3_000.0, 1.0)));
        assert_eq!(read_appends("nothing", 64), None);
    }
}
