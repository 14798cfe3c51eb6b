//! A process or a machine that stops: what is left is the state after some batch, rows and watermark together.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs;
use std::path::Path;

use futures::executor::block_on;
use kapell_ledger::{ApprovalRow, Ledger as _, LedgerBatch, Part, RunQuery, RunRow, RunState};
use kapell_ledger_sqlite::{Mode, SqliteLedger};
use kapell_model::{Json, Name, RunId, Seq, ShardId, Timestamp};

/// All rows say of which batch they are.
fn batch(through: u64) -> LedgerBatch {
    let approvals = |low: u128| {
        let step = format!("{through}");
        let row = |key: &str| ApprovalRow {
            key: key.to_owned(),
            step: step.clone(),
            kind: "step".to_owned(),
            ask: "?".to_owned(),
            show: Json::null(),
            expires: None,
        };
        if (low as u64 + through).is_multiple_of(3) { vec![row("a"), row("b")] } else { vec![] }
    };
    let runs = (0..50).map(|low| RunRow {
        run: RunId::new(ShardId(0), low),
        namespace: Name::default_namespace(),
        workflow: Name::new("w").unwrap(),
        version: format!("{through}"),
        key: None,
        state: RunState::ALL[through as usize % 8],
        accepted: Timestamp(low as u64),
        ended: None,
        error: None,
        output: None,
        outcome: None,
        parent: None,
        entities: vec![format!("e:{}", through % 4)],
        approvals: approvals(low),
    });
    LedgerBatch { shard: ShardId(0), through: Seq(through), runs: runs.collect(), part: Part::Last }
}

fn check(path: &Path) -> u64 {
    let ledger = SqliteLedger::open(path, Mode::Inline).unwrap();
    let through = block_on(ledger.watermark(ShardId(0))).unwrap().0;
    let entity = Some(format!("e:{}", through % 4));
    for query in [RunQuery::default(), RunQuery { entity, ..RunQuery::default() }] {
        let mut found = block_on(ledger.runs(RunQuery { limit: 1_000, ..query })).unwrap().rows;
        found.reverse();
        let expected = if through == 0 { vec![] } else { batch(through).runs };
        assert_eq!(found, expected, "the rows are not those of batch {through}");
    }
    // It goes on from there.
    block_on(ledger.apply(batch(through + 1))).unwrap();
    assert_eq!(
        block_on(ledger.run(RunId::new(ShardId(0), 7))).unwrap().unwrap().version,
        format!("{}", through + 1)
    );
    through
}

/// The log is cut where the power may have failed: at every frame, and in the middle of frames.
#[test]
fn a_log_that_is_cut_anywhere_leaves_the_state_after_some_batch() {
    const BATCHES: u64 = 12;
    const FRAME_BYTES: usize = 8192 + 24;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    let ledger = SqliteLedger::open(&path, Mode::Thread).unwrap();
    for through in 1..=BATCHES {
        block_on(ledger.apply(batch(through))).unwrap();
    }
    let file = fs::read(&path).unwrap();
    let log = fs::read(dir.path().join("ledger.sqlite-wal")).unwrap();
    assert!(log.len() > BATCHES as usize * FRAME_BYTES, "the log was moved into the file, nothing to cut");
    let mut seen = std::collections::BTreeSet::new();
    for (turn, cut) in (0..=log.len()).step_by(FRAME_BYTES / 2).chain([log.len()]).enumerate() {
        let left = dir.path().join(format!("left-{turn}.sqlite"));
        fs::write(&left, &file).unwrap();
        fs::write(dir.path().join(format!("left-{turn}.sqlite-wal")), &log[..cut]).unwrap();
        let through = check(&left);
        assert!(seen.last().is_none_or(|last| through >= *last), "more log, fewer batches");
        seen.insert(through);
    }
    assert_eq!(seen, (0..=BATCHES).collect(), "every state was met");
}

/// What was answered is there for the next process, though nobody closed anything.
#[test]
fn a_process_that_forgets_to_close_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    for turn in 0..3 {
        let ledger = SqliteLedger::open(&path, Mode::Thread).unwrap();
        let through = block_on(ledger.watermark(ShardId(0))).unwrap().0;
        assert_eq!(through, turn * 2);
        block_on(ledger.apply(batch(through + 1))).unwrap();
        std::mem::forget(ledger);
        assert_eq!(check(&path), through + 1);
    }
}
