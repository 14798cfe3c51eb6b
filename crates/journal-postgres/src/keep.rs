//! Checkpoints and trimming.
//!
//! Owns: images and marks. Never: lets an owner write who has lost the shard, or drops a table: that is `segment`.
use bytes::Bytes;
use kapell_journal::RunImage;
use kapell_model::{Seq, ShardId};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::database::Database;
use crate::link::{Open, Work};
use crate::queue::Hold;
use crate::trouble::Trouble;
use crate::value::{RunKey, bigint, image_crc};

/// Images that go into one statement, and their bytes.
const CHUNK_IMAGES: usize = 4096;
const CHUNK_BYTES: usize = 4 << 20;

/// Stores what changed. `false`: somebody else holds the shard, or a later checkpoint is stored; nothing was changed.
pub(crate) struct Checkpoint {
    shard: ShardId,
    hold: Hold,
    through: Seq,
    changed: Vec<RunImage>,
}

impl Checkpoint {
    /// Of several images of a run the last one given counts.
    pub(crate) fn new(shard: ShardId, hold: Hold, through: Seq, mut changed: Vec<RunImage>) -> Checkpoint {
        changed.reverse();
        // In order, so that two that write the same images wait for each other once, and not in a circle.
        changed.sort_by_key(|image| image.run);
        changed.dedup_by_key(|image| image.run);
        Checkpoint { shard, hold, through, changed }
    }
}

const UPSERT: &str = "INSERT INTO kapell_journal.images AS i (shard, run, crc, state) \
     SELECT $1, c.run, c.crc, c.state FROM unnest($2::uuid[], $3::int4[], $4::bytea[]) AS c (run, crc, state) \
     ON CONFLICT (shard, run) DO UPDATE SET crc = excluded.crc, state = excluded.state";
const DELETE: &str = "DELETE FROM kapell_journal.images WHERE shard = $1 AND run = ANY ($2)";

/// Comes last in its transaction: the owner is locked until the end of it, and no longer.
const MARK: &str = "WITH held AS (SELECT shard FROM kapell_journal.shards \
       WHERE shard = $1 AND epoch = $2 AND generation = $3 FOR SHARE) \
     INSERT INTO kapell_journal.marks AS m (shard, checkpoints, checkpointed, trimmed) \
     SELECT shard, 1, $4, 0 FROM held \
     ON CONFLICT (shard) DO UPDATE SET checkpoints = m.checkpoints + 1, checkpointed = excluded.checkpointed \
     WHERE m.checkpointed <= excluded.checkpointed";

impl Work for Checkpoint {
    type Answer = bool;

    async fn run(&self, open: &mut Open, _: &Database) -> Result<bool, Trouble> {
        let client = &open.client;
        client.batch_execute("BEGIN").await?;
        let mut rest = self.changed.as_slice();
        while let Some(chunk) = next_chunk(&mut rest) {
            store(client, self.shard, chunk).await?;
        }
        end(client, MARK, self.shard, &self.hold, self.through).await
    }
}

/// Lets go of records. `false`: somebody else holds the shard.
pub(crate) struct Trim {
    pub(crate) shard: ShardId,
    pub(crate) hold: Hold,
    pub(crate) through: Seq,
}

const TRIM: &str = "WITH held AS (SELECT shard FROM kapell_journal.shards \
       WHERE shard = $1 AND epoch = $2 AND generation = $3 FOR SHARE) \
     UPDATE kapell_journal.marks AS m SET trimmed = greatest(m.trimmed, $4) \
     FROM held WHERE m.shard = held.shard AND m.checkpointed >= $4";

impl Work for Trim {
    type Answer = bool;

    async fn run(&self, open: &mut Open, _: &Database) -> Result<bool, Trouble> {
        // Without a checkpoint there is no mark, and nothing that could be trimmed.
        if self.through == Seq::ZERO {
            return Ok(true);
        }
        open.client.batch_execute("BEGIN").await?;
        end(&open.client, TRIM, self.shard, &self.hold, self.through).await
    }
}

