//! Several nodes share the ledger.
use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use kapell_ledger::{ApprovalQuery, Ledger as _, LedgerError, RunQuery, RunRow, RunState};
use kapell_ledger_postgres::{CONNECTIONS, PostgresLedger};
use kapell_model::{RunId, Seq, ShardId, Timestamp};
use kapell_runtime::Jobs;

use crate::rig::{
    all, client, empty, last, more, node, question, rebuild, row, server, until_stored, watermark,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_that_apply_for_one_shard_one_is_first_and_the_other_changes_nothing() {
    let Some(server) = server() else { return };
    let nodes = [node(&server).await, node(&server).await];
    for through in 1..=40_u64 {
        // Whose batch it is stands in the low bit of its runs.
        let batch = |who: u128| {
            let runs = (0..20).map(|low| row(0, u128::from(through) * 100 + low * 2 + who)).collect();
            last(0, through, runs)
        };
        // They take turns in being asked first.
        let turn = usize::from(through % 2 == 0);
        let stored = join_all([turn, 1 - turn].map(|who| nodes[who].apply(batch(who as u128)))).await;
        assert_eq!(stored, [Ok(()), Ok(())]);
        assert_eq!(watermark(&nodes[0], 0).await, through);
    }
    let mut winners = BTreeSet::new();
    let rows = all(&nodes[0]).await;
    let low = |row: &RunRow| u128::from_be_bytes(row.run.to_bytes()) & 0xffff;
    for through in 1..=40_u128 {
        let of_batch: Vec<u128> = rows.iter().map(low).filter(|low| low / 100 == through).collect();
        let who = of_batch[0] % 2;
        assert_eq!(of_batch.len(), 20, "batch {through} was stored {of_batch:?}");
        assert!(of_batch.iter().all(|low| low % 2 == who), "batch {through} was mixed: {of_batch:?}");
        winners.insert(who);
    }
    assert_eq!(winners.len(), 2, "both nodes were first at times, or nothing was tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_a_former_owner_does_not_replace_what_the_next_one_told() {
    let Some(server) = server() else { return };
    let (former, next) = (node(&server).await, node(&server).await);
    let is = |state: RunState| RunRow { state, ..row(0, 1) };
    next.apply(more(0, 9, vec![is(RunState::Completed)])).await.unwrap();
    former.apply(more(0, 7, vec![is(RunState::Running), row(0, 2)])).await.unwrap();
    former.apply(last(0, 8, vec![is(RunState::Waiting)])).await.unwrap();
    assert_eq!((watermark(&next, 0).await, all(&next).await), (0, vec![is(RunState::Completed)]));
    next.apply(last(0, 9, vec![row(0, 3)])).await.unwrap();
    assert_eq!((watermark(&next, 0).await, all(&next).await), (9, vec![row(0, 3), is(RunState::Completed)]));
}

/// Groups of many shards, in any order, on several nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_apply_for_the_same_shards_do_not_block_each_other() {
    let Some(server) = server() else { return };
    let nodes = try_join_all((0..3).map(|_| async { Ok::<_, ()>(node(&server).await) })).await.unwrap();
    for through in 1..=20_u64 {
        let applied = nodes.iter().enumerate().flat_map(|(who, ledger)| {
            let shards: Vec<u16> = if who % 2 == 0 { (0..8).collect() } else { (0..8).rev().collect() };
            // The same runs come from every shard, as no coordinator does it: the worst case for locks.
            let runs = || (0..10).map(|low| row(9, low)).collect();
            shards.into_iter().map(move |shard| ledger.apply(last(shard, through, runs())))
        });
        let applied = tokio::time::timeout(Duration::from_secs(20), join_all(applied)).await.unwrap();
        assert!(applied.iter().all(Result::is_ok), "{applied:?}");
    }
    for shard in 0..8 {
        assert_eq!(watermark(&nodes[0], shard).await, 20);
    }
}

/// The walk of one node meets what others store meanwhile; the contract has the same test with one node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_walk_is_complete_while_another_node_changes_rows() {
    let Some(server) = server() else { return };
    let (reader, writer) = (node(&server).await, node(&server).await);
    let old: Vec<RunRow> =
        (0..200).map(|low| RunRow { approvals: vec![question("q")], ..row(0, low) }).collect();
    reader.apply(last(0, 1, old.clone())).await.unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let write = async {
        let mut through = 1;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            through += 1;
            let state = RunState::ALL[through as usize % 8];
            let changed = old.iter().map(|row| RunRow { state, ..row.clone() });
            let new = (0..5).map(|at| row(1, u128::from(through) * 8 + at));
            writer.apply(last(0, through, changed.chain(new).collect())).await.unwrap();
        }
        through
    };
    let walk = async {
        for limit in [7, 40] {
            let query = RunQuery { limit, ..RunQuery::default() };
            let seen: Vec<RunId> = walk_runs(&reader, query).await;
            let distinct: BTreeSet<RunId> = seen.iter().copied().collect();
            assert_eq!(distinct.len(), seen.len(), "a run was listed twice");
            assert!(old.iter().all(|row| distinct.contains(&row.run)), "a run was missed");
            let asked = walk_questions(&reader, limit).await;
            let distinct: BTreeSet<RunId> = asked.iter().copied().collect();
            assert_eq!((distinct.len(), asked.len()), (old.len(), old.len()), "each question once");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (through, ()) = tokio::join!(write, walk);
    assert!(through > 5, "nothing changed during the walk");
}

async fn walk_runs(ledger: &PostgresLedger, mut query: RunQuery) -> Vec<RunId> {
    let mut seen = Vec::new();
    loop {
        let page = ledger.runs(query.clone()).await.unwrap();
        seen.extend(page.rows.iter().map(|row| row.run));
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return seen,
        }
    }
}

