//! The server goes away and comes back.
use std::time::Duration;

use kapell_ledger::{ApprovalQuery, Ledger as _, LedgerError, RunQuery, RunRow, RunState};
use kapell_model::{RunId, ShardId};
use kapell_tests_servers::Postgres;

use crate::rig::{all, client, last, node, question, rebuild, row, server, until_stored, watermark};

/// Killed at some moment of a transaction, which is then there or not; it is sent again until it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_answer_was_lost_is_stored_once() {
    let Some(mut server) = server() else { return };
    let ledger = node(&server).await;
    let rows = |through: u64| {
        let row = |low: u128| RunRow {
            version: through.to_string(),
            state: RunState::ALL[through as usize % 8],
            entities: vec![format!("e:{}", through % 2)],
            approvals: vec![question(&through.to_string())],
            ..row(0, low)
        };
        (0..1_500).rev().map(row).collect::<Vec<_>>()
    };
    let (mut before, mut after) = (0, 0);
    for through in 1..=12_u64 {
        let batch = last(0, through, rows(through));
        let delay = Duration::from_millis((through - 1) * 12);
        let answer = struck(&mut server, delay, ledger.apply(batch.clone())).await;
        // Whoever looks now sees the state before or after, and the answer does not lie.
        let other = node(&server).await;
        let stored = watermark(&other, 0).await;
        assert!(
            stored == through || (stored == through - 1 && answer.is_err()),
            "{stored} of {through}: {answer:?}"
        );
        assert_eq!(all(&other).await, if stored == 0 { vec![] } else { rows(stored) });
        *(if stored == through { &mut after } else { &mut before }) += 1;
        until_stored(&ledger, &batch).await;
        until_stored(&ledger, &last(0, through, vec![row(0, 9_999)])).await;
        assert_eq!((watermark(&ledger, 0).await, all(&ledger).await), (through, rows(through)));
        let asked =
            ledger.approvals(ApprovalQuery { limit: 1_000, ..ApprovalQuery::default() }).await.unwrap();
        assert!(asked.rows.iter().all(|(_, question)| question.key == through.to_string()));
    }
    println!("killed {before} times before the commit, {after} times after it");
    assert!(before > 0, "the server was never killed in time");
}

/// What is answered although the server is killed meanwhile; then it is back.
async fn struck<T>(server: &mut Postgres, after: Duration, answer: impl Future<Output = T>) -> T {
    let (answer, ()) = tokio::join!(answer, async {
        // why: the server is to go at different moments of the work
        tokio::time::sleep(after).await;
        tokio::task::block_in_place(|| server.kill());
    });
    tokio::task::block_in_place(|| server.start_again());
    answer
}

/// Killed at some moment of it: the shard has all of its old rows, or all of its new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_built_anew_are_never_half_of_the_old_and_half_of_the_new() {
    let Some(mut server) = server() else { return };
    let rows =
        |mark: u64| (0..1_500).rev().map(|low| row(0, u128::from(mark) * 5_000 + low)).collect::<Vec<_>>();
    node(&server).await.apply(last(0, 20, rows(20))).await.unwrap();
    let (mut before, mut found) = (0, 20);
    for turn in 0..10 {
        let ledger = node(&server).await;
        // It goes back, too.
        let through = if turn % 2 == 0 { found + 5 } else { found - 3 };
        let replaced = ledger.replace(rebuild(0, (found, through), rows(through)));
        let answer = struck(&mut server, Duration::from_millis(turn * 12), replaced).await;
        let other = node(&server).await;
        let stored = watermark(&other, 0).await;
        assert!(stored == through || (stored == found && answer.is_err()), "{stored}: {answer:?}");
        assert_eq!(all(&other).await, rows(stored));
        before += u32::from(stored == found);
        found = stored;
    }
    assert!(before > 0, "the server was never killed in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_an_answer_and_one_that_is_back_is_used() {
    let Some(mut server) = server() else { return };
    let ledger = node(&server).await;
    ledger.apply(last(0, 1, vec![row(0, 1)])).await.unwrap();
    for _ in 0..2 {
        tokio::task::block_in_place(|| server.stop_immediately());
        let unavailable = |error: LedgerError| {
            let LedgerError::Unavailable { retry_after, reason } = error else { panic!("{error:?}") };
            assert!(retry_after > Duration::ZERO && reason.contains("PostgreSQL"), "{reason}");
        };
        for _ in 0..5 {
            unavailable(ledger.watermark(ShardId(0)).await.unwrap_err());
            unavailable(ledger.apply(last(0, 2, vec![])).await.unwrap_err());
            unavailable(ledger.run(RunId::new(ShardId(0), 1)).await.unwrap_err());
            unavailable(ledger.runs(RunQuery::default()).await.unwrap_err());
            unavailable(ledger.approvals(ApprovalQuery::default()).await.unwrap_err());
            unavailable(ledger.replace(rebuild(0, (1, 2), vec![])).await.unwrap_err());
        }
        tokio::task::block_in_place(|| server.start_again());
        until_stored(&ledger, &last(0, 1, vec![])).await;
        // why: the pause that the error asked for is over then
        tokio::time::sleep(Duration::from_millis(600)).await;
        for _ in 0..8 {
            assert_eq!((watermark(&ledger, 0).await, all(&ledger).await), (1, vec![row(0, 1)]));
        }
    }
}

/// A restart that nobody noticed: the connections are dead, and the next use makes new ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_closed_are_made_anew() {
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    until_stored(&ledger, &last(0, 1, vec![row(0, 1)])).await;
    let admin = client(&server).await;
    for through in 2..6 {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE application_name = 'kapell-ledger'";
        let ended: i64 = admin.query_one(end, &[]).await.unwrap().get(0);
        assert!(ended > 0);
        until_stored(&ledger, &last(0, through, vec![row(0, 1)])).await;
        assert_eq!(all(&ledger).await, [row(0, 1)]);
    }
}

/// A node that is cut off in the middle of a transaction holds the shard's watermark only for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_somebody_holds_is_waited_for() {
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    ledger.apply(last(0, 1, vec![])).await.unwrap();
    let other = client(&server).await;
    other
        .batch_execute("BEGIN; SELECT FROM kapell_ledger.watermarks WHERE shard = 0 FOR UPDATE")
        .await
        .unwrap();
    let held =
        tokio::time::timeout(Duration::from_millis(300), ledger.apply(last(0, 2, vec![row(0, 1)]))).await;
    assert!(held.is_err(), "it did not wait: {held:?}");
    assert_eq!(watermark(&ledger, 0).await, 1, "readers do not wait");
    other
        .batch_execute("UPDATE kapell_ledger.watermarks SET through = 2, told = 2 WHERE shard = 0; COMMIT")
        .await
        .unwrap();
    // Queued behind the one that nobody waits for any more.
    ledger.apply(last(1, 1, vec![])).await.unwrap();
    assert_eq!(all(&ledger).await, [], "what the other one had stored counts");
}
