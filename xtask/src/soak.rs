//! Soaking: simulation over fresh seeds and the crash matrix in turns, for as long as it is told.
//!
//! Owns: the turns, the time, and the table at the end. Never: judges (the simulation and the crash matrix do).

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::clock::{self, Stopwatch};
use crate::report::{Rows, Verdict};
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

/// What came of all turns.
#[derive(Default)]
struct Tally {
    seeds: u64,
    virtual_ms: u64,
    faults: BTreeMap<String, u64>,
    broken: u64,
}

impl Args {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        sim::build(workspace)?;
        let watch = Stopwatch::start();
        let mut first = self.seed.unwrap_or_else(fresh);
        eprintln!("the seeds begin at {first}");
        let (mut rows, mut tally) =
            (Rows::new(["turn", "part", "seconds", "result", "replay"]), Tally::default());
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
                tally.broken += replays.len() as u64;
                if replays.is_empty() {
                    rows.push([turn.into(), part.name().into(), seconds, "passed".into(), "".into()]);
                }
            }
            first = first.wrapping_add(SEEDS);
            if tally.broken > 0 || watch.elapsed() >= Duration::from_secs(60 * self.minutes) {
                break;
            }
        }
        rows.print(workspace.format());
        tally.rows().print(workspace.format());
        eprintln!("soaked for {}; {} broken", clock::human(watch.elapsed()), tally.broken);
        Ok(if tally.broken == 0 { Verdict::Holds } else { Verdict::Broken })
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
                Ok(broken
                    .map(|outcome| {
                        eprint!("{}", outcome.text);
                        format!("cargo xtask sim --seed {}", outcome.seed)
                    })
                    .collect())
            }
            Part::Crashes => Ok(match crash::Args::of(KILLS, first).run_as_built(workspace)? {
                Verdict::Holds => vec![],
                Verdict::Broken => vec![format!("cargo xtask crash --kills {KILLS} --seed {first}")],
            }),
        }
    }
}

impl Tally {
    /// Takes in the last line of a simulation.
    fn add(&mut self, text: &str) {
        self.seeds += 1;
        let words: Vec<&str> = text.lines().last().unwrap_or_default().split(' ').collect();
        let after =
            |name: &str| words.iter().skip_while(|word| **word != name).nth(1).copied().unwrap_or_default();
        self.virtual_ms += after("virtual_ms").parse::<u64>().unwrap_or_default();
        for (kind, count) in after("faults").split(',').filter_map(|fault| fault.split_once(':')) {
            *self.faults.entry(kind.to_owned()).or_default() += count.parse::<u64>().unwrap_or_default();
        }
    }

    fn rows(&self) -> Rows {
        let mut rows = Rows::new(["what", "count"]);
        rows.push(["seeds, each twice".into(), self.seeds.into()]);
        rows.push(["seconds of virtual time".into(), (self.virtual_ms / 1_000).into()]);
        for (kind, count) in &self.faults {
            rows.push([format!("fault: {kind}").into(), (*count).into()]);
        }
        rows
    }
}

/// Different each time; small enough to type.
fn fresh() -> u64 {
    std::hash::RandomState::new().build_hasher().finish() % 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_simulation_is_counted() {
        let mut tally = Tally::default();
        tally.add("broken: no\nseed 1 digest aa lines 2 virtual_ms 20500 operations 5 faults kill:2,reset:1 broken 0");
        tally.add("seed 2 digest ab lines 2 virtual_ms 1500 operations 5 faults kill:1 broken 0");
        assert_eq!((tally.seeds, tally.virtual_ms), (2, 22_000));
        assert_eq!(tally.faults, BTreeMap::from([("kill".to_owned(), 3), ("reset".to_owned(), 1)]));
        tally.add("seed 3 digest ab faults none broken 0");
        assert_eq!(tally.faults.len(), 2);
    }
}
