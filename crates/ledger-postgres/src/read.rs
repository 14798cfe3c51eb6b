//! Reading: pages, single runs, watermarks.
//!
//! Owns: what is read together (one snapshot a call). Never: writes, or chooses an index.
use std::collections::BTreeMap;

use futures::try_join;
use kapell_ledger::cursor::{self, List, Place};
use kapell_ledger::{ApprovalQuery, ApprovalRow, Cursor, Page, RunQuery, RunRow, page_rows};
use kapell_model::{RunId, Seq, ShardId};
use tokio_postgres::{Client, Row};

use crate::link::Work;
use crate::list::{self, Statement};
use crate::row::{self, unsigned, whole};
use crate::trouble::Trouble;

async fn ask(client: &Client, statement: &Statement) -> Result<Vec<Row>, Trouble> {
    Ok(client.query_typed(&statement.sql, &statement.values()).await?)
}

/// How far a shard is contained.
pub(crate) struct Watermark(pub(crate) ShardId);

impl Work for Watermark {
    type Answer = Seq;

    async fn once(&self, client: &Client) -> Result<Seq, Trouble> {
        let found = ask(client, &list::watermark(self.0)).await?;
        found.first().map_or(Ok(Seq::ZERO), |row| Ok(Seq(unsigned(row.try_get(0)?)?)))
    }
}

/// One run.
pub(crate) struct One(pub(crate) RunId);

impl Work for One {
    type Answer = Option<RunRow>;

    async fn once(&self, client: &Client) -> Result<Option<RunRow>, Trouble> {
        ask(client, &list::run(self.0)).await?.first().map(row::run).transpose()
    }
}

/// A query and the place behind which its page begins.
pub(crate) struct PageOf<Query> {
    pub(crate) query: Query,
    pub(crate) after: Option<Place>,
}

impl Work for PageOf<RunQuery> {
    type Answer = Page<RunRow>;

    async fn once(&self, client: &Client) -> Result<Page<RunRow>, Trouble> {
        let limit = page_rows(self.query.limit);
        // One more than asked for tells whether there is a next page.
        let found = ask(client, &list::runs(&self.query, self.after.as_ref(), limit + 1)).await?;
        let rows = found.iter().take(limit).map(row::run).collect::<Result<Vec<_>, _>>()?;
        let last = rows.last().filter(|_| found.len() > limit);
        let next = last.map(|last| place(List::Runs, last, ""));
        Ok(Page { rows, next })
    }
}

fn place(list: List, row: &RunRow, key: &str) -> Cursor {
    let (accepted, run) = (whole(row.accepted.0), row.run.to_bytes());
    cursor::write(list, &Place { accepted, run, key: key.to_owned() })
}

/// Both statements see one state. The locks come first, in the order in which [`crate::write::reset`] takes them: what
/// is emptied while it is read would look empty to the second statement alone.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
     LOCK TABLE kapell_ledger.runs, kapell_ledger.approvals IN ACCESS SHARE MODE";

impl Work for PageOf<ApprovalQuery> {
    type Answer = Page<(RunRow, ApprovalRow)>;

    async fn once(&self, client: &Client) -> Result<Self::Answer, Trouble> {
        let limit = page_rows(self.query.limit);
        let page = list::approvals(&self.query, self.after.as_ref(), limit + 1);
        let begin = async { Ok(client.batch_execute(BEGIN).await?) };
        let ((), found) = try_join!(begin, ask(client, &page))?;
        let questions = found.iter().take(limit).map(row::approval).collect::<Result<Vec<_>, _>>()?;
        let mut runs: Vec<RunId> = questions.iter().map(|(run, _)| *run).collect();
        runs.dedup();
        let these = list::these(&runs);
        let commit = async { Ok(client.batch_execute("COMMIT").await?) };
        let (about, ()) = try_join!(ask(client, &these), commit)?;
        let about = about.iter().map(|row| row::run(row).map(|row| (row.run, row)));
        let about = about.collect::<Result<BTreeMap<RunId, RunRow>, Trouble>>()?;
        let with_run = |(run, approval): (RunId, ApprovalRow)| match about.get(&run) {
            Some(row) => Ok((row.clone(), approval)),
            None => Err(Trouble::Damaged(format!("a question of run {run}, which is not there"))),
        };
        let rows = questions.into_iter().map(with_run).collect::<Result<Vec<_>, _>>()?;
        let next = match rows.last() {
            Some((row, approval)) if found.len() > limit => Some(place(List::Approvals, row, &approval.key)),
            Some(_) | None => None,
        };
        Ok(Page { rows, next })
    }
}
