//! Segments: filled, sealed, dropped, and read all the while.
use std::time::Duration;

use kapell_journal::{Journal as _, ReadError};
use kapell_journal_postgres::{Options, PostgresJournal};
use kapell_model::{Epoch, Seq, ShardId};
use tokio_postgres::Client;

use crate::rig::*;

/// Larger than a page, so that segments fill quickly.
fn thick(place: u64) -> Vec<u8> {
    let mut payload = format!("{place}:").into_bytes();
    payload.resize(3_000, b'x');
    payload
}

/// Segments are made beside the writing: it waits for them, so that there are as many as the records need.
async fn fill(
    journal: &PostgresJournal,
    behind: &Client,
    shard: u16,
    epoch: u64,
    places: std::ops::RangeInclusive<u64>,
) {
    for place in places {
        put(journal, shard, epoch, place, thick(place)).await.unwrap();
        until(behind, THE_NEWEST_HAS_ROOM).await;
    }
}

async fn checkpoint_and_trim(journal: &PostgresJournal, shard: u16, epoch: u64, through: u64) {
    let (shard, epoch, through) = (ShardId(shard), Epoch(epoch), Seq(through));
    journal.checkpoint(shard, epoch, through, vec![]).await.unwrap();
    journal.trim(shard, epoch, through).await.unwrap();
}

async fn segments(client: &Client) -> i64 {
    count(client, SEGMENTS).await
}

/// How many segments there were in all.
async fn newest(client: &Client) -> i64 {
    count(client, "SELECT max(segment)::int8 FROM kapell_journal.segments").await
}

const SEGMENTS: &str =
    "SELECT count(*) FROM pg_inherits WHERE inhparent = 'kapell_journal.entries'::regclass";
/// A segment is looked at after every second record, which may have grown it by four pages.
const THE_NEWEST_HAS_ROOM: &str = "SELECT pg_total_relation_size(('kapell_journal.entries_' || max(segment))::regclass) <= 98304 FROM kapell_journal.segments";
const ALL_BUT_THE_NEWEST_SEALED: &str = "SELECT count(*) = 1 FROM kapell_journal.segments WHERE NOT sealed AND (SELECT count(*) > 3 FROM kapell_journal.segments)";

#[tokio::test]
async fn entries_are_read_over_all_segments() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    let behind = client(&server.url()).await;
    acquire(&journal, 1, 1).await;
    acquire(&journal, 2, 1).await;
    for turn in 0..10 {
        fill(&journal, &behind, 1, 1, turn * 12 + 1..=turn * 12 + 12).await;
        fill(&journal, &behind, 2, 1, turn + 1..=turn + 1).await;
    }
    until(&behind, ALL_BUT_THE_NEWEST_SEALED).await;
    for after in [0, 1, 50, 119] {
        let found = read(&journal, 1, after).await.unwrap();
        assert_eq!(found.first().unwrap().seq, Seq(after + 1));
        assert_eq!(found.len() as u64, 120 - after);
    }
    assert_eq!(read(&journal, 2, 0).await.unwrap().len(), 10);
    assert_eq!(journal.history(run(1, 1)).await.unwrap().len(), 120);
    let again = open(&server).await;
    assert_eq!(acquire(&again, 2, 2).await, Seq(10));
}

const INDEXED: &str = "SELECT count(*) FROM kapell_journal.segments AS g JOIN pg_index AS i \
     ON i.indexrelid = to_regclass('kapell_journal.entries_' || g.segment || '_run') WHERE i.indisvalid";
const ALL_SEALED_INDEXED: &str = "SELECT count(*) FILTER (WHERE sealed) > 3 \
     AND count(*) FILTER (WHERE sealed) = count(*) FILTER (WHERE i.indisvalid) FROM kapell_journal.segments AS g \
     LEFT JOIN pg_index AS i ON i.indexrelid = to_regclass('kapell_journal.entries_' || g.segment || '_run')";

#[tokio::test]
async fn runs_are_found_in_a_segment_that_takes_entries_and_in_sealed_ones() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    let behind = client(&server.url()).await;
    acquire(&journal, 1, 1).await;
    acquire(&journal, 2, 1).await;
    put(&journal, 1, 1, 1, "first").await.unwrap();
    assert_eq!(count(&behind, INDEXED).await, 0, "an index would cost each append");
    assert_eq!(journal.history(run(1, 1)).await.unwrap().len(), 1);
    fill(&journal, &behind, 2, 1, 1..=100).await;
    put(&journal, 1, 1, 2, "last").await.unwrap();
    until(&behind, ALL_SEALED_INDEXED).await;
    assert_eq!(journal.history(run(1, 1)).await.unwrap().len(), 2);
    assert_eq!(journal.history(run(2, 1)).await.unwrap().len(), 100);
}