/// Runs the statement that checks the owner, and commits if it changed something.
async fn end(client: &Client, sql: &str, shard: ShardId, hold: &Hold, through: Seq) -> Result<bool, Trouble> {
    let (epoch, through) = (bigint(hold.epoch.0), bigint(through.0));
    let changed = client
        .execute_typed(
            sql,
            &[
                (&i32::from(shard.0), Type::INT4),
                (&epoch, Type::INT8),
                (&hold.generation, Type::INT8),
                (&through, Type::INT8),
            ],
        )
        .await?;
    client.batch_execute(if changed == 1 { "COMMIT" } else { "ROLLBACK" }).await?;
    Ok(changed == 1)
}

/// As many as fit in one statement; at least one.
fn next_chunk<'a>(rest: &mut &'a [RunImage]) -> Option<&'a [RunImage]> {
    let mut bytes = 0;
    let fits = rest.iter().take(CHUNK_IMAGES).take_while(|image| {
        let before = bytes;
        bytes += image.state.as_ref().map_or(0, Bytes::len);
        before == 0 || bytes <= CHUNK_BYTES
    });
    let (chunk, after) = rest.split_at(fits.count());
    *rest = after;
    (!chunk.is_empty()).then_some(chunk)
}

async fn store(client: &Client, shard: ShardId, chunk: &[RunImage]) -> Result<(), Trouble> {
    let shard = i32::from(shard.0);
    let (mut runs, mut crcs, mut states, mut gone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for image in chunk {
        match &image.state {
            Some(state) => {
                runs.push(RunKey(image.run));
                crcs.push(image_crc(image.run, state));
                states.push(state.as_ref());
            }
            None => gone.push(RunKey(image.run)),
        }
    }
    if !runs.is_empty() {
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
            (&shard, Type::INT4),
            (&runs, Type::UUID_ARRAY),
            (&crcs, Type::INT4_ARRAY),
            (&states, Type::BYTEA_ARRAY),
        ];
        client.execute_typed(UPSERT, &parameters).await?;
    }
    if !gone.is_empty() {
        client.execute_typed(DELETE, &[(&shard, Type::INT4), (&gone, Type::UUID_ARRAY)]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kapell_model::RunId;

    use super::*;

    fn image(run: u128, bytes: usize) -> RunImage {
        RunImage { run: RunId::new(ShardId(0), run), state: Some(Bytes::from(vec![0; bytes])) }
    }

    #[test]
    fn images_are_stored_in_statements_of_bounded_size_and_none_is_left_out() {
        let images = [image(1, CHUNK_BYTES + 1), image(2, CHUNK_BYTES - 1), image(3, 1), image(4, 1)];
        let mut rest = images.as_slice();
        let chunks = std::iter::from_fn(|| next_chunk(&mut rest)).map(<[RunImage]>::len).collect::<Vec<_>>();
        assert_eq!(chunks, [1, 2, 1]);
        let many = vec![image(1, 0); CHUNK_IMAGES + 1];
        let mut rest = many.as_slice();
        let chunks = std::iter::from_fn(|| next_chunk(&mut rest)).map(<[RunImage]>::len).collect::<Vec<_>>();
        assert_eq!(chunks, [CHUNK_IMAGES, 1]);
    }

    #[test]
    fn of_several_images_of_a_run_the_last_one_counts() {
        let hold = Hold {
            epoch: kapell_model::Epoch(1),
            generation: 1,
            version: 1,
            durable: Seq(9),
            checkpointed: Seq::ZERO,
        };
        let stored = Checkpoint::new(ShardId(0), hold, Seq(1), vec![image(2, 1), image(1, 2), image(2, 3)]);
        assert_eq!(stored.changed, [image(1, 2), image(2, 3)]);
    }
}
