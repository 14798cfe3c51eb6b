//! The queues in front of the threads: bounded, with a typed answer, and what was taken is done.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;
use kapell_ledger::{Ledger as _, LedgerBatch, LedgerError, Part, Rebuild, RunQuery};
use kapell_ledger_sqlite::{Mode, SqliteLedger};
use kapell_model::{Seq, ShardId};
use rusqlite::Connection;

fn batch(shard: u16) -> LedgerBatch {
    LedgerBatch { shard: ShardId(shard), through: Seq(1), runs: vec![], part: Part::Last }
}

/// Another process holds the file, so the writer cannot go on; the callers never wait for it.
#[test]
fn a_full_queue_is_an_answer_and_what_was_taken_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    let ledger = SqliteLedger::open(&path, Mode::Thread).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    block_on(async {
        // The first is taken out of the queue at once, and perhaps some of the next; then the queue fills up.
        let answers: Vec<_> = (0..2_000_u16).map(|shard| ledger.apply(batch(shard))).collect();
        assert_eq!(ledger.watermark(ShardId(0)).await, Ok(Seq::ZERO), "readers go on");
        assert!(ledger.runs(RunQuery { limit: 1, ..RunQuery::default() }).await.is_ok());
        other.execute_batch("COMMIT").unwrap();
        let answers = join_all(answers).await;
        let refused = |answer: &&Result<(), LedgerError>| match answer {
            Ok(()) => false,
            Err(LedgerError::Unavailable { reason, retry_after }) => {
                assert!(reason.contains("too many") && *retry_after > Duration::ZERO, "{reason}");
                true
            }
            Err(other) => panic!("{other:?}"),
        };
        let count = answers.iter().filter(refused).count();
        assert!((1..=2_000 - 1_024).contains(&count), "{count} were refused");
        for (shard, answer) in (0..).zip(&answers) {
            let through = ledger.watermark(ShardId(shard)).await.unwrap();
            assert_eq!(through == Seq(1), answer.is_ok(), "shard {shard}: {answer:?}");
        }
        assert_eq!(ledger.apply(batch(5_000)).await, Ok(()), "there is room again");
    });
}

/// Dropping waits for what is queued, even if nobody waits for its answer.
#[test]
fn what_is_queued_is_done_before_it_closes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    let ledger = SqliteLedger::open(&path, Mode::Thread).unwrap();
    for shard in 0..20 {
        drop(ledger.apply(batch(shard)));
    }
    drop(ledger);
    let ledger = SqliteLedger::open(&path, Mode::Inline).unwrap();
    for shard in 0..20 {
        assert_eq!(block_on(ledger.watermark(ShardId(shard))), Ok(Seq(1)), "shard {shard}");
    }
}

/// The order of the calls is the order of what happens.
#[test]
fn rows_built_anew_take_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(&dir.path().join("ledger.sqlite"), Mode::Thread).unwrap();
    block_on(async {
        let before = ledger.apply(batch(1));
        let rebuild = Rebuild { shard: ShardId(1), found: Seq(1), through: Seq(7), runs: vec![] };
        let replaced = ledger.replace(rebuild);
        let after = ledger.apply(batch(2));
        assert_eq!((before.await, replaced.await, after.await), (Ok(()), Ok(()), Ok(())));
        assert_eq!(ledger.watermark(ShardId(1)).await, Ok(Seq(7)));
        assert_eq!(ledger.watermark(ShardId(2)).await, Ok(Seq(1)));
    });
}