/// Whoever made it was stopped, or the segment is of a program that makes none.
#[tokio::test]
async fn an_index_that_was_not_finished_is_made_anew() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    let behind = client(&server.url()).await;
    acquire(&journal, 1, 1).await;
    fill(&journal, &behind, 1, 1, 1..=100).await;
    until(&behind, ALL_SEALED_INDEXED).await;
    let spoiled = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'kapell_journal.entries_1_run'::regclass; \
         DROP INDEX kapell_journal.entries_2_run";
    behind.batch_execute(spoiled).await.unwrap();
    assert_eq!(journal.history(run(1, 1)).await.unwrap().len(), 100);
    fill(&journal, &behind, 1, 1, 101..=150).await;
    until(&behind, ALL_SEALED_INDEXED).await;
    assert_eq!(journal.history(run(1, 1)).await.unwrap().len(), 150);
}

/// It is refused by the trigger and goes on in the newest, however long the index takes.
#[tokio::test]
async fn who_does_not_know_that_a_segment_is_sealed_does_not_wait_for_its_index() {
    let Some(server) = quick_server() else { return };
    let busy = open(&server).await;
    let quiet = open_with(&[server.url()], Options { segment_bytes: 1 << 40, ..small() }).await.unwrap();
    let behind = client(&server.url()).await;
    acquire(&busy, 1, 1).await;
    acquire(&quiet, 2, 1).await;
    fill(&busy, &behind, 1, 1, 1..=100).await;
    until(&behind, ALL_SEALED_INDEXED).await;
    let writes = client(&server.url()).await;
    writes.batch_execute("DROP INDEX kapell_journal.entries_1_run").await.unwrap();
    writes.batch_execute("BEGIN; LOCK TABLE kapell_journal.entries_1 IN ROW EXCLUSIVE MODE").await.unwrap();
    for place in 101..=120 {
        put(&busy, 1, 1, place, thick(place)).await.unwrap();
    }
    let is_awaited = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%entries_1_run%' \
         AND wait_event_type = 'Lock')";
    until(&behind, is_awaited).await;
    put(&quiet, 2, 1, 1, "goes on").await.unwrap();
    assert!(behind.query_one(is_awaited, &[]).await.unwrap().get::<_, bool>(0), "it was not held up");
    writes.batch_execute("COMMIT").await.unwrap();
    until(&behind, ALL_SEALED_INDEXED).await;
}

#[tokio::test]
async fn a_trim_frees_the_tables_and_keeps_what_is_needed() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    let behind = client(&server.url()).await;
    acquire(&journal, 1, 1).await;
    acquire(&journal, 2, 1).await;
    fill(&journal, &behind, 1, 1, 1..=120).await;
    fill(&journal, &behind, 2, 1, 1..=10).await;
    until(&behind, ALL_BUT_THE_NEWEST_SEALED).await;
    let before = segments(&behind).await;
    checkpoint_and_trim(&journal, 1, 1, 110).await;
    until(&behind, "SELECT to_regclass('kapell_journal.entries_1') IS NULL").await;
    // One after the other, while new ones may still be made.
    until(&behind, &format!("SELECT ({SEGMENTS}) < {before} / 2")).await;
    assert_eq!(read(&journal, 1, 0).await, Err(ReadError::Trimmed { through: Seq(110) }));
    assert_eq!(read(&journal, 1, 110).await.unwrap().len(), 10);
    assert_eq!(read(&journal, 2, 0).await.unwrap().len(), 10);
    let history = journal.history(run(1, 1)).await.unwrap();
    assert_eq!(
        history.iter().map(|placed| placed.seq.0).collect::<Vec<_>>(),
        (111..=120).collect::<Vec<_>>()
    );
    assert_eq!(acquire(&journal, 1, 2).await, Seq(120));
}

