//! The real coordinator (one, or three that share their stores), workers and connector together in one thread, under
//! virtual time, from a seed, with faults.
//!
//! Owns: one simulation a process: tokio's and ractor's task ids are the process's, and what they order must not
//! depend on an earlier simulation. Never: uses a real clock, network, disk or random number.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks through its streams"
)]

mod bank;
mod client;
mod company;
mod faults;
mod history;
mod hosts;
mod interpose;
mod judge;
mod ledger;
mod links;
mod mix;
mod seams;
mod simulate;
mod steer;
mod ticks;
mod trouble;
mod world;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use company::Scenario;
use faults::Plan;
use mix::Mix;
use simulate::{Spoil, Verdict, Wanted, simulate};

/// Simulate one seed
#[derive(Parser)]
#[command(name = "simulation")]
struct Args {
    /// The seed
    #[arg(long)]
    seed: u64,
    /// Let nothing go wrong
    #[arg(long)]
    calm: bool,
    /// One event of each kind, and the coordinator's power goes at this operation of its disk (0: never)
    #[arg(long, value_name = "OPERATION")]
    power_at: Option<u64>,
    /// Only the clocks of the hosts go wrong
    #[arg(long)]
    clocks: bool,
    /// The mix that the simulation had at first, for the seeds of its bugs
    #[arg(long)]
    first_mix: bool,
    /// The mix that it had before subworkflows took too long, for the seeds of its bugs
    #[arg(long)]
    second_mix: bool,
    /// So many schedules and nothing else happens, while a day passes fast
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    schedules: usize,
    /// So many coordinators, 1 or 3; else it is drawn from the seed where the simulation has both kinds
    #[arg(long, value_name = "COUNT")]
    coordinators: Option<usize>,
    /// The business system posts the first entry twice: the judge must find it
    #[arg(long)]
    post_twice: bool,
    /// The journal that coordinators share takes from former owners of a shard, too: the judge must find it
    #[arg(long, conflicts_with = "post_twice")]
    break_fence: bool,
    /// Print what happened
    #[arg(long)]
    show: bool,
}

/// Deep futures of debug builds.
const STACK_BYTES: usize = 64 << 20;

fn main() -> ExitCode {
    let args = Args::parse();
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .init();
    }
    match run(&args) {
        Ok(verdict) => report(&args, &verdict),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> anyhow::Result<Verdict> {
    let (scenario, plan) = match args.power_at {
        Some(0) => (Scenario::Short, Plan::Calm),
        Some(operation) => (Scenario::Short, Plan::PowerAt(operation)),
        None if args.schedules > 0 && args.calm => (Scenario::Nothing, Plan::Calm),
        None if args.schedules > 0 => (Scenario::Nothing, Plan::Storm),
        None if args.calm => (Scenario::Whole, Plan::Calm),
        None if args.clocks => (Scenario::Whole, Plan::Clocks),
        None => (Scenario::Whole, Plan::Storm),
    };
    let mix = match () {
        () if args.first_mix => Mix::FIRST,
        () if args.clocks => Mix::CLOCKS,
        () if args.second_mix => Mix::second_of(args.seed),
        () if args.schedules > 0 => Mix::of_schedules(args.seed, args.schedules),
        () => Mix::of(args.seed),
    };
    let mix = if is_cluster(args) { mix.together() } else { mix };
    let spoil = match () {
        () if args.post_twice => Some(Spoil::PostTwice),
        () if args.break_fence => Some(Spoil::Fence),
        () => None,
    };
    let wanted = Wanted { seed: args.seed, scenario, plan, mix, spoil };
    // A thread of its own: its hash maps' keys and generators begin with the seed, and its stack is large.
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || simulate(wanted));
    match thread.context("no thread")?.join() {
        Ok(verdict) => verdict,
        Err(_) => anyhow::bail!("the simulation panicked"),
    }
}

/// Every other seed is a cluster, unless it has to mean what it meant before there were any.
fn is_cluster(args: &Args) -> bool {
    let is_older = args.power_at.is_some() || args.clocks || args.first_mix || args.second_mix;
    args.coordinators.map_or(!is_older && args.seed.is_multiple_of(2), |count| count > 1)
}

fn report(args: &Args, verdict: &Verdict) -> ExitCode {
    let world = verdict.world.lock();
    if args.show {
        world.log.iter().for_each(|line| println!("{line}"));
    }
    for broken in &world.broken {
        println!("broken: {broken}");
    }
    let faults: Vec<String> = world.faults.iter().map(|(kind, count)| format!("{kind}:{count}")).collect();
    println!(
        "seed {} kind {} digest {:016x} lines {} virtual_ms {} operations {} fenced {} replays {} faults {} broken {}",
        args.seed,
        if is_cluster(args) { "cluster" } else { "single" },
        world.digest(),
        world.log.len(),
        verdict.elapsed_ms,
        verdict.operations,
        verdict.fenced,
        world.replays,
        if faults.is_empty() { "none".to_owned() } else { faults.join(",") },
        world.broken.len(),
    );
    if world.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
