//! Every shape of query is looked up by the index that is meant, with and without statistics, among many rows.
use std::collections::BTreeSet;

use kapell_ledger::cursor::Place;
use kapell_ledger::{ApprovalQuery, RunQuery, RunState};
use kapell_model::{Name, RunId, ShardId, Timestamp};
use kapell_runtime::Jobs;
use kapell_tests_servers::{Durability, Setup};
use tokio_postgres::Client;

use super::{Statement, approvals, run, runs, these, watermark};
use crate::link;

const FILL: &str = "
INSERT INTO kapell_ledger.runs (run, accepted, key_hash, key, approvals, namespace, workflow, state, version)
SELECT md5(i::text)::uuid, 1700000000000 + i, i % 5000, (i % 5000)::text, (i % 4 = 0)::int,
    (ARRAY['retail', 'wholesale', 'default'])[i % 3 + 1], 'workflow-' || (i / 3 % 10),
    (ARRAY['queued', 'running', 'waiting', 'paused', 'winding_up', 'completed', 'failed', 'canceled'])[i / 30 % 8 + 1],
    'v'
FROM generate_series(1, 100000) i;
INSERT INTO kapell_ledger.run_entities (run, place, accepted, entity_hash, digest, namespace, entity)
SELECT run, 0, accepted, key_hash, run, namespace, key FROM kapell_ledger.runs;
INSERT INTO kapell_ledger.approvals (run, place, accepted, digest, namespace, key, step, kind, ask, show)
SELECT run, 0, accepted, run, namespace, 'k', 's', 'step', '?', 'null' FROM kapell_ledger.runs WHERE approvals = 1;
INSERT INTO kapell_ledger.watermarks SELECT i, i, i FROM generate_series(0, 63) i;
";

/// What a plan reads, one `index` or `Seq Scan on table` each, and whether it sorts all that it finds.
#[derive(Debug)]
struct Plan {
    reads: BTreeSet<String>,
    text: String,
}

async fn plan(client: &Client, statement: &Statement) -> Plan {
    let rows = client.query_typed(&format!("EXPLAIN {}", statement.sql), &statement.values()).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let read = |line: &String| {
        let line = line.trim_start().trim_start_matches("->").trim_start();
        let (scan, rest) = line.split_once(" Scan ")?;
        match scan {
            "Index" | "Index Only" => Some(
                rest.trim_start_matches("Backward ")
                    .trim_start_matches("using ")
                    .split(' ')
                    .next()?
                    .to_owned(),
            ),
            // Of rows that the statement has found or brought itself.
            "WorkTable" | "CTE" | "Subquery" | "Function" => None,
            _ => Some(format!("{scan} Scan {}", rest.split("  ").next()?)),
        }
    };
    Plan { reads: lines.iter().filter_map(read).collect(), text: lines.join("\n") }
}

fn place() -> Place {
    Place { accepted: 1_700_000_050_000, run: [5; 16], key: "k".to_owned() }
}

/// All combinations of filters, with none, one, two and eight states.
fn queries() -> Vec<(RunQuery, Option<Place>)> {
    let mut all = Vec::new();
    for bits in 0..64_u32 {
        for states in [0, 1, 2, 8] {
            let on = |bit: u32| bits & (1 << bit) != 0;
            let query = RunQuery {
                namespace: on(0).then(|| Name::new("retail").unwrap()),
                workflow: on(1).then(|| Name::new("workflow-3").unwrap()),
                states: RunState::ALL[..states].to_vec(),
                key: on(2).then(|| "77".to_owned()),
                entity: on(3).then(|| "77".to_owned()),
                accepted_from: on(4).then_some(Timestamp(1_700_000_010_000)),
                accepted_to: on(4).then_some(Timestamp(1_700_000_090_000)),
                cursor: None,
                limit: 10,
            };
            all.push((query, on(5).then(place)));
        }
    }
    all
}

/// What the server knows of the rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Statistics {
    /// Nothing: it plans alike each time.
    None,
    /// A sample: which of two indexes that both serve costs less changes with it.
    Sampled,
}

