//! Who writes: the journal's thread, or a caller that finds nothing else to do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::sync::{Arc, Barrier, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

use kapell_journal::{AppendError, Batch, Journal as _};
use kapell_journal_local::fault::{Fault, FaultDisk};
use kapell_journal_local::{Driver, LocalJournal, Options};
use kapell_model::{Epoch, Seq, ShardId};
use support::*;

/// Appends in a row of which a lone caller surely writes some: it may come while the thread is still at its last group.
const MANY: u64 = 500;

fn threaded(disk: &FaultDisk) -> LocalJournal {
    let options = Options { caller_flush_max: Duration::from_millis(1), ..options() };
    LocalJournal::open(Arc::new(disk.clone()), options, Driver::Thread).unwrap()
}

/// Appends one record; what is to be done with the answer.
fn append_then(
    journal: &LocalJournal,
    (shard, seq): (u16, u64),
    then: impl FnOnce(Result<(), AppendError>) + Send + 'static,
) {
    let records = records(shard, seq, 1, 100);
    let batch = Batch { shard: ShardId(shard), epoch: Epoch(1), first: Seq(seq), records };
    journal.append(batch, Box::new(then));
}

/// Appends `count` records; answers what came of it, and who said so.
fn who_wrote(
    journal: &LocalJournal,
    shard: u16,
    first: u64,
    count: u64,
) -> (ThreadId, Result<(), AppendError>) {
    let (done, answer) = mpsc::channel();
    let records = records(shard, first, count, 100);
    let batch = Batch { shard: ShardId(shard), epoch: Epoch(1), first: Seq(first), records };
    journal.append(batch, Box::new(move |outcome| done.send((thread::current().id(), outcome)).unwrap()));
    answer.recv().unwrap()
}

/// Appends from `first` on until one is written by the caller; answers the next place.
fn until_it_writes(journal: &LocalJournal, shard: u16, first: u64) -> u64 {
    let here = thread::current().id();
    let wrote = (first..first + MANY).find(|seq| who_wrote(journal, shard, *seq, 1).0 == here);
    wrote.expect("a caller that is alone writes") + 1
}

#[test]
fn a_lone_caller_writes_itself_and_others_wait_for_it_in_their_order() {
    let journal = Arc::new(threaded(&FaultDisk::new()));
    acquire(&journal, 0, 1).unwrap();
    acquire(&journal, 1, 1).unwrap();
    let here = thread::current().id();
    assert_ne!(who_wrote(&journal, 0, 1, 1).0, here, "nobody knows yet how fast the disk is");
    let next = until_it_writes(&journal, 0, 2);

    // What comes while a caller writes is for the thread, and is answered after what came before it.
    let (said, order) = mpsc::channel();
    let within = Arc::clone(&journal);
    let later = [(0, next + 1), (1, 1)];
    append_then(&journal, (0, next), move |outcome| {
        for (shard, seq) in later {
            let said = said.clone();
            append_then(&within, (shard, seq), move |outcome| {
                said.send((shard, seq, outcome, thread::current().id() == here)).unwrap();
            });
        }
        said.send((0, next, outcome, thread::current().id() == here)).unwrap();
    });
    let answers: Vec<_> = order.iter().collect();
    let expected = [(0, next, Ok(()), true), (0, next + 1, Ok(()), false), (1, 1, Ok(()), false)];
    assert_eq!(answers, expected);
    assert_eq!(assert_whole(&journal, 0, 0, 100), next + 1);
}

#[test]
fn a_slow_disk_or_much_to_write_is_for_the_thread() {
    let disk = FaultDisk::new();
    let journal = threaded(&disk);
    acquire(&journal, 0, 1).unwrap();
    let here = thread::current().id();
    let next = until_it_writes(&journal, 0, 1);
    assert_ne!(who_wrote(&journal, 0, next, 100).0, here, "a hundred records");

    disk.set_sync_takes(Duration::from_millis(2));
    let next = next + 100;
    let held_up = (next..next + MANY).filter(|seq| who_wrote(&journal, 0, *seq, 1).0 == here);
    assert!(held_up.count() <= 1, "once, before anybody knows");
    disk.set_sync_takes(Duration::ZERO);
    until_it_writes(&journal, 0, next + MANY);
}

#[test]
fn a_flush_that_fails_under_a_caller_closes_every_shard() {
    let disk = FaultDisk::new();
    let journal = threaded(&disk);
    acquire(&journal, 0, 1).unwrap();
    acquire(&journal, 1, 1).unwrap();
    let next = until_it_writes(&journal, 0, 1);
    disk.inject_on(".log", Fault::SyncError);
    let (who, outcome) = who_wrote(&journal, 0, next, 1);
    assert_eq!(who, thread::current().id());
    assert!(matches!(outcome, Err(AppendError::Unavailable { .. })), "{outcome:?}");
    assert_eq!(who_wrote(&journal, 1, 1, 1).1, Err(AppendError::Poisoned));
    assert_eq!(acquire(&journal, 0, 1).unwrap().last, Seq(next - 1));
    assert_eq!(who_wrote(&journal, 0, next, 1).1, Ok(()));
    assert_eq!(assert_whole(&journal, 0, 0, 100), next);
}

#[test]
fn a_callback_that_panics_under_a_caller_closes_the_journal_and_hangs_nobody() {
    let journal = threaded(&FaultDisk::new());
    acquire(&journal, 0, 1).unwrap();
    let next = until_it_writes(&journal, 0, 1);
    let panicking = || append_then(&journal, (0, next), |_| panic!("as a test"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panicking)).is_err());
    let (_, outcome) = who_wrote(&journal, 0, next + 1, 1);
    assert!(matches!(outcome, Err(AppendError::Unavailable { .. })), "{outcome:?}");
}

#[test]
fn many_callers_that_come_and_go_lose_nothing_and_keep_their_order() {
    const CALLERS: u16 = 4;
    const APPENDS: u64 = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(kapell_journal_local::RealDisk::open(dir.path()).unwrap());
    let caller_flush_max = Duration::from_secs(1);
    let options = Options { segment_bytes: 1 << 20, caller_flush_max, ..options() };
    let journal = LocalJournal::open(disk, options, Driver::Thread).unwrap();
    let (start, callers) = (Barrier::new(CALLERS.into()), 0..CALLERS);
    let by_caller: Vec<u64> = thread::scope(|scope| {
        let (journal, start) = (&journal, &start);
        let threads: Vec<_> = callers
            .map(|shard| {
                scope.spawn(move || {
                    acquire(journal, shard, 1).unwrap();
                    start.wait();
                    let mut own = 0;
                    for seq in 1..=APPENDS / u64::from(shard + 1) {
                        let (who, outcome) = who_wrote(journal, shard, seq, 1);
                        outcome.unwrap();
                        own += u64::from(who == thread::current().id());
                    }
                    own
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Each is alone for a while at the end; what matters is that both ways were gone.
    let written: u64 = (1..=u64::from(CALLERS)).map(|part| APPENDS / part).sum();
    assert!((1..written).contains(&by_caller.iter().sum()), "{by_caller:?} of {written}");
    for shard in 0..CALLERS {
        assert_eq!(assert_whole(&journal, shard, 0, 100), APPENDS / u64::from(shard + 1));
    }
}
