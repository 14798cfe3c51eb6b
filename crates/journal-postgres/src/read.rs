//! Reading: entries of a shard, history of a run, images.
//!
//! Owns: in which segments to look, and how damage is told from what was trimmed. Never: hands out a record that is not
//! what was written, or holds a connection while the reader thinks.
use std::collections::BTreeMap;

use bytes::Bytes;
use futures::try_join;
use kapell_journal::{Placed, ReadError, Record, RunImage};
use kapell_model::{RunId, Seq, ShardId};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::database::Database;
use crate::link::{Open, Work};
use crate::segment::IS_INDEXED;
use crate::trouble::Trouble;
use crate::value::{RunKey, bigint, image_crc, literal, number, record_crc};

/// What is read at once.
const CHUNK_BYTES: i64 = 4 << 20;
const CHUNK_ROWS: usize = 4096;
/// Segments that one statement looks at: each takes a few locks of the server.
const SEGMENTS_AT_ONCE: usize = 16;

/// The next records of a shard.
pub(crate) struct ReadChunk {
    pub(crate) shard: ShardId,
    pub(crate) after: Seq,
    /// The stream begins here: what was trimmed is not silently left out.
    pub(crate) is_first: bool,
    /// Known to be durable: the stream does not end before it.
    pub(crate) durable: Seq,
}

impl Work for ReadChunk {
    type Answer = Vec<Placed>;

    async fn run(&self, open: &mut Open, database: &Database) -> Result<Vec<Placed>, Trouble> {
        let client = &open.client;
        // Sent one after the other, answered in this order.
        let ((checkpointed, trimmed), window) = try_join!(marks(client, self.shard), self.window(client))?;
        if self.is_first && self.after < trimmed {
            return Err(Trouble::Read(ReadError::Trimmed { through: trimmed }));
        }
        let found = window.records(client, self.shard, self.after).await?;
        let mut expected = self.after.next();
        for (at, stored) in found.iter().enumerate() {
            if stored.seq != expected && at > 0 {
                // What is whole is handed out; the next chunk begins with the gap.
                return check_all(&found[..at], self.shard, database);
            }
            if stored.seq != expected {
                return Err(self.gap(client, database, expected).await?);
            }
            expected = expected.next();
        }
        let must_go_on = found.is_empty() && (!window.is_last || self.after < checkpointed.max(self.durable));
        if must_go_on {
            return Err(self.gap(client, database, expected).await?);
        }
        check_all(&found, self.shard, database)
    }
}

impl ReadChunk {
    /// The segments that may hold the next records.
    async fn window(&self, client: &Client) -> Result<Window, Trouble> {
        let sql = "SELECT g.segment, coalesce(p.first, 0) FROM kapell_journal.segments AS g \
             LEFT JOIN kapell_journal.spans AS p ON p.segment = g.segment AND p.shard = $1 \
             WHERE NOT g.sealed OR p.last > $2";
        let parameters = (i32::from(self.shard.0), bigint(self.after.0));
        let rows =
            client.query_typed(sql, &[(&parameters.0, Type::INT4), (&parameters.1, Type::INT8)]).await?;
        let mut segments = Vec::with_capacity(rows.len());
        for row in &rows {
            segments.push((row.try_get::<_, i64>(1)?, row.try_get::<_, i32>(0)?));
        }
        segments.sort_unstable();
        let beyond = segments.get(SEGMENTS_AT_ONCE).map(|(first, _)| *first);
        segments.truncate(SEGMENTS_AT_ONCE);
        Ok(Window {
            segments: segments.into_iter().map(|(_, segment)| segment).collect(),
            // Whatever lies before is in the segments that are looked at.
            until: beyond.unwrap_or(i64::MAX),
            is_last: beyond.is_none(),
        })
    }

    /// A record is not there: it was trimmed since the reader began, or somebody removed it.
    async fn gap(&self, client: &Client, database: &Database, missing: Seq) -> Result<Trouble, Trouble> {
        let (_, trimmed) = marks(client, self.shard).await?;
        Ok(Trouble::Read(if missing <= trimmed {
            ReadError::Trimmed { through: trimmed }
        } else {
            corrupt(database, "entries", self.shard, missing.0, "the entry is missing")
        }))
    }
}

