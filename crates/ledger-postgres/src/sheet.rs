//! Sheets: many rows as columns, for statements that store them all at once.
//!
//! Owns: which value goes to which column. Never: sends anything, or decides what has changed.
use std::borrow::Cow;

use kapell_ledger::{ApprovalRow, RunRow};
use kapell_model::Json;

use crate::row::whole;
use crate::text::{Id, Parts, hash, stored};

type Text<'a> = Cow<'a, str>;

/// What belongs to a run and to no other: told as `(run, digest)`, so that only what differs is written again.
#[derive(Default)]
pub(crate) struct Digests {
    pub(crate) entities: Vec<Id>,
    pub(crate) approvals: Vec<Id>,
}

/// The columns of `runs`.
#[derive(Default)]
pub(crate) struct Runs<'a> {
    pub(crate) run: Vec<Id>,
    pub(crate) accepted: Vec<i64>,
    pub(crate) ended: Vec<Option<i64>>,
    pub(crate) parent: Vec<Option<Id>>,
    pub(crate) key_hash: Vec<Option<i64>>,
    pub(crate) approvals: Vec<i32>,
    pub(crate) namespace: Vec<&'a str>,
    pub(crate) workflow: Vec<&'a str>,
    pub(crate) state: Vec<&'static str>,
    pub(crate) version: Vec<Text<'a>>,
    pub(crate) key: Vec<Option<Text<'a>>>,
    pub(crate) error_class: Vec<Option<Text<'a>>>,
    pub(crate) error_message: Vec<Option<Text<'a>>>,
    pub(crate) output: Vec<Option<&'a str>>,
    pub(crate) outcome: Vec<Option<Text<'a>>>,
    pub(crate) entities: Vec<Option<String>>,
}

/// The columns of `run_entities`.
#[derive(Default)]
pub(crate) struct Entities<'a> {
    pub(crate) run: Vec<Id>,
    pub(crate) place: Vec<i32>,
    pub(crate) accepted: Vec<i64>,
    pub(crate) hash: Vec<i64>,
    pub(crate) digest: Vec<Id>,
    pub(crate) namespace: Vec<&'a str>,
    pub(crate) entity: Vec<Text<'a>>,
}

/// The columns of `approvals`.
#[derive(Default)]
pub(crate) struct Approvals<'a> {
    pub(crate) run: Vec<Id>,
    pub(crate) place: Vec<i32>,
    pub(crate) accepted: Vec<i64>,
    pub(crate) expires: Vec<Option<i64>>,
    pub(crate) digest: Vec<Id>,
    pub(crate) namespace: Vec<&'a str>,
    pub(crate) key: Vec<Text<'a>>,
    pub(crate) step: Vec<Text<'a>>,
    pub(crate) kind: Vec<Text<'a>>,
    pub(crate) ask: Vec<Text<'a>>,
    pub(crate) show: Vec<&'a str>,
}

/// Rows of one statement each.
#[derive(Default)]
pub(crate) struct Sheet<'a> {
    pub(crate) runs: Runs<'a>,
    pub(crate) entities: Entities<'a>,
    pub(crate) approvals: Approvals<'a>,
    pub(crate) digests: Digests,
}

