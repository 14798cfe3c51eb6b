//! What a cluster of a size carries, by measured costs; and a simulation of its queues that the answer is held against.
//!
//! Owns: the tables. Never: measures.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

mod agenda;
mod costs;
mod simulation;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use serde::Serialize;
use serde_json::Value;

use crate::costs::Costs;
use crate::simulation::{Cluster, Outcome, Simulation};

/// What clusters of these sizes carry, and a simulation of one
///
/// The costs of a step come from `cargo xtask bench w7`; docs/scaling.md says how. The simulation has an outcome for
/// exactly the rate that is asked for; it holds when that many steps are done and nothing piles up.
#[derive(Debug, Parser)]
#[command(name = "kapell-capacity")]
struct Cli {
    /// Costs of a step (YAML); left out: those of docs/scaling.md
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// Sizes of clusters, in cores
    #[arg(long, value_parser = positive, value_delimiter = ',', default_values_t = [10.0, 100.0, 1_000.0])]
    cores: Vec<f64>,
    /// Coordinators of the simulated cluster
    #[arg(long, value_parser = at_least_one, default_value_t = 64)]
    coordinators: usize,
    /// Its workers
    #[arg(long, value_parser = at_least_one, default_value_t = 1_000)]
    workers: usize,
    /// Its shards
    #[arg(long, value_parser = at_least_one, default_value_t = 4_096)]
    shards: usize,
    /// Its databases; left out: as many as the costs ask for
    #[arg(long, value_parser = at_least_one)]
    databases: Option<usize>,
    /// Connections of a coordinator to a database
    #[arg(long, value_parser = at_least_one, default_value_t = 1)]
    writers: usize,
    /// Cores of each coordinator; left out: as many as the costs ask for
    #[arg(long, value_parser = at_least_one)]
    coordinator_cores: Option<usize>,
    /// Steps that it is asked for each second
    #[arg(long, value_parser = positive, default_value_t = 1_000_000.0)]
    steps_per_s: f64,
    /// What a specialist takes for a step
    #[arg(long, value_parser = positive, default_value_t = 1.0)]
    step_ms: f64,
    /// Simulated seconds, after half a second to warm up
    #[arg(long, value_parser = positive, default_value_t = 2.0)]
    secs: f64,
    /// Makes a simulation repeatable
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Of what is asked for, and of what may be under way more at the end.
const DONE_MIN: f64 = 0.98;
const GREW_MAX: f64 = 0.02;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let costs = match &cli.costs {
        None => Costs::read(include_str!("../costs.yaml"))?,
        Some(file) => {
            let shown = file.display();
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
            Costs::read(&text).with_context(|| format!("{shown} has no costs (hint: see docs/scaling.md)"))?
        }
    };
    for cores in &cli.cores {
        show(&cli, &format!("{cores} cores carry"), &costs.carried(*cores))?;
    }
    let cluster = cli.cluster(&costs)?;
    let outcome = Simulation::new(&costs, &cluster, cli.seed)?.run(cli.secs)?;
    let title = format!(
        "simulated: {} coordinators of {} cores, {} shards, {} databases, {} workers, {} steps/s asked",
        cluster.coordinators,
        cluster.cores_of_a_coordinator,
        cluster.shards,
        cluster.databases,
        cluster.workers,
        cluster.steps_per_s
    );
    show(&cli, &title, &outcome)?;
    Ok(if holds(&outcome) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn holds(outcome: &Outcome) -> bool {
    outcome.steps_per_s >= DONE_MIN * outcome.asked_per_s && outcome.grew <= GREW_MAX
}

impl Cli {
    fn cluster(&self, costs: &Costs) -> anyhow::Result<Cluster> {
        anyhow::ensure!(
            self.shards >= self.coordinators,
            "{} shards do not go round {} coordinators (hint: --shards)",
            self.shards,
            self.coordinators
        );
        let whole = |number: f64| format!("{number:.0}").parse::<usize>();
        #[expect(clippy::cast_precision_loss, reason = "no cluster is that large")]
        let cores = costs.coordinator_cores(self.steps_per_s, self.coordinators as f64);
        Ok(Cluster {
            coordinators: self.coordinators,
            cores_of_a_coordinator: self.coordinator_cores.map_or_else(|| whole(cores), Ok)?,
            shards: self.shards,
            databases: self.databases.map_or_else(|| whole(costs.databases(self.steps_per_s)), Ok)?,
            writers: self.writers,
            workers: self.workers,
            steps_per_s: self.steps_per_s,
            step_ms: self.step_ms,
        })
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("it must be more than 0".to_owned()) }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "it is no whole number".to_owned())?;
    if number > 0 { Ok(number) } else { Err("it must be at least 1".to_owned()) }
}

/// A title and a line for each field, or one object.
fn show(cli: &Cli, title: &str, row: &impl Serialize) -> anyhow::Result<()> {
    let mut row = serde_json::to_value(row)?;
    let fields = row.as_object_mut().context("a row has fields")?;
    for value in fields.values_mut() {
        *value = short(value);
    }
    if cli.json {
        fields.insert("title".to_owned(), title.into());
        println!("{row}");
        return Ok(());
    }
    println!("{title}");
    for (name, value) in fields {
        println!("  {:<24} {value}", name.replace('_', " "));
    }
    println!();
    Ok(())
}

/// Four digits are more than a model is worth.
fn short(value: &Value) -> Value {
    let Some(number) = value.as_f64().filter(|number| *number != 0.0) else { return value.clone() };
    let scale = 10_f64.powf(3.0 - number.abs().log10().floor());
    let rounded = (number * scale).round() / scale;
    Value::from(rounded)
}

#[cfg(test)]
mod tests;
