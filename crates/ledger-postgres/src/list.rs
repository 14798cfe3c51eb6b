//! Which index answers which query.
//!
//! Owns: the text of every list statement. Never: reads a row.
//!
//! A list by key or by entity is one ordered walk through an index. All others go through one index that has
//! namespace, workflow and state before the order. First come the groups (namespace, workflow, state) that there are,
//! found by jumps from one to the next; then the newest run of each; then the groups whose newest are in front are
//! walked, as far as one page needs. So a page costs a probe for each group and reads a page from each of at most as
//! many groups as it has rows. An index for each kind of list would be faster to read, and every change of a run's
//! state would pay for all of them.
//!
//! Lists by key or entity over all tenants sort what they find: operators ask them, tenants never.
use kapell_ledger::cursor::Place;
use kapell_ledger::{ApprovalQuery, RunQuery, RunState};
use kapell_model::{RunId, ShardId};
use tokio_postgres::types::{ToSql, Type};

use crate::row::{RUN_COLUMNS, WITH_QUESTIONS, whole};
use crate::text::{Id, hash, stored};

type Value = Box<dyn ToSql + Sync + Send>;

/// A statement and what to bind to it.
pub(crate) struct Statement {
    pub(crate) sql: String,
    values: Vec<(Value, Type)>,
}

impl Statement {
    fn new() -> Statement {
        Statement { sql: String::new(), values: Vec::new() }
    }

    fn bind(&mut self, value: impl ToSql + Sync + Send + 'static, kind: Type) -> String {
        self.values.push((Box::new(value), kind));
        format!("${}", self.values.len())
    }

    fn text(&mut self, value: &str) -> String {
        self.bind(stored(value).into_owned(), Type::TEXT)
    }

    pub(crate) fn values(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.values.iter().map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone())).collect()
    }
}

const FIRST_RUN: Id = Id([0; 16]);
const LAST_RUN: Id = Id([0xff; 16]);

/// At most `rows` runs after `after`, newest accepted first.
pub(crate) fn runs(query: &RunQuery, after: Option<&Place>, rows: usize) -> Statement {
    let mut statement = Statement::new();
    let bounds = bounds(&mut statement, query, after, rows);
    let page = if let Some(entity) = &query.entity {
        by_entity(&mut statement, query, entity, &bounds)
    } else if let Some(key) = &query.key {
        by_key(&mut statement, query, key, &bounds)
    } else {
        by_group(&mut statement, query, &bounds)
    };
    statement.sql = format!(
        "WITH RECURSIVE {page} SELECT {RUN_COLUMNS} FROM page JOIN kapell_ledger.runs r ON r.run = page.run \
         {WITH_QUESTIONS} ORDER BY page.accepted DESC, page.run DESC"
    );
    statement
}

/// What every walk has in common.
struct Bounds {
    before: (String, String),
    from: String,
    limit: String,
}

impl Bounds {
    /// Conditions on the time of a table, its order and where it ends.
    fn of(&self, table: &str) -> (String, String) {
        let ((accepted, run), from) = (&self.before, &self.from);
        let within =
            format!("({table}.accepted, {table}.run) < ({accepted}, {run}) AND {table}.accepted >= {from}");
        (within, format!("ORDER BY {table}.accepted DESC, {table}.run DESC LIMIT"))
    }
}

/// "Accepted before" and "after this cursor" are both "before this place", so the earlier of the two is the bound.
fn bounds(statement: &mut Statement, query: &RunQuery, after: Option<&Place>, rows: usize) -> Bounds {
    let end = match query.accepted_to {
        Some(to) => (whole(to.0), FIRST_RUN),
        None => (i64::MAX, LAST_RUN),
    };
    let (accepted, run) = match after {
        Some(place) => end.min((place.accepted, Id(place.run))),
        None => end,
    };
    let from = query.accepted_from.map_or(i64::MIN, |from| whole(from.0));
    Bounds {
        before: (statement.bind(accepted, Type::INT8), statement.bind(run, Type::UUID)),
        from: statement.bind(from, Type::INT8),
        limit: statement.bind(whole(rows as u64), Type::INT8),
    }
}

