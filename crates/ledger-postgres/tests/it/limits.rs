//! Rows at the limits, and what is more than a queue holds.
use std::time::Duration;

use futures::future::join_all;
use kapell_ledger::{
    ApprovalQuery, ApprovalRow, Cursor, Ledger as _, LedgerError, OUTPUT_BYTES_MAX, RunQuery, RunRow,
};
use kapell_model::{Json, Name};

use crate::rig::{all, client, last, node, question, rebuild, row, server, watermark};

#[tokio::test]
async fn an_output_at_the_limit_is_kept_and_a_larger_one_is_left_out() {
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    let output = |bytes: usize| Some(Json::string(&"x".repeat(bytes - 2)));
    let kept = RunRow { output: output(OUTPUT_BYTES_MAX), ..row(0, 2) };
    let large = RunRow { output: output(OUTPUT_BYTES_MAX + 1), ..row(0, 1) };
    ledger.apply(last(0, 1, vec![kept.clone(), large.clone()])).await.unwrap();
    assert_eq!(all(&ledger).await, [kept, RunRow { output: None, ..large }]);
}

/// Longer than an index entry may be, and with characters that PostgreSQL does not store.
#[tokio::test]
async fn texts_of_any_length_and_character_are_stored_and_found() {
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    // Random enough that PostgreSQL cannot make it short.
    let long = |seed: u64| {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            char::from(b'!' + (state >> 58) as u8)
        };
        (0..20_000).map(|_| next()).collect::<String>()
    };
    let strange = "a\0b\u{1}c\u{2}\u{10ffff}'\"\\";
    let told = |key: &str| RunRow {
        key: Some(key.to_owned()),
        error: Some((strange.to_owned(), long(5))),
        outcome: Some(strange.to_owned()),
        version: strange.to_owned(),
        entities: vec![long(2), strange.to_owned(), String::new()],
        approvals: vec![
            ApprovalRow { ask: long(3), step: strange.to_owned(), ..question(strange) },
            question(&long(4)),
        ],
        ..row(0, key.len() as u128)
    };
    let rows = [told(&long(1)), told(strange), told("\0")];
    ledger.apply(last(0, 1, rows.to_vec())).await.unwrap();
    for row in &rows {
        assert_eq!(ledger.run(row.run).await.unwrap().as_ref(), Some(row));
        let by_key = RunQuery { key: row.key.clone(), limit: 10, ..RunQuery::default() };
        assert_eq!(ledger.runs(by_key).await.unwrap().rows, std::slice::from_ref(row));
    }
    for entity in &rows[0].entities {
        let by_entity = RunQuery { entity: Some(entity.clone()), limit: 10, ..RunQuery::default() };
        assert_eq!(ledger.runs(by_entity).await.unwrap().rows, rows);
    }
    let asked = ledger.approvals(ApprovalQuery { limit: 10, ..ApprovalQuery::default() }).await.unwrap().rows;
    let keys: Vec<&str> = asked.iter().map(|(_, asked)| asked.key.as_str()).collect();
    let mut sorted = [strange, &long(4)];
    sorted.sort_unstable();
    assert_eq!(keys, sorted.repeat(3));
}

#[tokio::test]
async fn an_entity_that_is_named_twice_is_found_once() {
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    let twice = RunRow { entities: vec!["e".to_owned(), "f".to_owned(), "e".to_owned()], ..row(0, 1) };
    ledger.apply(last(0, 1, vec![twice.clone()])).await.unwrap();
    let by_entity = RunQuery { entity: Some("e".to_owned()), limit: 10, ..RunQuery::default() };
    assert_eq!(ledger.runs(by_entity).await.unwrap().rows, [twice]);
}

