//! Writing: batches with their watermarks.
//!
//! Owns: what one transaction contains, the locks that it takes and their order. Never: begins a second transaction on
//! a connection on which one failed.
//!
//! Whoever writes locks the watermarks of its shards first, in the order of the shards, so of two coordinators that
//! write of one shard the second sees what the first one stored.
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures::try_join;
use kapell_ledger::{LedgerBatch, LedgerError, Part, Rebuild, RunRow};
use kapell_model::{RunId, Seq, ShardId};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::known::Known;
use crate::link::Work;
use crate::row::{unsigned, whole};
use crate::sheet::{Approvals, Entities, Runs, Sheet, weight};
use crate::text::Id;
use crate::trouble::{Trouble, unavailable};

/// Longest time for one answer of the server while rows are written.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Rows of one statement.
const CHUNK_ROWS: usize = 2_048;
/// Bytes of one statement, about; PostgreSQL takes no message beyond 1 GiB. One row may be larger alone.
const CHUNK_BYTES: usize = 8 << 20;

/// What became of one batch of a group.
pub(crate) type Verdict = Result<(), LedgerError>;

/// Where a shard is.
#[derive(Clone, Copy)]
struct Mark {
    through: Seq,
    /// The farthest part.
    told: Seq,
}

impl Mark {
    const NONE: Mark = Mark { through: Seq::ZERO, told: Seq::ZERO };
}

/// Stores all of them in one transaction, or nothing. A batch that must wait is left out and told so.
pub(crate) struct Apply<'a> {
    pub(crate) group: &'a [LedgerBatch],
    pub(crate) known: &'a Known,
}

impl Work for Apply<'_> {
    type Answer = Vec<Verdict>;

    async fn once(&self, client: &Client) -> Result<Vec<Verdict>, Trouble> {
        let Apply { group, known } = *self;
        let mut marks = begin(client, group.iter().map(|batch| batch.shard).collect()).await?;
        let (mut verdicts, mut rows) = (Vec::with_capacity(group.len()), Vec::new());
        let mut moved = BTreeMap::new();
        for batch in group {
            let mark = marks.entry(batch.shard).or_insert(Mark::NONE);
            verdicts.push(admit(batch, *mark, known));
            // A part that is older than what was told in part comes from a former owner: its rows are.
            if verdicts.last().is_some_and(Result::is_ok)
                && batch.through > mark.through
                && batch.through >= mark.told
            {
                rows.extend(&batch.runs);
                mark.told = batch.through;
                match batch.part {
                    Part::More => {}
                    Part::Last => mark.through = batch.through,
                }
                moved.insert(batch.shard, *mark);
            }
        }
        for chunk in chunks(&in_order(rows)) {
            within(store(client, &Sheet::of(&chunk))).await?;
        }
        within(commit(client, &moved)).await?;
        for (shard, mark) in moved {
            known.stored(shard, mark.through);
        }
        Ok(verdicts)
    }
}

/// Refuses what a ledger that went back must not be told; see [`Known`].
fn admit(batch: &LedgerBatch, mark: Mark, known: &Known) -> Verdict {
    let (stored, knows) = (mark.through, known.of(batch.shard));
    if stored >= knows {
        return Ok(());
    }
    Err(unavailable(format!(
        "shard {} is contained up to {stored} and was up to {knows}: the ledger was emptied or an older one restored; \
         rows wait until `kapell ledger rebuild` has built it anew",
        batch.shard
    )))
}

async fn within<T>(answer: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    tokio::time::timeout(ANSWER_WITHIN, answer).await.unwrap_or(Err(Trouble::Slow(ANSWER_WITHIN)))
}

async fn run(client: &Client, sql: &str) -> Result<(), Trouble> {
    Ok(client.batch_execute(sql).await?)
}

