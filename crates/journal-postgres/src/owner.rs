//! Who owns a shard.
//!
//! Owns: epochs and generations. Never: gives a shard to two owners.
use kapell_journal::ReadError;
use kapell_model::{Epoch, Seq, ShardId};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::database::Database;
use crate::link::{Open, Work};
use crate::queue::Hold;
use crate::trouble::Trouble;
use crate::value::{bigint, number};
use crate::writer::Holders;

/// Asks for the epoch of a shard.
pub(crate) struct AskEpoch(pub(crate) ShardId);

impl Work for AskEpoch {
    type Answer = Epoch;

    async fn run(&self, open: &mut Open, database: &Database) -> Result<Epoch, Trouble> {
        let holders = Holders { shards: vec![self.0] }.run(open, database).await?;
        Ok(holders.get(&self.0).map_or(Epoch(0), |(epoch, _)| *epoch))
    }
}

/// Makes an epoch the owner of a shard. `Err`: the epoch that holds it.
pub(crate) struct Acquire {
    pub(crate) shard: ShardId,
    pub(crate) epoch: Epoch,
}

/// Waits for appends that are under way: they hold the row. Those that come later find another generation.
const TAKE: &str = "INSERT INTO kapell_journal.shards AS s (shard, epoch, generation) VALUES ($1, $2, 1) \
     ON CONFLICT (shard) DO UPDATE SET epoch = excluded.epoch, generation = s.generation + 1 \
     WHERE s.epoch <= excluded.epoch RETURNING s.generation";

/// In one look, so that no segment is sealed between its parts: what the sealed segments have, and which are not.
const LOOK: &str = "SELECT coalesce((SELECT max(last) FROM kapell_journal.spans WHERE shard = $1), 0), \
     coalesce((SELECT array_agg(segment) FROM kapell_journal.segments WHERE NOT sealed), '{}'), \
     coalesce(m.checkpointed, 0), coalesce(m.trimmed, 0) \
     FROM (SELECT) AS one LEFT JOIN kapell_journal.marks AS m ON m.shard = $1";

impl Work for Acquire {
    type Answer = Result<Hold, Epoch>;

    async fn run(&self, open: &mut Open, database: &Database) -> Result<Self::Answer, Trouble> {
        let client = &open.client;
        let shard = i32::from(self.shard.0);
        client.batch_execute("BEGIN").await?;
        let epoch = bigint(self.epoch.0);
        let taken = client.query_typed(TAKE, &[(&shard, Type::INT4), (&epoch, Type::INT8)]).await?;
        let Some(taken) = taken.first() else {
            client.batch_execute("ROLLBACK").await?;
            return Ok(Err(AskEpoch(self.shard).run(open, database).await?));
        };
        let (last, checkpointed) = extent(client, self.shard).await?;
        client.batch_execute("COMMIT").await?;
        let generation = taken.try_get(0)?;
        if last < checkpointed {
            return Err(Trouble::Read(ReadError::Corrupt {
                segment: format!("kapell_journal.entries of {}, shard {}", database.target, self.shard),
                offset: last.0,
                reason: format!("the checkpoint covers entries up to {checkpointed}, the last one is {last}"),
            }));
        }
        Ok(Ok(Hold { epoch: self.epoch, generation, durable: last, checkpointed }))
    }
}

/// The last durable record, and what the checkpoint covers. Exact while the shard's row is locked.
async fn extent(client: &Client, shard: ShardId) -> Result<(Seq, Seq), Trouble> {
    let rows = client.query_typed(LOOK, &[(&i32::from(shard.0), Type::INT4)]).await?;
    let Some(row) = rows.first() else { return Ok((Seq::ZERO, Seq::ZERO)) };
    let (sealed, segments): (i64, Vec<i32>) = (row.try_get(0)?, row.try_get(1)?);
    let (checkpointed, trimmed): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
    let mut last = sealed.max(trimmed);
    for segment in segments {
        let sql = format!("SELECT max(seq) FROM kapell_journal.entries_{segment} WHERE shard = {shard}");
        let rows = client.query_typed(&sql, &[]).await?;
        let found = rows.first().map(|row| row.try_get::<_, Option<i64>>(0)).transpose()?.flatten();
        last = last.max(found.unwrap_or(0));
    }
    Ok((Seq(number(last)), Seq(number(checkpointed))))
}
