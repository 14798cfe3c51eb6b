//! Writers: take what waits, insert it, answer.
//!
//! Owns: the one statement that appends. Never: sends records of a shard while others of it are under way, or tries a
//! group again whose outcome it does not know.
use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_journal::AppendError;
use kapell_model::{Epoch, RunId, Seq, ShardId};
use kapell_runtime::{Job, OnDeath};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};

use crate::database::Database;
use crate::link::{Link, Open, Work};
use crate::owner::AskOwned;
use crate::queue::{Next, Part, Queue, Stranger};
use crate::trouble::Trouble;
use crate::value::{RunKey, bigint, number, record_crc};

/// Without writers the journal would stand still.
const WRITER: Job = Job { name: "journal-writer", on_panic: OnDeath::StopNode };
/// Segments that may be sealed under a group before it is given up.
const SEGMENTS_TRIED: usize = 4;
/// How often a shard may be taken from the owner under a group before it is given up.
const VERSIONS_TRIED: usize = 64;

/// Locks the fence, if no shard was taken from the owner since, and inserts the records. An acquisition waits for the
/// lock and finds what was inserted, or comes first, and then nothing is inserted.
fn statement(segment: i32) -> String {
    format!(
        "WITH held AS MATERIALIZED (\
           SELECT FROM kapell_journal.fences WHERE owner = $1 AND writer = $2 AND version = $3 FOR SHARE), \
         stored AS (\
           INSERT INTO kapell_journal.entries_{segment} (shard, seq, run, crc, payload) \
           SELECT r.shard, r.seq, r.run, r.crc, r.payload \
           FROM unnest($4::int4[], $5::int8[], $6::uuid[], $7::int4[], $8::bytea[]) \
             AS r (shard, seq, run, crc, payload) \
           WHERE EXISTS (SELECT FROM held)) \
         SELECT count(*) FROM held"
    )
}

/// The writers of one database. Dropped, they finish what is queued and end.
pub(crate) struct Writers(Arc<Queue>);