/// Namespace, workflow and states, as conditions on a table.
fn filters(statement: &mut Statement, query: &RunQuery, table: &str) -> String {
    let mut all = String::new();
    if let Some(workflow) = &query.workflow {
        all.push_str(&format!(" AND {table}.workflow = {}", statement.text(workflow.as_str())));
    }
    if !query.states.is_empty() {
        all.push_str(&format!(" AND {table}.state = ANY({})", states(statement, query)));
    }
    all
}

fn states(statement: &mut Statement, query: &RunQuery) -> String {
    let states = query.states.iter().map(|state: &RunState| state.as_str()).collect::<Vec<_>>();
    statement.bind(states, Type::TEXT_ARRAY)
}

fn in_namespace(statement: &mut Statement, query: &RunQuery, table: &str) -> String {
    query.namespace.as_ref().map_or_else(String::new, |namespace| {
        format!(" AND {table}.namespace = {}", statement.text(namespace.as_str()))
    })
}

fn with_key(statement: &mut Statement, key: &str) -> String {
    let (hash, key) = (statement.bind(hash(key), Type::INT8), statement.text(key));
    format!("r.key_hash = {hash} AND r.key = {key}")
}

fn by_entity(statement: &mut Statement, query: &RunQuery, entity: &str, bounds: &Bounds) -> String {
    let (hash, entity) = (statement.bind(hash(entity), Type::INT8), statement.text(entity));
    let namespace = in_namespace(statement, query, "e");
    let mut of_run = filters(statement, query, "r");
    if let Some(key) = &query.key {
        of_run.push_str(&format!(" AND {}", with_key(statement, key)));
    }
    // Without a restriction on the run itself, the entity's own table knows enough.
    let join = if of_run.is_empty() { "" } else { " JOIN kapell_ledger.runs r ON r.run = e.run" };
    let ((within, order), limit) = (bounds.of("e"), &bounds.limit);
    format!(
        "page AS (SELECT e.accepted, e.run FROM kapell_ledger.run_entities e{join} \
         WHERE e.entity_hash = {hash} AND e.entity = {entity}{namespace}{of_run} AND {within} {order} {limit})"
    )
}

fn by_key(statement: &mut Statement, query: &RunQuery, key: &str, bounds: &Bounds) -> String {
    let key = with_key(statement, key);
    let namespace = in_namespace(statement, query, "r");
    let filters = filters(statement, query, "r");
    let ((within, order), limit) = (bounds.of("r"), &bounds.limit);
    format!(
        "page AS (SELECT r.accepted, r.run FROM kapell_ledger.runs r \
         WHERE {key}{namespace}{filters} AND {within} {order} {limit})"
    )
}

/// The jump compares whole groups and nothing else: with `namespace = …` beside it, PostgreSQL would begin at the
/// namespace each time and read on from there.
fn by_group(statement: &mut Statement, query: &RunQuery, bounds: &Bounds) -> String {
    let namespace = query.namespace.as_ref().map(|name| statement.text(name.as_str()));
    let workflow = query.workflow.as_ref().map(|name| statement.text(name.as_str()));
    let group = |table: &str| format!("{table}.namespace, {table}.workflow, {table}.state");
    let (begin, goes_on) = match (&namespace, &workflow) {
        (Some(namespace), Some(workflow)) => (
            format!("WHERE r.namespace = {namespace} AND r.workflow = {workflow}"),
            format!("WHERE next.namespace = {namespace} AND next.workflow = {workflow}"),
        ),
        (Some(namespace), None) => {
            (format!("WHERE r.namespace = {namespace}"), format!("WHERE next.namespace = {namespace}"))
        }
        (None, _) => (String::new(), String::new()),
    };
    let mut wanted = Vec::new();
    if namespace.is_none()
        && let Some(workflow) = &workflow
    {
        wanted.push(format!("groups.workflow = {workflow}"));
    }
    if !query.states.is_empty() {
        wanted.push(format!("groups.state = ANY({})", states(statement, query)));
    }
    let wanted = if wanted.is_empty() { "TRUE".to_owned() } else { wanted.join(" AND ") };
    let ((within, order), limit) = (bounds.of("r"), &bounds.limit);
    let walk = |of: &str, rows: &str| {
        format!(
            "(SELECT r.accepted, r.run FROM kapell_ledger.runs r WHERE r.namespace = {of}.namespace \
             AND r.workflow = {of}.workflow AND r.state = {of}.state AND {within} {order} {rows}) walk"
        )
    };
    let (columns, first) = (group("r"), format!("ORDER BY {} LIMIT 1", group("r")));
    format!(
        "groups AS ((SELECT {columns} FROM kapell_ledger.runs r {begin} {first}) \
         UNION ALL SELECT {next} FROM groups CROSS JOIN LATERAL \
         (SELECT {columns} FROM kapell_ledger.runs r WHERE ({columns}) > ({last}) {first}) next {goes_on}), \
         heads AS (SELECT {last}, walk.accepted, walk.run FROM groups CROSS JOIN LATERAL {head} \
         WHERE {wanted} {in_front} {limit}), \
         page AS (SELECT walk.accepted, walk.run FROM heads CROSS JOIN LATERAL {whole} {in_front} {limit})",
        next = group("next"),
        last = group("groups"),
        head = walk("groups", "1"),
        whole = walk("heads", limit),
        in_front = "ORDER BY walk.accepted DESC, walk.run DESC LIMIT",
    )
}

