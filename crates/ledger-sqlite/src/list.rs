//! Which index answers which query.
//!
//! Owns: the text of every list statement. Never: reads a row, or leaves the choice of an index to the planner.
//!
//! A list is one or several ordered walks through an index (one for each state), merged; it stops at the limit. Three
//! lists over all tenants (by key, by entity, by workflow without a namespace) read all rows of that key, entity or
//! workflow and keep the first ones: operators ask them, tenants never.
use kapell_ledger::cursor::Place;
use kapell_ledger::{ApprovalQuery, RunQuery, RunState};
use rusqlite::types::Value;

use crate::row::whole;

/// A statement and what to bind to it.
pub(crate) struct Statement {
    pub(crate) sql: String,
    pub(crate) values: Vec<Value>,
}

impl Statement {
    fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }
}

/// Greater than every run id as SQLite compares blobs.
const AFTER_EVERY_RUN: [u8; 17] = [0xff; 17];

enum Path {
    Entity,
    Key,
    Workflow,
    Namespace,
    Everything,
}

impl Path {
    fn of(query: &RunQuery) -> Path {
        if query.entity.is_some() {
            Path::Entity
        } else if query.key.is_some() {
            Path::Key
        } else if query.workflow.is_some() {
            Path::Workflow
        } else if query.namespace.is_some() {
            Path::Namespace
        } else {
            Path::Everything
        }
    }

    /// Whether the index has the state before the order, so that each state is a walk of its own.
    fn walks_by_state(&self, query: &RunQuery) -> bool {
        match self {
            Path::Entity | Path::Key => false,
            Path::Workflow => query.namespace.is_some(),
            Path::Namespace | Path::Everything => true,
        }
    }
}

/// `id, accepted, run` of at most `rows` runs after `after`, newest accepted first.
pub(crate) fn runs(query: &RunQuery, after: Option<&Place>, rows: usize) -> Statement {
    let mut statement = Statement { sql: String::new(), values: Vec::new() };
    let bounds = bounds(&mut statement, query, after);
    let limit = statement.bind(i64::try_from(rows).unwrap_or(i64::MAX));
    let path = Path::of(query);
    let wanted: Vec<RunState> = RunState::ALL
        .into_iter()
        .filter(|state| query.states.is_empty() || query.states.contains(state))
        .collect();
    let states: Vec<String> = wanted.iter().map(|state| statement.bind(state.as_str().to_owned())).collect();
    let fixed = filters(&mut statement, &path, query);
    let walks: Vec<String> = if path.walks_by_state(query) {
        let walk = |state: &String| walk(&path, &format!("{fixed} AND runs.state = {state}"), &bounds, query);
        states.iter().map(walk).collect()
    } else if wanted.len() == RunState::ALL.len() {
        vec![walk(&path, &fixed, &bounds, query)]
    } else {
        vec![walk(&path, &format!("{fixed} AND runs.state IN ({})", states.join(", ")), &bounds, query)]
    };
    statement.sql = format!("{} ORDER BY 2 DESC, 3 DESC LIMIT {limit}", walks.join(" UNION ALL "));
    statement
}

/// Conditions on time, for a table of that name.
struct Bounds {
    before: (String, String),
    from: String,
}

/// "Accepted before" and "after this cursor" are both "before this place", so the earlier of the two is the bound.
fn bounds(statement: &mut Statement, query: &RunQuery, after: Option<&Place>) -> Bounds {
    let end = match query.accepted_to {
        Some(to) => (whole(to.0), Vec::new()),
        None => (i64::MAX, AFTER_EVERY_RUN.to_vec()),
    };
    let (accepted, run) = match after {
        Some(place) => end.min((place.accepted, place.run.to_vec())),
        None => end,
    };
    let from = query.accepted_from.map_or(i64::MIN, |from| whole(from.0));
    Bounds { before: (statement.bind(accepted), statement.bind(run)), from: statement.bind(from) }
}