/// More bytes than one statement takes, more rows than one statement takes, in one transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_many_statements_is_stored_together() {
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    let show = Json::string(&"x".repeat(1 << 20));
    let asking =
        |low| RunRow { approvals: vec![ApprovalRow { show: show.clone(), ..question("q") }], ..row(0, low) };
    let large: Vec<RunRow> = (0..24).map(asking).collect();
    ledger.apply(last(0, 1, large.clone())).await.unwrap();
    let found =
        ledger.approvals(ApprovalQuery { limit: 100, ..ApprovalQuery::default() }).await.unwrap().rows;
    assert!(found.iter().map(|(row, _)| row).eq(&large));
    let many: Vec<RunRow> = (0..9_000).map(|low| row(1, low)).collect();
    ledger.apply(last(1, 1, many)).await.unwrap();
    assert_eq!((watermark(&ledger, 1).await, all(&ledger).await.len()), (1, 9_024));
}

#[tokio::test]
async fn a_namespace_without_rows_is_empty_and_so_is_one_before_or_behind_all_others() {
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    let in_namespace =
        |name: &str| RunQuery { namespace: Name::new(name).ok(), limit: 10, ..RunQuery::default() };
    let asked_in =
        |name: &str| ApprovalQuery { namespace: Name::new(name).ok(), limit: 10, ..ApprovalQuery::default() };
    for rows in [vec![], vec![RunRow { approvals: vec![question("q")], ..row(0, 1) }]] {
        ledger.apply(last(0, rows.len() as u64 + 1, rows)).await.unwrap();
        for name in ["a", "retai", "retaim", "z"] {
            assert_eq!(ledger.runs(in_namespace(name)).await.unwrap().rows, []);
            assert_eq!(ledger.approvals(asked_in(name)).await.unwrap().rows, []);
        }
    }
    assert_eq!(ledger.runs(in_namespace("retail")).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn a_cursor_that_no_page_gave_is_refused_without_asking_the_server() {
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    drop(server);
    for bad in ["", "00", "'; DROP SCHEMA kapell_ledger CASCADE; --"] {
        let cursor = Some(Cursor(bad.to_owned()));
        let runs = ledger.runs(RunQuery { cursor: cursor.clone(), ..RunQuery::default() }).await;
        assert!(matches!(runs, Err(LedgerError::BadCursor(_))), "`{bad}`: {runs:?}");
        let asked = ledger.approvals(ApprovalQuery { cursor, ..ApprovalQuery::default() }).await;
        assert!(matches!(asked, Err(LedgerError::BadCursor(_))), "`{bad}`: {asked:?}");
    }
}

/// More batches than may wait.
const TOLD: u16 = 5_000;

/// Somebody holds the tables, so the writer cannot go on; the callers never wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_an_answer_and_what_was_taken_is_done() {
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    let other = client(&server).await;
    other.batch_execute("BEGIN; LOCK TABLE kapell_ledger.watermarks IN EXCLUSIVE MODE").await.unwrap();
    let answers: Vec<_> = (0..TOLD).map(|shard| ledger.apply(last(shard, 1, vec![row(shard, 1)]))).collect();
    assert_eq!(watermark(&ledger, 0).await, 0, "readers go on");
    other.batch_execute("COMMIT").await.unwrap();
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
    assert!((1..=usize::from(TOLD) - 4_096).contains(&count), "{count} were refused");
    for (shard, answer) in (0..).zip(&answers) {
        assert_eq!(watermark(&ledger, shard).await == 1, answer.is_ok(), "shard {shard}: {answer:?}");
    }
    assert_eq!(ledger.apply(last(TOLD - 1, 2, vec![])).await, Ok(()), "there is room again");
}

/// The order of the calls is the order of what happens.
#[tokio::test]
async fn rows_built_anew_take_their_turn() {
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    let (before, replaced) =
        (ledger.apply(last(1, 1, vec![row(1, 1)])), ledger.replace(rebuild(1, (1, 7), vec![])));
    let after = ledger.apply(last(2, 1, vec![row(2, 1)]));
    assert_eq!((before.await, replaced.await, after.await), (Ok(()), Ok(()), Ok(())));
    assert_eq!((watermark(&ledger, 1).await, watermark(&ledger, 2).await), (7, 1));
    assert_eq!(all(&ledger).await, [row(2, 1)]);
}
