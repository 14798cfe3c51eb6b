//! Random operations against a model in memory: whatever is done, every backend answers as the model does.
use std::collections::BTreeMap;

use kapell_journal::{AcquireError, Acquired, AppendError, ReadError, Record, RunImage};
use kapell_model::{Epoch, RunId, Seq};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Opened, Stop, Store, image, record, run};

const SHARDS: u16 = 3;
const RUNS: u128 = 6;

#[derive(Clone, Debug)]
enum Step {
    Acquire { shard: u16, ahead: u64 },
    Append { shard: u16, runs: Vec<u128>, bytes: usize },
    AppendStale { shard: u16 },
    AppendAhead { shard: u16 },
    Checkpoint { shard: u16, back: u64, runs: Vec<(u128, bool)> },
    Trim { shard: u16, back: u64 },
    Stop(Stop),
}

fn step() -> impl Strategy<Value = Step> {
    let shard = 0..SHARDS;
    let runs = proptest::collection::vec(0..RUNS, 1..5);
    let changed = proptest::collection::vec((0..RUNS, any::<bool>()), 0..5);
    prop_oneof![
        3 => (shard.clone(), 0..3_u64).prop_map(|(shard, ahead)| Step::Acquire { shard, ahead }),
        12 => (shard.clone(), runs, 0..3000_usize)
            .prop_map(|(shard, runs, bytes)| Step::Append { shard, runs, bytes }),
        1 => shard.clone().prop_map(|shard| Step::AppendStale { shard }),
        1 => shard.clone().prop_map(|shard| Step::AppendAhead { shard }),
        4 => (shard.clone(), 0..4_u64, changed)
            .prop_map(|(shard, back, runs)| Step::Checkpoint { shard, back, runs }),
        2 => (shard, 0..3_u64).prop_map(|(shard, back)| Step::Trim { shard, back }),
        1 => Just(Step::Stop(Stop::Clean)),
        2 => any::<u64>().prop_map(|seed| Step::Stop(Stop::Crash { seed })),
    ]
}

#[derive(Default)]
struct Shard {
    epoch: u64,
    open: bool,
    records: Vec<Record>,
    checkpointed: u64,
    trimmed: u64,
    images: BTreeMap<RunId, RunImage>,
}

impl Shard {
    fn last(&self) -> u64 {
        self.records.len() as u64
    }

    fn admit(&self) -> Result<(), AppendError> {
        if self.open { Ok(()) } else { Err(AppendError::Poisoned) }
    }
}