async fn execute(client: &Client, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Result<(), Trouble> {
    client.execute_typed(sql, values).await?;
    Ok(())
}

/// Rows that are not there yet cannot be locked, so they are made first.
const MARKS: &str = "INSERT INTO kapell_ledger.watermarks (shard, through, told) \
     SELECT shard, 0, 0 FROM unnest($1) AS shard ON CONFLICT (shard) DO NOTHING";
const LOCK_MARKS: &str = "SELECT shard, through, told FROM kapell_ledger.watermarks WHERE shard = ANY($1) \
     ORDER BY shard FOR UPDATE";

/// Opens a transaction in which nobody else writes of these shards.
async fn begin(client: &Client, mut shards: Vec<ShardId>) -> Result<BTreeMap<ShardId, Mark>, Trouble> {
    shards.sort_unstable();
    shards.dedup();
    let shards: Vec<i32> = shards.iter().map(|shard| i32::from(shard.0)).collect();
    let shards: [(&(dyn ToSql + Sync), Type); 1] = [(&shards, Type::INT4_ARRAY)];
    let lock = async { Ok(client.query_typed(LOCK_MARKS, &shards).await?) };
    // Sent together; the server does them in this order.
    let begun = async { try_join!(run(client, "BEGIN"), execute(client, MARKS, &shards), lock) };
    let ((), (), found) = within(begun).await?;
    let mark = |row: &tokio_postgres::Row| {
        let shard = u16::try_from(row.try_get::<_, i32>(0)?);
        let shard = shard.map_err(|_| Trouble::Damaged("a watermark is of no shard".to_owned()))?;
        let (through, told) = (Seq(unsigned(row.try_get(1)?)?), Seq(unsigned(row.try_get(2)?)?));
        Ok((ShardId(shard), Mark { through, told }))
    };
    found.iter().map(mark).collect()
}

const MOVE_MARKS: &str = "UPDATE kapell_ledger.watermarks SET through = new.through, told = new.told \
     FROM unnest($1, $2, $3) AS new (shard, through, told) WHERE watermarks.shard = new.shard";

async fn commit(client: &Client, moved: &BTreeMap<ShardId, Mark>) -> Result<(), Trouble> {
    if moved.is_empty() {
        return run(client, "COMMIT").await;
    }
    let shard: Vec<i32> = moved.keys().map(|shard| i32::from(shard.0)).collect();
    let through: Vec<i64> = moved.values().map(|mark| whole(mark.through.0)).collect();
    let told: Vec<i64> = moved.values().map(|mark| whole(mark.told.0)).collect();
    let values: [(&(dyn ToSql + Sync), Type); 3] =
        [(&shard, Type::INT4_ARRAY), (&through, Type::INT8_ARRAY), (&told, Type::INT8_ARRAY)];
    // A failed statement makes the commit a rollback, and the error is seen here.
    try_join!(execute(client, MOVE_MARKS, &values), run(client, "COMMIT"))?;
    Ok(())
}

/// In the order of the run ids: neighbours in the index are written together, and nobody locks them in another order.
fn in_order(rows: Vec<&RunRow>) -> Vec<&RunRow> {
    let mut rows: Vec<(usize, &RunRow)> = rows.into_iter().enumerate().collect();
    // Of a run that is there twice, the later row wins.
    rows.sort_unstable_by_key(|(at, row)| (row.run, Reverse(*at)));
    rows.dedup_by_key(|(_, row)| row.run);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn chunks<'a>(rows: &[&'a RunRow]) -> Vec<Vec<&'a RunRow>> {
    let (mut chunks, mut chunk, mut bytes) = (Vec::new(), Vec::new(), 0);
    for row in rows {
        let weight = weight(row);
        if chunk.len() == CHUNK_ROWS || (bytes + weight > CHUNK_BYTES && !chunk.is_empty()) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += weight;
        chunk.push(*row);
    }
    chunks.push(chunk);
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}

async fn store(client: &Client, sheet: &Sheet<'_>) -> Result<(), Trouble> {
    try_join!(
        runs(client, &sheet.runs),
        drop_entities(client, sheet),
        add_entities(client, &sheet.entities),
        drop_approvals(client, sheet),
        add_approvals(client, &sheet.approvals),
    )?;
    Ok(())
}

const RUNS: &str = "INSERT INTO kapell_ledger.runs (run, accepted, ended, parent, key_hash, approvals, namespace, \
     workflow, state, version, key, error_class, error_message, output, outcome, entities) \
     SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
     ON CONFLICT (run) DO UPDATE SET accepted = excluded.accepted, ended = excluded.ended, parent = excluded.parent, \
     key_hash = excluded.key_hash, approvals = excluded.approvals, namespace = excluded.namespace, \
     workflow = excluded.workflow, state = excluded.state, version = excluded.version, key = excluded.key, \
     error_class = excluded.error_class, error_message = excluded.error_message, output = excluded.output, \
     outcome = excluded.outcome, entities = excluded.entities";