fn filters(statement: &mut Statement, path: &Path, query: &RunQuery) -> String {
    let mut all = Vec::new();
    if let Some(entity) = &query.entity {
        all.push(format!("entities.entity = {}", statement.bind(entity.clone())));
    }
    if let Some(namespace) = &query.namespace {
        let table = match path {
            Path::Entity => "entities",
            Path::Key | Path::Workflow | Path::Namespace | Path::Everything => "runs",
        };
        all.push(format!("{table}.namespace = {}", statement.bind(namespace.as_str().to_owned())));
    }
    if let Some(workflow) = &query.workflow {
        all.push(format!("runs.workflow = {}", statement.bind(workflow.as_str().to_owned())));
    }
    if let Some(key) = &query.key {
        all.push(format!("runs.key = {}", statement.bind(key.clone())));
    }
    if all.is_empty() { "TRUE".to_owned() } else { all.join(" AND ") }
}

fn walk(path: &Path, filters: &str, bounds: &Bounds, query: &RunQuery) -> String {
    let ordered = match path {
        Path::Entity => "entities",
        Path::Key | Path::Workflow | Path::Namespace | Path::Everything => "runs",
    };
    // Without a restriction on the run itself, the entity's own table knows enough.
    let needs_run = query.workflow.is_some() || query.key.is_some() || filters.contains("runs.state");
    let tables = match path {
        Path::Entity if needs_run => "entities CROSS JOIN runs ON runs.id = entities.id",
        Path::Entity => "entities",
        Path::Key => "runs INDEXED BY runs_by_key",
        Path::Workflow => "runs INDEXED BY runs_by_workflow",
        Path::Namespace => "runs INDEXED BY runs_by_namespace",
        Path::Everything => "runs INDEXED BY runs_by_state",
    };
    let (accepted, run) = &bounds.before;
    let from = &bounds.from;
    format!(
        "SELECT {ordered}.id, {ordered}.accepted, {ordered}.run FROM {tables} WHERE {filters} \
         AND ({ordered}.accepted, {ordered}.run) < ({accepted}, {run}) AND {ordered}.accepted >= {from}"
    )
}

/// `accepted, run, key, step, kind, ask, show, expires` of at most `rows` questions after `after`, oldest run first.
pub(crate) fn approvals(query: &ApprovalQuery, after: Option<&Place>, rows: usize) -> Statement {
    let mut statement = Statement { sql: String::new(), values: Vec::new() };
    let (accepted, run, key) = match after {
        Some(place) => (place.accepted, place.run.to_vec(), place.key.clone()),
        None => (i64::MIN, Vec::new(), String::new()),
    };
    let (accepted, run, key) = (statement.bind(accepted), statement.bind(run), statement.bind(key));
    let mut filter = format!("(accepted, run, key) > ({accepted}, {run}, {key})");
    if let Some(namespace) = &query.namespace {
        filter.push_str(&format!(" AND namespace = {}", statement.bind(namespace.as_str().to_owned())));
    }
    let (tables, order) = match (query.run, &query.namespace) {
        (Some(run), _) => {
            filter.push_str(&format!(" AND run = {}", statement.bind(run.to_bytes().to_vec())));
            // One run was accepted once, so the key alone is the order.
            ("approvals NOT INDEXED", "key")
        }
        (None, Some(_)) => ("approvals INDEXED BY approvals_by_namespace", "accepted, run, key"),
        (None, None) => ("approvals INDEXED BY approvals_by_time", "accepted, run, key"),
    };
    let limit = statement.bind(i64::try_from(rows).unwrap_or(i64::MAX));
    statement.sql = format!(
        "SELECT accepted, run, key, step, kind, ask, show, expires FROM {tables} WHERE {filter} \
         ORDER BY {order} LIMIT {limit}"
    );
    statement
}

#[cfg(test)]
mod tests;