/// Runs the comparison on fresh stores. Panics with the shortest list of steps that shows a difference.
pub fn compare(histories: u32, make: &mut dyn FnMut() -> Option<Box<dyn Store>>) {
    let config = Config { cases: histories, failure_persistence: None, ..Config::default() };
    let make = std::cell::RefCell::new(make);
    let steps = proptest::collection::vec(step(), 1..60);
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        if let Some(mut store) = (make.borrow_mut())() {
            compare_one(&mut *store, &steps);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

fn compare_one(store: &mut dyn Store, steps: &[Step]) {
    let mut opened = Opened::new(store);
    let mut shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::default()).collect();
    for step in steps {
        match step {
            Step::Stop(how) => {
                opened.reopen(*how);
                shards.iter_mut().for_each(|shard| shard.open = false);
                check(&opened, &shards);
            }
            Step::Acquire { shard, ahead } => {
                acquire(&opened, *shard, &mut shards[usize::from(*shard)], *ahead)
            }
            Step::Append { shard, runs, bytes } => {
                append(&opened, *shard, &mut shards[usize::from(*shard)], runs, *bytes);
            }
            Step::AppendStale { shard } => {
                let model = &shards[usize::from(*shard)];
                let stale =
                    opened.append(*shard, model.epoch + 1, model.last() + 1, vec![record(*shard, 0, "?")]);
                assert_eq!(stale, Err(AppendError::Fenced { held_by: Epoch(model.epoch) }));
            }
            Step::AppendAhead { shard } => append_ahead(&opened, *shard, &mut shards[usize::from(*shard)]),
            Step::Checkpoint { shard, back, runs } => {
                checkpoint(&opened, *shard, &mut shards[usize::from(*shard)], *back, runs);
            }
            Step::Trim { shard, back } => trim(&opened, *shard, &mut shards[usize::from(*shard)], *back),
        }
    }
    check(&opened, &shards);
}

fn acquire(opened: &Opened<'_>, shard: u16, model: &mut Shard, ahead: u64) {
    // From one behind, which must be refused, to one ahead.
    let epoch = (model.epoch + ahead).saturating_sub(1);
    let found = opened.acquire(shard, epoch.max(1));
    if epoch.max(1) < model.epoch {
        assert_eq!(found, Err(AcquireError::Fenced { held_by: Epoch(model.epoch) }));
        return;
    }
    let (last, checkpointed) = (Seq(model.last()), Seq(model.checkpointed));
    let trimmed = found.as_ref().map_or(Seq::ZERO, |found| found.trimmed);
    assert_eq!(found, Ok(Acquired { last, checkpointed, trimmed }));
    assert!(trimmed.0 <= model.trimmed, "{trimmed} of {}", model.trimmed);
    model.epoch = epoch.max(1);
    model.open = true;
}

fn append(opened: &Opened<'_>, shard: u16, model: &mut Shard, runs: &[u128], bytes: usize) {
    let records: Vec<Record> =
        runs.iter().map(|low| record(shard, *low, &format!("{low}{}", "y".repeat(bytes)))).collect();
    let done = opened.append(shard, model.epoch, model.last() + 1, records.clone());
    if model.epoch == 0 {
        // Epoch 0 is nobody: it equals the one that holds the shard, but never acquired it.
        assert_eq!(done, Err(AppendError::Poisoned));
        return;
    }
    assert_eq!(done, model.admit());
    if done.is_ok() {
        model.records.extend(records);
    }
}

fn append_ahead(opened: &Opened<'_>, shard: u16, model: &mut Shard) {
    let (expected, got) = (Seq(model.last() + 1), Seq(model.last() + 2));
    let done = opened.append(shard, model.epoch, got.0, vec![record(shard, 0, "?")]);
    let refused = model.admit().and(Err(AppendError::OutOfOrder { expected, got }));
    assert_eq!(done, refused);
    model.open = false;
}

fn checkpoint(opened: &Opened<'_>, shard: u16, model: &mut Shard, back: u64, runs: &[(u128, bool)]) {
    let through = model.last().saturating_sub(back);
    let state = format!("at {through}");
    let changed: Vec<RunImage> =
        runs.iter().map(|(low, kept)| image(shard, *low, kept.then_some(state.as_str()))).collect();
    let done = opened.checkpoint(shard, model.epoch, through, changed.clone());
    let (expected, got) = (Seq(model.checkpointed), Seq(through));
    let order = if got < expected { Err(AppendError::OutOfOrder { expected, got }) } else { Ok(()) };
    assert_eq!(done, model.admit().and(order));
    if done.is_ok() {
        model.checkpointed = through;
        for image in changed {
            match &image.state {
                Some(_) => drop(model.images.insert(image.run, image)),
                None => drop(model.images.remove(&image.run)),
            }
        }
    }
}

fn trim(opened: &Opened<'_>, shard: u16, model: &mut Shard, back: u64) {
    // One beyond the checkpoint must be refused.
    let through = (model.checkpointed + 1).saturating_sub(back);
    let done = opened.trim(shard, model.epoch, through);
    let (expected, got) = (Seq(model.checkpointed), Seq(through));
    let order = if got > expected { Err(AppendError::OutOfOrder { expected, got }) } else { Ok(()) };
    assert_eq!(done, model.admit().and(order));
    if done.is_ok() {
        model.trimmed = model.trimmed.max(through);
    }
}

fn check(opened: &Opened<'_>, shards: &[Shard]) {
    for (shard, model) in shards.iter().enumerate() {
        let shard = shard as u16;
        let epoch = futures::executor::block_on(opened.journal().epoch(kapell_model::ShardId(shard)));
        assert_eq!(epoch, Ok(Epoch(model.epoch)));
        for after in [0, model.trimmed, model.checkpointed, model.last()] {
            match opened.read(shard, after) {
                Ok(read) => {
                    assert!(read.iter().zip(after + 1..).all(|(placed, seq)| placed.seq.0 == seq));
                    let records: Vec<Record> = read.into_iter().map(|placed| placed.record).collect();
                    assert_eq!(records, model.records[after as usize..], "shard {shard} after {after}");
                }
                Err(ReadError::Trimmed { through }) => {
                    assert!(after < through.0 && through.0 <= model.trimmed, "shard {shard}: {through}");
                }
                Err(other) => panic!("shard {shard} after {after}: {other}"),
            }
        }
        let images: Vec<RunImage> = model.images.values().cloned().collect();
        assert_eq!(opened.images(shard).unwrap(), images);
        for low in 0..RUNS {
            check_history(opened, run(shard, low), model);
        }
    }
}

/// What is kept of a run's history is a tail of it that holds at least what was not trimmed.
fn check_history(opened: &Opened<'_>, run: RunId, model: &Shard) {
    let history = opened.history(run).unwrap();
    let all: Vec<(u64, &Record)> =
        (1..).zip(&model.records).filter(|(_, record)| record.run == run).collect();
    let needed = all.iter().filter(|(seq, _)| *seq > model.trimmed).count();
    assert!(history.len() >= needed && history.len() <= all.len());
    let tail = &all[all.len() - history.len()..];
    assert!(
        history
            .iter()
            .zip(tail)
            .all(|(placed, (seq, record))| placed.seq.0 == *seq && placed.record == **record)
    );
}
