//! Simulation: all roles in one thread under virtual time, from seeds, with faults.
//!
//! Owns: building the simulation, running each seed twice in processes of its own, comparing. Never: judges a run (the
//! simulation does).

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};

use crate::clock::{self, Stopwatch};
use crate::report::{Rows, Verdict};
use crate::workspace::{Profile, Workspace};

/// Simulate the whole system from seeds, with crashes, partitions and a bad disk
///
/// The real coordinators, workers and connector run in one thread under virtual time: with an odd seed one coordinator
/// with a journal of its own, with an even one three that share a journal and a cluster. Holds when no accepted event is
/// lost, no posting is made twice, no run is stuck, nobody writes to a shard that another owns, and each seed happens
/// twice alike. `--seed S` begins with S. In the end all faults are summed by their kind.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them; alone, it is the only one
    #[arg(long)]
    seed: Option<u64>,
}

/// Seeds between two words of how far it is: about a minute.
const TOLD_EVERY: usize = 250;

/// How one seed went.
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    /// What the simulation printed; its last line has the digest.
    pub(crate) text: String,
    pub(crate) problem: Option<&'static str>,
}

impl Args {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        build(workspace)?;
        let first = self.seed.unwrap_or(1);
        let count = if self.seed.is_some() && self.seeds == 100 { 1 } else { self.seeds };
        let outcomes = simulate_all(workspace, first..first.saturating_add(count))?;
        let mut rows = Rows::new(["seed", "problem", "last line", "replay"]);
        // Without a problem it was not told yet.
        if let [Outcome { problem: None, text, .. }] = outcomes.as_slice() {
            eprint!("{text}");
        }
        for outcome in outcomes.iter().filter(|outcome| outcome.problem.is_some() || count == 1) {
            let replay = format!("cargo run -p kapell-tests-simulation -- --seed {} --show", outcome.seed);
            let last = outcome.text.lines().last().unwrap_or_default();
            rows.push([outcome.seed.into(), outcome.problem.into(), last.into(), replay.into()]);
        }
        rows.print(workspace.format());
        let mut tally = Tally::default();
        outcomes.iter().for_each(|outcome| tally.add(&outcome.text));
        tally.rows().print(workspace.format());
        let broken = outcomes.iter().filter(|outcome| outcome.problem.is_some()).count();
        eprintln!("{} seeds hold, {broken} do not", outcomes.len() - broken);
        Ok(if broken == 0 { Verdict::Holds } else { Verdict::Broken })
    }
}

/// Sums over the last lines of simulations.
#[derive(Default)]
pub(crate) struct Tally {
    seeds: BTreeMap<String, u64>,
    virtual_ms: u64,
    fenced: u64,
    faults: BTreeMap<String, u64>,
}

impl Tally {
    /// Takes in the last line of a simulation.
    pub(crate) fn add(&mut self, text: &str) {
        let words: Vec<&str> = text.lines().last().unwrap_or_default().split(' ').collect();
        let after =
            |name: &str| words.iter().skip_while(|word| **word != name).nth(1).copied().unwrap_or_default();
        *self.seeds.entry(after("kind").to_owned()).or_default() += 1;
        self.virtual_ms += after("virtual_ms").parse::<u64>().unwrap_or_default();
        self.fenced += after("fenced").parse::<u64>().unwrap_or_default();
        for (kind, count) in after("faults").split(',').filter_map(|fault| fault.split_once(':')) {
            *self.faults.entry(kind.to_owned()).or_default() += count.parse::<u64>().unwrap_or_default();
        }
    }

    pub(crate) fn rows(&self) -> Rows {
        let mut rows = Rows::new(["what", "count"]);
        for (kind, count) in &self.seeds {
            rows.push([format!("seeds, {kind}, each twice").into(), (*count).into()]);
        }
        rows.push(["seconds of virtual time".into(), (self.virtual_ms / 1_000).into()]);
        rows.push(["hours of virtual time".into(), (self.virtual_ms as f64 / 3_600_000.0).into()]);
        rows.push(["requests of former owners refused".into(), self.fenced.into()]);
        for (kind, count) in &self.faults {
            rows.push([format!("fault: {kind}").into(), (*count).into()]);
        }
        rows
    }
}

/// Brings the simulation up to date.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    match workspace.build(Profile::Dev, &["kapell-tests-simulation"])? {
        Verdict::Holds => Ok(()),
        Verdict::Broken => bail!("the simulation does not build"),
    }
}

/// As many at once as there are processors. What is broken is told at once, and now and then how far it is.
pub(crate) fn simulate_all(workspace: &Workspace, seeds: std::ops::Range<u64>) -> Result<Vec<Outcome>> {
    let (next, done) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let watch = Stopwatch::start();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZeroUsize::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = simulate_twice(workspace, seed);
                    if let Ok(Outcome { problem: Some(problem), text, .. }) = &outcome {
                        eprintln!("{text}seed {seed}: {problem}");
                    }
                    let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    done.push(outcome);
                    if done.len().is_multiple_of(TOLD_EVERY) {
                        let all = seeds.end - seeds.start;
                        eprintln!("{} of {all} seeds after {}", done.len(), clock::human(watch.elapsed()));
                    }
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut outcomes = done.into_iter().collect::<Result<Vec<_>>>()?;
    outcomes.sort_by_key(|outcome| outcome.seed);
    Ok(outcomes)
}

fn simulate_twice(workspace: &Workspace, seed: u64) -> Result<Outcome> {
    let (holds, text) = simulate(workspace, seed)?;
    let (_, again) = simulate(workspace, seed)?;
    let problem = match (holds, text == again) {
        (false, _) => Some("a promise is broken"),
        (true, false) => Some("not twice the same"),
        (true, true) => None,
    };
    Ok(Outcome { seed, text, problem })
}

fn simulate(workspace: &Workspace, seed: u64) -> Result<(bool, String)> {
    let mut command = Command::new(workspace.program(Profile::Dev, "simulation"));
    command.args(["--seed", &seed.to_string()]).env_remove("RUST_LOG").stdin(Stdio::null());
    let output = command.output().context("the simulation does not start")?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_simulation_is_counted() {
        let mut tally = Tally::default();
        tally.add(
            "broken: no\nseed 1 kind single digest aa lines 2 virtual_ms 20500 operations 5 fenced 0 faults kill:2,reset:1 broken 0",
        );
        tally.add("seed 2 kind cluster digest ab lines 2 virtual_ms 1500 operations 5 fenced 3 faults kill:1 broken 0");
        assert_eq!((tally.virtual_ms, tally.fenced), (22_000, 3));
        assert_eq!(tally.faults, BTreeMap::from([("kill".to_owned(), 3), ("reset".to_owned(), 1)]));
        tally.add("seed 4 kind cluster digest ab faults none broken 0");
        assert_eq!(tally.faults.len(), 2);
        assert_eq!(tally.seeds, BTreeMap::from([("cluster".to_owned(), 2), ("single".to_owned(), 1)]));
    }
}
