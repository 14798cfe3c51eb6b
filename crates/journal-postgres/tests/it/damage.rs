//! What somebody does to the tables by hand is found, and named.
use kapell_journal::{AcquireError, Journal as _, ReadError, RunImage};
use kapell_model::{Epoch, Seq, ShardId};

use crate::rig::*;

fn place(error: &ReadError) -> (String, u64, String) {
    match error {
        ReadError::Corrupt { segment, offset, reason } => (segment.clone(), *offset, reason.clone()),
        other @ (ReadError::Unavailable { .. } | ReadError::Trimmed { .. }) => panic!("{other:?}"),
    }
}

/// A shard with ten records, the first five of which are covered by a checkpoint.
async fn ten(journal: &kapell_journal_postgres::PostgresJournal) {
    acquire(journal, 7, 1).await;
    let records = (1..=10).map(|place| record(7, format!("record {place}"))).collect();
    append(journal, 7, 1, 1, records).await.unwrap().unwrap();
    journal.checkpoint(ShardId(7), Epoch(1), Seq(5), vec![image(7, 1, "five")]).await.unwrap();
}

#[tokio::test]
async fn a_payload_that_was_changed_fails_its_checksum_and_is_named() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    ten(&journal).await;
    let behind = client(&server.url()).await;
    for change in ["payload = 'forged'", "run = '00070000000000000000000000000002'", "crc = crc + 1"] {
        let sql = format!("UPDATE kapell_journal.entries SET {change} WHERE shard = 7 AND seq = 8");
        behind
            .batch_execute(&format!("CREATE TABLE kept AS TABLE kapell_journal.entries; {sql}"))
            .await
            .unwrap();
        let (segment, offset, reason) = place(&read(&journal, 7, 0).await.unwrap_err());
        assert!(segment.contains("kapell_journal.entries") && segment.contains("shard 7"), "{segment}");
        assert_eq!((offset, reason.as_str()), (8, "the entry fails its checksum"), "{change}");
        assert_eq!(texts(&journal, 7, 8).await.len(), 2, "what comes after it is still good");
        let restore = "UPDATE kapell_journal.entries AS e SET run = k.run, payload = k.payload, crc = k.crc \
             FROM kept AS k WHERE k.shard = e.shard AND k.seq = e.seq; DROP TABLE kept";
        behind.batch_execute(restore).await.unwrap();
        assert_eq!(texts(&journal, 7, 0).await.len(), 10);
    }
    behind.batch_execute("UPDATE kapell_journal.entries SET payload = 'x' WHERE seq = 8").await.unwrap();
    assert_eq!(place(&journal.history(run(7, 1)).await.unwrap_err()).1, 8, "history finds it too");
}

#[tokio::test]
async fn a_record_that_is_gone_is_a_gap_wherever_it_was() {
    let Some(server) = quick_server() else { return };
    let behind = client(&server.url()).await;
    for missing in [1_u64, 6, 10] {
        let journal = open(&server).await;
        ten(&journal).await;
        let sql = format!("DELETE FROM kapell_journal.entries WHERE shard = 7 AND seq = {missing}");
        behind.batch_execute(&sql).await.unwrap();
        let found = place(&read(&journal, 7, 0).await.unwrap_err());
        assert_eq!((found.1, found.2.as_str()), (missing, "the entry is missing"));
        behind.batch_execute("DROP SCHEMA kapell_journal CASCADE").await.unwrap();
    }
}

#[tokio::test]
async fn the_records_before_a_gap_are_handed_out() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    ten(&journal).await;
    let behind = client(&server.url()).await;
    behind.batch_execute("DELETE FROM kapell_journal.entries WHERE seq = 6").await.unwrap();
    let mut records = journal.read(ShardId(7), Seq(2));
    let mut before = Vec::new();
    let error = loop {
        match futures::StreamExt::next(&mut records).await.unwrap() {
            Ok(placed) => before.push(placed.seq.0),
            Err(error) => break error,
        }
    };
    assert_eq!((before, place(&error).1), (vec![3, 4, 5], 6));
}

#[tokio::test]
async fn a_checkpoint_without_its_records_is_found_when_the_shard_is_acquired() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    ten(&journal).await;
    let behind = client(&server.url()).await;
    behind.batch_execute("DELETE FROM kapell_journal.entries WHERE seq > 3").await.unwrap();
    match journal.acquire(ShardId(7), Epoch(2)).await {
        Err(AcquireError::Read(error)) => assert!(place(&error).2.contains("up to 5"), "{error}"),
        other @ (Ok(_) | Err(AcquireError::Fenced { .. })) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_image_that_was_changed_fails_its_checksum() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    ten(&journal).await;
    let behind = client(&server.url()).await;
    behind.batch_execute("UPDATE kapell_journal.images SET state = 'forged'").await.unwrap();
    let images: Result<Vec<RunImage>, _> =
        futures::TryStreamExt::try_collect(journal.images(ShardId(7))).await;
    let (table, _, reason) = place(&images.unwrap_err());
    assert!(table.contains("kapell_journal.images"), "{table}");
    assert!(reason.contains(&run(7, 1).to_string()), "{reason}");
}
