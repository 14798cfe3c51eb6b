//! The crash matrix: coordinator, worker and connector are killed at random moments under load, while they act on a
//! business system that does everything twice that it is told twice.
//!
//! Owns: the order of events of the matrix and its verdict. Never: builds anything (xtask does).
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks through its streams"
)]
mod company;
mod definitions;
mod judge;
mod load;
mod processes;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use kapell_runtime::{Entropy, SeededEntropy, SystemEntropy, SystemNet, channel};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use crate::company::Company;
use crate::load::{Load, Order};
use crate::processes::{Processes, Role, Site, free_address};
use crate::report::Report;

/// Time that a started coordinator gets until it answers.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// Time that all runs get to end after the last kill.
const END_PATIENCE: Duration = Duration::from_secs(60);
/// Load without kills at the beginning, so that the first kill meets work.
const RAMP: Duration = Duration::from_millis(1_500);
/// Pauses between kills, in milliseconds: exponential around the mean, cut at both ends.
const PAUSE_MEAN_MS: f64 = 200.0;
const PAUSE_MS: std::ops::RangeInclusive<f64> = 50.0..=600.0;

/// One kill of so many waits first until so many runs have ended, at most so long.
const BREATH_EVERY: u64 = 3;
const BREATH_RUNS: u64 = 64;
const BREATH_PATIENCE: Duration = Duration::from_secs(4);

/// Kill every role again and again under load, then judge by the books of the business.
#[derive(Parser)]
struct Crash {
    /// Kills of each role.
    #[arg(long, default_value_t = 3)]
    kills: u32,
    /// Decides who is killed when; left out: drawn and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Orders under way at once.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// The binary `kapell`.
    #[arg(long)]
    kapell: PathBuf,
    /// The binary `company`.
    #[arg(long)]
    company: PathBuf,
    /// An empty or missing folder for data and logs.
    #[arg(long)]
    dir: PathBuf,
    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let crash = Crash::parse();
    match crash.run().await {
        Ok(report) => {
            print!("{}", if crash.json { report.json_lines() } else { report.table() });
            if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

impl Crash {
    async fn run(&self) -> anyhow::Result<Report> {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            bail!("a TLS provider was installed before");
        }
        let seed = self.seed.unwrap_or_else(|| SystemEntropy.below(1 << 32));
        eprintln!("seed {seed}; logs in {}", self.dir.display());
        let books = self.dir.join("company");
        std::fs::create_dir_all(&books).with_context(|| format!("cannot make {}", books.display()))?;
        let company = Company::start(&self.company, &books).await?;
        let address = free_address(&SystemEntropy)?;
        let site = Site { kapell: self.kapell.clone(), dir: self.dir.clone(), address: address.clone() };
        let mut processes = Processes::start(site)?;
        let channel = connect(&address).await?;
        definitions::apply(channel.clone(), &company.accounting).await?;

        let load = Load::new(channel.clone());
        let entropy = SeededEntropy::new(seed);
        let kills = async {
            sleep(RAMP).await;
            let hit = self.kill(&entropy, &mut processes, &load).await;
            load.stop();
            hit
        };
        let (hit, loaded) = tokio::join!(kills, load.run(self.in_flight));
        let hit = hit?;
        loaded?;
        self.verdict(seed, &channel, &company, &load, hit, &mut processes).await
    }

    /// Kills each role so many times, in random order, and answers which orders were under way at the kills of each.
    async fn kill(
        &self,
        entropy: &SeededEntropy,
        processes: &mut Processes,
        load: &Load,
    ) -> anyhow::Result<BTreeMap<Role, BTreeSet<Order>>> {
        let mut hit = BTreeMap::from(Role::ALL.map(|role| (role, BTreeSet::new())));
        let mut left = Role::ALL.map(|role| (role, self.kills));
        let all = u64::from(self.kills) * left.len() as u64;
        for done in 0..all {
            // Kills in quick succession hit recovery itself; a breath now and then lets new work begin.
            if entropy.below(BREATH_EVERY) == 0 {
                load.progress(BREATH_RUNS, BREATH_PATIENCE).await;
            }
            sleep(pause(entropy)).await;
            let mut place = entropy.below(all - done);
            for (role, kills) in &mut left {
                if place < u64::from(*kills) {
                    *kills -= 1;
                    hit.entry(*role).or_default().extend(load.under_way());
                    processes.kill_and_restart(*role).await?;
                    break;
                }
                place -= u64::from(*kills);
            }
            if (done + 1) % 30 == 0 {
                eprintln!("{} of {all} kills, {} orders accepted", done + 1, load.accepted().len());
            }
        }
        Ok(hit)
    }

    async fn verdict(
        &self,
        seed: u64,
        channel: &Channel,
        company: &Company,
        load: &Load,
        hit: BTreeMap<Role, BTreeSet<Order>>,
        processes: &mut Processes,
    ) -> anyhow::Result<Report> {
        let accepted = load.accepted();
        let begun = Instant::now();
        let states = judge::settle(channel, &accepted, END_PATIENCE).await;
        let settling = begun.elapsed();
        let fates = judge::judge(company, &states).await?;
        let wrong = fates.wrong();
        if !wrong.is_empty() {
            judge::write_stories(channel, &accepted, &wrong, &self.dir).await?;
        }
        let findings = judge::doctor(channel).await?;
        let met: BTreeSet<Order> = hit.values().flatten().copied().collect();
        let runs = met.iter().filter_map(|order| accepted.get(order).cloned()).collect();
        let settled = judge::settled(channel, runs).await?;
        let died = processes.died()?;
        let (kills, resent) = (self.kills, load.resent());
        Ok(Report {
            seed,
            kills,
            orders: accepted.len(),
            hit,
            fates,
            findings,
            settled,
            died,
            resent,
            settling,
        })
    }
}

/// Until the coordinator answers.
async fn connect(address: &str) -> anyhow::Result<Channel> {
    let begun = Instant::now();
    loop {
        match channel(Arc::new(SystemNet), address).await {
            Ok(channel) => return Ok(channel),
            Err(error) if begun.elapsed() > START_PATIENCE => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

fn pause(entropy: &SeededEntropy) -> Duration {
    let share = (entropy.below(1_000_000) + 1) as f64 / 1_000_000.0;
    let millis = (-share.ln() * PAUSE_MEAN_MS).clamp(*PAUSE_MS.start(), *PAUSE_MS.end());
    Duration::from_secs_f64(millis / 1_000.0)
}