/// Segments, and a place before which no other segment holds anything.
struct Window {
    segments: Vec<i32>,
    until: i64,
    is_last: bool,
}

impl Window {
    /// As many records after one place as are read at once, in order.
    async fn records(&self, client: &Client, shard: ShardId, after: Seq) -> Result<Vec<Stored>, Trouble> {
        if self.segments.is_empty() {
            return Ok(Vec::new());
        }
        let each =
            self.segments.iter().map(|segment| format!("SELECT * FROM kapell_journal.entries_{segment}"));
        let (from, until) = (union(each), self.until);
        let sql = format!(
            "SELECT seq, run, crc, payload FROM (SELECT seq, run, crc, payload, \
               sum(octet_length(payload)) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) AS bytes \
               FROM ({from}) AS e WHERE shard = {shard} AND seq > {after} AND seq < {until} \
               ORDER BY seq LIMIT {CHUNK_ROWS}) AS f \
             WHERE bytes <= {CHUNK_BYTES} OR bytes = octet_length(payload) ORDER BY seq"
        );
        client.query_typed(&sql, &[]).await?.iter().map(Stored::read).collect()
    }
}

/// Some segments as one table. With all conditions outside, so that PostgreSQL merges what its indexes have in order.
fn union(segments: impl Iterator<Item = String>) -> String {
    segments.collect::<Vec<_>>().join(" UNION ALL ")
}

/// A row of a segment.
struct Stored {
    seq: Seq,
    run: RunId,
    crc: i32,
    payload: Bytes,
}

impl Stored {
    fn read(row: &Row) -> Result<Stored, Trouble> {
        Ok(Stored {
            seq: Seq(number(row.try_get(0)?)),
            run: row.try_get::<_, RunKey>(1)?.0,
            crc: row.try_get(2)?,
            payload: Bytes::copy_from_slice(row.try_get(3)?),
        })
    }

    fn check(&self, shard: ShardId, database: &Database) -> Result<Placed, Trouble> {
        if record_crc(shard, self.seq, self.run, &self.payload) != self.crc {
            let reason = "the entry fails its checksum";
            return Err(Trouble::Read(corrupt(database, "entries", shard, self.seq.0, reason)));
        }
        let record = Record { run: self.run, payload: self.payload.clone() };
        Ok(Placed { seq: self.seq, record })
    }
}

fn check_all(found: &[Stored], shard: ShardId, database: &Database) -> Result<Vec<Placed>, Trouble> {
    found.iter().map(|stored| stored.check(shard, database)).collect()
}

/// What a checkpoint covers, and what was trimmed.
async fn marks(client: &Client, shard: ShardId) -> Result<(Seq, Seq), Trouble> {
    let sql = "SELECT checkpointed, trimmed FROM kapell_journal.marks WHERE shard = $1";
    let rows = client.query_typed(sql, &[(&i32::from(shard.0), Type::INT4)]).await?;
    match rows.first() {
        Some(row) => Ok((Seq(number(row.try_get(0)?)), Seq(number(row.try_get(1)?)))),
        None => Ok((Seq::ZERO, Seq::ZERO)),
    }
}

fn corrupt(database: &Database, table: &str, shard: ShardId, offset: u64, reason: &str) -> ReadError {
    let segment = format!("kapell_journal.{table} of {}, shard {shard}", database.target);
    ReadError::Corrupt { segment, offset, reason: reason.to_owned() }
}

/// The records of a run that were not trimmed.
pub(crate) struct History(pub(crate) RunId);

impl Work for History {
    type Answer = Vec<Placed>;

