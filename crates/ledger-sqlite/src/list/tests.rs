//! Every shape of query is looked up, not scanned.
use kapell_ledger::cursor::Place;
use kapell_ledger::{ApprovalQuery, RunQuery, RunState};
use kapell_model::{Name, RunId, ShardId, Timestamp};
use rusqlite::{Connection, params_from_iter};

use super::{Statement, approvals, runs};
use crate::schema;

fn plan(conn: &Connection, statement: &Statement) -> Vec<String> {
    let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {}", statement.sql)).unwrap();
    let lines =
        explain.query_map(params_from_iter(&statement.values), |row| row.get::<_, String>(3)).unwrap();
    lines.map(Result::unwrap).collect()
}

fn place() -> Place {
    Place { accepted: 5, run: [5; 16], key: "k".to_owned() }
}

/// All combinations of filters: two to the seventh, with none, one, two and eight states.
fn queries() -> Vec<(RunQuery, Option<Place>)> {
    let mut all = Vec::new();
    for bits in 0..64_u32 {
        for states in [0, 1, 2, 8] {
            let on = |bit: u32| bits & (1 << bit) != 0;
            let query = RunQuery {
                namespace: on(0).then(|| Name::new("retail").unwrap()),
                workflow: on(1).then(|| Name::new("pricing").unwrap()),
                states: RunState::ALL[..states].to_vec(),
                key: on(2).then(|| "key".to_owned()),
                entity: on(3).then(|| "vendor:1".to_owned()),
                accepted_from: on(4).then_some(Timestamp(1)),
                accepted_to: on(4).then_some(Timestamp(9)),
                cursor: None,
                limit: 10,
            };
            all.push((query, on(5).then(place)));
        }
    }
    all
}

#[test]
fn every_list_of_runs_is_a_search_through_the_index_that_was_meant() {
    let conn = schema::open_in_memory().unwrap();
    for (query, after) in queries() {
        let statement = runs(&query, after.as_ref(), 11);
        let plan = plan(&conn, &statement);
        let shown = format!("{query:?}\n{}\n{plan:#?}", statement.sql);
        assert!(!plan.iter().any(|line| line.starts_with("SCAN")), "reads all rows: {shown}");
        let leads = if query.entity.is_some() {
            "SEARCH entities USING PRIMARY KEY (entity=?"
        } else if query.key.is_some() {
            "SEARCH runs USING INDEX runs_by_key (key=?"
        } else if query.workflow.is_some() {
            "SEARCH runs USING COVERING INDEX runs_by_workflow (workflow=?"
        } else if query.namespace.is_some() {
            "SEARCH runs USING COVERING INDEX runs_by_namespace (namespace=? AND state=? AND"
        } else {
            "SEARCH runs USING COVERING INDEX runs_by_state (state=? AND"
        };
        // The key's index is partial, so it may or may not be enough alone.
        let covering = leads.replace("USING INDEX", "USING COVERING INDEX");
        let searches: Vec<&String> = plan.iter().filter(|line| line.starts_with("SEARCH")).collect();
        let led = |line: &&&String| line.starts_with(leads) || line.starts_with(&covering);
        let joins = searches.iter().filter(|line| line.starts_with("SEARCH runs USING INTEGER PRIMARY KEY"));
        assert!(searches.iter().any(|line| led(&line)), "not led by {leads}: {shown}");
        assert_eq!(searches.iter().filter(led).count() + joins.count(), searches.len(), "{shown}");
        // Only what spans all tenants may be sorted, and then only rows of that key, entity or workflow.
        let narrow = query.entity.is_some() || query.key.is_some() || query.workflow.is_some();
        let sorted = plan.iter().any(|line| line.contains("TEMP B-TREE"));
        assert_eq!(sorted, narrow && query.namespace.is_none(), "{shown}");
        if !sorted {
            assert!(
                searches.iter().filter(led).all(|line| line.contains("accepted>? AND accepted<?")
                    || line.contains("(accepted,run)<(?,?)")),
                "time is not part of the search: {shown}"
            );
        }
    }
}

#[test]
fn every_list_of_questions_is_an_ordered_search() {
    let conn = schema::open_in_memory().unwrap();
    for bits in 0..8_u32 {
        let on = |bit: u32| bits & (1 << bit) != 0;
        let query = ApprovalQuery {
            namespace: on(0).then(|| Name::new("retail").unwrap()),
            run: on(1).then(|| RunId::new(ShardId(1), 2)),
            cursor: None,
            limit: 10,
        };
        let statement = approvals(&query, on(2).then(place).as_ref(), 11);
        let plan = plan(&conn, &statement);
        let shown = format!("{query:?}\n{}\n{plan:#?}", statement.sql);
        let leads = match (query.run, &query.namespace) {
            (Some(_), _) => "SEARCH approvals USING PRIMARY KEY (run=?",
            (None, Some(_)) => {
                "SEARCH approvals USING INDEX approvals_by_namespace (namespace=? AND (accepted,run,key)>(?,?,?)"
            }
            (None, None) => "SEARCH approvals USING INDEX approvals_by_time ((accepted,run,key)>(?,?,?)",
        };
        assert!(matches!(&plan[..], [only] if only.starts_with(leads)), "not led by {leads}: {shown}");
    }
}

#[test]
fn single_rows_are_found_by_an_index() {
    let conn = schema::open_in_memory().unwrap();
    for sql in [
        "SELECT * FROM runs WHERE run = ?1",
        "SELECT * FROM runs WHERE id = ?1",
        "SELECT * FROM approvals WHERE run = ?1 ORDER BY place",
        "SELECT through FROM watermarks WHERE shard = ?1",
        "DELETE FROM approvals WHERE run = ?1",
    ] {
        let statement = Statement { sql: sql.to_owned(), values: vec![1.into()] };
        let plan = plan(&conn, &statement);
        assert!(plan[0].starts_with("SEARCH"), "{sql}: {plan:?}");
    }
}
