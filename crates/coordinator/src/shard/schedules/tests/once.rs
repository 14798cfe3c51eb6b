//! A thousand schedules in several shards that die at any moment: each tick is one run.
use kapell_runtime::{Entropy as _, SeededEntropy};

use super::*;

const SHARDS: u16 = 4;
const SCHEDULES: usize = 1_000;
const MINUTES: u64 = 30;

/// What every schedule is, and how often they all tick in [`MINUTES`].
fn world() -> (Vec<Value>, u64) {
    let crons = ["* * * * *", "*/5 * * * *", "7 * * * *", "20 0,1 * * *"];
    let documents = (0..SCHEDULES).map(|no| {
        let spec = json!({
            "cron": crons[no % crons.len()], "workflow": if no % 3 == 0 { "work" } else { "keyed" },
            "catchup": "all", "overlap": "allow", "with": { "k": no % 7 },
        });
        document("Schedule", &format!("s{no}"), spec)
    });
    let workflows = [workflow("work", None), workflow("keyed", Some("string(event.data.k)"))];
    let each = (SCHEDULES / crons.len()) as u64;
    // At 1 to 30; at 5 to 30; at 7; at 20.
    (workflows.into_iter().chain(documents).collect(), each * (MINUTES + MINUTES / 5 + 1 + 1))
}

struct Cluster {
    definitions: Definitions,
    shards: Vec<ShardState>,
    journals: Vec<Vec<kapell_journal::Record>>,
    /// Runs that are on disk, with their ticks; each is asked for once or more.
    runs: BTreeMap<RunId, String>,
    asked: u64,
    /// By the clock that does not step.
    moment: Instant,
    dice: SeededEntropy,
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let definitions = Definitions::default();
        let changes: Vec<_> = world().0.iter().map(|document| change(document, minute(0))).collect();
        definitions.apply(&changes).unwrap();
        let shards = (0..SHARDS).map(|shard| ShardState::new(rules(shard, SHARDS))).collect();
        let (journals, runs) = (vec![vec![]; SHARDS.into()], BTreeMap::new());
        let (moment, dice) = (Instant::now(), SeededEntropy::new(seed));
        let mut cluster = Cluster { definitions, shards, journals, runs, asked: 0, moment, dice };
        (0..SHARDS.into()).for_each(|shard| cluster.take(shard, minute(0)));
        cluster
    }

    /// Somebody takes a shard over; what its last owner had not stored is lost, and what was on its way too.
    fn take(&mut self, shard: usize, now: Timestamp) {
        self.shards[shard] = load(rules(shard as u16, SHARDS), &self.journals[shard], &self.definitions);
        self.shards[shard].drive_all(now, &self.definitions.in_force());
    }

    /// One batch of a shard. Its owner may die before it is on disk, or in the middle of letting its outputs go.
    fn step(&mut self, shard: usize, now: Timestamp) {
        let in_force = self.definitions.in_force();
        self.shards[shard].fire(now, 50, &in_force);
        self.moment += OWED_AGAIN;
        self.shards[shard].ask_again(self.moment, now, &in_force);
        let records = std::mem::take(&mut self.shards[shard].records);
        let outputs = std::mem::take(&mut self.shards[shard].outputs);
        if self.dice.below(20) == 0 {
            return self.take(shard, now);
        }
        self.journals[shard].extend(records);
        let released = if self.dice.below(20) == 0 { self.dice.below(10) as usize } else { outputs.len() };
        let dies = released < outputs.len();
        for output in outputs.into_iter().take(released) {
            if let Output::StartChild(above, start) = output {
                self.start(shard, above, *start, now);
            }
        }
        if dies {
            self.take(shard, now);
        }
    }

    fn start(&mut self, shard: usize, above: ParentRef, start: StartRun, now: Timestamp) {
        self.asked += 1;
        let event = start.event.value();
        let tick = format!("{}@{}", event["source"], event["time"]);
        let known = self.runs.entry(start.run).or_insert_with(|| tick.clone());
        assert_eq!(*known, tick, "two ticks have the same run");
        let in_force = self.definitions.in_force();
        let ParentRef { run, unit, attempt } = above;
        // The answer may be lost, and so may be the end.
        if self.dice.below(10) > 0 {
            self.shards[shard].apply(Request::Confirmed(Owed::Child(run, unit, attempt)), now, &in_force);
        }
        if self.dice.below(10) > 0 {
            let result = Ok(Ending::Completed { output: Json::null() });
            let over = Command::ReportChild { unit, attempt, result };
            self.shards[shard].command(run, over, now, &in_force).unwrap();
        }
    }
}

#[test]
fn each_tick_of_a_thousand_schedules_is_one_run_whoever_dies_when_and_whatever_the_clock_says() {
    for seed in 1..=2 {
        let mut cluster = Cluster::new(seed);
        let mut now = minute(0);
        while now < minute(MINUTES) {
            // Mostly forward, sometimes far, sometimes back.
            let step = cluster.dice.below(3 * MINUTE);
            now = match cluster.dice.below(12) {
                0 => Timestamp(now.0.saturating_sub(10 * step).max(MIDNIGHT)),
                1 => Timestamp(now.0 + 5 * step),
                _ => Timestamp(now.0 + step),
            };
            now = now.min(minute(MINUTES));
            let shard = cluster.dice.below(SHARDS.into()) as usize;
            cluster.step(shard, now);
        }
        let is_quiet = |shard: &ShardState| shard.next_due() > Some(minute(MINUTES)) && shard.owed.is_empty();
        while !cluster.shards.iter().all(is_quiet) {
            now = now.after(Duration::from_secs(3)).min(Timestamp(minute(MINUTES + 1).0 - 1));
            (0..SHARDS.into()).for_each(|shard| cluster.step(shard, now));
        }
        let expected = world().1;
        let mut ticks: Vec<&String> = cluster.runs.values().collect();
        ticks.sort_unstable();
        ticks.dedup();
        assert_eq!((cluster.runs.len() as u64, ticks.len() as u64), (expected, expected), "seed {seed}");
        assert!(cluster.asked > expected, "seed {seed}: nothing was asked for twice, so nothing was tried");
        let owners = cluster.shards.iter().filter(|shard| shard.schedules.ids().count() > SCHEDULES / 8);
        assert_eq!(owners.count(), usize::from(SHARDS), "they are spread over the shards");
    }
}
