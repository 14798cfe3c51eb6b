//! Simulation: all roles in one thread under virtual time, from seeds, with faults.
//!
//! Owns: building the simulation, running each seed twice in processes of its own, comparing. Never: judges a run (the
//! simulation does).

use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};

use crate::report::{Rows, Verdict};
use crate::workspace::{Profile, Workspace};

/// Simulate the whole system from seeds, with crashes, partitions and a bad disk
///
/// The real coordinator, workers and connector run in one thread under virtual time. Holds when no accepted event is
/// lost, no posting is made twice, no run is stuck, and each seed happens twice alike. `--seed S` begins with S.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them; alone, it is the only one
    #[arg(long)]
    seed: Option<u64>,
}

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
        for outcome in outcomes.iter().filter(|outcome| outcome.problem.is_some() || count == 1) {
            eprint!("{}", outcome.text);
            let replay = format!("cargo run -p kapell-tests-simulation -- --seed {} --show", outcome.seed);
            let last = outcome.text.lines().last().unwrap_or_default();
            rows.push([outcome.seed.into(), outcome.problem.into(), last.into(), replay.into()]);
        }
        rows.print(workspace.format());
        let broken = outcomes.iter().filter(|outcome| outcome.problem.is_some()).count();
        eprintln!("{} seeds hold, {broken} do not", outcomes.len() - broken);
        Ok(if broken == 0 { Verdict::Holds } else { Verdict::Broken })
    }
}

/// Brings the simulation up to date.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    match workspace.build(Profile::Dev, &["kapell-tests-simulation"])? {
        Verdict::Holds => Ok(()),
        Verdict::Broken => bail!("the simulation does not build"),
    }
}

/// As many at once as there are processors.
pub(crate) fn simulate_all(workspace: &Workspace, seeds: std::ops::Range<u64>) -> Result<Vec<Outcome>> {
    let (next, done) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZeroUsize::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = simulate_twice(workspace, seed);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(outcome);
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
