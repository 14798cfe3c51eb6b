//! Two nodes, one shard: only one can write, whatever the other believes.

use kapell_journal::{AcquireError, AppendError, Journal as _};
use kapell_model::{Epoch, Seq, ShardId};

use crate::rig::*;

/// An insert stops when its first row is about to be stored, for as long as somebody holds the lock.
const WAIT_IN_THE_MIDDLE: &str = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
     $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$; \
     CREATE TRIGGER wait BEFORE INSERT ON kapell_journal.entries_1 FOR EACH ROW EXECUTE FUNCTION wait()";

#[tokio::test]
async fn a_node_that_slept_through_its_successor_is_fenced_by_name() {
    let Some(server) = quick_server() else { return };
    let (asleep, successor) = (open(&server).await, open(&server).await);
    acquire(&asleep, 3, 5).await;
    put(&asleep, 3, 5, 1, "before").await.unwrap();
    assert_eq!(acquire(&successor, 3, 9).await, Seq(1));
    put(&successor, 3, 9, 2, "after").await.unwrap();
    let fenced = Err(AppendError::Fenced { held_by: Epoch(9) });
    assert_eq!(put(&asleep, 3, 5, 2, "stale").await, fenced);
    assert_eq!(put(&asleep, 3, 5, 3, "stale").await, fenced, "and so is all that follows");
    let shard = ShardId(3);
    assert_eq!(asleep.checkpoint(shard, Epoch(5), Seq(1), vec![image(3, 1, "stale")]).await, fenced);
    let refused = AcquireError::Fenced { held_by: Epoch(9) };
    assert_eq!(asleep.acquire(shard, Epoch(5)).await, Err(refused));
    assert_eq!(texts(&successor, 3, 0).await, ["before", "after"]);
    put(&successor, 3, 9, 3, "goes on").await.unwrap();
}

#[tokio::test]
async fn a_stale_checkpoint_or_trim_changes_nothing_though_the_node_believes_in_it() {
    let Some(server) = quick_server() else { return };
    let (asleep, successor) = (open(&server).await, open(&server).await);
    let shard = ShardId(3);
    acquire(&asleep, 3, 5).await;
    put(&asleep, 3, 5, 1, "one").await.unwrap();
    asleep.checkpoint(shard, Epoch(5), Seq(1), vec![image(3, 1, "first")]).await.unwrap();
    acquire(&successor, 3, 6).await;
    let fenced = Err(AppendError::Fenced { held_by: Epoch(6) });
    assert_eq!(asleep.checkpoint(shard, Epoch(5), Seq(1), vec![image(3, 1, "stale")]).await, fenced);
    assert_eq!(asleep.trim(shard, Epoch(5), Seq(1)).await, fenced);
    let images: Vec<_> = futures::TryStreamExt::try_collect(successor.images(shard)).await.unwrap();
    assert_eq!(images, [image(3, 1, "first")]);
    assert_eq!(texts(&successor, 3, 0).await, ["one"]);
}

#[tokio::test]
async fn the_same_epoch_acquired_elsewhere_closes_the_shard_here() {
    let Some(server) = quick_server() else { return };
    let (one, other) = (open(&server).await, open(&server).await);
    acquire(&one, 3, 5).await;
    acquire(&other, 3, 5).await;
    assert_eq!(put(&one, 3, 5, 1, "late").await, Err(AppendError::Poisoned));
    put(&other, 3, 5, 1, "right").await.unwrap();
    assert_eq!(acquire(&one, 3, 5).await, Seq(1), "and it can be acquired back");
    put(&one, 3, 5, 2, "right again").await.unwrap();
}

