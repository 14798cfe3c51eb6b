//! The command line against a real node: every command once, wrong usage and wrong requests word for word.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its supporting functions too")]
mod golden;
mod nats;
mod node;
mod schedules;
mod shared;
mod starter;

use std::time::Duration;

use node::{Node, free_address, kapell_in, pause};
use serde_json::{Value, json};
use tempfile::TempDir;

const DEFINITIONS: &str = include_str!("definitions.yaml");
/// A run id that no event has.
const NO_RUN: &str = "00000000000000000000000000";

fn node_with_definitions() -> Node {
    let node = Node::start();
    node.write("definitions.yaml", DEFINITIONS);
    node.json(&["apply", "-f", "definitions.yaml"]);
    node
}

#[test]
fn help_teaches() {
    let folder = TempDir::new().unwrap();
    let pages: [&[&str]; 7] = [
        &["--help"],
        &["run", "--help"],
        &["run", "start", "--help"],
        &["run", "list", "--help"],
        &["schedule", "list", "--help"],
        &["apply", "--help"],
        &["event", "send", "--help"],
    ];
    for page in pages {
        let said = kapell_in(folder.path(), "127.0.0.1:1", page);
        let name = format!("help-{}", page.join("-").replace("---", "-").trim_start_matches('-'));
        golden::check(name.trim_end_matches("-help"), &golden::told(page, &said, &[]));
    }
}

#[test]
fn wrong_usage_is_explained_with_exit_code_2() {
    let folder = TempDir::new().unwrap();
    let wrong: [&[&str]; 9] = [
        &["frobnicate"],
        &["run", "list", "--state", "finished"],
        &["run", "list", "--limit", "0"],
        &["run", "list", "--since", "yesterday"],
        &["run", "start"],
        &["run", "start", "greet", "--wait=soon"],
        &["event", "send", "--type", "com.example.guest.arrived"],
        &["apply"],
        &["schema", "pod", "-o", "json"],
    ];
    let told: Vec<String> = wrong
        .iter()
        .map(|arguments| {
            let said = kapell_in(folder.path(), "127.0.0.1:1", arguments);
            assert_eq!(said.exit, 2, "{arguments:?}");
            golden::told(arguments, &said, &[])
        })
        .collect();
    golden::check("wrong-usage", &told.join("\n"));
}

#[test]
fn nobody_answers() {
    let folder = TempDir::new().unwrap();
    let address = free_address();
    let arguments = ["status"];
    let text = kapell_in(folder.path(), &address, &arguments);
    let json = kapell_in(folder.path(), &address, &["status", "-o", "json"]);
    let replaced = [(address.as_str(), "ADDRESS")];
    let told = golden::told(&arguments, &text, &replaced);
    golden::check("nobody-answers", &told);
    assert_eq!((text.exit, json.exit), (4, 4));
    let error: Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!(error["error"]["code"], "refusedForNow");
    assert_eq!(error["error"]["message"], format!("nobody answers at {address}"));
}

