//! Servers that die, connections that break, answers that do not come.
use std::sync::Arc;
use std::time::Duration;

use kapell_journal::{AppendError, Journal as _};
use kapell_journal_postgres::{Fsync, Options, PostgresJournal};
use kapell_model::{Epoch, Seq, ShardId};
use kapell_tests_servers::Postgres;

use crate::rig::*;

/// The real thing: what is answered must be on disk.
fn durable() -> Options {
    Options { fsync: Fsync::Required, ..small() }
}

/// Appends to a shard as fast as it can, several at once, until one fails; answers how many were answered `Ok`.
async fn appender(journal: Arc<PostgresJournal>, shard: u16, from: u64) -> u64 {
    const AHEAD: usize = 4;
    let (mut next, mut durable) = (from + 1, from);
    let mut under_way = std::collections::VecDeque::new();
    loop {
        while under_way.len() < AHEAD {
            let records = vec![
                record(shard, format!("{shard}/{next}")),
                record(shard, format!("{shard}/{}", next + 1)),
            ];
            under_way.push_back(append(&journal, shard, 1, next, records));
            next += 2;
        }
        match under_way.pop_front().unwrap().await.unwrap() {
            Ok(()) => durable += 2,
            Err(AppendError::Unavailable { .. } | AppendError::Poisoned) => break,
            Err(other) => panic!("{other}"),
        }
    }
    for answer in under_way {
        assert!(answer.await.unwrap().is_err(), "nothing is durable after what failed");
    }
    durable
}

async fn check(journal: &PostgresJournal, shard: u16, acknowledged: u64) -> u64 {
    let last = acquire_when_it_is_back(journal, shard, 1).await;
    assert!(last >= Seq(acknowledged), "shard {shard}: {acknowledged} were answered, {last} are there");
    assert_eq!(last.0 % 2, 0, "a batch becomes durable as a whole");
    let found = texts(journal, shard, 0).await;
    let expected = (1..=last.0).map(|place| format!("{shard}/{place}")).collect::<Vec<_>>();
    assert_eq!(found, expected, "shard {shard}: in order, without gaps");
    last.0
}