#[tokio::test]
async fn a_stale_shard_in_a_group_does_not_hold_back_the_others() {
    let Some(server) = quick_server() else { return };
    let options = kapell_journal_postgres::Options { writers: 1, ..small() };
    let node = open_with(&[server.url()], options).await.unwrap();
    let successor = open(&server).await;
    for shard in 0..8 {
        acquire(&node, shard, 1).await;
    }
    acquire(&successor, 5, 2).await;
    let behind = client(&server.url()).await;
    // A transaction sees what others do as it was when it looked first.
    let watcher = client(&server.url()).await;
    // The writer waits here, so that everything else goes into one group.
    behind.batch_execute("BEGIN; LOCK TABLE kapell_journal.entries_1 IN SHARE MODE").await.unwrap();
    let mut answers = vec![append(&node, 0, 1, 1, vec![record(0, "first")])];
    until(&watcher, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").await;
    answers.extend((1..8).map(|shard| append(&node, shard, 1, 1, vec![record(shard, "of the group")])));
    behind.batch_execute("COMMIT").await.unwrap();
    for (shard, answer) in answers.into_iter().enumerate() {
        let expected = if shard == 5 { Err(AppendError::Fenced { held_by: Epoch(2) }) } else { Ok(()) };
        assert_eq!(answer.await.unwrap(), expected, "shard {shard}");
    }
    // One transaction id for all of them: it was one group.
    let groups = "SELECT count(DISTINCT xmin::text) FROM kapell_journal.entries WHERE shard > 0";
    assert_eq!(count(&behind, groups).await, 1);
    assert_eq!(texts(&node, 5, 0).await, Vec::<String>::new());
    put(&node, 6, 1, 2, "goes on").await.unwrap();
}

#[tokio::test]
async fn an_insert_under_way_is_waited_for_and_counted_by_the_next_owner() {
    let Some(server) = quick_server() else { return };
    let (old, new) = (open(&server).await, open(&server).await);
    let (behind, watcher) = (client(&server.url()).await, client(&server.url()).await);
    acquire(&old, 1, 1).await;
    put(&old, 1, 1, 1, "one").await.unwrap();
    // The insert holds its owner's fence and waits in the middle.
    behind.batch_execute(WAIT_IN_THE_MIDDLE).await.unwrap();
    behind.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1)").await.unwrap();
    let answer = append(&old, 1, 1, 2, vec![record(1, "two")]);
    until(&watcher, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").await;
    let acquired = {
        let new = new.clone();
        #[expect(clippy::disallowed_methods, reason = "the other node of a test")]
        tokio::spawn(async move { acquire(&new, 1, 2).await })
    };
    until(&watcher, "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").await;
    behind.batch_execute("COMMIT").await.unwrap();
    assert_eq!(answer.await.unwrap(), Ok(()), "it was first at the fence");
    assert_eq!(acquired.await.unwrap(), Seq(2));
    assert_eq!(put(&old, 1, 1, 3, "late").await, Err(AppendError::Fenced { held_by: Epoch(2) }));
    put(&new, 1, 2, 3, "next").await.unwrap();
    assert_eq!(texts(&new, 1, 0).await, ["one", "two", "next"]);
}

#[tokio::test]
async fn whoever_locks_the_row_of_a_shard_holds_up_who_takes_it_and_nobody_who_has_it() {
    let Some(server) = quick_server() else { return };
    let (node, next) = (open(&server).await, open(&server).await);
    acquire(&node, 1, 1).await;
    let (behind, watcher) = (client(&server.url()).await, client(&server.url()).await);
    behind
        .batch_execute("BEGIN; SELECT * FROM kapell_journal.shards WHERE shard = 1 FOR UPDATE")
        .await
        .unwrap();
    put(&node, 1, 1, 1, "one").await.unwrap();
    let mut taken = Box::pin(acquire(&next, 1, 2));
    assert!(futures::poll!(&mut taken).is_pending());
    until(&watcher, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").await;
    put(&node, 1, 1, 2, "two").await.unwrap();
    behind.batch_execute("COMMIT").await.unwrap();
    assert_eq!(taken.await, Seq(2));
}

/// How version 1.0 takes a shard. It does not know that there are fences.
const TAKE_OF_OLD: &str = "INSERT INTO kapell_journal.shards AS s (shard, epoch, generation) VALUES (1, 2, 1) \
     ON CONFLICT (shard) DO UPDATE SET epoch = excluded.epoch, generation = s.generation + 1 \
     WHERE s.epoch <= excluded.epoch RETURNING s.generation";

/// And how it appends one record.
const APPEND_OF_OLD: &str = "WITH held AS MATERIALIZED (SELECT shard FROM kapell_journal.shards \
       WHERE shard = 1 AND epoch = 2 FOR SHARE SKIP LOCKED) \
     INSERT INTO kapell_journal.entries_1 (shard, seq, run, crc, payload) \
     SELECT 1, 2, '00000000-0000-0000-0000-000000000000', 0, '' FROM held";

#[tokio::test]
async fn a_program_from_before_fences_ours_and_ours_fences_it() {
    let Some(server) = quick_server() else { return };
    let node = open(&server).await;
    acquire(&node, 1, 1).await;
    acquire(&node, 2, 1).await;
    put(&node, 1, 1, 1, "ours").await.unwrap();
    let (old, watcher) = (client(&server.url()).await, client(&server.url()).await);
    old.batch_execute(TAKE_OF_OLD).await.unwrap();
    assert_eq!(put(&node, 1, 1, 2, "stale").await, Err(AppendError::Fenced { held_by: Epoch(2) }));
    put(&node, 2, 1, 1, "goes on").await.unwrap();
    // Its append is under way when ours takes the shard back.
    assert_eq!(old.execute(APPEND_OF_OLD, &[]).await.unwrap(), 1);
    old.batch_execute("BEGIN; SELECT * FROM kapell_journal.shards WHERE shard = 1 AND epoch = 2 FOR SHARE")
        .await
        .unwrap();
    let mut taken = Box::pin(acquire(&node, 1, 3));
    assert!(futures::poll!(&mut taken).is_pending());
    until(&watcher, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").await;
    old.batch_execute("COMMIT").await.unwrap();
    assert_eq!(taken.await, Seq(2), "with what the other one stored");
    assert_eq!(old.execute(APPEND_OF_OLD, &[]).await.unwrap(), 0, "it is fenced");
    put(&node, 1, 3, 3, "ours again").await.unwrap();
}

#[tokio::test]
async fn an_owner_without_shards_is_forgotten_after_a_day_and_may_come_back() {
    let Some(server) = quick_server() else { return };
    let (node, other) = (open(&server).await, open(&server).await);
    acquire(&node, 1, 1).await;
    acquire(&other, 1, 2).await;
    put(&other, 1, 2, 1, "one").await.unwrap();
    let behind = client(&server.url()).await;
    let owners = "SELECT count(DISTINCT owner) FROM kapell_journal.fences";
    assert_eq!(count(&behind, owners).await, 2);
    behind.batch_execute("UPDATE kapell_journal.fences SET since = now() - interval '2 days'").await.unwrap();
    other.checkpoint(ShardId(1), Epoch(2), Seq(1), vec![]).await.unwrap();
    other.trim(ShardId(1), Epoch(2), Seq(1)).await.unwrap();
    until(&behind, &format!("SELECT ({owners}) = 1")).await;
    put(&other, 1, 2, 2, "who has shards is not").await.unwrap();
    assert_eq!(acquire(&node, 1, 3).await, Seq(2));
    put(&node, 1, 3, 3, "back").await.unwrap();
    assert_eq!(put(&other, 1, 2, 3, "stale").await, Err(AppendError::Fenced { held_by: Epoch(3) }));
}

/// Two nodes take shards from each other without a pause while both append. Whatever was answered is there, once and in
/// its order, and whoever takes a shard knows of it.
#[tokio::test(flavor = "multi_thread")]
async fn shards_that_change_hands_all_the_time_lose_nothing_and_gain_nothing() {
    const SHARDS: u16 = 8;
    const TAKES: u64 = 60;
    let Some(server) = quick_server() else { return };
    let nodes = [open(&server).await, open(&server).await];
    let taken = futures::future::join_all((0..SHARDS).map(|shard| {
        let nodes = nodes.clone();
        async move {
            let mut answered = Seq::ZERO;
            let mut left: Vec<(Seq, _)> = Vec::new();
            for epoch in 1..=TAKES {
                let node = &nodes[(epoch as usize + usize::from(shard)) % 2];
                let last = acquire(node, shard, epoch).await;
                for (seq, answer) in left.drain(..) {
                    let outcome: Result<Result<(), AppendError>, _> = answer.await;
                    if outcome.unwrap().is_ok() {
                        answered = answered.max(seq);
                    }
                }
                assert!(last >= answered, "shard {shard}: {answered} was answered, {last} was found");
                answered = last;
                let mut next = last.next();
                for _ in 0..3 {
                    left.push((
                        next,
                        append(node, shard, epoch, next.0, vec![record(shard, next.to_string())]),
                    ));
                    next = next.next();
                }
            }
            answered
        }
    }))
    .await;
    for (shard, last) in (0..SHARDS).zip(taken) {
        let texts = texts(&nodes[0], shard, 0).await;
        assert!(texts.len() as u64 >= last.0, "shard {shard}");
        assert!(
            texts.iter().zip(1..).all(|(text, seq): (&String, u64)| *text == seq.to_string()),
            "{texts:?}"
        );
    }
}
