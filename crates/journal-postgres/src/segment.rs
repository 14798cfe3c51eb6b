//! Segments: the tables that hold the entries, made ahead, sealed when full, dropped when nobody needs them.
//!
//! Owns: every statement that makes or drops a table of entries. Never: drops an entry that was not trimmed.
//!
//! Why tables of our own and not `PARTITION BY`: docs/adr/0009-journal-in-postgresql.md.
use std::sync::Arc;
use std::time::Duration;

use kapell_runtime::{Job, OnDeath};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::database::Database;
use crate::link::{Link, Open, Work};
use crate::trouble::Trouble;

/// Without it segments grow, and nothing is lost.
const CHORES: Job = Job { name: "journal-segments", on_panic: OnDeath::Log };

/// Only one node does such things at a time: `KapellSg`.
const LOCK: i64 = i64::from_be_bytes(*b"KapellSg");
/// Whoever has it makes the indexes: `KapellIx`.
const INDEX_LOCK: i64 = i64::from_be_bytes(*b"KapellIx");
/// Whether a segment `g` is known by its runs, too: asked of PostgreSQL, as programs before ours made the index with the
/// table.
pub(crate) const IS_INDEXED: &str = "EXISTS (SELECT FROM pg_index AS i WHERE i.indisvalid \
     AND i.indexrelid = to_regclass('kapell_journal.entries_' || g.segment || '_run'))";
/// A large table may take its time.
const LONG: &str = "10min";
/// Others wait for our locks at most so long.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '1s'";
const CHORE_WITHIN: Duration = Duration::from_secs(660);
/// Shortest time after which a sweep that failed is made again.
const SWEEP_AGAIN: Duration = Duration::from_millis(500);
/// Segments that are looked at in one sweep, from the oldest on.
const SWEPT_MAX: i64 = 32;
/// What is needed of a segment is moved when it is at most one part in so many.
const MOVED_PART: i64 = 8;

/// Keeps the segments of one database. Dropped, it ends.
pub(crate) struct Keeper {
    _stop: oneshot::Sender<()>,
}

impl Keeper {
    pub(crate) fn start(database: &Arc<Database>) -> Keeper {
        let (stop, stopped) = oneshot::channel();
        database.jobs.spawn(CHORES, keep(database.clone(), stopped));
        Keeper { _stop: stop }
    }
}

async fn keep(database: Arc<Database>, mut stopped: oneshot::Receiver<()>) {
    let mut sweep_at: Option<Instant> = None;
    let mut swept: Option<Instant> = None;
    loop {
        let due = sweep_at.unwrap_or_else(Instant::now);
        // Its connection is closed when there is nothing to do: chores are rare.
        let mut link = Link::new(&database);
        tokio::select! {
            _ = &mut stopped => return,
            () = database.chores.notified() => {
                if database.take_trimmed() && sweep_at.is_none() {
                    let now = Instant::now();
                    sweep_at = Some(swept.map_or(now, |swept| swept + database.options.sweep_every).max(now));
                }
                seen_to(&database, &link.run_within(&Roll, CHORE_WITHIN).await);
            }
            () = tokio::time::sleep_until(due), if sweep_at.is_some() => {
                let is_done = seen_to(&database, &link.run_within(&Sweep, CHORE_WITHIN).await);
                // Nobody else asks for what was trimmed already.
                sweep_at = (!is_done).then(|| Instant::now() + database.options.sweep_every.max(SWEEP_AGAIN));
                swept = Some(Instant::now());
            }
        }
    }
}

/// Whether it was; says why not.
fn seen_to(database: &Database, outcome: &Result<(), Trouble>) -> bool {
    if let Err(trouble) = outcome {
        let reason = trouble.reason();
        tracing::warn!(database = %database.target, reason, "segments of the journal were not seen to; later again");
    }
    outcome.is_ok()
}

/// Makes the first segment of a new store.
pub(crate) async fn ensure_first(open: &Open, database: &Database) -> Result<(), Trouble> {
    let client = &open.client;
    begin(client).await?;
    if newest(client).await?.is_none() {
        make(client, 1).await?;
    }
    client.batch_execute("COMMIT").await?;
    database.follow(open).await
}

async fn begin(client: &Client) -> Result<(), Trouble> {
    let sql =
        format!("{BEGIN}; SET LOCAL statement_timeout = '{LONG}'; SELECT pg_advisory_xact_lock({LOCK})");
    Ok(client.batch_execute(&sql).await?)
}

