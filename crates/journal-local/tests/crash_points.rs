//! Power loss at every single operation on the disk: what was answered is there, in order, without a gap.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use kapell_journal_local::LocalJournal;
use kapell_journal_local::fault::{Crash, FaultDisk};
use kapell_model::Seq;
use support::*;

const BYTES: usize = 700;
const SHARDS: u16 = 2;

/// What the caller was promised, and what it tried last.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    epoch: u64,
    last: u64,
    tried: u64,
    checkpointed: u64,
    checkpoint_tried: u64,
    trim_tried: u64,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Acquire(u16),
    Append(u16, u64),
    Checkpoint(u16),
    Trim(u16),
}

fn act(journal: &LocalJournal, act: Act, all: &mut [Promised]) -> bool {
    match act {
        Act::Acquire(shard) => {
            let promised = &mut all[usize::from(shard)];
            let done = acquire(journal, shard, promised.epoch + 1).is_ok();
            promised.epoch += u64::from(done);
            done
        }
        Act::Append(shard, count) => {
            let promised = &mut all[usize::from(shard)];
            promised.tried = promised.last + count;
            let records = records(shard, promised.last + 1, count, BYTES);
            let done = append(journal, (shard, promised.epoch), promised.last + 1, records).is_ok();
            promised.last += if done { count } else { 0 };
            done
        }
        Act::Checkpoint(shard) => {
            let promised = &mut all[usize::from(shard)];
            promised.checkpoint_tried = promised.last;
            let done = checkpoint(journal, shard, promised.epoch, promised.last).is_ok();
            promised.checkpointed = if done { promised.last } else { promised.checkpointed };
            done
        }
        Act::Trim(shard) => {
            let promised = &mut all[usize::from(shard)];
            promised.trim_tried = promised.checkpointed;
            trim(journal, shard, promised.epoch, promised.checkpointed).is_ok()
        }
    }
}

/// Acts until something fails.
fn act_all(journal: &LocalJournal, acts: &[Act], all: &mut [Promised]) {
    for next in acts {
        if !act(journal, *next, all) {
            break;
        }
    }
}

/// That all promises are kept, and that work can go on.
fn assert_kept(disk: &FaultDisk, all: &[Promised], context: &str) {
    let journal = match try_open(disk) {
        Ok(journal) => journal,
        Err(error) => panic!("{context}: {error:?}"),
    };
    for (shard, promised) in all.iter().enumerate() {
        let shard = shard as u16;
        let found = acquire(&journal, shard, promised.epoch + 2).unwrap_or_else(|e| panic!("{context}: {e}"));
        assert!(found.last >= Seq(promised.last), "{context}: {found:?} {promised:?}");
        assert!(found.last <= Seq(promised.tried.max(promised.last)), "{context}: {found:?} {promised:?}");
        let checkpointed = found.checkpointed.0;
        assert!(
            checkpointed == promised.checkpointed || checkpointed == promised.checkpoint_tried,
            "{context}: {found:?} {promised:?}"
        );
        let kept = if checkpointed == 0 { Vec::new() } else { image_of(shard, checkpointed) };
        assert_eq!(images(&journal, shard).unwrap(), kept, "{context}");
        let after = promised.trim_tried.min(checkpointed);
        assert_eq!(assert_whole(&journal, shard, after, BYTES), found.last.0, "{context}");
        let next = found.last.0 + 1;
        append(&journal, (shard, promised.epoch + 2), next, records(shard, next, 1, BYTES)).unwrap();
        assert_eq!(assert_whole(&journal, shard, after, BYTES), next, "{context}");
    }
    // Once more, after a power loss that leaves nothing unsynced.
    drop(journal);
    disk.crash(Crash::LoseUnsynced);
    let journal = open(disk);
    for (shard, promised) in all.iter().enumerate() {
        let found = acquire(&journal, shard as u16, promised.epoch + 3).unwrap();
        assert!(found.last > Seq(promised.last), "{context}");
    }
}

fn hows() -> impl Iterator<Item = Crash> {
    [Crash::LoseUnsynced, Crash::KeepUnsynced].into_iter().chain((1..=6).map(|seed| Crash::Random { seed }))
}

fn prepared(before: &[Act]) -> (FaultDisk, LocalJournal, Vec<Promised>) {
    let disk = FaultDisk::new();
    let journal = open(&disk);
    let mut all = vec![Promised::default(); usize::from(SHARDS)];
    act_all(&journal, before, &mut all);
    (disk, journal, all)
}

