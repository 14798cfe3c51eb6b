//! A trial: a system acts on the business under load while faults happen to it; then the books are judged.
//!
//! Owns: the order of events, and the verdict. Never: knows which faults there are.
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use kapell_client::Client;
use kapell_runtime::{Entropy as _, SeededEntropy, SystemEntropy};
use tokio::time::{Instant, sleep};

use crate::company::Company;
use crate::load::{Course, Load, Order};
use crate::process::Process;
use crate::report::{Fault, Report};
use crate::{definitions, judge};

/// Time that a started coordinator gets until it answers.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// Time that all runs get to end after the last fault.
const END_PATIENCE: Duration = Duration::from_secs(60);
/// Pauses between faults, in milliseconds: exponential around the mean, cut at both ends.
const PAUSE_MEAN_MS: f64 = 200.0;
const PAUSE_MS: std::ops::RangeInclusive<f64> = 50.0..=600.0;
/// Runs whose stories are written down though nothing is wrong with them.
const SLOWEST: usize = 5;
/// How the log of an old owner of a shard tells that the journal refused what it still wrote.
const REFUSED_BY_JOURNAL: &str = "the journal refused an append";

/// What every trial is given.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Given {
    /// Decides what happens when; left out: drawn and printed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Orders under way at once.
    #[arg(long, default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// The binary `kapell`.
    #[arg(long)]
    pub(crate) kapell: PathBuf,
    /// Another version of it: each process is of the other and of this one in turn, whenever it is started.
    #[arg(long)]
    pub(crate) beside: Option<PathBuf>,
    /// The binary `company`.
    #[arg(long)]
    pub(crate) company: PathBuf,
    /// An empty or missing folder for data and logs.
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

/// A system that faults happen to.
pub(crate) trait System {
    /// `HOST:PORT` of its coordinators, separated by commas.
    fn addresses(&self) -> String;

    /// Lets the faults happen, and says which.
    async fn suffer(&mut self, dice: &SeededEntropy, load: &Load) -> anyhow::Result<Vec<Fault>>;

    /// Its processes.
    fn processes(&mut self) -> impl Iterator<Item = &mut Process>;
}

impl Given {
    /// What a process runs, asked each time that it is started.
    pub(crate) fn versions(&self) -> impl Fn() -> PathBuf + use<> {
        let versions: Vec<PathBuf> = self.beside.iter().chain([&self.kapell]).cloned().collect();
        let starts = AtomicUsize::new(0);
        move || versions[starts.fetch_add(1, Ordering::Relaxed) % versions.len()].clone()
    }

    /// Where logs and data go.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))
    }

    /// Lets faults happen to the system under load, and judges.
    pub(crate) async fn run(&self, mut system: impl System) -> anyhow::Result<Report> {
        let seed = self.seed.unwrap_or_else(|| SystemEntropy.below(1 << 32));
        eprintln!("seed {seed}; logs in {}", self.dir.display());
        let books = self.dir.join("company");
        std::fs::create_dir_all(&books)?;
        let company = Company::start(&self.company, &books).await?;
        let client = connect(&system.addresses()).await?;
        definitions::apply(&client, &company.accounting).await?;

        let load = Load::new(&client);
        let dice = SeededEntropy::new(seed);
        let suffering = async {
            let faults = system.suffer(&dice, &load).await;
            load.stop();
            faults
        };
        let (faults, loaded) = tokio::join!(suffering, load.run(self.in_flight));
        let faults = faults?;
        loaded?;
        self.verdict(seed, &client, &company, &load, faults, &mut system).await
    }

    async fn verdict(
        &self,
        seed: u64,
        client: &Client,
        company: &Company,
        load: &Load,
        faults: Vec<Fault>,
        system: &mut impl System,
    ) -> anyhow::Result<Report> {
        let (accepted, courses, stopped) = (load.accepted(), load.courses(), Instant::now());
        let states = judge::settle(client, &accepted, END_PATIENCE).await;
        let settling = stopped.elapsed();
        let fates = judge::judge(company, &states).await?;
        judge::write_stories(client, &accepted, &fates.wrong(), &self.dir.join("wrong.txt")).await?;
        let mut slowest = slowest(&courses, stopped);
        let findings = judge::doctor(client).await?;
        let first = faults.first().map_or(stopped, |fault| fault.at);
        let met = courses.iter().filter(|(_, course)| course.was_within(first, stopped));
        let runs: BTreeSet<String> = met.filter_map(|(order, _)| accepted.get(order).cloned()).collect();
        let settled = judge::settled(client, runs).await?;
        let mut died = Vec::new();
        let mut refused_by_journal = 0;
        for process in system.processes() {
            died.extend(process.died()?);
            refused_by_journal += process.logged(REFUSED_BY_JOURNAL)?;
        }
        let report = Report {
            seed,
            faults,
            stopped,
            courses,
            fates,
            findings,
            settled,
            died,
            refused_by_journal,
            settling,
        };
        slowest.extend(report.slowest());
        judge::write_stories(client, &accepted, &slowest, &self.dir.join("slowest.txt")).await?;
        Ok(report)
    }
}

/// Orders whose runs took longest.
fn slowest(courses: &BTreeMap<Order, Course>, now: Instant) -> BTreeSet<Order> {
    let time = |course: &Course| course.work().map(|span| span.length(now));
    let mut times: Vec<_> = courses.iter().map(|(order, course)| (time(course), *order)).collect();
    times.sort_unstable();
    times.into_iter().rev().take(SLOWEST).map(|(_, order)| order).collect()
}

/// Until a coordinator answers.
async fn connect(addresses: &str) -> anyhow::Result<Client> {
    let begun = Instant::now();
    loop {
        match Client::connect(addresses).await {
            Ok(client) => return Ok(client),
            Err(error) if begun.elapsed() > START_PATIENCE => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Between two faults.
pub(crate) fn pause(dice: &SeededEntropy) -> Duration {
    let share = (dice.below(1_000_000) + 1) as f64 / 1_000_000.0;
    let millis = (-share.ln() * PAUSE_MEAN_MS).clamp(*PAUSE_MS.start(), *PAUSE_MS.end());
    Duration::from_secs_f64(millis / 1_000.0)
}