#[test]
fn wrong_requests_are_explained() {
    let node = node_with_definitions();
    let ended =
        node.json(&["run", "start", "greet", "--input", r#"{"name":"Ada","number":1}"#, "--wait=60s"]);
    let ended = ended["id"].as_str().unwrap();
    node.write("wrong.yaml", &DEFINITIONS.replace("desk.greet\n      with", "desk.wave\n      with"));
    node.write("event.json", r#"{ "id": "1", "source": "/door", "type": "com.example.guest.arrived" }"#);
    let wrong: [&[&str]; 18] = [
        &["run", "show", "nonsense"],
        &["run", "show", NO_RUN],
        &["run", "explain", NO_RUN],
        &["run", "watch", NO_RUN],
        &["run", "start", "no-such-workflow"],
        &["run", "start", "greet", "--input", "{name: Ada}"],
        &["run", "start", "greet", "--input", r#"{"name":"Ada","number":"one"}"#],
        &["run", "start", "greet", "--input", "@no-such-file.json"],
        &["run", "list", "-n", "No Good"],
        &["run", "cancel", ended],
        &["run", "resume", ended],
        &["run", "retry", ended],
        &["approve", "nonsense"],
        &["get", "pod"],
        &["get", "workflow", "no-such-workflow"],
        &["delete", "specialist", "desk"],
        &["apply", "-f", "wrong.yaml"],
        &["event", "send", "-f", "event.json"],
    ];
    let replaced = [(ended, "RUN"), (node.address.as_str(), "ADDRESS")];
    let told: Vec<String> = wrong
        .iter()
        .map(|arguments| {
            let said = node.kapell(arguments);
            assert_ne!(said.exit, 0, "{arguments:?}");
            golden::told(arguments, &said, &replaced)
        })
        .collect();
    golden::check("wrong-requests", &told.join("\n"));
}

#[test]
fn definitions_are_applied_shown_and_deleted() {
    let node = Node::start();
    node.write("definitions.yaml", DEFINITIONS);
    let changes = |answer: &Value| -> Vec<String> {
        answer["applied"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["change"].as_str().unwrap().to_owned())
            .collect()
    };
    let dry = node.json(&["apply", "--dry-run", "-f", "definitions.yaml"]);
    assert_eq!(changes(&dry), ["created"; 3]);
    assert_eq!(node.json(&["get"])["items"], json!([]));
    assert_eq!(changes(&node.json(&["apply", "-f", "definitions.yaml"])), ["created"; 3]);
    assert_eq!(changes(&node.json(&["apply", "-f", "definitions.yaml"])), ["unchanged"; 3]);

    let stored = node.kapell(&["get", "-o", "yaml"]);
    node.write("stored.yaml", &stored.stdout);
    assert_eq!(changes(&node.json(&["apply", "-f", "stored.yaml"])), ["unchanged"; 3], "{}", stored.stdout);
    assert_eq!(node.json(&["validate", "-f", "stored.yaml"])["definitions"], 3);

    assert_eq!(node.json(&["get", "workflows"])["items"].as_array().unwrap().len(), 2);
    node.json(&["delete", "workflow", "invite"]);
    assert_eq!(node.json(&["get", "workflow", "greet"])["metadata"]["name"], "greet");
    assert_eq!(node.kapell(&["get", "workflow", "invite"]).exit, 3);
}

#[test]
fn a_run_is_started_shown_explained_and_replayed() {
    let node = node_with_definitions();
    let input = r#"{"name":"Ada","number":21}"#;
    let run = node.json(&["run", "start", "greet", "--input", input, "--request-id", "one", "--wait=60s"]);
    let id = run["id"].as_str().unwrap();
    assert_eq!(run["state"], "completed", "{run:#}\n{}", node.log());
    assert_eq!(run["steps"][0]["output"], json!({ "number": 42 }));
    assert_eq!(run["steps"][1]["output"], json!({ "greeting": "Hello, Ada!" }));

    let again = node.json(&["run", "start", "greet", "--input", input, "--request-id", "one"]);
    assert_eq!(again, json!({ "id": id, "duplicate": true }));
    assert_eq!(node.json(&["run", "show", id])["state"], "completed");

    let story = node.json(&["run", "explain", id]);
    let lines = story["story"].as_array().unwrap();
    assert!(lines.iter().any(|line| line["step"] == "double"), "{story:#}");
    assert!(
        lines.len() >= 4 && lines.iter().all(|line| !line["text"].as_str().unwrap().is_empty()),
        "{story:#}"
    );
    let replay = node.json(&["run", "replay", id]);
    assert_eq!((&replay["same"], &replay["entries"]), (&json!(true), &json!(lines.len())));

    let watched = node.kapell(&["run", "watch", id]);
    assert_eq!(watched.exit, 0, "{}", watched.stderr);
    assert!(watched.stdout.contains("completed") && !watched.stdout.contains('\u{1b}'), "{}", watched.stdout);

    let listed = eventually(|| {
        let listed =
            node.json(&["run", "list", "--workflow", "greet", "--state", "completed", "--since", "1h"]);
        (listed["ledgerBehind"] == 0).then_some(listed)
    });
    assert_eq!(listed["runs"][0]["id"], id);
    assert_eq!(node.json(&["run", "list", "--state", "failed"])["runs"], json!([]));
    assert_eq!(node.json(&["run", "list", "--key", "Ada", "--all"])["runs"][0]["id"], id);
    assert_eq!(node.json(&["doctor"])["findings"], json!([]));
    assert!(node.json(&["ledger", "rebuild"])["runs"].as_u64().unwrap() >= 1);
    assert_eq!(node.json(&["run", "list"])["runs"][0]["id"], id);
}

#[test]
fn a_run_that_fails_fails_the_command() {
    let node = node_with_definitions();
    let input = r#"{"name":"Ada","number":-1}"#;
    let said = node.kapell(&["run", "start", "greet", "--input", input, "--wait=120s", "-o", "json"]);
    let run: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((said.exit, &run["state"]), (1, &json!("failed")), "{run:#}\n{}", node.log());
    assert_eq!(node.kapell(&["run", "watch", run["id"].as_str().unwrap()]).exit, 1);
}

#[test]
fn an_event_starts_a_run_and_a_person_answers_its_question() {
    let node = node_with_definitions();
    let send = ["event", "send", "--type", "com.example.invitation.wanted", "--source", "/desk", "--id", "7"];
    let sent = node.json(&[&send[..], &["--data", r#"{"name":"Grace"}"#]].concat());
    let id = sent["results"][0]["runs"][0]["run"].as_str().unwrap();
    let again = node.json(&[&send[..], &["--data", r#"{"name":"Grace"}"#]].concat());
    assert_eq!(again["results"][0]["runs"][0], json!({ "run": id, "workflow": "invite", "duplicate": true }));

    let open = eventually(|| {
        let open = node.json(&["approvals", "--run", id]);
        (open["approvals"] != json!([])).then_some(open)
    });
    assert_eq!(open["approvals"][0]["ask"], "Invite Grace?");
    let accepted = node.json(&["run", "show", id])["accepted"].as_str().unwrap().to_owned();
    let asked = open["approvals"][0]["asked"].as_str().unwrap();
    assert!(asked >= accepted.as_str(), "{asked}, {accepted}");
    let table = node.kapell(&["approvals"]).stdout;
    assert!(table.contains("WAITS") && table.lines().count() >= 2, "{table}");
    assert_eq!(node.json(&["run", "show", id])["steps"][1]["state"], "waiting");
    let question = open["approvals"][0]["id"].as_str().unwrap();
    let answer = node.json(&["approve", question, "--reason", "she is nice"]);
    assert_eq!(answer["run"], id);
    assert_eq!(node.kapell(&["run", "watch", id]).exit, 0, "{}", node.log());
    assert_eq!(node.json(&["run", "show", id])["output"], json!({ "greeting": "Hello, Grace!" }));
    let story = node.kapell(&["run", "explain", id]).stdout;
    assert!(story.contains("tester") && story.contains("she is nice"), "{story}");
    assert_eq!(node.kapell(&["reject", question]).exit, 1, "the run is over");
}

#[test]
fn a_run_that_is_canceled_cancels_its_children_and_ends_after_them() {
    let node = Node::start();
    let workflow = |name: &str, steps: Value| {
        json!({
            "apiVersion": "kapell.dev/v1", "kind": "Workflow", "metadata": { "name": name },
            "spec": { "steps": steps },
        })
        .to_string()
    };
    let grandchild = json!([{ "id": "nap", "wait": { "for": "1h" } }]);
    let documents = [
        workflow("whole", json!([{ "id": "part", "workflow": "part" }])),
        workflow("part", json!([{ "id": "nap", "workflow": "nap" }])),
        workflow("nap", grandchild),
    ];
    node.write("children.yaml", &documents.join("\n---\n"));
    node.json(&["apply", "-f", "children.yaml"]);
    let id = node.json(&["run", "start", "whole"])["id"].as_str().unwrap().to_owned();
    let state_of = |workflow: &str| {
        let runs = node.json(&["run", "list", "--workflow", workflow])["runs"].clone();
        runs[0]["state"].as_str().map(str::to_owned)
    };
    eventually(|| (state_of("nap")? == "waiting").then_some(()));
    node.json(&["run", "cancel", &id, "--reason", "not needed"]);
    assert_eq!(node.kapell(&["run", "watch", &id]).exit, 1);
    assert_eq!(node.json(&["run", "show", &id])["state"], "canceled");
    for child in ["part", "nap"] {
        eventually(|| (state_of(child)? == "canceled").then_some(()));
    }
    assert_eq!(node.json(&["doctor"])["findings"], json!([]));
}

/// Lists follow the journal a moment behind.
fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..100 {
        if let Some(found) = look() {
            return found;
        }
        pause(Duration::from_millis(100));
    }
    panic!("it did not come to be in ten seconds");
}
