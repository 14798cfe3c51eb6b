//! Rows: what a column holds of what the port says.
//!
//! Owns: decoding, and the proof that what is stored makes sense. Never: trusts a file.
use kapell_ledger::{ApprovalRow, RunRow, RunState};
use kapell_model::{Json, Name, RunId, Timestamp};
use rusqlite::Row;

use crate::trouble::Trouble;

/// All columns of a run, in the order in which [`run`] takes them.
pub(crate) const RUN_COLUMNS: &str = "run, namespace, workflow, version, key, state, accepted, ended, error_class, \
     error_message, output, outcome, parent, entities, approvals";

/// SQLite has no unsigned numbers; what is beyond its range is beyond any clock or journal, too.
pub(crate) fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> Result<u64, Trouble> {
    u64::try_from(value).map_err(|_| damaged("a negative number"))
}

fn damaged(what: &str) -> Trouble {
    Trouble::Damaged(format!("a row has {what}"))
}

fn name(text: &str) -> Result<Name, Trouble> {
    Name::new(text).map_err(|error| Trouble::Damaged(error.to_string()))
}

fn json(text: &str) -> Result<Json, Trouble> {
    Json::parse(text).map_err(|error| Trouble::Damaged(error.to_string()))
}

fn time(value: Option<i64>) -> Result<Option<Timestamp>, Trouble> {
    value.map(|value| unsigned(value).map(Timestamp)).transpose()
}

pub(crate) fn run_id(bytes: &[u8]) -> Result<RunId, Trouble> {
    bytes.try_into().map(RunId::from_bytes).map_err(|_| damaged("a run id that is not 16 bytes"))
}

/// `None` for an empty list, so that most rows store nothing.
pub(crate) fn entities_text(entities: &[String]) -> Option<String> {
    (!entities.is_empty())
        .then(|| Json::list(&entities.iter().map(|text| Json::string(text)).collect::<Vec<_>>()))
        .map(|list| list.as_str().to_owned())
}

pub(crate) fn entities_of(text: Option<&str>) -> Result<Vec<String>, Trouble> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let list = json(text)?.value();
    let strings =
        list.as_array().map(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
    strings.flatten().ok_or_else(|| damaged("entities that are no list of texts"))
}

/// A run without its questions, and how many it has.
pub(crate) fn run(row: &Row<'_>) -> Result<(RunRow, i64), Trouble> {
    let text = |at: usize| row.get_ref(at)?.as_str().map_err(rusqlite::Error::from).map_err(Trouble::from);
    let optional =
        |at: usize| row.get_ref(at)?.as_str_or_null().map_err(rusqlite::Error::from).map_err(Trouble::from);
    let parent: Option<Vec<u8>> = row.get(12)?;
    let error = match (optional(8)?, optional(9)?) {
        (Some(class), Some(message)) => Some((class.to_owned(), message.to_owned())),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err(damaged("half an error")),
    };
    let found = RunRow {
        run: run_id(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?,
        namespace: name(text(1)?)?,
        workflow: name(text(2)?)?,
        version: text(3)?.to_owned(),
        key: optional(4)?.map(str::to_owned),
        state: RunState::named(text(5)?).ok_or_else(|| damaged("an unknown state"))?,
        accepted: Timestamp(unsigned(row.get(6)?)?),
        ended: time(row.get(7)?)?,
        error,
        output: optional(10)?.map(json).transpose()?,
        outcome: optional(11)?.map(str::to_owned),
        parent: parent.as_deref().map(run_id).transpose()?,
        entities: entities_of(optional(13)?)?,
        approvals: Vec::new(),
    };
    Ok((found, row.get(14)?))
}

/// From `key, step, kind, ask, show, expires`, which begin at column `first`.
pub(crate) fn approval(row: &Row<'_>, first: usize) -> Result<ApprovalRow, Trouble> {
    let show: String = row.get(first + 4)?;
    Ok(ApprovalRow {
        key: row.get(first)?,
        step: row.get(first + 1)?,
        kind: row.get(first + 2)?,
        ask: row.get(first + 3)?,
        show: json(&show)?,
        expires: time(row.get(first + 5)?)?,
    })
}