/// Does `before` in peace, then `acts` with power loss at each of their operations in turn. Answers how many there were.
fn crash_everywhere(before: &[Act], acts: &[Act]) -> u64 {
    let (disk, journal, mut all) = prepared(before);
    let start = disk.operations();
    act_all(&journal, acts, &mut all);
    let count = disk.operations() - start;
    drop(journal);
    assert_kept(&disk, &all, "without a crash");
    for operation in 1..=count {
        for how in hows() {
            let (disk, journal, mut all) = prepared(before);
            disk.crash_at(start + operation);
            act_all(&journal, acts, &mut all);
            drop(journal);
            assert!(disk.is_crashed(), "operation {operation} of {count} was not reached");
            disk.crash(how);
            assert_kept(&disk, &all, &format!("operation {operation} of {count}, {how:?}"));
        }
    }
    count
}

fn acquired() -> Vec<Act> {
    (0..SHARDS).map(Act::Acquire).collect()
}

/// Both shards appended to in turn, about `segments` segments full.
fn filled(segments: usize) -> Vec<Act> {
    let mut acts = acquired();
    acts.extend((0..segments * 14).map(|turn| Act::Append(turn as u16 % SHARDS, 1)));
    acts
}

#[test]
fn crash_at_every_operation_of_acquire_and_append() {
    let mut acts = acquired();
    acts.extend([
        Act::Append(0, 1),
        Act::Append(1, 5),
        Act::Append(0, 3),
        Act::Acquire(0),
        Act::Append(0, 2),
    ]);
    assert!(crash_everywhere(&[], &acts) >= 14);
}

#[test]
fn crash_at_every_operation_of_a_roll() {
    let acts: Vec<Act> = (0..20).map(|turn| Act::Append(turn % SHARDS, 2)).collect();
    assert!(crash_everywhere(&filled(1), &acts) > 40);
}

#[test]
fn crash_at_every_operation_of_an_append_larger_than_a_segment() {
    let acts = [Act::Append(0, 40), Act::Append(1, 1), Act::Append(0, 1)];
    assert!(crash_everywhere(&filled(1), &acts) > 6);
}

#[test]
fn crash_at_every_operation_of_checkpoints_and_their_merging() {
    let mut acts = Vec::new();
    for _ in 0..6 {
        acts.extend([Act::Append(0, 1), Act::Checkpoint(0), Act::Append(1, 1), Act::Checkpoint(1)]);
    }
    assert!(crash_everywhere(&acquired(), &acts) > 60);
}

#[test]
fn crash_at_every_operation_of_a_trim() {
    let acts = [
        Act::Checkpoint(0),
        Act::Checkpoint(1),
        Act::Trim(0),
        Act::Trim(1),
        Act::Append(0, 1),
        Act::Checkpoint(0),
        Act::Trim(0),
    ];
    assert!(crash_everywhere(&filled(4), &acts) > 15);
}

#[test]
fn crash_at_every_operation_of_opening_after_a_crash() {
    let mut before = filled(2);
    before.extend([Act::Checkpoint(0), Act::Append(0, 1), Act::Checkpoint(0), Act::Append(1, 2)]);
    for first in hows().take(4) {
        let crashed = || {
            let (disk, journal, mut all) = prepared(&before);
            disk.crash_at(disk.operations() + 1);
            act_all(&journal, &[Act::Append(0, 6)], &mut all);
            drop(journal);
            disk.crash(first);
            (disk, all)
        };
        let (disk, _) = crashed();
        let start = disk.operations();
        drop(open(&disk));
        let count = disk.operations() - start;
        assert!(count > 5);
        for operation in 1..=count {
            for second in hows().take(5) {
                let (disk, all) = crashed();
                disk.crash_at(start + operation);
                drop(try_open(&disk));
                disk.crash(second);
                assert_kept(&disk, &all, &format!("{first:?}, operation {operation} of opening, {second:?}"));
            }
        }
    }
}

#[test]
fn crash_at_every_operation_of_healing_after_a_failed_flush() {
    use kapell_journal_local::fault::Fault;
    let healing = |disk: &FaultDisk, journal: &LocalJournal, all: &mut [Promised]| {
        disk.inject_on(".log", Fault::SyncError);
        assert!(!act(journal, Act::Append(0, 3), all));
        let start = disk.operations();
        (start, [Act::Acquire(0), Act::Append(0, 1), Act::Acquire(1), Act::Append(1, 1)])
    };
    let (disk, journal, mut all) = prepared(&filled(1));
    let (start, acts) = healing(&disk, &journal, &mut all);
    act_all(&journal, &acts, &mut all);
    let count = disk.operations() - start;
    assert!(count > 8);
    for operation in 1..=count {
        for how in hows() {
            let (disk, journal, mut all) = prepared(&filled(1));
            let (start, acts) = healing(&disk, &journal, &mut all);
            disk.crash_at(start + operation);
            let tried = all[0].tried;
            act_all(&journal, &acts, &mut all);
            all[0].tried = all[0].tried.max(tried);
            drop(journal);
            disk.crash(how);
            assert_kept(&disk, &all, &format!("operation {operation} of {count}, {how:?}"));
        }
    }
}