impl Writers {
    pub(crate) fn start(database: &Arc<Database>, queue: &Arc<Queue>) -> Writers {
        for no in (0..).take(database.options.writers.max(1)) {
            let (writer, queue) = (Writer { link: Link::new(database), no }, queue.clone());
            database.jobs.spawn(WRITER, async move {
                let left = Leaving(queue.clone());
                writer.write(&queue).await;
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

/// One of them.
struct Writer {
    link: Link,
    /// Which row of the fence is its own.
    no: i32,
}

impl Writer {
    async fn write(mut self, queue: &Queue) {
        while let Some(work) = queue.next().await {
            match work {
                Next::Group(parts) => {
                    let outcomes = self.commit(queue, parts).await;
                    queue.finish(outcomes);
                }
                Next::Strangers(strangers) => enlighten(&mut self.link, strangers).await,
            }
        }
    }

    /// Each part with its outcome.
    async fn commit(&mut self, queue: &Queue, mut parts: Vec<Part>) -> Vec<(Part, Result<(), AppendError>)> {
        let mut outcomes = Vec::with_capacity(parts.len());
        let mut tried = 1;
        while !parts.is_empty() {
            let rows = Rows::of(&parts);
            let inserted = match self.insert(&rows).await {
                Ok(false) if tried < VERSIONS_TRIED => {
                    self.part_with_the_lost(queue, &mut parts, &mut outcomes).await
                }
                Ok(false) => Err(Trouble::Refused("shards are taken from this node without end")),
                Ok(true) => {
                    outcomes.extend(parts.drain(..).map(|part| (part, Ok(()))));
                    Ok(())
                }
                Err(trouble) => Err(trouble),
            };
            if let Err(trouble) = inserted {
                self.link.discard();
                let database = &self.link.database;
                tracing::warn!(database = %database.target, reason = trouble.reason(), "a group was not appended");
                let retry_after = database.options.retry_after;
                outcomes.extend(parts.drain(..).map(|part| (part, Err(trouble.on_append(retry_after)))));
            }
            tried += 1;
        }
        outcomes
    }

    /// Finds out which shards were taken from the owner. Nothing was inserted of any.
    async fn part_with_the_lost(
        &mut self,
        queue: &Queue,
        parts: &mut Vec<Part>,
        outcomes: &mut Vec<(Part, Result<(), AppendError>)>,
    ) -> Result<(), Trouble> {
        let owned = self.link.run(&AskOwned { writer: self.no }).await?;
        queue.owned(&owned);
        let has =
            |part: &Part| owned.shards.get(&part.shard) == Some(&(part.hold.epoch, part.hold.generation));
        let (kept, lost): (Vec<Part>, Vec<Part>) = std::mem::take(parts).into_iter().partition(has);
        *parts = kept;
        parts.iter_mut().for_each(|part| part.hold.version = owned.version);
        if lost.is_empty() {
            return Ok(());
        }
        let holders = self.link.run(&Holders { shards: lost.iter().map(|part| part.shard).collect() }).await;
        let retry_after = self.link.database.options.retry_after;
        for part in lost {
            let outcome = Err(match &holders {
                Ok(holders) => refused_part(&part, holders),
                Err(trouble) => trouble.on_append(retry_after),
            });
            note_fenced(part.shard, part.hold.epoch, &outcome);
            outcomes.push((part, outcome));
        }
        Ok(())
    }

    /// Whether the owner had all shards still; if not, nothing was inserted.
    async fn insert(&mut self, rows: &Rows<'_>) -> Result<bool, Trouble> {
        let (database, within) = (self.link.database.clone(), self.link.database.patience());
        let open = self.link.open().await?;
        let mut tried = 1;
        loop {
            let inserted = tokio::time::timeout(within, rows.insert(open, &database, self.no)).await;
            match inserted.unwrap_or(Err(Trouble::Slow(within))) {
                // PostgreSQL has undone all of it.
                Err(trouble) if trouble.is_sealed() && tried < SEGMENTS_TRIED => {
                    database.follow(open).await?
                }
                outcome => return outcome,
            }
            tried += 1;
        }
    }
}

/// What shows that an owner that was away too long wrote nothing.
fn note_fenced(shard: ShardId, epoch: Epoch, outcome: &Result<(), AppendError>) {
    if let Err(AppendError::Fenced { held_by }) = outcome {
        let (shard, epoch, held_by) = (shard.0, epoch.0, held_by.0);
        tracing::warn!(shard, epoch, held_by, "the journal refused an append: its shard has a later owner");
    }
}

/// Why nothing was inserted of a part: its shard is held otherwise now.
fn refused_part(part: &Part, holders: &BTreeMap<ShardId, (Epoch, i64)>) -> AppendError {
    refusal(part.hold.epoch, holders.get(&part.shard).map(|(held_by, _)| *held_by))
}

/// A group, column by column.
struct Rows<'a> {
    /// Of the fence, when each of the shards was the owner's.
    version: i64,
    shards: Vec<i32>,
    seqs: Vec<i64>,
    runs: Vec<RunKey>,
    crcs: Vec<i32>,
    payloads: Vec<&'a [u8]>,
    bytes: u64,
}

impl<'a> Rows<'a> {
    fn of(parts: &'a [Part]) -> Rows<'a> {
        let mut rows = Rows {
            version: parts.iter().map(|part| part.hold.version).min().unwrap_or_default(),
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

    async fn insert(&self, open: &mut Open, database: &Database, writer: i32) -> Result<bool, Trouble> {
        let statement = prepared(open, database.segment()).await?;
        let parameters: [&(dyn ToSql + Sync); 8] = [
            &database.owner,
            &writer,
            &self.version,
            &self.shards,
            &self.seqs,
            &self.runs,
            &self.crcs,
            &self.payloads,
        ];
        // Answered when the transaction has ended.
        let held: i64 = open.client.query_one(&statement, &parameters).await?.try_get(0)?;
        database.wrote(self.bytes + 100 * self.seqs.len() as u64);
        Ok(held > 0)
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

pub(crate) fn shard_of(stored: i32) -> ShardId {
    ShardId(u16::try_from(stored).unwrap_or(u16::MAX))
}
