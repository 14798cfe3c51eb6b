//! Who owns a shard.
//!
//! Owns: epochs and generations. Never: gives a shard to two owners.
use futures::try_join;
use kapell_journal::ReadError;
use kapell_model::{Epoch, Seq, ShardId};
use tokio_postgres::types::{ToSql, Type};

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

/// Makes an epoch the owner of a shard.
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

/// What the owner of a shard may do, and up to where the shard was trimmed. `Err`: the epoch that holds it.
type Taken = Result<(Hold, Seq), Epoch>;

impl Work for Acquire {
    type Answer = Taken;

    /// In two round trips: a shard that has no owner meanwhile is a shard that stands still.
    async fn run(&self, open: &mut Open, database: &Database) -> Result<Taken, Trouble> {
        let client = &open.client;
        let (shard, epoch) = (i32::from(self.shard.0), bigint(self.epoch.0));
        let values: [(&(dyn ToSql + Sync), Type); 2] = [(&shard, Type::INT4), (&epoch, Type::INT8)];
        // Sent one after the other, answered in this order.
        let (_, taken, looked) = try_join!(
            client.batch_execute("BEGIN"),
            client.query_typed(TAKE, &values),
            client.query_typed(LOOK, &values[..1]),
        )?;
        let (Some(taken), Some(looked)) = (taken.first(), looked.first()) else {
            client.batch_execute("ROLLBACK").await?;
            return Ok(Err(AskEpoch(self.shard).run(open, database).await?));
        };
        let (sealed, segments): (i64, Vec<i32>) = (looked.try_get(0)?, looked.try_get(1)?);
        let (checkpointed, trimmed): (i64, i64) = (looked.try_get(2)?, looked.try_get(3)?);
        let of_segments = last_of(&segments, self.shard);
        let (last, ()) = try_join!(client.query_typed(&of_segments, &[]), client.batch_execute("COMMIT"))?;
        let last = last.first().map_or(Ok(0), |row| row.try_get(0))?;
        let generation = taken.try_get(0)?;
        let durable = Seq(number(sealed.max(trimmed).max(last)));
        let (checkpointed, trimmed) = (Seq(number(checkpointed)), Seq(number(trimmed)));
        if durable < checkpointed {
            return Err(Trouble::Read(ReadError::Corrupt {
                segment: format!("kapell_journal.entries of {}, shard {}", database.target, self.shard),
                offset: durable.0,
                reason: format!(
                    "the checkpoint covers entries up to {checkpointed}, the last one is {durable}"
                ),
            }));
        }
        Ok(Ok((Hold { epoch: self.epoch, generation, durable, checkpointed }, trimmed)))
    }
}

/// Asks for the last record of a shard in these segments. Exact while the shard's row is locked.
fn last_of(segments: &[i32], shard: ShardId) -> String {
    let of = |segment: &i32| {
        format!("(SELECT max(seq) FROM kapell_journal.entries_{segment} WHERE shard = {shard})")
    };
    // The greatest of what is not null.
    let each: Vec<String> = segments.iter().map(of).chain(["0::int8".to_owned()]).collect();
    format!("SELECT greatest({})", each.join(", "))
}