async fn walk_questions(ledger: &PostgresLedger, limit: usize) -> Vec<RunId> {
    let (mut seen, mut query) = (Vec::new(), ApprovalQuery { limit, ..ApprovalQuery::default() });
    loop {
        let page = ledger.approvals(query.clone()).await.unwrap();
        seen.extend(page.rows.iter().map(|(row, _)| row.run));
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return seen,
        }
    }
}

/// Its news wait until what they build on is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_wait_until_a_ledger_that_went_back_has_come_as_far() {
    let Some(server) = server() else { return };
    let (operator, owner) = (node(&server).await, node(&server).await);
    owner.apply(last(3, 5, vec![row(3, 1), row(3, 2)])).await.unwrap();
    empty(&server).await;
    let news = last(3, 6, vec![row(3, 3)]);
    let reason = refused(owner.apply(news.clone()).await);
    assert!(reason.contains("kapell ledger rebuild"), "{reason}");
    assert_eq!(all(&operator).await, []);
    // A shard that this node does not know of is not held back.
    owner.apply(last(4, 1, vec![])).await.unwrap();
    // Not yet as far as the other node was.
    operator.replace(rebuild(3, (0, 4), vec![row(3, 1)])).await.unwrap();
    refused(owner.apply(news.clone()).await);
    operator.replace(rebuild(3, (4, 5), vec![row(3, 1), row(3, 2)])).await.unwrap();
    owner.apply(news).await.unwrap();
    assert_eq!(all(&owner).await, [row(3, 3), row(3, 2), row(3, 1)]);
    assert_eq!(watermark(&operator, 3).await, 6);
}

fn refused(answer: Result<(), LedgerError>) -> String {
    let Err(LedgerError::Unavailable { reason, retry_after }) = answer else { panic!("{answer:?}") };
    assert!(retry_after > Duration::ZERO);
    reason
}

/// Whoever loads a shard asks how far it is and tells everything from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_asks_how_far_an_emptied_ledger_is_may_tell_it_everything() {
    let Some(server) = server() else { return };
    let owner = node(&server).await;
    owner.apply(last(3, 5, vec![row(3, 1)])).await.unwrap();
    empty(&server).await;
    refused(owner.apply(last(3, 6, vec![row(3, 2)])).await);
    assert_eq!(owner.contained(ShardId(3)).await, Ok(Seq::ZERO));
    refused(owner.apply(last(3, 6, vec![row(3, 2)])).await);
    assert_eq!(watermark(&owner, 3).await, 0);
    owner.apply(last(3, 6, vec![row(3, 1), row(3, 2)])).await.unwrap();
    assert_eq!(all(&owner).await, [row(3, 2), row(3, 1)]);
}

