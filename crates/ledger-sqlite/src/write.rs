//! Writing: batches with their watermarks.
//!
//! Owns: what one transaction contains, and that a row pays only for what it has. Never: waits for anybody.
use std::cmp::Reverse;

use kapell_ledger::{LedgerBatch, Part, Rebuild, RunRow};
use kapell_model::{RunId, Seq, ShardId};
use rusqlite::{CachedStatement, Connection, TransactionBehavior, params};

use crate::read;
use crate::row::{entities_of, entities_text, whole};
use crate::trouble::Trouble;

/// Stores all of them in one transaction, or nothing.
pub(crate) fn apply<'a>(
    conn: &mut Connection,
    batches: impl Iterator<Item = &'a LedgerBatch>,
) -> Result<(), Trouble> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut pen = Pen::new(&tx)?;
    for batch in batches {
        if batch.through > read::watermark(&tx, batch.shard)? {
            pen.rows(&batch.runs)?;
            match batch.part {
                Part::More => {}
                Part::Last => pen.watermark(batch.shard, batch.through)?,
            }
        }
    }
    drop(pen);
    Ok(tx.commit()?)
}

/// The runs of a shard are neighbours. Entities have no index by run, and are all looked at.
const CLEAR: [&str; 3] = [
    "DELETE FROM runs WHERE run BETWEEN ?1 AND ?2",
    "DELETE FROM entities WHERE run BETWEEN ?1 AND ?2",
    "DELETE FROM approvals WHERE run BETWEEN ?1 AND ?2",
];

/// Puts all that is new of a shard in the place of all that is old, or changes nothing.
pub(crate) fn replace(conn: &mut Connection, rebuild: &Rebuild) -> Result<(), Trouble> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let shard = rebuild.shard;
    let stored = read::watermark(&tx, shard)?;
    if stored != rebuild.found {
        return Err(Trouble::Moved { shard, found: rebuild.found, stored });
    }
    let ends = [0, u128::MAX].map(|low| RunId::new(shard, low).to_bytes());
    for clear in CLEAR {
        tx.prepare_cached(clear)?.execute(ends)?;
    }
    let mut pen = Pen::new(&tx)?;
    pen.rows(&rebuild.runs)?;
    pen.watermark(shard, rebuild.through)?;
    drop(pen);
    Ok(tx.commit()?)
}

const INSERT: &str = "INSERT INTO runs (run, namespace, workflow, version, key, state, accepted, ended, error_class, \
     error_message, output, outcome, parent, entities, approvals) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT (run) DO NOTHING";
const STORED: &str =
    "SELECT id, namespace, workflow, key, state, accepted, entities, approvals FROM runs WHERE run = ?1";
/// An index is rewritten when one of its columns is named, whatever the value: so each change names only what it may touch.
const REPLACE: &str = "UPDATE runs SET version = ?2, ended = ?3, error_class = ?4, error_message = ?5, output = ?6, \
     outcome = ?7, parent = ?8, entities = ?9, approvals = ?10";

struct Pen<'c> {
    conn: &'c Connection,
    insert: CachedStatement<'c>,
    stored: CachedStatement<'c>,
    replace: CachedStatement<'c>,
    replace_and_step: CachedStatement<'c>,
    replace_and_move: CachedStatement<'c>,
    mark: CachedStatement<'c>,
    add_entity: CachedStatement<'c>,
    drop_entity: CachedStatement<'c>,
    add_approval: CachedStatement<'c>,
    drop_approvals: CachedStatement<'c>,
}

/// What the ledger had of a run.
struct Stored {
    id: i64,
    namespace: String,
    accepted: i64,
    entities: Option<String>,
    approvals: i64,
    change: Change,
}

/// How far the new row differs in what is indexed.
enum Change {
    Content,
    State,
    Identity,
}

