//! Reading: entries of a shard, history of a run, images.
//!
//! Owns: in which segments to look, and how damage is told from what was trimmed. Never: hands out a record that is not
//! what was written, or holds a connection while the reader thinks.
use std::collections::BTreeMap;

use bytes::Bytes;
use kapell_journal::{Placed, ReadError, Record, RunImage};
use kapell_model::{RunId, Seq, ShardId};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use crate::database::Database;
use crate::link::{Open, Work};
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
        let (checkpointed, trimmed) = marks(client, self.shard).await?;
        if self.is_first && self.after < trimmed {
            return Err(Trouble::Read(ReadError::Trimmed { through: trimmed }));
        }
        let window = self.window(client).await?;
        let found = match window.end(client, self.shard, self.after).await? {
            Some(end) => window.records(client, self.shard, self.after, end).await?,
            None => Vec::new(),
        };
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
    /// `columns` of the records in the window after one place, in order.
    fn select(&self, columns: &str, shard: ShardId, after: Seq, until: i64) -> String {
        let from = union(&self.segments);
        format!(
            "SELECT {columns} FROM ({from}) AS e WHERE shard = {shard} AND seq > {after} AND seq < {until} ORDER BY seq"
        )
    }

    /// The last of the next records that are read at once.
    async fn end(&self, client: &Client, shard: ShardId, after: Seq) -> Result<Option<i64>, Trouble> {
        if self.segments.is_empty() {
            return Ok(None);
        }
        let all = self.select("seq, octet_length(payload)", shard, after, self.until);
        let sql = format!("{all} LIMIT {CHUNK_ROWS}");
        let (mut end, mut bytes) = (None, 0);
        for row in client.query_typed(&sql, &[]).await? {
            bytes += i64::from(row.try_get::<_, i32>(1)?);
            if end.is_some() && bytes > CHUNK_BYTES {
                break;
            }
            end = Some(row.try_get(0)?);
        }
        Ok(end)
    }

    async fn records(
        &self,
        client: &Client,
        shard: ShardId,
        after: Seq,
        end: i64,
    ) -> Result<Vec<Stored>, Trouble> {
        let sql = self.select("seq, run, crc, payload", shard, after, end.saturating_add(1));
        client.query_typed(&sql, &[]).await?.iter().map(Stored::read).collect()
    }
}

/// Some segments as one table. With all conditions outside, so that PostgreSQL merges what its indexes have in order.
fn union(segments: &[i32]) -> String {
    let each = segments.iter().map(|segment| format!("SELECT * FROM kapell_journal.entries_{segment}"));
    each.collect::<Vec<_>>().join(" UNION ALL ")
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
        let sql = "SELECT g.segment FROM kapell_journal.segments AS g \
             LEFT JOIN kapell_journal.spans AS p ON p.segment = g.segment AND p.shard = $1 \
             WHERE NOT g.sealed OR p.last > $2";
        let parameters = (i32::from(shard.0), bigint(trimmed.0));
        let rows =
            client.query_typed(sql, &[(&parameters.0, Type::INT4), (&parameters.1, Type::INT8)]).await?;
        let segments = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i32>, _>>();
        let mut segments = segments?;
        // From old to new: what is moved meanwhile is moved to a newer one, and found there if it was not found before.
        segments.sort_unstable();
        let mut found = BTreeMap::new();
        for some in segments.chunks(SEGMENTS_AT_ONCE) {
            let (from, run) = (union(some), literal(self.0));
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

/// The next images of a shard, and which checkpoint they are of.
pub(crate) struct ReadImages {
    pub(crate) shard: ShardId,
    /// The last run that was read; none at the beginning.
    pub(crate) after: Option<RunId>,
    /// Which checkpoint the ones before were of.
    pub(crate) checkpoints: Option<i64>,
}

const IMAGE_SIZES: &str = "SELECT run, octet_length(state) FROM kapell_journal.images \
     WHERE shard = $1 AND run > $2 ORDER BY run LIMIT $3";
const FIRST_SIZES: &str = "SELECT run, octet_length(state) FROM kapell_journal.images \
     WHERE shard = $1 AND run >= $2 ORDER BY run LIMIT $3";
/// The checkpoint is looked at in the same moment.
const IMAGES: &str = "SELECT (SELECT checkpoints FROM kapell_journal.marks WHERE shard = $1), run, crc, state \
     FROM kapell_journal.images WHERE shard = $1 AND run >= $2 AND run <= $3 ORDER BY run";

impl Work for ReadImages {
    type Answer = Option<(i64, Vec<RunImage>)>;

    async fn run(&self, open: &mut Open, database: &Database) -> Result<Self::Answer, Trouble> {
        let (client, shard) = (&open.client, i32::from(self.shard.0));
        let (sizes, from) = match self.after {
            Some(after) => (IMAGE_SIZES, RunKey(after)),
            None => (FIRST_SIZES, RunKey(RunId::from_bytes([0; 16]))),
        };
        let limit = i64::try_from(CHUNK_ROWS).unwrap_or(i64::MAX);
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&shard, Type::INT4), (&from, Type::UUID), (&limit, Type::INT8)];
        let (mut ends, mut bytes) = (None, 0);
        for row in client.query_typed(sizes, &parameters).await? {
            bytes += i64::from(row.try_get::<_, i32>(1)?);
            let run: RunKey = row.try_get(0)?;
            match ends {
                Some(_) if bytes > CHUNK_BYTES => break,
                Some((first, _)) => ends = Some((first, run)),
                None => ends = Some((run, run)),
            }
        }
        let Some((first, last)) = ends else { return Ok(None) };
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&shard, Type::INT4), (&first, Type::UUID), (&last, Type::UUID)];
        let rows = client.query_typed(IMAGES, &parameters).await?;
        let checkpoints = rows.first().map(|row| row.try_get::<_, Option<i64>>(0)).transpose()?.flatten();
        let checkpoints = checkpoints.unwrap_or(0);
        if self.checkpoints.is_some_and(|before| before != checkpoints) {
            return Err(Trouble::Unfit("a checkpoint was stored meanwhile; read its images".to_owned()));
        }
        let images = rows.iter().map(|row| self.image(row, database)).collect::<Result<Vec<_>, _>>()?;
        Ok(Some((checkpoints, images)))
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