async fn runs(client: &Client, rows: &Runs<'_>) -> Result<(), Trouble> {
    let values: [(&(dyn ToSql + Sync), Type); 16] = [
        (&rows.run, Type::UUID_ARRAY),
        (&rows.accepted, Type::INT8_ARRAY),
        (&rows.ended, Type::INT8_ARRAY),
        (&rows.parent, Type::UUID_ARRAY),
        (&rows.key_hash, Type::INT8_ARRAY),
        (&rows.approvals, Type::INT4_ARRAY),
        (&rows.namespace, Type::TEXT_ARRAY),
        (&rows.workflow, Type::TEXT_ARRAY),
        (&rows.state, Type::TEXT_ARRAY),
        (&rows.version, Type::TEXT_ARRAY),
        (&rows.key, Type::TEXT_ARRAY),
        (&rows.error_class, Type::TEXT_ARRAY),
        (&rows.error_message, Type::TEXT_ARRAY),
        (&rows.output, Type::TEXT_ARRAY),
        (&rows.outcome, Type::TEXT_ARRAY),
        (&rows.entities, Type::TEXT_ARRAY),
    ];
    execute(client, RUNS, &values).await
}

const DROP_ENTITIES: &str = "DELETE FROM kapell_ledger.run_entities old USING unnest($1, $2) AS new (run, digest) \
     WHERE old.run = new.run AND old.digest <> new.digest";

async fn drop_entities(client: &Client, sheet: &Sheet<'_>) -> Result<(), Trouble> {
    drop_changed(client, DROP_ENTITIES, &sheet.runs.run, &sheet.digests.entities).await
}

const DROP_APPROVALS: &str = "DELETE FROM kapell_ledger.approvals old USING unnest($1, $2) AS new (run, digest) \
     WHERE old.run = new.run AND old.digest <> new.digest";

async fn drop_approvals(client: &Client, sheet: &Sheet<'_>) -> Result<(), Trouble> {
    drop_changed(client, DROP_APPROVALS, &sheet.runs.run, &sheet.digests.approvals).await
}

async fn drop_changed(client: &Client, sql: &str, runs: &Vec<Id>, digests: &Vec<Id>) -> Result<(), Trouble> {
    execute(client, sql, &[(runs, Type::UUID_ARRAY), (digests, Type::UUID_ARRAY)]).await
}

const ADD_ENTITIES: &str = "INSERT INTO kapell_ledger.run_entities (run, place, accepted, entity_hash, digest, \
     namespace, entity) SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (run, place) DO NOTHING";

async fn add_entities(client: &Client, rows: &Entities<'_>) -> Result<(), Trouble> {
    if rows.run.is_empty() {
        return Ok(());
    }
    let values: [(&(dyn ToSql + Sync), Type); 7] = [
        (&rows.run, Type::UUID_ARRAY),
        (&rows.place, Type::INT4_ARRAY),
        (&rows.accepted, Type::INT8_ARRAY),
        (&rows.hash, Type::INT8_ARRAY),
        (&rows.digest, Type::UUID_ARRAY),
        (&rows.namespace, Type::TEXT_ARRAY),
        (&rows.entity, Type::TEXT_ARRAY),
    ];
    execute(client, ADD_ENTITIES, &values).await
}

const ADD_APPROVALS: &str = "INSERT INTO kapell_ledger.approvals (run, place, accepted, expires, digest, namespace, \
     key, step, kind, ask, show) SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
     ON CONFLICT (run, place) DO NOTHING";

async fn add_approvals(client: &Client, rows: &Approvals<'_>) -> Result<(), Trouble> {
    if rows.run.is_empty() {
        return Ok(());
    }
    let values: [(&(dyn ToSql + Sync), Type); 11] = [
        (&rows.run, Type::UUID_ARRAY),
        (&rows.place, Type::INT4_ARRAY),
        (&rows.accepted, Type::INT8_ARRAY),
        (&rows.expires, Type::INT8_ARRAY),
        (&rows.digest, Type::UUID_ARRAY),
        (&rows.namespace, Type::TEXT_ARRAY),
        (&rows.key, Type::TEXT_ARRAY),
        (&rows.step, Type::TEXT_ARRAY),
        (&rows.kind, Type::TEXT_ARRAY),
        (&rows.ask, Type::TEXT_ARRAY),
        (&rows.show, Type::TEXT_ARRAY),
    ];
    execute(client, ADD_APPROVALS, &values).await
}