impl<'c> Pen<'c> {
    fn new(conn: &'c Connection) -> Result<Pen<'c>, Trouble> {
        Ok(Pen {
            conn,
            insert: conn.prepare_cached(INSERT)?,
            stored: conn.prepare_cached(STORED)?,
            replace: conn.prepare_cached(&format!("{REPLACE} WHERE id = ?1"))?,
            replace_and_step: conn.prepare_cached(&format!("{REPLACE}, state = ?11 WHERE id = ?1"))?,
            replace_and_move: conn.prepare_cached(&format!(
                "{REPLACE}, state = ?11, namespace = ?12, workflow = ?13, key = ?14, accepted = ?15 WHERE id = ?1"
            ))?,
            mark: conn.prepare_cached(
                "INSERT INTO watermarks (shard, through) VALUES (?1, ?2) \
                 ON CONFLICT (shard) DO UPDATE SET through = excluded.through",
            )?,
            add_entity: conn.prepare_cached(
                "INSERT OR IGNORE INTO entities (entity, namespace, accepted, run, id) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?,
            drop_entity: conn.prepare_cached(
                "DELETE FROM entities WHERE entity = ?1 AND namespace = ?2 AND accepted = ?3 AND run = ?4",
            )?,
            add_approval: conn.prepare_cached(
                "INSERT OR REPLACE INTO approvals (run, key, place, namespace, accepted, step, kind, ask, show, expires) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?,
            drop_approvals: conn.prepare_cached("DELETE FROM approvals WHERE run = ?1")?,
        })
    }

    fn watermark(&mut self, shard: ShardId, through: Seq) -> Result<(), Trouble> {
        self.mark.execute(params![shard.0, whole(through.0)])?;
        Ok(())
    }

    /// In the order of the run ids: neighbours in the index are written together.
    fn rows(&mut self, rows: &[RunRow]) -> Result<(), Trouble> {
        let mut ordered: Vec<(usize, &RunRow)> = rows.iter().enumerate().collect();
        // Of a run that is there twice, the later row wins.
        ordered.sort_unstable_by_key(|(at, row)| (row.run, Reverse(*at)));
        ordered.dedup_by_key(|(_, row)| row.run);
        ordered.into_iter().try_for_each(|(_, row)| self.row(row))
    }

    fn row(&mut self, row: &RunRow) -> Result<(), Trouble> {
        let entities = entities_text(&row.entities);
        match self.insert(row, entities.as_deref())? {
            Some(id) => self.add_entities(row, id)?,
            None => self.update(row, entities)?,
        }
        self.add_approvals(row)
    }

    /// The number of the new row; `None`: there is one already.
    fn insert(&mut self, row: &RunRow, entities: Option<&str>) -> Result<Option<i64>, Trouble> {
        let (class, message) = error_of(row);
        let values = params![
            row.run.to_bytes(),
            row.namespace.as_str(),
            row.workflow.as_str(),
            row.version,
            row.key,
            row.state.as_str(),
            whole(row.accepted.0),
            row.ended.map(|ended| whole(ended.0)),
            class,
            message,
            row.output.as_ref().map(|output| output.as_str()),
            row.outcome,
            row.parent.map(|parent| parent.to_bytes()),
            entities,
            row.approvals.len() as i64,
        ];
        let added = self.insert.execute(values)?;
        Ok((added > 0).then(|| self.conn.last_insert_rowid()))
    }
    fn update(&mut self, row: &RunRow, entities: Option<String>) -> Result<(), Trouble> {
        let stored = self.stored(row)?;
        let (class, message) = error_of(row);
        let ended = row.ended.map(|ended| whole(ended.0));
        let output = row.output.as_ref().map(|output| output.as_str());
        let parent = row.parent.map(|parent| parent.to_bytes());
        let (id, open) = (stored.id, row.approvals.len() as i64);
        let (version, outcome, state) = (&row.version, &row.outcome, row.state.as_str());
        match stored.change {
            Change::Content => self.replace.execute(params![
                id, version, ended, class, message, output, outcome, parent, entities, open
            ])?,
            Change::State => self.replace_and_step.execute(params![
                id, version, ended, class, message, output, outcome, parent, entities, open, state
            ])?,
            Change::Identity => self.replace_and_move.execute(params![
                id,
                version,
                ended,
                class,
                message,
                output,
                outcome,
                parent,
                entities,
                open,
                state,
                row.namespace.as_str(),
                row.workflow.as_str(),
                row.key,
                whole(row.accepted.0)
            ])?,
        };
        if stored.approvals > 0 {
            self.drop_approvals.execute([row.run.to_bytes()])?;
        }
        let moved = stored.namespace != row.namespace.as_str() || stored.accepted != whole(row.accepted.0);
        if moved || stored.entities != entities {
            for entity in entities_of(stored.entities.as_deref())? {
                self.drop_entity.execute(params![
                    entity,
                    stored.namespace,
                    stored.accepted,
                    row.run.to_bytes()
                ])?;
            }
            self.add_entities(row, stored.id)?;
        }
        Ok(())
    }

    fn stored(&mut self, row: &RunRow) -> Result<Stored, Trouble> {
        let found = self.stored.query_row([row.run.to_bytes()], |found| {
            let (namespace, workflow): (String, String) = (found.get(1)?, found.get(2)?);
            let (key, accepted): (Option<String>, i64) = (found.get(3)?, found.get(5)?);
            let same = namespace == row.namespace.as_str()
                && workflow == row.workflow.as_str()
                && key == row.key
                && accepted == whole(row.accepted.0);
            let change = if !same {
                Change::Identity
            } else if found.get_ref(4)?.as_str()? == row.state.as_str() {
                Change::Content
            } else {
                Change::State
            };
            let (id, entities, approvals) = (found.get(0)?, found.get(6)?, found.get(7)?);
            Ok(Stored { id, namespace, accepted, entities, approvals, change })
        });
        Ok(found?)
    }

    fn add_entities(&mut self, row: &RunRow, id: i64) -> Result<(), Trouble> {
        for entity in &row.entities {
            let accepted = whole(row.accepted.0);
            self.add_entity.execute(params![
                entity,
                row.namespace.as_str(),
                accepted,
                row.run.to_bytes(),
                id
            ])?;
        }
        Ok(())
    }

    fn add_approvals(&mut self, row: &RunRow) -> Result<(), Trouble> {
        for (place, approval) in row.approvals.iter().enumerate() {
            self.add_approval.execute(params![
                row.run.to_bytes(),
                approval.key,
                place as i64,
                row.namespace.as_str(),
                whole(row.accepted.0),
                approval.step,
                approval.kind,
                approval.ask,
                approval.show.as_str(),
                approval.expires.map(|expires| whole(expires.0)),
            ])?;
        }
        Ok(())
    }
}

fn error_of(row: &RunRow) -> (Option<&str>, Option<&str>) {
    row.error.as_ref().map(|(class, message)| (class.as_str(), message.as_str())).unzip()
}