#[tokio::test]
async fn numbers_go_on_when_everything_was_trimmed_and_every_old_table_is_gone() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    let behind = client(&server.url()).await;
    acquire(&journal, 1, 1).await;
    fill(&journal, &behind, 1, 1, 1..=80).await;
    checkpoint_and_trim(&journal, 1, 1, 80).await;
    // Another shard fills the segments from here on.
    acquire(&journal, 2, 1).await;
    fill(&journal, &behind, 2, 1, 1..=80).await;
    until(&behind, "SELECT count(*) = 1 FROM kapell_journal.segments WHERE NOT sealed").await;
    checkpoint_and_trim(&journal, 2, 1, 70).await;
    until(&behind, "SELECT NOT EXISTS (SELECT FROM kapell_journal.entries WHERE shard = 1)").await;
    assert_eq!(read(&journal, 1, 80).await, Ok(vec![]));
    assert_eq!(acquire(&journal, 1, 2).await, Seq(80));
    put(&journal, 1, 2, 81, "goes on").await.unwrap();
    assert_eq!(texts(&journal, 1, 80).await, ["goes on"]);
}

#[tokio::test]
async fn a_segment_that_somebody_was_reading_is_dropped_later() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    let (behind, reader) = (client(&server.url()).await, client(&server.url()).await);
    acquire(&journal, 1, 1).await;
    fill(&journal, &behind, 1, 1, 1..=120).await;
    until(&behind, ALL_BUT_THE_NEWEST_SEALED).await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM kapell_journal.entries_1").await.unwrap();
    checkpoint_and_trim(&journal, 1, 1, 110).await;
    let waits =
        "EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'kapell_journal.entries_1'::regclass)";
    until(&behind, &format!("SELECT {waits}")).await;
    until(&behind, &format!("SELECT NOT {waits}")).await;
    reader.batch_execute("COMMIT").await.unwrap();
    until(&behind, "SELECT to_regclass('kapell_journal.entries_1') IS NULL").await;
}

#[tokio::test]
async fn a_shard_that_sleeps_does_not_keep_a_segment_from_being_dropped() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    let behind = client(&server.url()).await;
    acquire(&journal, 1, 1).await;
    acquire(&journal, 9, 1).await;
    put(&journal, 9, 1, 1, "sleeps").await.unwrap();
    // So that the one that sleeps is a small part of the first segment.
    for place in 1..=40 {
        put(&journal, 1, 1, place, "thin").await.unwrap();
    }
    fill(&journal, &behind, 1, 1, 41..=160).await;
    until(&behind, ALL_BUT_THE_NEWEST_SEALED).await;
    checkpoint_and_trim(&journal, 1, 1, 155).await;
    until(&behind, "SELECT to_regclass('kapell_journal.entries_1') IS NULL").await;
    assert_eq!(texts(&journal, 9, 0).await, ["sleeps"]);
    assert_eq!(journal.history(run(9, 1)).await.unwrap().len(), 1);
    assert_eq!(acquire(&journal, 9, 2).await, Seq(1));
    put(&journal, 9, 2, 2, "wakes").await.unwrap();
    // Moved with it, the record is in order with what came after it.
    assert_eq!(texts(&journal, 9, 0).await, ["sleeps", "wakes"]);
}

#[tokio::test]
async fn a_node_that_knows_only_a_sealed_segment_goes_on_in_the_newest() {
    let Some(server) = quick_server() else { return };
    let busy = open(&server).await;
    // This one makes no segments by itself: it writes too little to look.
    let quiet = open_with(&[server.url()], Options { segment_bytes: 1 << 40, ..small() }).await.unwrap();
    let behind = client(&server.url()).await;
    acquire(&quiet, 1, 1).await;
    put(&quiet, 1, 1, 1, "into the first").await.unwrap();
    acquire(&busy, 2, 1).await;
    fill(&busy, &behind, 2, 1, 1..=100).await;
    until(&behind, ALL_BUT_THE_NEWEST_SEALED).await;
    put(&quiet, 1, 1, 2, "into the newest").await.unwrap();
    let sql = "SELECT count(*) FROM kapell_journal.entries WHERE shard = 1 AND tableoid = 'kapell_journal.entries_1'::regclass";
    assert_eq!(count(&behind, sql).await, 1);
    assert_eq!(texts(&quiet, 1, 0).await, ["into the first", "into the newest"]);
    assert!(newest(&behind).await > 3);
}

