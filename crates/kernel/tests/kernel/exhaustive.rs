//! Every history to a depth, for small workflows of each kind.
use std::collections::BTreeSet;

use kapell_kernel::{Command, ParentRef, PlanSource};
use kapell_model::{Json, RunId, ShardId};
use serde_json::{Value, json};

use crate::bench::{Bench, Start, catalogue, document, one, workflow};
use crate::menu::{answers_once, menu};

const DEPTH: u32 = 6;

/// All that later commands can depend on, as text. (The definition is the same all along.)
fn digest(bench: &Bench) -> String {
    let run = &bench.run;
    let kept: i32 = bench.journal.iter().map(signals).sum();
    format!("{:?}{:?}{:?}{kept}{:?}", run.phase(), run.is_paused(), run.steps(), bench.open.keys())
}

fn signals(entry: &kapell_kernel::Entry) -> i32 {
    match entry {
        kapell_kernel::Entry::SignalReceived { .. } => 1,
        kapell_kernel::Entry::SignalTaken { .. } => -1,
        _ => 0,
    }
}

/// Gives every command in every state that can be reached with `DEPTH` of them. The bench checks each.
fn explore(start: Bench) -> usize {
    let mut seen = BTreeSet::from([digest(&start)]);
    let mut edge = vec![start];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for bench in &edge {
            for (at, command) in menu(bench) {
                let mut after = bench.clone();
                if after.tell_at(at, command.clone()).is_err() {
                    continue;
                }
                if answers_once(&command) {
                    let twice = after.clone().tell_at(at, command.clone()).unwrap_or_default();
                    assert!(twice.is_empty(), "given twice, {command:?} did more: {twice:?}");
                }
                if seen.insert(digest(&after)) {
                    next.push(after);
                }
            }
        }
        edge = next;
    }
    for mut bench in edge {
        bench.replay();
        bench.restore();
    }
    println!("{} states", seen.len());
    seen.len()
}

fn explore_workflow(spec: &Value) -> usize {
    explore(Bench::of(spec))
}

#[test]
fn two_tasks_one_after_the_other() {
    let retry = json!({ "attempts": 2 });
    assert!(
        explore_workflow(&json!({ "steps": [
            { "id": "a", "skill": "do.read", "retry": retry },
            { "id": "b", "skill": "do.read", "retry": retry, "with": { "of": "${steps.a}" } },
        ] }))
            > 500
    );
}

#[test]
fn a_judged_write_with_a_tool_call() {
    assert!(
        explore_workflow(&json!({ "steps": [
            { "id": "a", "skill": "do.write", "retry": { "attempts": 2 } },
        ] }))
            > 500
    );
}

#[test]
fn a_fan_out_one_by_one_that_can_be_undone() {
    assert!(
        explore_workflow(&json!({ "steps": [
            { "id": "a", "skill": "do.read", "foreach": [1, 2], "concurrency": 1, "retry": { "attempts": 1 },
              "with": { "n": "${item}" }, "compensate": { "skill": "do.undo", "with": { "n": "${item}" } } },
        ] }))
            > 500
    );
}

#[test]
fn an_approval_and_a_wait() {
    assert!(
        explore_workflow(&json!({ "steps": [
            { "id": "a", "approval": { "ask": "Really?", "expires": "1h", "onExpire": "approve" } },
            { "id": "b", "wait": { "event": { "type": "paid", "correlate": "k" } }, "timeout": "1h" },
            { "id": "c", "wait": { "for": "5s" }, "after": ["a", "b"] },
        ] }))
            > 250
    );
}

#[test]
fn a_subworkflow() {
    let spec = json!({ "steps": [
        { "id": "a", "workflow": "child", "timeout": "1h", "retry": { "attempts": 2 } },
        { "id": "b", "skill": "do.read", "after": ["a"] },
    ] });
    let child = document("Workflow", "child", json!({ "steps": [{ "id": "a", "wait": { "for": "1s" } }] }));
    assert!(explore(Bench::with(&spec, &[child])) > 300);
}

#[test]
fn subworkflows_of_items_that_may_take_too_long() {
    let spec = json!({ "timeout": "2h", "steps": [
        { "id": "a", "workflow": "child", "timeout": "1h", "retry": { "attempts": 2 }, "foreach": [1, 2] },
    ] });
    let child = document("Workflow", "child", json!({ "steps": [{ "id": "a", "wait": { "for": "1s" } }] }));
    assert!(explore(Bench::with(&spec, &[child])) > 1_000);
}

#[test]
fn a_run_behind_another_with_a_deadline_and_an_outcome() {
    let spec = json!({
        "key": "event.subject", "timeout": "1h",
        "outcome": { "within": "7d", "on": { "type": "told" }, "success": "event.subject == run.key" },
        "steps": [{ "id": "a", "skill": "do.read", "retry": { "attempts": 1 } }],
    });
    let parent =
        ParentRef { run: RunId::new(ShardId(0), 1), unit: one(0), attempt: kapell_kernel::Attempt(1) };
    let start = Start { key: Some("k"), queued: true, parent: Some(parent), ..Start::default() };
    let accepted = Bench::started(catalogue(&[workflow(&spec)]), start);
    assert!(explore(accepted.clone()) > 100);
    let mut taken = accepted;
    taken.ok(Command::TakeTurn);
    taken.ok(Command::SupplyContext { context: Json::null(), reasons: vec![] });
    taken.ok(Command::AdoptPlan { source: PlanSource::Written, reasons: vec![] });
    assert!(explore(taken) > 100);
}
