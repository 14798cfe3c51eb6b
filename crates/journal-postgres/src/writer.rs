//! Writers: take what waits, insert it, answer.
//!
//! Owns: the one statement that appends. Never: sends records of a shard while others of it are under way, or tries a
//! group again whose outcome it does not know.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kapell_journal::AppendError;
use kapell_model::{Epoch, RunId, Seq, ShardId};
use kapell_runtime::{Job, OnDeath};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};

use crate::database::Database;
use crate::link::{Link, Open, Work};
use crate::queue::{Next, Part, Queue, Stranger};
use crate::trouble::Trouble;
use crate::value::{RunKey, bigint, number, record_crc};

/// Without writers the journal would stand still.
const WRITER: Job = Job { name: "journal-writer", on_panic: OnDeath::StopNode };
/// Segments that may be sealed under a group before it is given up.
const SEGMENTS_TRIED: usize = 4;

/// Locks the rows of the shards that are still held as they were, and inserts the records of these only. An
/// acquisition waits for the lock and counts what was inserted, or comes first, and then nothing is inserted. A row that
/// somebody else has locked is not waited for: the other shards of the group shall not wait either.
fn statement(segment: i32) -> String {
    format!(
        "WITH held AS MATERIALIZED (\
           SELECT s.shard FROM kapell_journal.shards AS s \
           JOIN unnest($1::int4[], $2::int8[], $3::int8[]) AS a (shard, epoch, generation) \
             ON s.shard = a.shard AND s.epoch = a.epoch AND s.generation = a.generation \
           FOR SHARE OF s SKIP LOCKED), \
         stored AS (\
           INSERT INTO kapell_journal.entries_{segment} (shard, seq, run, crc, payload) \
           SELECT r.shard, r.seq, r.run, r.crc, r.payload \
           FROM unnest($4::int4[], $5::int8[], $6::uuid[], $7::int4[], $8::bytea[]) \
             AS r (shard, seq, run, crc, payload) \
           WHERE r.shard IN (SELECT shard FROM held)) \
         SELECT shard FROM held"
    )
}

/// The writers of one database. Dropped, they finish what is queued and end.
pub(crate) struct Writers(Arc<Queue>);

