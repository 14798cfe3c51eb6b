//! Soaking: simulation over fresh seeds and the crash matrix in turns, for as long as it is told.
//!
//! Owns: the turns, the time, and the table at the end. Never: judges (the simulation and the crash matrix do).

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::clock::{self, Stopwatch};
use crate::report::{Rows, Verdict};
use crate::sim::Tally;
use crate::workspace::Workspace;
use crate::{crash, sim};

/// Simulate fresh seeds and kill real processes in turns, for some minutes
///
/// A turn is some seeds of `cargo xtask sim`, each simulated twice, and then one small crash matrix of `cargo xtask
/// crash`. Holds when every promise held in every turn; ends with the first turn that does not hold, so that its logs
/// in target/crash stay. The seeds begin at random, and what went wrong is printed with the command that replays it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Minutes after which no further turn begins
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// The first seed, to repeat a soak
    #[arg(long)]
    seed: Option<u64>,
}

/// Seeds of one turn.
const SEEDS: u64 = 50;
/// Kills of each role in one turn.
const KILLS: u32 = 10;

impl Args {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        sim::build(workspace)?;
        let watch = Stopwatch::start();
        let mut first = self.seed.unwrap_or_else(fresh);
        eprintln!("the seeds begin at {first}");
        let mut rows = Rows::new(["turn", "part", "seconds", "result", "replay"]);
        let (mut tally, mut broken) = (Tally::default(), 0);
        for turn in 1_u64.. {
            for part in [Part::Simulation, Part::Crashes] {
                eprintln!("== {} turn {turn}: {}", clock::human(watch.elapsed()), part.name());
                let began = Stopwatch::start();
                let replays = part.run(workspace, first, &mut tally)?;
                let seconds = Value::from(began.elapsed().as_secs());
                for replay in &replays {
                    let row = [turn.into(), part.name().into(), seconds.clone(), "FAILED".into()];
                    let [turn, part, seconds, result] = row;
                    rows.push([turn, part, seconds, result, replay.as_str().into()]);
                }
                broken += replays.len();
                if replays.is_empty() {
                    rows.push([turn.into(), part.name().into(), seconds, "passed".into(), "".into()]);
                }
            }
            first = first.wrapping_add(SEEDS);
            if broken > 0 || watch.elapsed() >= Duration::from_secs(60 * self.minutes) {
                break;
            }
        }
        rows.print(workspace.format());
        tally.rows().print(workspace.format());
        eprintln!("soaked for {}; {broken} broken", clock::human(watch.elapsed()));
        Ok(if broken == 0 { Verdict::Holds } else { Verdict::Broken })
    }
}

#[derive(Clone, Copy)]
enum Part {
    Simulation,
    Crashes,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Simulation => "simulation",
            Part::Crashes => "crashes",
        }
    }

    /// The commands that replay what went wrong.
    fn run(self, workspace: &Workspace, first: u64, tally: &mut Tally) -> Result<Vec<String>> {
        match self {
            Part::Simulation => {
                let outcomes = sim::simulate_all(workspace, first..first.saturating_add(SEEDS))?;
                outcomes.iter().for_each(|outcome| tally.add(&outcome.text));
                let broken = outcomes.iter().filter(|outcome| outcome.problem.is_some());
                Ok(broken.map(|outcome| format!("cargo xtask sim --seed {}", outcome.seed)).collect())
            }
            Part::Crashes => Ok(match crash::Args::of(KILLS, first).run_as_built(workspace)? {
                Verdict::Holds => vec![],
                Verdict::Broken => vec![format!("cargo xtask crash --kills {KILLS} --seed {first}")],
            }),
        }
    }
}

/// Different each time; small enough to type.
fn fresh() -> u64 {
    std::hash::RandomState::new().build_hasher().finish() % 1_000_000_000
}