async fn newest(client: &Client) -> Result<Option<i32>, Trouble> {
    let rows = client.query_typed("SELECT max(segment) FROM kapell_journal.segments", &[]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.flatten())
}

async fn make(client: &Client, segment: i32) -> Result<(), Trouble> {
    // Compressing payloads would cost the append more than the disk that it saves.
    let sql = format!(
        "CREATE TABLE kapell_journal.entries_{segment} (PRIMARY KEY (shard, seq)) INHERITS (kapell_journal.entries); \
         ALTER TABLE kapell_journal.entries_{segment} ALTER COLUMN payload SET STORAGE EXTERNAL; \
         INSERT INTO kapell_journal.segments (segment) VALUES ({segment})"
    );
    Ok(client.batch_execute(&sql).await?)
}

/// Makes the next segment if the newest is full, seals those before it, and gives these their index.
struct Roll;

impl Work for Roll {
    type Answer = ();

    async fn run(&self, open: &mut Open, database: &Database) -> Result<(), Trouble> {
        database.follow(open).await?;
        let (client, segment) = (&open.client, database.segment());
        let sql = format!("SELECT pg_total_relation_size('kapell_journal.entries_{segment}')");
        let size: Option<i64> =
            client.query_typed(&sql, &[]).await?.first().map(|row| row.try_get(0)).transpose()?;
        if size.unwrap_or(0).unsigned_abs() >= database.options.segment_bytes {
            begin(client).await?;
            // Another node may have been faster.
            if newest(client).await? == Some(segment) {
                make(client, segment + 1).await?;
                tracing::info!(database = %database.target, segment = segment + 1, "the journal has a new segment");
            }
            client.batch_execute("COMMIT").await?;
            database.follow(open).await?;
        }
        let sql = "SELECT segment FROM kapell_journal.segments \
             WHERE NOT sealed AND segment < (SELECT max(segment) FROM kapell_journal.segments) ORDER BY segment";
        let full = open.client.query_typed(sql, &[]).await?;
        for row in &full {
            seal(&open.client, row.try_get(0)?).await?;
        }
        // A backup can keep it from being finished: then once a segment is often enough.
        if full.is_empty() { Ok(()) } else { index_sealed(&open.client).await }
    }
}

/// First nobody can add anything, whichever node it is and however late; then what is in it is counted.
async fn seal(client: &Client, segment: i32) -> Result<(), Trouble> {
    begin(client).await?;
    let sql = format!(
        "SELECT NOT sealed, EXISTS (SELECT FROM pg_trigger \
           WHERE tgrelid = to_regclass('kapell_journal.entries_{segment}') AND tgname = 'sealed') \
         FROM kapell_journal.segments WHERE segment = {segment}"
    );
    let rows = client.query_typed(&sql, &[]).await?;
    let state = rows.first().map(|row| Ok::<(bool, bool), Trouble>((row.try_get(0)?, row.try_get(1)?)));
    let (is_open, is_shut) = state.transpose()?.unwrap_or((false, true));
    if is_open && !is_shut {
        let sql = format!(
            "CREATE TRIGGER sealed BEFORE INSERT ON kapell_journal.entries_{segment} \
             FOR EACH STATEMENT EXECUTE FUNCTION kapell_journal.refuse()"
        );
        client.batch_execute(&sql).await?;
    }
    client.batch_execute("COMMIT").await?;
    if !is_open {
        return Ok(());
    }
    begin(client).await?;
    let sql =
        format!("UPDATE kapell_journal.segments SET sealed = true WHERE segment = {segment} AND NOT sealed");
    if client.execute_typed(&sql, &[]).await? == 1 {
        let sql = format!(
            "INSERT INTO kapell_journal.spans (shard, segment, first, last, entries) \
             SELECT shard, {segment}, min(seq), max(seq), count(*) \
             FROM kapell_journal.entries_{segment} GROUP BY shard"
        );
        client.batch_execute(&sql).await?;
    }
    Ok(client.batch_execute("COMMIT").await?)
}