/// The runs of a shard are neighbours.
const CLEAR: [&str; 3] = [
    "DELETE FROM kapell_ledger.run_entities WHERE run BETWEEN $1 AND $2",
    "DELETE FROM kapell_ledger.runs WHERE run BETWEEN $1 AND $2",
    "DELETE FROM kapell_ledger.approvals WHERE run BETWEEN $1 AND $2",
];

async fn clear(client: &Client, shard: ShardId) -> Result<(), Trouble> {
    let [first, last] = [0, u128::MAX].map(|low| Id(RunId::new(shard, low).to_bytes()));
    for clear in CLEAR {
        within(execute(client, clear, &[(&first, Type::UUID), (&last, Type::UUID)])).await?;
    }
    Ok(())
}

/// Puts all that is new of a shard in the place of all that is old, or changes nothing.
pub(crate) struct Replace<'a> {
    pub(crate) rebuild: &'a Rebuild,
    pub(crate) known: &'a Known,
}

impl Work for Replace<'_> {
    type Answer = ();

    async fn once(&self, client: &Client) -> Result<(), Trouble> {
        let Rebuild { shard, found, through, ref runs } = *self.rebuild;
        let mark = begin(client, vec![shard]).await?.get(&shard).copied().unwrap_or(Mark::NONE);
        // Of what another node is telling in parts, the first ones would be gone and the last one still taken.
        if mark.through != found || mark.told > through.max(found) {
            return Err(Trouble::Answered(unavailable(format!(
                "shard {shard} was contained up to {found}, and another node has told more of it since; fold it again"
            ))));
        }
        clear(client, shard).await?;
        for chunk in chunks(&in_order(runs.iter().collect())) {
            within(store(client, &Sheet::of(&chunk))).await?;
        }
        let moved = BTreeMap::from([(shard, Mark { through, told: through })]);
        within(commit(client, &moved)).await?;
        self.known.replaced(shard, through);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kapell_ledger::{ApprovalRow, RunState};
    use kapell_model::{Json, Name, Timestamp};

    use super::*;

    fn row(low: u128, bytes: usize) -> RunRow {
        let approval = ApprovalRow {
            key: "k".to_owned(),
            step: "s".to_owned(),
            kind: "step".to_owned(),
            ask: "?".to_owned(),
            show: Json::string(&"x".repeat(bytes)),
            expires: None,
        };
        RunRow {
            run: RunId::new(ShardId(0), low),
            namespace: Name::default_namespace(),
            workflow: Name::default_namespace(),
            version: String::new(),
            key: None,
            state: RunState::Running,
            accepted: Timestamp(1),
            ended: None,
            error: None,
            output: None,
            outcome: None,
            parent: None,
            entities: vec![],
            approvals: if bytes > 0 { vec![approval] } else { vec![] },
        }
    }

    fn sizes(rows: &[RunRow]) -> Vec<usize> {
        chunks(&rows.iter().collect::<Vec<_>>()).iter().map(Vec::len).collect()
    }

    #[test]
    fn statements_are_cut_by_rows_and_by_bytes_and_hold_one_row_at_least() {
        let small: Vec<RunRow> = (0..CHUNK_ROWS as u128 + 1).map(|low| row(low, 0)).collect();
        assert_eq!(sizes(&small), [CHUNK_ROWS, 1]);
        assert_eq!(sizes(&small[1..]), [CHUNK_ROWS]);
        assert_eq!(sizes(&[]), [0_usize; 0]);
        let half = CHUNK_BYTES / 2 - 1_000;
        let large: Vec<RunRow> = (0..3).map(|low| row(low, half)).collect();
        assert_eq!(sizes(&large), [2, 1]);
        let huge: Vec<RunRow> = (0..3).map(|low| row(low, 2 * CHUNK_BYTES)).collect();
        assert_eq!(sizes(&huge), [1, 1, 1]);
    }

    #[test]
    fn of_a_run_that_is_there_twice_the_later_row_wins() {
        let rows = [row(2, 0), row(1, 0), RunRow { state: RunState::Failed, ..row(2, 0) }];
        let ordered = in_order(rows.iter().collect());
        assert_eq!(ordered, [&rows[1], &rows[2]]);
    }
}