async fn under_fire(server: &mut Postgres, options: Options, strike: impl AsyncFn(&mut Postgres)) {
    const SHARDS: u16 = 12;
    let journal = open_with(&[server.url()], options).await.unwrap();
    let mut last = vec![0; usize::from(SHARDS)];
    for round in 0..3_u64 {
        let mut appenders = Vec::new();
        for shard in 0..SHARDS {
            let at = acquire_when_it_is_back(&journal, shard, 1).await;
            assert_eq!(at.0, last[usize::from(shard)]);
            #[expect(clippy::disallowed_methods, reason = "the load of a test")]
            appenders.push(tokio::spawn(appender(journal.clone(), shard, at.0)));
        }
        // why: it shall be struck in the middle of groups, at any place in them
        tokio::time::sleep(Duration::from_millis(150 + round * 37)).await;
        strike(server).await;
        // A shard of which nothing was under way at that moment goes on.
        while appenders.iter().any(|appender| !appender.is_finished()) {
            // why: between two strikes something must get under way
            tokio::time::sleep(Duration::from_millis(40)).await;
            strike(server).await;
        }
        for (shard, appender) in (0..SHARDS).zip(appenders) {
            let acknowledged = appender.await.unwrap();
            assert!(acknowledged > last[usize::from(shard)], "shard {shard} did nothing");
            last[usize::from(shard)] = check(&journal, shard, acknowledged).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_in_the_middle_of_groups_has_all_that_was_answered() {
    let Some(mut server) = Postgres::start() else { return };
    under_fire(&mut server, durable(), async |server| {
        server.kill();
        server.start_again();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_in_the_middle_of_groups_lose_nothing_that_was_answered() {
    let Some(mut server) = quick_server() else { return };
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'kapell-journal'";
    under_fire(&mut server, small(), async |server| {
        // None are left when a strike follows close on another. The appenders end by failing, so some were cut.
        count(&client(&server.url()).await, cut).await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_dies_while_nothing_is_under_way_is_not_noticed() {
    let Some(mut server) = quick_server() else { return };
    let journal = open(&server).await;
    acquire(&journal, 1, 1).await;
    put(&journal, 1, 1, 1, "one").await.unwrap();
    server.restart();
    let behind = client(&server.url()).await;
    until(&behind, "SELECT true").await;
    assert_eq!(texts(&journal, 1, 0).await, ["one"], "a read is done again with a new connection");
    // The connections of the writers are closed; nothing was sent over them.
    match put(&journal, 1, 1, 2, "two").await {
        Ok(()) => {}
        Err(AppendError::Unavailable { .. }) => {
            assert_eq!(acquire(&journal, 1, 1).await, Seq(1));
            put(&journal, 1, 1, 2, "two").await.unwrap();
        }
        Err(other) => panic!("{other}"),
    }
    assert_eq!(texts(&journal, 1, 0).await, ["one", "two"]);
}

#[tokio::test]
async fn what_takes_too_long_is_of_unknown_outcome_and_the_next_acquisition_tells_the_truth() {
    let Some(server) = quick_server() else { return };
    let options = Options { answer_within: Duration::from_millis(300), ..small() };
    let journal = open_with(&[server.url()], options).await.unwrap();
    acquire(&journal, 1, 1).await;
    let behind = client(&server.url()).await;
    behind.batch_execute("BEGIN; LOCK TABLE kapell_journal.entries_1 IN SHARE MODE").await.unwrap();
    let refused = put(&journal, 1, 1, 1, "one").await;
    let Err(AppendError::Unavailable { reason, .. }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("57014"), "the server's own limit comes first: {reason}");
    assert_eq!(put(&journal, 1, 1, 2, "two").await, Err(AppendError::Poisoned));
    behind.batch_execute("COMMIT").await.unwrap();
    assert_eq!(acquire(&journal, 1, 1).await, Seq::ZERO);
    put(&journal, 1, 1, 1, "one").await.unwrap();
    assert_eq!(texts(&journal, 1, 0).await, ["one"]);
}

#[tokio::test]
async fn an_acquisition_that_waits_too_long_for_a_lock_says_so_and_can_be_tried_again() {
    let Some(server) = quick_server() else { return };
    let options = Options { answer_within: Duration::from_millis(300), ..small() };
    let journal = open_with(&[server.url()], options).await.unwrap();
    acquire(&journal, 1, 1).await;
    let behind = client(&server.url()).await;
    behind.batch_execute("BEGIN; SELECT * FROM kapell_journal.shards FOR UPDATE").await.unwrap();
    let refused = journal.acquire(ShardId(1), Epoch(2)).await.unwrap_err();
    assert!(refused.to_string().contains("57014"), "{refused}");
    behind.batch_execute("COMMIT").await.unwrap();
    assert_eq!(acquire(&journal, 1, 2).await, Seq::ZERO);
}

#[tokio::test]
async fn without_a_server_everything_is_refused_at_once_and_works_when_it_is_back() {
    let Some(mut server) = quick_server() else { return };
    let journal = open(&server).await;
    acquire(&journal, 1, 1).await;
    put(&journal, 1, 1, 1, "one").await.unwrap();
    server.stop_immediately();
    let refused = put(&journal, 1, 1, 2, "two").await;
    assert!(matches!(refused, Err(AppendError::Unavailable { .. })), "{refused:?}");
    assert!(journal.epoch(ShardId(1)).await.is_err());
    assert!(read(&journal, 1, 0).await.is_err());
    assert!(journal.acquire(ShardId(1), Epoch(2)).await.is_err());
    server.start_again();
    assert_eq!(acquire_when_it_is_back(&journal, 1, 2).await, Seq(1));
    put(&journal, 1, 2, 2, "two").await.unwrap();
    assert_eq!(texts(&journal, 1, 0).await, ["one", "two"]);
}

#[tokio::test]
async fn a_full_queue_is_a_typed_answer() {
    let Some(server) = quick_server() else { return };
    let options = Options { queue_bytes_max: 100_000, ..small() };
    let journal = open_with(&[server.url()], options).await.unwrap();
    acquire(&journal, 1, 1).await;
    let behind = client(&server.url()).await;
    behind.batch_execute("BEGIN; LOCK TABLE kapell_journal.entries_1 IN SHARE MODE").await.unwrap();
    let answers = (1..=20).map(|place| append(&journal, 1, 1, place, vec![record(1, vec![7; 10_000])]));
    let answers = answers.collect::<Vec<_>>();
    behind.batch_execute("COMMIT").await.unwrap();
    let mut outcomes = Vec::new();
    for answer in answers {
        outcomes.push(answer.await.unwrap());
    }
    let kept = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert!(kept > 0 && kept < 20, "{kept}");
    assert!(
        matches!(&outcomes[kept], Err(AppendError::Unavailable { reason, .. }) if reason.contains("full"))
    );
    assert!(outcomes[kept + 1..].iter().all(|outcome| *outcome == Err(AppendError::Poisoned)));
    assert_eq!(acquire(&journal, 1, 1).await, Seq(kept as u64));
}