impl Writers {
    pub(crate) fn start(database: &Arc<Database>, queue: &Arc<Queue>) -> Writers {
        for _ in 0..database.options.writers.max(1) {
            let (link, queue) = (Link::new(database), queue.clone());
            database.jobs.spawn(WRITER, async move {
                let left = Leaving(queue.clone());
                write(link, &queue).await;
                std::mem::forget(left);
            });
        }
        Writers(queue.clone())
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A writer that ends before everything is done was stopped or has panicked: the node goes down, and whoever waits is
/// told.
struct Leaving(Arc<Queue>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

async fn write(mut link: Link, queue: &Queue) {
    while let Some(work) = queue.next().await {
        match work {
            Next::Group(parts) => {
                queue.finish(commit(&mut link, parts).await);
            }
            Next::Strangers(strangers) => enlighten(&mut link, strangers).await,
        }
    }
}

/// Each part with its outcome.
async fn commit(link: &mut Link, parts: Vec<Part>) -> Vec<(Part, Result<(), AppendError>)> {
    let retry_after = link.database.options.retry_after;
    let inserted = insert(link, &Rows::of(&parts)).await;
    let held = match inserted {
        Ok(held) => held,
        Err(trouble) => {
            link.discard();
            tracing::warn!(database = %link.database.target, reason = trouble.reason(), "a group was not appended");
            let failed = |part| (part, Err(trouble.on_append(retry_after)));
            return parts.into_iter().map(failed).collect();
        }
    };
    if held.len() == parts.len() {
        return parts.into_iter().map(|part| (part, Ok(()))).collect();
    }
    let refused =
        parts.iter().map(|part| part.shard).filter(|shard| !held.contains(shard)).collect::<Vec<_>>();
    let holders = link.run(&Holders { shards: refused }).await;
    let outcome = |part: &Part| match (&holders, held.contains(&part.shard)) {
        (_, true) => Ok(()),
        (Err(trouble), false) => Err(trouble.on_append(retry_after)),
        (Ok(holders), false) => Err(refused_part(part, holders, retry_after)),
    };
    let outcomes = parts.iter().map(outcome).collect::<Vec<_>>();
    for (part, outcome) in parts.iter().zip(&outcomes) {
        note_fenced(part.shard, part.hold.epoch, outcome);
    }
    parts.into_iter().zip(outcomes).collect()
}

/// What shows that an owner that was away too long wrote nothing.
fn note_fenced(shard: ShardId, epoch: Epoch, outcome: &Result<(), AppendError>) {
    if let Err(AppendError::Fenced { held_by }) = outcome {
        let (shard, epoch, held_by) = (shard.0, epoch.0, held_by.0);
        tracing::warn!(shard, epoch, held_by, "the journal refused an append: its shard has a later owner");
    }
}

/// Why nothing was inserted of a part: its shard is held otherwise now.
fn refused_part(
    part: &Part,
    holders: &BTreeMap<ShardId, (Epoch, i64)>,
    retry_after: Duration,
) -> AppendError {
    match holders.get(&part.shard) {
        Some((epoch, _)) if *epoch != part.hold.epoch => AppendError::Fenced { held_by: *epoch },
        Some((_, generation)) if *generation != part.hold.generation => AppendError::Poisoned,
        Some(_) => {
            let reason = "the row of the shard is locked by another session".to_owned();
            AppendError::Unavailable { reason, retry_after }
        }
        None => AppendError::Fenced { held_by: Epoch(0) },
    }
}

/// Answers the shards whose records are now on disk.
async fn insert(link: &mut Link, rows: &Rows<'_>) -> Result<BTreeSet<ShardId>, Trouble> {
    let (database, within) = (link.database.clone(), link.database.patience());
    let open = link.open().await?;
    let mut tried = 1;
    loop {
        let inserted = tokio::time::timeout(within, rows.insert(open, &database)).await;
        match inserted.unwrap_or(Err(Trouble::Slow(within))) {
            // PostgreSQL has undone all of it.
            Err(trouble) if trouble.is_sealed() && tried < SEGMENTS_TRIED => database.follow(open).await?,
            outcome => return outcome,
        }
        tried += 1;
    }
}

/// A group, column by column.
struct Rows<'a> {
    held: (Vec<i32>, Vec<i64>, Vec<i64>),
    shards: Vec<i32>,
    seqs: Vec<i64>,
    runs: Vec<RunKey>,
    crcs: Vec<i32>,
    payloads: Vec<&'a [u8]>,
    bytes: u64,
}

impl<'a> Rows<'a> {
    fn of(parts: &'a [Part]) -> Rows<'a> {
        let held = (
            parts.iter().map(|part| i32::from(part.shard.0)).collect(),
            parts.iter().map(|part| bigint(part.hold.epoch.0)).collect(),
            parts.iter().map(|part| part.hold.generation).collect(),
        );
        let mut rows = Rows {
            held,
            shards: Vec::new(),
            seqs: Vec::new(),
            runs: Vec::new(),
            crcs: Vec::new(),
            payloads: Vec::new(),
            bytes: 0,
        };
        for part in parts {
            for append in &part.appends {
                let places = (0..).map(|further| append.first.plus(further));
                for (seq, record) in places.zip(&append.records) {
                    rows.push(part.shard, seq, record.run, &record.payload);
                }
            }
        }
        rows
    }

    fn push(&mut self, shard: ShardId, seq: Seq, run: RunId, payload: &'a [u8]) {
        self.shards.push(i32::from(shard.0));
        self.seqs.push(bigint(seq.0));
        self.runs.push(RunKey(run));
        self.crcs.push(record_crc(shard, seq, run, payload));
        self.payloads.push(payload);
        self.bytes += payload.len() as u64;
    }

    async fn insert(&self, open: &mut Open, database: &Database) -> Result<BTreeSet<ShardId>, Trouble> {
        let statement = prepared(open, database.segment()).await?;
        let (shards, epochs, generations) = &self.held;
        let parameters: [&(dyn ToSql + Sync); 8] =
            [shards, epochs, generations, &self.shards, &self.seqs, &self.runs, &self.crcs, &self.payloads];
        // Answered when the transaction has ended.
        let rows = open.client.query(&statement, &parameters).await?;
        database.wrote(self.bytes + 100 * self.seqs.len() as u64);
        rows.iter().map(|row| Ok(shard_of(row.try_get(0)?))).collect()
    }
}

async fn prepared(open: &mut Open, segment: i32) -> Result<Statement, Trouble> {
    match &open.insert {
        Some((prepared, statement)) if *prepared == segment => Ok(statement.clone()),
        Some(_) | None => {
            let statement = open.client.prepare(&statement(segment)).await?;
            open.insert = Some((segment, statement.clone()));
            Ok(statement)
        }
    }
}

/// Answers appends of those who do not hold their shard.
async fn enlighten(link: &mut Link, strangers: Vec<Stranger>) {
    let retry_after = link.database.options.retry_after;
    let shards = strangers.iter().map(|stranger| stranger.shard).collect();
    let holders = link.run(&Holders { shards }).await;
    for Stranger { shard, epoch, done } in strangers {
        let outcome = Err(match &holders {
            Ok(holders) => refusal(epoch, holders.get(&shard).map(|(held_by, _)| *held_by)),
            Err(trouble) => trouble.on_append(retry_after),
        });
        note_fenced(shard, epoch, &outcome);
        done.answer(outcome);
    }
}

/// What somebody is told who does not hold the shard.
pub(crate) fn refusal(epoch: Epoch, held_by: Option<Epoch>) -> AppendError {
    let held_by = held_by.unwrap_or(Epoch(0));
    if held_by == epoch { AppendError::Poisoned } else { AppendError::Fenced { held_by } }
}

/// Asks under which epoch and generation shards are held.
pub(crate) struct Holders {
    pub(crate) shards: Vec<ShardId>,
}

impl Work for Holders {
    type Answer = BTreeMap<ShardId, (Epoch, i64)>;

    async fn run(&self, open: &mut Open, _: &Database) -> Result<Self::Answer, Trouble> {
        let sql = "SELECT shard, epoch, generation FROM kapell_journal.shards WHERE shard = ANY ($1)";
        let shards = self.shards.iter().map(|shard| i32::from(shard.0)).collect::<Vec<_>>();
        let rows = open.client.query_typed(sql, &[(&shards, Type::INT4_ARRAY)]).await?;
        let holder = |row: &Row| {
            let held = (Epoch(number(row.try_get(1)?)), row.try_get(2)?);
            Ok((shard_of(row.try_get(0)?), held))
        };
        rows.iter().map(holder).collect()
    }
}

fn shard_of(stored: i32) -> ShardId {
    ShardId(u16::try_from(stored).unwrap_or(u16::MAX))
}
