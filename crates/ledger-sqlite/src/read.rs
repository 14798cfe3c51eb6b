//! Reading: pages, single runs, watermarks.
//!
//! Owns: what is read together (one snapshot a call). Never: writes, or chooses an index.
use kapell_ledger::cursor::{self, List, Place};
use kapell_ledger::{ApprovalQuery, ApprovalRow, Page, RunQuery, RunRow, page_rows};
use kapell_model::{RunId, Seq, ShardId};
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};

use crate::list;
use crate::row::{self, RUN_COLUMNS};
use crate::trouble::Trouble;

pub(crate) fn watermark(conn: &Connection, shard: ShardId) -> Result<Seq, Trouble> {
    let mut find = conn.prepare_cached("SELECT through FROM watermarks WHERE shard = ?1")?;
    let found: Option<i64> = find.query_row([shard.0], |row| row.get(0)).optional()?;
    Ok(Seq(found.map_or(Ok(0), row::unsigned)?))
}

pub(crate) fn run(conn: &mut Connection, run: RunId) -> Result<Option<RunRow>, Trouble> {
    let tx = conn.transaction()?;
    by_run(&tx, run)
}

fn by_run(conn: &Connection, run: RunId) -> Result<Option<RunRow>, Trouble> {
    let mut find = conn.prepare_cached(&format!("SELECT {RUN_COLUMNS} FROM runs WHERE run = ?1"))?;
    let mut rows = find.query([run.to_bytes()])?;
    rows.next()?.map(|row| complete(conn, row)).transpose()
}

/// The run with its questions.
fn complete(conn: &Connection, row: &rusqlite::Row<'_>) -> Result<RunRow, Trouble> {
    let (mut found, questions) = row::run(row)?;
    if questions > 0 {
        let sql = "SELECT key, step, kind, ask, show, expires FROM approvals WHERE run = ?1 ORDER BY place";
        let mut list = conn.prepare_cached(sql)?;
        let mut rows = list.query([found.run.to_bytes()])?;
        while let Some(row) = rows.next()? {
            found.approvals.push(row::approval(row, 0)?);
        }
    }
    Ok(found)
}

pub(crate) fn runs(
    conn: &mut Connection,
    query: &RunQuery,
    after: Option<&Place>,
) -> Result<Page<RunRow>, Trouble> {
    let limit = page_rows(query.limit);
    let tx = conn.transaction()?;
    // One more than asked for tells whether there is a next page.
    let statement = list::runs(query, after, limit + 1);
    let mut list = tx.prepare_cached(&statement.sql)?;
    let ids = list.query_map(params_from_iter(&statement.values), |row| row.get::<_, i64>(0));
    let ids = ids?.collect::<Result<Vec<_>, _>>()?;
    let mut load = tx.prepare_cached(&format!("SELECT {RUN_COLUMNS} FROM runs WHERE id = ?1"))?;
    let mut found = Vec::with_capacity(ids.len().min(limit));
    for id in ids.iter().take(limit) {
        let mut rows = load.query([id])?;
        let row = rows
            .next()?
            .ok_or_else(|| Trouble::Damaged("an index names a run that is not there".to_owned()))?;
        found.push(complete(&tx, row)?);
    }
    let next = if ids.len() > limit { found.last().map(run_cursor) } else { None };
    Ok(Page { rows: found, next })
}

fn run_cursor(last: &RunRow) -> kapell_ledger::Cursor {
    let accepted = row::whole(last.accepted.0);
    cursor::write(List::Runs, &Place { accepted, run: last.run.to_bytes(), key: String::new() })
}

pub(crate) fn approvals(
    conn: &mut Connection,
    query: &ApprovalQuery,
    after: Option<&Place>,
) -> Result<Page<(RunRow, ApprovalRow)>, Trouble> {
    let limit = page_rows(query.limit);
    let tx = conn.transaction()?;
    let statement = list::approvals(query, after, limit + 1);
    let mut list = tx.prepare_cached(&statement.sql)?;
    let mut rows = list.query(params_from_iter(&statement.values))?;
    let mut found: Vec<(RunRow, ApprovalRow)> = Vec::new();
    let mut next = None;
    while let Some(row) = rows.next()? {
        if let Some((run, approval)) = found.last().filter(|_| found.len() == limit) {
            let (accepted, run) = (row::whole(run.accepted.0), run.run.to_bytes());
            next = Some(cursor::write(List::Approvals, &Place { accepted, run, key: approval.key.clone() }));
            break;
        }
        let run = row::run_id(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let about = match found.last() {
            Some((last, _)) if last.run == run => last.clone(),
            Some(_) | None => by_run(&tx, run)?
                .ok_or_else(|| Trouble::Damaged(format!("a question of run {run}, which is not there")))?,
        };
        found.push((about, row::approval(row, 2)?));
    }
    Ok(Page { rows: found, next })
}