async fn check_runs(client: &Client, statistics: Statistics) {
    for (query, after) in queries() {
        let plan = plan(client, &runs(&query, after.as_ref(), 101)).await;
        let reads: BTreeSet<&str> = plan.reads.iter().map(String::as_str).collect();
        if statistics == Statistics::Sampled && query.entity.is_some() && query.key.is_some() {
            // Both are narrow; by whichever it begins, the other narrows it further.
            let by_key = BTreeSet::from(["approvals_pkey", "runs_pkey", "runs_by_key", "run_entities_pkey"]);
            let by_entity = BTreeSet::from(["approvals_pkey", "runs_pkey", "run_entities_by_entity"]);
            assert!(reads == by_key || reads == by_entity, "{query:?}\n{}", plan.text);
            continue;
        }
        // Questions are looked up for the rows of the page, the rows by their ids.
        let mut wanted = BTreeSet::from(["approvals_pkey", "runs_pkey"]);
        wanted.insert(match (&query.entity, &query.key) {
            (Some(_), _) => "run_entities_by_entity",
            (None, Some(_)) => "runs_by_key",
            (None, None) => "runs_by_workflow",
        });
        assert_eq!(reads, wanted, "{query:?}\n{}", plan.text);
        let narrow = query.entity.is_some() || query.key.is_some();
        if narrow && query.namespace.is_some() {
            let sorts = plan
                .text
                .lines()
                .filter(|line| line.contains("Sort Key: e.") || line.contains("Sort Key: r_1."));
            assert_eq!(sorts.count(), 0, "it sorts what the index has in order: {query:?}\n{}", plan.text);
        }
        // Time is part of every search through an index that has the order.
        let led =
            plan.text.lines().filter(|line| line.contains("Index Cond") && line.contains("accepted >="));
        assert!(led.count() >= 1, "time is not part of the search: {query:?}\n{}", plan.text);
    }
}

async fn check_approvals(client: &Client, statistics: Statistics) {
    for bits in 0..8_u32 {
        let on = |bit: u32| bits & (1 << bit) != 0;
        let query = ApprovalQuery {
            namespace: on(0).then(|| Name::new("retail").unwrap()),
            run: on(1).then(|| RunId::new(ShardId(1), 2)),
            cursor: None,
            limit: 10,
        };
        let plan = plan(client, &approvals(&query, on(2).then(place).as_ref(), 101)).await;
        let mut leads = vec![match (query.run, &query.namespace) {
            (Some(_), _) => "approvals_pkey",
            (None, Some(_)) => "approvals_by_namespace",
            (None, None) => "approvals_by_time",
        }];
        if statistics == Statistics::Sampled && query.run.is_none() && query.namespace.is_some() {
            // A third of all questions are the namespace's: in order of time they are found as soon.
            leads.push("approvals_by_time");
        }
        let read: Vec<&str> = plan.reads.iter().map(String::as_str).collect();
        assert!(leads.iter().any(|lead| read == [*lead]), "{query:?}\n{}", plan.text);
        let presorted = plan.text.contains("Presorted Key: accepted, run");
        assert!(presorted || query.run.is_some(), "it sorts all questions: {query:?}\n{}", plan.text);
    }
}

#[tokio::test]
async fn every_query_goes_through_the_index_that_is_meant() {
    let Some(server) = Setup::default().durability(Durability::Unsynced).start() else { return };
    let open = link::Place::new(&server.url(), &Jobs::new()).unwrap().open().await.unwrap();
    let client = &open.client;
    client.batch_execute(FILL).await.unwrap();
    for statistics in [Statistics::None, Statistics::Sampled] {
        if statistics == Statistics::Sampled {
            client.batch_execute("VACUUM ANALYZE").await.unwrap();
        }
        check_runs(client, statistics).await;
        check_approvals(client, statistics).await;
        let one = RunId::new(ShardId(0), 1);
        for (statement, index) in [
            (run(one), "runs_pkey"),
            (these(&[one, one]), "runs_pkey"),
            (watermark(ShardId(3)), "watermarks_pkey"),
        ] {
            let plan = plan(client, &statement).await;
            let reads: Vec<&str> =
                plan.reads.iter().map(String::as_str).filter(|read| *read != "approvals_pkey").collect();
            assert_eq!(reads, [index], "{}", plan.text);
        }
    }
}