/// Lets the runs of sealed segments be found. Made at once the index costs a fraction of what it does record by record.
/// `CONCURRENTLY`, so that a node that does not know yet is refused by the trigger, and does not wait for us.
async fn index_sealed(client: &Client) -> Result<(), Trouble> {
    // Until the connection is closed, which it is after each chore. It cannot be a lock of a transaction.
    let sql = format!("SELECT pg_try_advisory_lock({INDEX_LOCK})");
    let is_ours = client.query_typed(&sql, &[]).await?.first().map(|row| row.try_get(0)).transpose()?;
    if is_ours != Some(true) {
        return Ok(());
    }
    let sql = format!(
        "SELECT g.segment FROM kapell_journal.segments AS g WHERE g.sealed AND NOT {IS_INDEXED} ORDER BY g.segment"
    );
    let unindexed = client.query_typed(&sql, &[]).await?;
    client.batch_execute(&format!("SET statement_timeout = '{LONG}'")).await?;
    for row in unindexed {
        let segment: i32 = row.try_get(0)?;
        // Whoever was stopped in the middle has left one that PostgreSQL does not use.
        let leftover = format!("DROP INDEX CONCURRENTLY IF EXISTS kapell_journal.entries_{segment}_run");
        client.batch_execute(&leftover).await?;
        let sql = format!(
            "CREATE INDEX CONCURRENTLY entries_{segment}_run ON kapell_journal.entries_{segment} (run)"
        );
        client.batch_execute(&sql).await?;
    }
    Ok(())
}

/// Nodes that have gone. One that is back after so long makes its fence anew when it takes a shard.
const FORGET_OWNERS: &str = "DELETE FROM kapell_journal.fences AS f WHERE f.since < now() - interval '1 day' \
     AND NOT EXISTS (SELECT FROM kapell_journal.shards AS s WHERE s.owner = f.owner)";

/// Drops the segments that nobody needs, and moves what little is needed of one.
struct Sweep;

impl Work for Sweep {
    type Answer = ();

    async fn run(&self, open: &mut Open, database: &Database) -> Result<(), Trouble> {
        let client = &open.client;
        // Of each of the oldest: how much it holds, and how much of that was not trimmed.
        let sql = format!(
            "SELECT g.segment, coalesce(sum(p.entries), 0)::int8, coalesce(sum(least(p.entries, \
               greatest(0, p.last - greatest(coalesce(m.trimmed, 0), p.first - 1)))), 0)::int8 \
             FROM (SELECT segment FROM kapell_journal.segments WHERE sealed ORDER BY segment LIMIT {SWEPT_MAX}) AS g \
             LEFT JOIN kapell_journal.spans AS p ON p.segment = g.segment \
             LEFT JOIN kapell_journal.marks AS m ON m.shard = p.shard GROUP BY g.segment ORDER BY g.segment"
        );
        let mut moved = false;
        for row in client.query_typed(&sql, &[]).await? {
            let (segment, held, needed): (i32, i64, i64) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let leave = match needed {
                0 => Leave::Nothing,
                // One a sweep: the next one may find more of it trimmed.
                needed if !moved && needed <= held / MOVED_PART => Leave::Rest,
                _ => continue,
            };
            moved |= leave == Leave::Rest;
            drop_segment(client, segment, leave).await?;
            tracing::info!(database = %database.target, segment, needed, "a segment of the journal was dropped");
        }
        client.execute_typed(FORGET_OWNERS, &[]).await?;
        Ok(())
    }
}

/// What a dropped segment leaves behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leave {
    Nothing,
    /// What was not trimmed goes to the newest segment.
    Rest,
}

async fn drop_segment(client: &Client, segment: i32, leave: Leave) -> Result<(), Trouble> {
    begin(client).await?;
    let forget = format!(
        "WITH gone AS (DELETE FROM kapell_journal.spans WHERE segment = {segment}) \
         DELETE FROM kapell_journal.segments WHERE segment = {segment} AND sealed"
    );
    if client.execute_typed(&forget, &[]).await? != 1 {
        // Another node was faster.
        return Ok(client.batch_execute("ROLLBACK").await?);
    }
    let table = format!("kapell_journal.entries_{segment}");
    client.batch_execute(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await?;
    if let (Leave::Rest, Some(newest)) = (leave, newest(client).await?) {
        let sql = format!(
            "INSERT INTO kapell_journal.entries_{newest} (shard, seq, run, crc, payload) \
             SELECT e.shard, e.seq, e.run, e.crc, e.payload FROM {table} AS e \
             LEFT JOIN kapell_journal.marks AS m ON m.shard = e.shard WHERE e.seq > coalesce(m.trimmed, 0)"
        );
        client.batch_execute(&sql).await?;
    }
    Ok(client.batch_execute(&format!("DROP TABLE {table}; COMMIT")).await?)
}
