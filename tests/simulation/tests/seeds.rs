//! Seeds, each simulated twice in processes of its own: the promises hold, and both times the same happens.
//!
//! A failure prints the command that replays it. Fewer or more seeds: `cargo xtask sim --seeds N`.
use std::num::NonZeroUsize;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds that once showed a bug, and which: they are replayed first, for ever. By hand:
/// `cargo run -p kapell-tests-simulation -- ARGUMENTS --show`.
const PAST_BUGS: &[(&[&str], &str)] = &[
    (
        &["--first-mix", "--seed", "4"],
        "a revision applied between a worker's welcome and its subscription never reached the worker",
    ),
    (
        &["--first-mix", "--seed", "11"],
        "one run never ended; fixed together with the sessions' revisions and the call desk",
    ),
    (
        &["--first-mix", "--seed", "24"],
        "two runs never ended; finding out whether a call took effect became a read",
    ),
    (&["--second-mix", "--seed", "1", "--calm"], "a refused retry left the run in its shard, live for ever"),
    (
        &["--second-mix", "--seed", "7"],
        "a worker that came back within its lease lost its tasks until their timeout",
    ),
    (
        &["--second-mix", "--seed", "22"],
        "no checkpoint held the definitions, and they were trimmed: no start any more",
    ),
    (&["--second-mix", "--seed", "27"], "as seed 22"),
    (
        &["--second-mix", "--seed", "40"],
        "a ledger built anew left out shards whose journal was trimmed to the end",
    ),
    (
        &["--coordinators", "3", "--seed", "35"],
        "a node that had not heard that a shard was its own, and no longer wanted it, kept it from everybody",
    ),
    (
        &["--coordinators", "3", "--seed", "327"],
        "a worker never heard how its call went: the shard died after that was on disk, and was loaded anew",
    ),
    (
        &["--coordinators", "3", "--seed", "1093"],
        "a child that was canceled before it was there began later, when a start of a former owner came",
    ),
    (
        &["--coordinators", "3", "--seed", "2078"],
        "the cluster did not hear that a shard was free, was not told again, and gave it to nobody",
    ),
    (
        &["--coordinators", "3", "--seed", "276"],
        "a first try to acquire a shard came after the shard was released again: nobody could have it any more",
    ),
];

/// Seeds of one test.
const SEEDS: u64 = 200;

/// One simulation in a process of its own.
fn simulate(arguments: &[String]) -> Output {
    let command = &mut Command::new(env!("CARGO_BIN_EXE_simulation"));
    command.args(arguments).env_remove("RUST_LOG").output().expect("the simulation starts")
}

/// What is wrong with it, simulated twice.
fn failure_of(arguments: &[String]) -> Option<String> {
    let (first, second) = (simulate(arguments), simulate(arguments));
    let replay = format!("cargo run -p kapell-tests-simulation -- {} --show", arguments.join(" "));
    if !first.status.success() {
        let (out, err) = (String::from_utf8_lossy(&first.stdout), String::from_utf8_lossy(&first.stderr));
        return Some(format!("{replay}\n{out}{err}"));
    }
    (first.stdout != second.stdout).then(|| {
        let (first, second) =
            (String::from_utf8_lossy(&first.stdout), String::from_utf8_lossy(&second.stdout));
        format!("{replay}\nnot twice the same:\n{first}{second}")
    })
}

/// Simulates all, as many at once as there are processors; fails with every failure.
fn all_hold(all: &[Vec<String>]) {
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, NonZeroUsize::get) {
            scope.spawn(|| {
                while let Some(arguments) = all.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    if let Some(failure) = failure_of(arguments) {
                        failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), all.len(), failures.join("\n"));
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn past_bugs_stay_fixed() {
    all_hold(&PAST_BUGS.iter().map(|(arguments, _)| words(arguments)).collect::<Vec<_>>());
}

/// A quarter of all seeds: four tests stay well within the time that one test may take on a busy machine.
fn quarter(no: u64) {
    let first = no * SEEDS / 4 + 1;
    all_hold(
        &(first..first + SEEDS / 4).map(|seed| words(&["--seed", &seed.to_string()])).collect::<Vec<_>>(),
    );
}

#[test]
fn the_promises_hold_and_each_seed_happens_twice_alike_first_quarter() {
    quarter(0);
}

#[test]
fn the_promises_hold_and_each_seed_happens_twice_alike_second_quarter() {
    quarter(1);
}

#[test]
fn the_promises_hold_and_each_seed_happens_twice_alike_third_quarter() {
    quarter(2);
}

#[test]
fn the_promises_hold_and_each_seed_happens_twice_alike_fourth_quarter() {
    quarter(3);
}

/// Leases go by a clock that does not step: no attempt is lost, whatever the time of day says.
#[test]
fn clocks_may_step() {
    all_hold(&(1..=4).map(|seed| words(&["--clocks", "--seed", &seed.to_string()])).collect::<Vec<_>>());
}

fn schedules(seeds: std::ops::RangeInclusive<u64>, count: &str) {
    let of = |seed: u64| words(&["--schedules", count, "--seed", &seed.to_string()]);
    all_hold(&seeds.map(of).collect::<Vec<_>>());
}

/// Every minute is posted once by each schedule that leaves none out, whatever goes wrong.
#[test]
fn each_tick_of_a_schedule_is_done_once() {
    schedules(1..=20, "16");
}

#[test]
fn a_thousand_schedules_tick_together() {
    schedules(1..=1, "1000");
}

/// Power goes at every second operation of the coordinator's disk, from `first` on.
fn power_goes_from(first: u64) {
    let calm = simulate(&words(&["--seed", "1", "--power-at", "0"]));
    let text = String::from_utf8_lossy(&calm.stdout).into_owned();
    assert!(calm.status.success(), "{text}");
    let mut after = text.split_whitespace().skip_while(|word| *word != "operations").skip(1);
    let operations: u64 = after.next().expect("the last line counts operations").parse().expect("a number");
    assert!(operations > 50, "the scenario hardly writes: {text}");
    let at = (first..=operations).step_by(2).map(|at| words(&["--seed", "1", "--power-at", &at.to_string()]));
    all_hold(&at.collect::<Vec<_>>());
}

#[test]
fn the_power_of_the_coordinator_may_go_at_any_odd_operation_of_its_disk() {
    power_goes_from(1);
}

#[test]
fn the_power_of_the_coordinator_may_go_at_any_even_operation_of_its_disk() {
    power_goes_from(2);
}

/// The judge itself: a business system that posts twice must not pass.
#[test]
fn a_posting_that_is_made_twice_is_found() {
    let out = simulate(&words(&["--seed", "1", "--power-at", "0", "--post-twice"]));
    let text = String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.contains(r#"["line", "line"] was posted, not ["line"]"#), "{text}");
}

/// And a journal that takes from whoever owned a shard before, with some seed out of many: a former owner has to write,
/// which one in a hundred does.
#[test]
fn a_former_owner_that_writes_is_found() {
    let found = (61..=360).any(|seed: u64| {
        let out = simulate(&words(&["--seed", &seed.to_string(), "--coordinators", "3", "--break-fence"]));
        let text = String::from_utf8_lossy(&out.stdout);
        // The store sees it, and so does whoever only knows what the nodes were answered.
        out.status.code() == Some(1)
            && text.contains("broken: two writers: ")
            && text.contains("broken: owners of shards: ")
    });
    assert!(found, "none of three hundred seeds found it");
}
