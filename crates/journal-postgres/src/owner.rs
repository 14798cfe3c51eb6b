//! Who owns a shard.
//!
//! Owns: epochs and generations. Never: gives a shard to two owners.
use std::collections::BTreeMap;

use kapell_journal::ReadError;
use kapell_model::{Epoch, Seq, ShardId};
use tokio_postgres::types::{ToSql, Type};

use crate::database::Database;
use crate::link::{Open, Work};
use crate::queue::Hold;
use crate::trouble::Trouble;
use crate::value::{bigint, number};
use crate::writer::{Holders, shard_of};

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

/// Waits for appends that are under way, and finds what they have stored. What comes later finds another version.
const TAKE: &str = "SELECT generation, version, coalesce(last, 0), coalesce(checkpointed, 0), coalesce(trimmed, 0) \
     FROM kapell_journal.take($1, $2, $3, $4)";

/// What the owner of a shard may do, and up to where the shard was trimmed. `Err`: the epoch that holds it.
type Taken = Result<(Hold, Seq), Epoch>;

impl Work for Acquire {
    type Answer = Taken;

    /// In one round trip: a shard that has no owner meanwhile is a shard that stands still.
    async fn run(&self, open: &mut Open, database: &Database) -> Result<Taken, Trouble> {
        let (shard, epoch) = (i32::from(self.shard.0), bigint(self.epoch.0));
        let writers = i32::try_from(database.options.writers.max(1)).unwrap_or(i32::MAX);
        let values: [(&(dyn ToSql + Sync), Type); 4] = [
            (&shard, Type::INT4),
            (&epoch, Type::INT8),
            (&database.owner, Type::UUID),
            (&writers, Type::INT4),
        ];
        let rows = open.client.query_typed(TAKE, &values).await?;
        let Some(row) = rows.first() else {
            return Err(Trouble::Unfit("kapell_journal.take answers nothing".to_owned()));
        };
        let Some(generation) = row.try_get(0)? else {
            return Ok(Err(AskEpoch(self.shard).run(open, database).await?));
        };
        let version = row.try_get(1)?;
        let [last, checkpointed, trimmed] =
            [row.try_get(2)?, row.try_get(3)?, row.try_get(4)?].map(|stored| Seq(number(stored)));
        let durable = last.max(trimmed);
        if durable < checkpointed {
            return Err(Trouble::Read(ReadError::Corrupt {
                segment: format!("kapell_journal.entries of {}, shard {}", database.target, self.shard),
                offset: durable.0,
                reason: format!(
                    "the checkpoint covers entries up to {checkpointed}, the last one is {durable}"
                ),
            }));
        }
        Ok(Ok((Hold { epoch: self.epoch, generation, version, durable, checkpointed }, trimmed)))
    }
}

/// Asks which shards an owner has, and as of which version of its fence.
pub(crate) struct AskOwned {
    /// Whose row of the fence.
    pub(crate) writer: i32,
}

/// What an owner has.
pub(crate) struct Owned {
    pub(crate) version: i64,
    /// Under which epoch and generation.
    pub(crate) shards: BTreeMap<ShardId, (Epoch, i64)>,
}

impl Work for AskOwned {
    type Answer = Owned;

    /// In one look: whoever takes a shard counts the version up in the same transaction.
    async fn run(&self, open: &mut Open, database: &Database) -> Result<Owned, Trouble> {
        let sql = "SELECT f.version, s.shard, s.epoch, s.generation FROM kapell_journal.fences AS f \
             LEFT JOIN kapell_journal.shards AS s ON s.owner = f.owner WHERE f.owner = $1 AND f.writer = $2";
        let values: [(&(dyn ToSql + Sync), Type); 2] =
            [(&database.owner, Type::UUID), (&self.writer, Type::INT4)];
        let mut owned = Owned { version: 0, shards: BTreeMap::new() };
        for row in open.client.query_typed(sql, &values).await? {
            owned.version = row.try_get(0)?;
            if let Some(shard) = row.try_get::<_, Option<i32>>(1)? {
                let hold = (Epoch(number(row.try_get(2)?)), row.try_get(3)?);
                owned.shards.insert(shard_of(shard), hold);
            }
        }
        Ok(owned)
    }
}