/// What a sweep does in the end: what is needed moves to the newest segment.
async fn drop_locked(client: &Client, segment: &str) {
    let number = segment.rsplit('_').next().unwrap();
    let newest = newest(client).await;
    let sql = format!(
        "INSERT INTO kapell_journal.entries_{newest} SELECT * FROM {segment} WHERE shard = 2; \
         DELETE FROM kapell_journal.spans WHERE segment = {number}; \
         DELETE FROM kapell_journal.segments WHERE segment = {number}; DROP TABLE {segment}; COMMIT"
    );
    client.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn a_reader_goes_on_though_one_segment_after_the_other_is_dropped_under_it() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    let behind = client(&server.url()).await;
    acquire(&journal, 1, 1).await;
    acquire(&journal, 2, 1).await;
    for turn in 0..3 {
        put(&journal, 2, 1, turn + 1, "needed").await.unwrap();
        fill(&journal, &behind, 1, 1, turn * 40 + 1..=turn * 40 + 40).await;
    }
    until(&behind, ALL_BUT_THE_NEWEST_SEALED).await;
    let sql = "SELECT tableoid::regclass::text FROM kapell_journal.entries WHERE shard = 2 ORDER BY seq";
    let holding: Vec<String> = behind.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let mut reader = Box::pin(texts(&journal, 2, 0));
    let mut droppers = Vec::new();
    for segment in &holding {
        let dropper = client(&server.url()).await;
        dropper.batch_execute(&format!("BEGIN; LOCK TABLE {segment}")).await.unwrap();
        droppers.push((dropper, segment));
    }
    for (dropper, segment) in droppers {
        let waits = format!(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = '{segment}'::regclass)"
        );
        tokio::select! {
            found = &mut reader => panic!("{found:?}"),
            () = until(&behind, &waits) => {}
        }
        drop_locked(&dropper, segment).await;
    }
    assert_eq!(reader.await, ["needed", "needed", "needed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_goes_on_while_segments_come_and_go() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    let behind = client(&server.url()).await;
    acquire(&journal, 1, 1).await;
    acquire(&journal, 2, 1).await;
    put(&journal, 2, 1, 1, "always there").await.unwrap();
    let reader = {
        let journal = journal.clone();
        #[expect(clippy::disallowed_methods, reason = "the reader of a test")]
        tokio::spawn(async move {
            for round in 0..200 {
                assert_eq!(texts(&journal, 2, 0).await, ["always there"], "round {round}");
                assert_eq!(journal.history(run(2, 1)).await.unwrap().len(), 1, "round {round}");
                match read(&journal, 1, 0).await {
                    Ok(_) | Err(ReadError::Trimmed { .. }) => {}
                    Err(other) => panic!("round {round}: {other}"),
                }
            }
        })
    };
    let mut place = 0;
    while !reader.is_finished() {
        fill(&journal, &behind, 1, 1, place + 1..=place + 20).await;
        place += 20;
        checkpoint_and_trim(&journal, 1, 1, place - 5).await;
        // why: segments shall come and go at many places of a read
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    reader.await.unwrap();
    assert!(newest(&behind).await > 3, "segments came");
    assert!(segments(&behind).await < newest(&behind).await, "and went");
}

#[tokio::test]
async fn the_largest_payloads_and_long_streams_are_read_in_pieces() {
    let Some(server) = quick_server() else { return };
    let journal = open_with(&[server.url()], Options { segment_bytes: 4 << 20, ..small() }).await.unwrap();
    acquire(&journal, 1, 1).await;
    for place in 1..=12_u64 {
        put(&journal, 1, 1, place, vec![place as u8; 1 << 20]).await.unwrap();
    }
    let many = (0..10_000).map(|small| record(1, format!("{small}"))).collect();
    append(&journal, 1, 1, 13, many).await.unwrap().unwrap();
    let found = read(&journal, 1, 0).await.unwrap();
    assert_eq!(found.len(), 10_012);
    for (place, placed) in (1..=12_u64).zip(&found) {
        assert_eq!(placed.record.payload, vec![place as u8; 1 << 20]);
    }
    let states = (0..6_000).map(|low| image(1, low, &"s".repeat(1_500))).collect::<Vec<_>>();
    journal.checkpoint(ShardId(1), Epoch(1), Seq(12), states.clone()).await.unwrap();
    let images: Vec<_> = futures::TryStreamExt::try_collect(journal.images(ShardId(1))).await.unwrap();
    assert!(images == states, "6,000 images come back as they went");
}
