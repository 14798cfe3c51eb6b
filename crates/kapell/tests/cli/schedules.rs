//! Schedules against a real node and the real clock.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kapell_runtime::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::eventually;
use crate::node::{Node, pause};

const MINUTE_MS: u64 = 60_000;
/// So many schedules, of which some wait for their last run and some have a key.
const SCHEDULES: usize = 12;

fn definitions() -> String {
    let document = |kind: &str, name: &str, spec: Value| {
        json!({ "apiVersion": "kapell.dev/v1", "kind": kind, "metadata": { "name": name }, "spec": spec })
            .to_string()
    };
    let skill = json!({ "name": "clock.read", "rules": { "rows": [{ "then": { "at": "${input.at}" } }] } });
    let steps = json!([{ "id": "read", "skill": "clock.read", "with": { "at": "${event.time}" } }]);
    let keyed = json!({ "steps": steps.clone(), "key": "event.data.line" });
    let mut all = vec![
        document("Specialist", "clock", json!({ "skills": [skill] })),
        document("Workflow", "tick", json!({ "steps": steps })),
        document("Workflow", "tick-keyed", keyed),
    ];
    for no in 0..SCHEDULES {
        let spec = json!({
            "cron": "* * * * *", "catchup": "all", "with": { "line": format!("l{}", no % 2) },
            "workflow": if no % 3 == 0 { "tick-keyed" } else { "tick" },
            "overlap": if no % 4 == 0 { "queue" } else { "allow" },
        });
        all.push(document("Schedule", &format!("s{no}"), spec));
    }
    all.join("\n---\n")
}

fn now_ms() -> u64 {
    SystemClock.now().0
}

/// Waits until the machine's clock says so.
fn until(ms: u64) {
    while now_ms() < ms {
        pause(Duration::from_millis(ms.saturating_sub(now_ms()).clamp(1, 200)));
    }
}

fn runs(node: &Node) -> BTreeMap<String, Value> {
    let listed =
        ["tick", "tick-keyed"].map(|workflow| node.json(&["run", "list", "--workflow", workflow, "--all"]));
    let ids = listed.iter().flat_map(|list| list["runs"].as_array().unwrap().clone());
    ids.map(|row| row["id"].as_str().unwrap().to_owned())
        .map(|id| (id.clone(), node.json(&["run", "show", &id])))
        .collect()
}

#[test]
fn a_node_that_is_killed_again_and_again_starts_one_run_for_each_tick() {
    let mut node = Node::start();
    node.write("ticks.yaml", &definitions());
    node.json(&["apply", "-f", "ticks.yaml"]);
    let first = (now_ms() / MINUTE_MS + 1) * MINUTE_MS;
    // Killed again and again while the minute changes.
    until(first - 1_500);
    for life in [40, 300, 90, 500, 160, 700].into_iter().cycle() {
        if now_ms() > first + 2_500 {
            break;
        }
        node.crash_and_restart();
        pause(Duration::from_millis(life));
    }
    // Nothing runs when it changes again.
    let second = first + MINUTE_MS;
    until(second - 800);
    node.crash();
    until(second + 700);
    node.restart();
    let is_told = |schedule: &Value| {
        schedule["running"] == 0 && schedule["waiting"] == 0 && schedule["started"].as_u64() >= Some(2)
    };
    let schedules = eventually(|| {
        let said = node.kapell(&["schedule", "list", "-o", "json"]);
        let answer: Value = serde_json::from_str(&said.stdout).ok()?;
        let schedules = answer["schedules"].as_array()?.clone();
        (schedules.len() == SCHEDULES && schedules.iter().all(is_told)).then_some(schedules)
    });
    eventually(|| (node.json(&["status"])["ledgerBehind"] == 0).then_some(()));

    let mut ticks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (runs, mut count) = (runs(&node), 0);
    for run in runs.values() {
        assert_eq!(run["state"], "completed", "{run:#}");
        assert_eq!(run["event"]["type"], "kapell.schedule.tick");
        let (name, tick) = (run["schedule"].as_str().unwrap(), run["event"]["time"].as_str().unwrap());
        assert!(ticks.entry(name.to_owned()).or_default().insert(tick.to_owned()), "twice: {run:#}");
        count += 1;
    }
    for schedule in &schedules {
        let (name, started) = (schedule["name"].as_str().unwrap(), schedule["started"].as_u64().unwrap());
        let at = |no: u64| kapell_model::Timestamp(first + no * MINUTE_MS).to_string();
        let expected: BTreeSet<String> = (0..started).map(at).collect();
        assert!(ticks[name].is_superset(&expected), "{schedule:#}: {:?}", ticks[name]);
        assert_eq!(schedule["leftOut"], 0);
    }
    assert!(count >= 2 * SCHEDULES, "{count}");
    let (id, run) = runs.first_key_value().unwrap();
    let story = node.kapell(&["run", "explain", id]).stdout;
    let said = format!("schedule `{}` started workflow", run["schedule"].as_str().unwrap());
    assert!(story.contains(&said), "{story}");
    assert_eq!(node.json(&["doctor"])["findings"], json!([]));
}

#[test]
fn schedules_are_listed_with_what_comes_next() {
    let node = Node::start();
    node.write("ticks.yaml", &definitions());
    node.json(&["apply", "-f", "ticks.yaml"]);
    let suspended =
        definitions().replace("\"cron\":\"* * * * *\"", "\"cron\":\"0 0 1 1 *\",\"suspend\":true");
    let listed = node.json(&["schedule", "list"]);
    let first = &listed["schedules"][0];
    assert_eq!(
        (&first["name"], &first["timeZone"], &first["suspended"]),
        (&json!("s0"), &json!("UTC"), &json!(false))
    );
    let next = kapell_model::Timestamp::from_rfc3339(first["next"].as_str().unwrap()).unwrap().0;
    assert!(next.is_multiple_of(MINUTE_MS) && next + 1_000 > now_ms(), "{first:#}");
    node.write("suspended.yaml", &suspended);
    node.json(&["apply", "-f", "suspended.yaml"]);
    let listed = node.json(&["schedule", "list"]);
    assert_eq!(
        (&listed["schedules"][0]["next"], &listed["schedules"][0]["suspended"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(node.json(&["schedule", "list", "-n", "elsewhere"])["schedules"], json!([]));
    let table = node.kapell(&["schedule", "list"]).stdout;
    assert!(table.starts_with("NAME") && table.contains("suspended"), "{table}");
}
