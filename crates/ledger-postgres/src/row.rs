//! Rows: what is read back, with the proof that it makes sense.
//!
//! Owns: decoding. Never: trusts a table.
use kapell_ledger::{ApprovalRow, RunRow, RunState};
use kapell_model::{Json, Name, RunId, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;

use crate::text::{Id, original};
use crate::trouble::Trouble;

/// All columns of a run `r` with its questions `q`, in the order in which [`run`] takes them.
pub(crate) const RUN_COLUMNS: &str = "r.run, r.namespace, r.workflow, r.version, r.key, r.state, r.accepted, r.ended, \
     r.error_class, r.error_message, r.output, r.outcome, r.parent, r.entities, \
     q.keys, q.steps, q.kinds, q.asks, q.shows, q.expiries";

/// The questions of `r`, one row of lists; a run that has none is not looked up.
pub(crate) const WITH_QUESTIONS: &str = "LEFT JOIN LATERAL (\
     SELECT array_agg(a.key ORDER BY a.place) AS keys, array_agg(a.step ORDER BY a.place) AS steps, \
     array_agg(a.kind ORDER BY a.place) AS kinds, array_agg(a.ask ORDER BY a.place) AS asks, \
     array_agg(a.show ORDER BY a.place) AS shows, array_agg(a.expires ORDER BY a.place) AS expiries \
     FROM kapell_ledger.approvals a WHERE r.approvals > 0 AND a.run = r.run) q ON TRUE";

/// SQL has no unsigned numbers; what is beyond its range is beyond any clock or journal, too.
pub(crate) fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> Result<u64, Trouble> {
    u64::try_from(value).map_err(|_| damaged("a negative number"))
}

fn damaged(what: &str) -> Trouble {
    Trouble::Damaged(format!("a row has {what}"))
}

/// The columns of a row from the first on.
struct Columns<'r> {
    row: &'r Row,
    next: usize,
}

impl Columns<'_> {
    fn take<T: FromSqlOwned>(&mut self) -> Result<T, Trouble> {
        let at = self.next;
        self.next += 1;
        self.row.try_get(at).map_err(|error| damaged(&format!("no such column {at}: {error}")))
    }

    fn text(&mut self) -> Result<String, Trouble> {
        unmarked(self.take()?)
    }

    fn optional(&mut self) -> Result<Option<String>, Trouble> {
        self.take::<Option<String>>()?.map(unmarked).transpose()
    }

    fn name(&mut self) -> Result<Name, Trouble> {
        Name::new(&self.take::<String>()?).map_err(|error| Trouble::Damaged(error.to_string()))
    }

    fn list<T: FromSqlOwned>(&mut self) -> Result<Vec<T>, Trouble> {
        Ok(self.take::<Option<Vec<T>>>()?.unwrap_or_default())
    }
}

fn unmarked(text: String) -> Result<String, Trouble> {
    original(text).ok_or_else(|| damaged("a text with a mark that nobody wrote"))
}

fn json(text: &str) -> Result<Json, Trouble> {
    Json::parse(text).map_err(|error| Trouble::Damaged(error.to_string()))
}

fn time(value: i64) -> Result<Timestamp, Trouble> {
    unsigned(value).map(Timestamp)
}

fn entities_of(text: Option<String>) -> Result<Vec<String>, Trouble> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let list = json(&text)?.value();
    let strings =
        list.as_array().map(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
    strings.flatten().ok_or_else(|| damaged("entities that are no list of texts"))
}

/// From [`RUN_COLUMNS`].
pub(crate) fn run(row: &Row) -> Result<RunRow, Trouble> {
    let columns = &mut Columns { row, next: 0 };
    let (run, namespace, workflow) = (run_id(columns.take()?), columns.name()?, columns.name()?);
    let (version, key, state) = (columns.text()?, columns.optional()?, columns.take::<String>()?);
    let (accepted, ended) = (columns.take()?, columns.take::<Option<i64>>()?);
    let error = match (columns.optional()?, columns.optional()?) {
        (Some(class), Some(message)) => Some((class, message)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err(damaged("half an error")),
    };
    let (output, outcome) = (columns.take::<Option<String>>()?, columns.optional()?);
    let (parent, entities) = (columns.take::<Option<Id>>()?, columns.take()?);
    Ok(RunRow {
        run,
        namespace,
        workflow,
        version,
        key,
        state: RunState::named(&state).ok_or_else(|| damaged("an unknown state"))?,
        accepted: time(accepted)?,
        ended: ended.map(time).transpose()?,
        error,
        output: output.as_deref().map(json).transpose()?,
        outcome,
        parent: parent.map(run_id),
        entities: entities_of(entities)?,
        approvals: questions(columns)?,
    })
}

fn questions(columns: &mut Columns<'_>) -> Result<Vec<ApprovalRow>, Trouble> {
    let (keys, steps) = (columns.list::<String>()?, columns.list::<String>()?);
    let (kinds, asks) = (columns.list::<String>()?, columns.list::<String>()?);
    let (shows, expiries) = (columns.list::<String>()?, columns.list::<Option<i64>>()?);
    let words = keys.into_iter().zip(steps).zip(kinds.into_iter().zip(asks));
    let questions = words.zip(shows.into_iter().zip(expiries));
    let question = |(((key, step), (kind, ask)), (show, expires)): (_, (String, Option<i64>))| {
        Ok(ApprovalRow {
            key: unmarked(key)?,
            step: unmarked(step)?,
            kind: unmarked(kind)?,
            ask: unmarked(ask)?,
            show: json(&show)?,
            expires: expires.map(time).transpose()?,
        })
    };
    questions.map(question).collect()
}

/// From `run, key, step, kind, ask, show, expires`.
pub(crate) fn approval(row: &Row) -> Result<(RunId, ApprovalRow), Trouble> {
    let columns = &mut Columns { row, next: 0 };
    let run = run_id(columns.take()?);
    let (key, step) = (columns.text()?, columns.text()?);
    let (kind, ask) = (columns.text()?, columns.text()?);
    let (show, expires) = (json(&columns.take::<String>()?)?, columns.take::<Option<i64>>()?);
    Ok((run, ApprovalRow { key, step, kind, ask, show, expires: expires.map(time).transpose()? }))
}

fn run_id(id: Id) -> RunId {
    RunId::from_bytes(id.0)
}
