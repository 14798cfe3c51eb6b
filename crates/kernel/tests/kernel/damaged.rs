//! A damaged journal: entries that do not fit the state change nothing that matters, and nothing panics.
use kapell_kernel::{
    BadImage, Delta, Entry, Order, OrderKey, Run, RunImage, StepImage, TimerKey, accept, evolve, invariants,
};
use kapell_model::Timestamp;
use serde_json::json;

use crate::bench::{Bench, document, item, one, workflow};
use crate::menu::{go_on_kindly, menu};

/// Journals of runs that did most of what a run can do.
fn journals() -> Vec<Bench> {
    let specs = [
        json!({ "steps": [
            { "id": "a", "skill": "do.write", "foreach": [1, 2], "compensate": { "skill": "do.undo" } },
            { "id": "b", "workflow": "child" }, { "id": "c", "approval": { "ask": "?" }, "after": ["a", "b"] },
        ] }),
        json!({ "timeout": "1h", "steps": [
            { "id": "a", "wait": { "event": { "type": "paid", "correlate": "k" } } },
            { "id": "b", "wait": { "for": "1s" } }, { "id": "c", "skill": "do.read", "when": "false" },
        ], "outcome": { "within": "1d", "on": { "type": "told" }, "success": "true" } }),
    ];
    let child = document("Workflow", "child", json!({ "steps": [{ "id": "a", "wait": { "for": "1s" } }] }));
    let mut all = Vec::new();
    for spec in specs {
        let start =
            Bench::started(crate::bench::catalogue(&[child.clone(), workflow(&spec)]), Default::default());
        // A few histories that differ in the first choices.
        for turn in 0..40_usize {
            let mut bench = start.clone();
            for count in 0..25 {
                let said = menu(&bench);
                let (at, command) = said[(turn * 31 + count * 7) % said.len()].clone();
                let _refused = bench.tell_at(at, command);
            }
            go_on_kindly(&mut bench, 200);
            all.push(bench);
        }
    }
    all
}

#[test]
fn entries_out_of_place_do_not_panic() {
    let benches = journals();
    for (bench, other) in benches.iter().zip(benches.iter().rev()) {
        let Entry::RunAccepted(accepted) = &bench.journal[0] else { panic!() };
        let (mut run, _) = accept(bench.run.id, (**accepted).clone());
        // Each journal backwards, and the entries of a run of another workflow.
        for entry in bench.journal.iter().rev().chain(&other.journal).chain(&bench.journal) {
            evolve(&mut run, entry);
        }
        let _broken = invariants::check(&run);
    }
}

#[test]
fn an_entry_about_what_is_not_there_changes_nothing() {
    let bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.read", "foreach": [1] }] }));
    for unit in [one(0), one(9).undo(), item(0, 9), item(9, 0), item(0, 9).undo()] {
        let mut run = bench.run.clone();
        let delta = evolve(&mut run, &Entry::UnitDone { unit, output: kapell_model::Json::null() });
        assert_eq!(delta, Delta::default());
        assert!(run == bench.run, "{unit:?}");
    }
    let mut run = bench.run.clone();
    evolve(&mut run, &Entry::SignalTaken { position: 5 });
    evolve(&mut run, &Entry::ParentTold);
    evolve(&mut run, &Entry::StepSkipped { step: kapell_model::plan::StepIndex(0) });
    assert!(invariants::check(&run).is_err(), "a step that was worked on is gone: the counters say so");
}

#[test]
fn what_is_opened_and_closed_at_once_is_neither() {
    let timer = |at| Order::SetTimer { key: TimerKey::Run, at: Timestamp(at) };
    let key = OrderKey::Timer(TimerKey::Run);
    let mut delta = Delta { opened: vec![Order::AwaitTurn, timer(1)], closed: vec![] };
    delta.then(Delta { opened: vec![timer(2)], closed: vec![key, OrderKey::Plan] });
    assert_eq!(delta, Delta { opened: vec![Order::AwaitTurn, timer(2)], closed: vec![OrderKey::Plan] });
    assert!(!timer(1).is_same(&timer(2)) && timer(1).is_same(&timer(1)));
    assert!(Order::AwaitTurn.is_same(&Order::AwaitTurn) && !Order::AwaitTurn.is_same(&Order::MakePlan));
}

#[test]
fn an_image_whose_parts_do_not_belong_together_is_refused() {
    let read = |id: &str| json!({ "id": id, "skill": "do.read" });
    let bench =
        Bench::of(&json!({ "steps": [read("a"), { "id": "b", "skill": "do.read", "foreach": [1] }] }));
    let broken = |breaks: fn(&mut RunImage)| {
        let mut image = bench.run.to_image();
        breaks(&mut image);
        Run::from_image(image).unwrap_err()
    };
    let beyond = broken(|image| image.steps[1].0.0 = 7);
    assert_eq!(beyond, BadImage::NotInPlan(7, 2));
    assert_eq!(broken(|image| image.steps.reverse()), BadImage::OutOfOrder(0));
    let fewer = broken(|image| match &mut image.steps[1].1 {
        StepImage::Fan { items, .. } => items.clear(),
        StepImage::One(_) | StepImage::Skipped => panic!("no fan-out"),
    });
    assert_eq!(fewer, BadImage::Items { step: 1, items: 0, units: 1 });
    assert_eq!(broken(|image| image.cleared.push(one(9))), BadImage::NoUnit(one(9)));
    assert_eq!(broken(|image| image.failed = Some(item(1, 5))), BadImage::NoUnit(item(1, 5)));
}