impl<'a> Sheet<'a> {
    /// Each run at most once.
    pub(crate) fn of(rows: &[&'a RunRow]) -> Sheet<'a> {
        let mut sheet = Sheet::default();
        for row in rows {
            sheet.runs.push(row);
            let digest = entities_digest(row);
            sheet.digests.entities.push(digest);
            sheet.entities.push(row, digest);
            let digest = approvals_digest(row);
            sheet.digests.approvals.push(digest);
            sheet.approvals.push(row, digest);
        }
        sheet
    }
}

impl<'a> Runs<'a> {
    fn push(&mut self, row: &'a RunRow) {
        let text = |text: &'a Option<String>| text.as_deref().map(stored);
        let error = row.error.as_ref().map(|(class, message)| (stored(class), stored(message)));
        let (class, message) = error.unzip();
        self.run.push(Id(row.run.to_bytes()));
        self.accepted.push(whole(row.accepted.0));
        self.ended.push(row.ended.map(|ended| whole(ended.0)));
        self.parent.push(row.parent.map(|parent| Id(parent.to_bytes())));
        self.key_hash.push(row.key.as_deref().map(hash));
        self.approvals.push(count(row.approvals.len()));
        self.namespace.push(row.namespace.as_str());
        self.workflow.push(row.workflow.as_str());
        self.state.push(row.state.as_str());
        self.version.push(stored(&row.version));
        self.key.push(text(&row.key));
        self.error_class.push(class);
        self.error_message.push(message);
        self.output.push(row.output.as_ref().map(Json::as_str));
        self.outcome.push(text(&row.outcome));
        self.entities.push(entities_text(&row.entities));
    }
}

impl<'a> Entities<'a> {
    /// One that is named twice is found once.
    fn push(&mut self, row: &'a RunRow, digest: Id) {
        for (place, entity) in row.entities.iter().enumerate() {
            if row.entities[..place].contains(entity) {
                continue;
            }
            self.run.push(Id(row.run.to_bytes()));
            self.place.push(count(place));
            self.accepted.push(whole(row.accepted.0));
            self.hash.push(hash(entity));
            self.digest.push(digest);
            self.namespace.push(row.namespace.as_str());
            self.entity.push(stored(entity));
        }
    }
}

impl<'a> Approvals<'a> {
    fn push(&mut self, row: &'a RunRow, digest: Id) {
        for (place, approval) in row.approvals.iter().enumerate() {
            self.run.push(Id(row.run.to_bytes()));
            self.place.push(count(place));
            self.accepted.push(whole(row.accepted.0));
            self.expires.push(approval.expires.map(|expires| whole(expires.0)));
            self.digest.push(digest);
            self.namespace.push(row.namespace.as_str());
            self.key.push(stored(&approval.key));
            self.step.push(stored(&approval.step));
            self.kind.push(stored(&approval.kind));
            self.ask.push(stored(&approval.ask));
            self.show.push(approval.show.as_str());
        }
    }
}

/// A plan has ten thousand steps at most, so this is never cut.
fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// `None` for an empty list, so that most rows store nothing.
fn entities_text(entities: &[String]) -> Option<String> {
    let list = || Json::list(&entities.iter().map(|text| Json::string(text)).collect::<Vec<_>>());
    (!entities.is_empty()).then(|| list().as_str().to_owned())
}

const NOTHING: Id = Id([0; 16]);

fn place_in_lists(row: &RunRow) -> Parts {
    let mut parts = Parts::default();
    parts.add(row.namespace.as_str().as_bytes());
    parts.add(&row.accepted.0.to_be_bytes());
    parts
}

fn entities_digest(row: &RunRow) -> Id {
    if row.entities.is_empty() {
        return NOTHING;
    }
    let mut parts = place_in_lists(row);
    row.entities.iter().for_each(|entity| parts.add(entity.as_bytes()));
    parts.digest()
}

fn approvals_digest(row: &RunRow) -> Id {
    if row.approvals.is_empty() {
        return NOTHING;
    }
    let mut parts = place_in_lists(row);
    for ApprovalRow { key, step, kind, ask, show, expires } in &row.approvals {
        for text in [key, step, kind, ask] {
            parts.add(text.as_bytes());
        }
        parts.add(show.as_str().as_bytes());
        parts.add(&expires.map_or([0xff; 8], |expires| expires.0.to_be_bytes()));
    }
    parts.digest()
}

/// Bytes of a row as they travel, about.
pub(crate) fn weight(row: &RunRow) -> usize {
    /// Of what every row has: ids, numbers, names, lengths.
    const FIXED: usize = 200;
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let error = row.error.as_ref().map_or(0, |(class, message)| class.len() + message.len());
    let output = row.output.as_ref().map_or(0, Json::bytes_len);
    let asked = |one: &ApprovalRow| {
        FIXED + one.key.len() + one.step.len() + one.kind.len() + one.ask.len() + one.show.bytes_len()
    };
    let entities = row.entities.iter().map(|entity| FIXED + 2 * entity.len());
    FIXED
        + text(&row.key)
        + text(&row.outcome)
        + error
        + output
        + entities.chain(row.approvals.iter().map(asked)).sum::<usize>()
}