/// The node that folded a shard lost it, and its new owner is telling what changed: the first parts would be gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_built_anew_are_refused_while_another_node_is_telling_more_in_parts() {
    let Some(server) = server() else { return };
    let (former, owner) = (node(&server).await, node(&server).await);
    owner.apply(last(3, 5, vec![row(3, 1)])).await.unwrap();
    owner.apply(more(3, 9, vec![row(3, 2)])).await.unwrap();
    refused(former.replace(rebuild(3, (5, 8), vec![row(3, 1)])).await);
    assert_eq!(all(&former).await, [row(3, 2), row(3, 1)]);
    // Who has read as far as is being told knows it all, and what else is told is no news.
    former.replace(rebuild(3, (5, 9), vec![row(3, 1), row(3, 2), row(3, 3)])).await.unwrap();
    owner.apply(last(3, 9, vec![row(3, 4)])).await.unwrap();
    assert_eq!(all(&former).await, [row(3, 3), row(3, 2), row(3, 1)]);
    owner.apply(last(3, 10, vec![row(3, 4)])).await.unwrap();
    assert_eq!(all(&former).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_built_anew_among_applies_and_readers_are_all_of_one_moment() {
    let Some(server) = server() else { return };
    let (operator, owner) = (node(&server).await, node(&server).await);
    let rows = |through: u64| {
        let row = |low| RunRow {
            version: through.to_string(),
            accepted: Timestamp(low as u64),
            entities: vec!["e:1".to_owned()],
            approvals: vec![question("q")],
            ..row(0, low)
        };
        (0..300).map(row).collect::<Vec<_>>()
    };
    let (mut through, mut replaced) = (0, 0);
    for turn in 0..16 {
        // Half of the time nobody else writes.
        let ahead = if turn % 2 == 0 { 0 } else { 3 };
        let batches = (1..=ahead).map(|ahead| last(0, through + ahead, rows(through + ahead)));
        let apply = join_all(batches.map(|batch| owner.apply(batch)));
        let read =
            join_all((0..6).map(|_| operator.approvals(ApprovalQuery { limit: 50, ..Default::default() })));
        let rebuild = operator.replace(rebuild(0, (through, through + 1), rows(through + 1)));
        let (applied, rebuilt, read) = tokio::join!(apply, rebuild, read);
        assert!(read.iter().all(Result::is_ok), "{read:?}");
        assert!(applied.iter().all(Result::is_ok), "{applied:?}");
        match rebuilt {
            Ok(()) => replaced += 1,
            overtaken => assert!(ahead > 0 && refused(overtaken).contains("fold it again")),
        }
        through = watermark(&owner, 0).await;
        let found = all(&owner).await;
        assert_eq!(found.len(), 300);
        assert!(
            found.iter().all(|row| row.version == through.to_string()),
            "of another moment than {through}"
        );
        let by_entity = RunQuery { entity: Some("e:1".to_owned()), limit: 1_000, ..RunQuery::default() };
        assert_eq!(owner.runs(by_entity).await.unwrap().rows.len(), found.len());
    }
    assert!(replaced >= 8, "{replaced}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_together_make_the_tables_once() {
    let Some(server) = server() else { return };
    let url = server.url();
    let opened = join_all((0..6).map(|_| async { PostgresLedger::open(&url, &Jobs::new()).await })).await;
    for ledger in opened {
        let ledger = ledger.unwrap();
        until_stored(&ledger, &last(0, 1, vec![row(0, 1)])).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_no_more_connections_than_it_says() {
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    let batches = (0..20).map(|shard| last(shard, 1, vec![row(shard, 1)]));
    let applied = join_all(batches.map(|batch| ledger.apply(batch)));
    let asked = join_all((0..50).map(|shard| ledger.watermark(ShardId(shard))));
    let (applied, asked) = tokio::join!(applied, asked);
    assert!(applied.iter().all(Result::is_ok) && asked.iter().all(Result::is_ok));
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kapell-ledger'";
    let count: i64 = client(&server).await.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(count, CONNECTIONS as i64);
}