    async fn run(&self, open: &mut Open, database: &Database) -> Result<Vec<Placed>, Trouble> {
        let (client, shard) = (&open.client, self.0.shard());
        let (_, trimmed) = marks(client, shard).await?;
        let sql = format!(
            "SELECT g.segment, {IS_INDEXED} FROM kapell_journal.segments AS g \
             LEFT JOIN kapell_journal.spans AS p ON p.segment = g.segment AND p.shard = $1 \
             WHERE NOT g.sealed OR p.last > $2"
        );
        let parameters = (i32::from(shard.0), bigint(trimmed.0));
        let rows =
            client.query_typed(&sql, &[(&parameters.0, Type::INT4), (&parameters.1, Type::INT8)]).await?;
        let segments = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        let mut segments = segments.collect::<Result<Vec<(i32, bool)>, Trouble>>()?;
        // From old to new: what is moved meanwhile is moved to a newer one, and found there if it was not found before.
        segments.sort_unstable();
        let mut found = BTreeMap::new();
        for some in segments.chunks(SEGMENTS_AT_ONCE) {
            let from = some.iter().map(|(segment, is_indexed)| {
                // The planner must not choose: it knows nothing of tables as young as these.
                let by_place = if *is_indexed { String::new() } else { format!(" WHERE shard = {shard}") };
                format!("SELECT * FROM kapell_journal.entries_{segment}{by_place}")
            });
            let (from, run) = (union(from), literal(self.0));
            let sql = format!(
                "SELECT seq, run, crc, payload FROM ({from}) AS e WHERE run = {run} AND seq > {trimmed}"
            );
            for row in client.query_typed(&sql, &[]).await? {
                let stored = Stored::read(&row)?;
                found.insert(stored.seq, stored.check(shard, database)?);
            }
        }
        Ok(found.into_values().collect())
    }
}

/// The next images of a shard.
pub(crate) struct ReadImages {
    pub(crate) shard: ShardId,
    /// The first run.
    pub(crate) from: RunId,
    /// Which checkpoint the ones before were of.
    pub(crate) checkpoints: Option<i64>,
}

/// Images that follow each other.
pub(crate) struct ImageChunk {
    pub(crate) images: Vec<RunImage>,
    /// Which checkpoint they are of.
    pub(crate) checkpoints: Option<i64>,
    /// The run after them.
    pub(crate) next: Option<RunId>,
}

/// As many as are read at once. The checkpoint is looked at in the same moment.
const IMAGES: &str = "SELECT (SELECT checkpoints FROM kapell_journal.marks WHERE shard = $1), run, crc, state, next \
     FROM (SELECT run, crc, state, sum(octet_length(state)) OVER upto AS bytes, lead(run) OVER upto AS next \
       FROM kapell_journal.images WHERE shard = $1 AND run >= $2 \
       WINDOW upto AS (ORDER BY run ROWS UNBOUNDED PRECEDING) ORDER BY run LIMIT $3) AS i \
     WHERE bytes <= $4 OR bytes = octet_length(state) ORDER BY run";

impl Work for ReadImages {
    type Answer = ImageChunk;

    async fn run(&self, open: &mut Open, database: &Database) -> Result<ImageChunk, Trouble> {
        let (shard, rows_max) = (i32::from(self.shard.0), i64::try_from(CHUNK_ROWS).unwrap_or(i64::MAX));
        let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
            (&shard, Type::INT4),
            (&RunKey(self.from), Type::UUID),
            (&rows_max, Type::INT8),
            (&CHUNK_BYTES, Type::INT8),
        ];
        let rows = open.client.query_typed(IMAGES, &parameters).await?;
        let (mut checkpoints, mut next) = (None, None);
        if let Some(last) = rows.last() {
            checkpoints = Some(last.try_get::<_, Option<i64>>(0)?.unwrap_or(0));
            next = last.try_get::<_, Option<RunKey>>(4)?;
        }
        // Without rows, too: the first was there when the chunk before was read.
        if self.checkpoints.is_some() && self.checkpoints != checkpoints {
            return Err(Trouble::Unfit("a checkpoint was stored meanwhile; read its images".to_owned()));
        }
        let images = rows.iter().map(|row| self.image(row, database)).collect::<Result<Vec<_>, _>>()?;
        Ok(ImageChunk { images, checkpoints, next: next.map(|next| next.0) })
    }
}

impl ReadImages {
    fn image(&self, row: &Row, database: &Database) -> Result<RunImage, Trouble> {
        let (run, crc, state): (RunKey, i32, &[u8]) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        if image_crc(run.0, state) != crc {
            let reason = format!("the image of run {} fails its checksum", run.0);
            return Err(Trouble::Read(corrupt(database, "images", self.shard, 0, &reason)));
        }
        Ok(RunImage { run: run.0, state: Some(Bytes::copy_from_slice(state)) })
    }
}