/// One run.
pub(crate) fn run(run: RunId) -> Statement {
    let mut statement = Statement::new();
    let id = statement.bind(Id(run.to_bytes()), Type::UUID);
    statement.sql =
        format!("SELECT {RUN_COLUMNS} FROM kapell_ledger.runs r {WITH_QUESTIONS} WHERE r.run = {id}");
    statement
}

/// Several runs, in no order.
pub(crate) fn these(runs: &[RunId]) -> Statement {
    let mut statement = Statement::new();
    let ids = runs.iter().map(|run| Id(run.to_bytes())).collect::<Vec<_>>();
    let ids = statement.bind(ids, Type::UUID_ARRAY);
    statement.sql =
        format!("SELECT {RUN_COLUMNS} FROM kapell_ledger.runs r {WITH_QUESTIONS} WHERE r.run = ANY({ids})");
    statement
}

/// `run, key, step, kind, ask, show, expires` of at most `rows` questions after `after`, oldest run first.
///
/// The indexes end with the run, since a key may be longer than an index allows: within one run it is sorted.
pub(crate) fn approvals(query: &ApprovalQuery, after: Option<&Place>, rows: usize) -> Statement {
    let mut statement = Statement::new();
    let (accepted, run, key) = match after {
        Some(place) => (place.accepted, Id(place.run), place.key.as_str()),
        None => (i64::MIN, FIRST_RUN, ""),
    };
    let (accepted, run) = (statement.bind(accepted, Type::INT8), statement.bind(run, Type::UUID));
    let key = statement.text(key);
    let mut filter = format!(
        "(a.accepted, a.run) >= ({accepted}, {run}) AND ((a.accepted, a.run) > ({accepted}, {run}) OR a.key > {key})"
    );
    // Of one run no index but that of runs is of use, and no other can answer this.
    let equals = if query.run.is_some() { "IS NOT DISTINCT FROM" } else { "=" };
    if let Some(namespace) = &query.namespace {
        filter.push_str(&format!(" AND a.namespace {equals} {}", statement.text(namespace.as_str())));
    }
    if let Some(run) = query.run {
        filter.push_str(&format!(" AND a.run = {}", statement.bind(Id(run.to_bytes()), Type::UUID)));
    }
    let limit = statement.bind(whole(rows as u64), Type::INT8);
    statement.sql = format!(
        "SELECT a.run, a.key, a.step, a.kind, a.ask, a.show, a.expires FROM kapell_ledger.approvals a \
         WHERE {filter} ORDER BY a.accepted, a.run, a.key LIMIT {limit}"
    );
    statement
}

/// How far a shard is contained.
pub(crate) fn watermark(shard: ShardId) -> Statement {
    let mut statement = Statement::new();
    let shard = statement.bind(i32::from(shard.0), Type::INT4);
    statement.sql = format!("SELECT through FROM kapell_ledger.watermarks WHERE shard = {shard}");
    statement
}

#[cfg(test)]
mod tests;
