//! Steps: conditions, fan-outs, results, retries of whole runs, repaired plans.
use std::sync::Arc;

use kapell_kernel::{
    ApprovalKey, Attempt, CallOutcome, Command, Ending, Entry, ErrorClass, OrderKey, Phase, PlanSource,
    Rejected, Status, StepState, TimerKey,
};
use kapell_model::Json;
use kapell_model::definition::{Definition, Document, Workflow};
use kapell_model::plan::{Plan, StepIndex};
use serde_json::{Value, json};

use crate::bench::{Bench, cancel, catalogue, item, one, retry, seconds, workflow};
use crate::menu::is_working;

fn failure(bench: &Bench) -> (ErrorClass, String) {
    match &bench.ended().ending {
        Ending::Failed(failure) => (failure.error.class, failure.error.message.clone()),
        other => panic!("{other:?}"),
    }
}

fn output(bench: &Bench) -> Value {
    match &bench.ended().ending {
        Ending::Completed { output } => output.value(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_skipped_step_is_over_and_its_output_is_null() {
    let mut bench = Bench::of(&json!({ "steps": [
        { "id": "a", "skill": "do.read", "when": "context.known == 2" },
        { "id": "b", "skill": "do.read", "when": "steps.a == null", "with": { "a": "${steps.a}", "k": "${key}" } },
        { "id": "c", "skill": "do.read", "foreach": [1], "when": "false", "after": ["b"] },
    ] }));
    assert_eq!(bench.run.step(StepIndex(0)), Some(&StepState::Skipped));
    assert_eq!(bench.unit(one(1)).input.value(), json!({ "a": null, "k": null }));
    bench.finish(one(1), &json!(7));
    assert_eq!(output(&bench), json!(null), "the last step was skipped");
    assert_eq!(bench.run.output(StepIndex(1)), Some(Json::of(&json!(7))));
    assert_eq!(bench.run.output(StepIndex(2)), Some(Json::null()));
    assert_eq!(bench.run.steps().len(), 3);
    assert_eq!(bench.run.context().value(), json!({ "known": 1 }));
}

#[test]
fn outputs_of_several_last_steps_are_an_object() {
    let mut bench = Bench::of(&json!({ "steps": [
        { "id": "a", "skill": "do.read" }, { "id": "b", "skill": "do.read", "foreach": ["x", "y"] },
    ] }));
    bench.finish(item(1, 1), &json!("second"));
    bench.finish(one(0), &json!("alone"));
    bench.finish(item(1, 0), &json!("first"));
    assert_eq!(output(&bench), json!({ "a": "alone", "b": { "results": ["first", "second"] } }));
}

#[test]
fn a_fan_out_over_nothing_is_done_at_once() {
    let mut bench = Bench::of(&json!({ "steps": [
        { "id": "a", "skill": "do.read", "foreach": [] },
        { "id": "b", "skill": "do.read", "with": { "all": "${steps.a.results}" } },
    ] }));
    assert_eq!(bench.unit(one(1)).input.value(), json!({ "all": [] }));
    bench.finish(one(1), &json!(1));
    assert_eq!(output(&bench), json!(1));
}

#[test]
fn a_fan_out_works_on_as_many_items_at_once_as_it_says() {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.write",
        "foreach": "${[10, 20, 30, 40]}", "concurrency": 2, "with": { "n": "${item}", "at": "${index}" } }] }));
    let waiting =
        |bench: &Bench| bench.run.units().filter(|(_, unit)| unit.status == Status::Waiting).count();
    assert_eq!(waiting(&bench), 2);
    assert_eq!(bench.unit(item(0, 1)).input.value(), json!({ "n": 20, "at": 1 }));
    bench.work(item(0, 1), &json!("b"));
    assert_eq!(*bench.status(item(0, 2)), Status::Judging);
    assert_eq!(waiting(&bench), 1);
    for at in [0, 2, 3] {
        bench.work(item(0, at), &json!(at));
    }
    assert_eq!(output(&bench), json!({ "results": [0, "b", 2, 3] }));
}

#[test]
fn what_an_expression_cannot_give_fails_the_step() {
    let step = |field: &str, value: Value| {
        let mut step = json!({ "id": "a", "skill": "do.read" });
        step[field] = value;
        json!({ "steps": [step] })
    };
    for (spec, expected) in [
        (step("when", json!("event.nothing")), "event.nothing"),
        (step("with", json!({ "a": "${event.nothing}" })), "event.nothing"),
        (step("foreach", json!("${event.nothing}")), "event.nothing"),
        (step("foreach", json!("${event.data}")), "foreach needs a list"),
        (step("when", json!("1 + 1")), "true or false"),
    ] {
        let mut bench = Bench::of(&spec);
        let (class, message) = failure(&bench);
        assert_eq!(class, ErrorClass::Expression);
        assert!(message.contains(expected), "{message}");
        assert_eq!(bench.unit(one(0)).attempt, Attempt(1));
        bench.ok(retry());
        assert_eq!(failure(&bench), (class, message), "nothing has changed meanwhile");
        assert_eq!(bench.unit(one(0)).attempt, Attempt(2));
    }
    let mut spec = step("foreach", json!([1]));
    spec["steps"][0]["with"] = json!({ "a": "${item.nothing}" });
    assert_eq!(failure(&Bench::of(&spec)).0, ErrorClass::Expression);
}

#[test]
fn inputs_and_outputs_must_fit_the_skill() {
    let step = |with| json!({ "steps": [{ "id": "a", "skill": "do.checked", "with": with }] });
    assert_eq!(failure(&Bench::of(&step(json!("${5}")))).0, ErrorClass::BadRequest);
    let mut bench = Bench::of(&step(json!({})));
    bench.work(one(0), &json!({ "bad": 1 }));
    assert_eq!(failure(&bench).0, ErrorClass::ContractBroken);
}

#[test]
fn a_skill_that_nobody_offers_any_more_fails_the_step_until_somebody_does() {
    let spec = json!({ "onFailure": "stop", "steps": [
        { "id": "a", "skill": "do.read" }, { "id": "b", "skill": "do.write", "after": ["a"] },
    ] });
    let mut bench = Bench::of(&spec);
    let all = Arc::clone(&bench.catalogue);
    bench.catalogue = Arc::new(kapell_model::catalogue::Catalogue::default());
    bench.finish(one(0), &json!(1));
    assert_eq!(failure(&bench).0, ErrorClass::NoSpecialist);
    bench.catalogue = all;
    bench.ok(retry());
    bench.work(one(1), &json!(2));
    assert_eq!(output(&bench), json!(2));
}

#[test]
fn a_retried_run_keeps_what_calls_did_and_judges_again() {
    let mut bench = Bench::of(&json!({ "onFailure": "stop", "steps": [
        { "id": "a", "skill": "do.write", "retry": { "attempts": 1 } },
        { "id": "b", "skill": "do.read" }, { "id": "c", "skill": "do.read", "after": ["a", "b"] },
    ] }));
    bench.follow(one(0));
    bench.call(one(0));
    bench.fail(one(0), ErrorClass::Unavailable);
    assert_eq!(*bench.status(one(1)), Status::Canceled);
    bench.ok(retry());
    assert!(bench.has(OrderKey::Judge(one(0), Attempt(2))));
    assert!(is_working(bench.status(one(1))));
    bench.follow(one(0));
    assert_eq!(bench.unit(one(0)).failures, 0);
    assert!(bench.intend(one(0), 0).is_empty(), "the call was made before");
    bench.finish(one(0), &json!(1));
    bench.finish(one(1), &json!(1));
    bench.finish(one(2), &json!("end"));
    assert_eq!(output(&bench), json!("end"));
    assert!(matches!(bench.refused(retry()), Rejected::RunNotFailed { .. }));
    bench.replay();
}

#[test]
fn a_retried_fan_out_begins_only_what_was_not_done() {
    let mut bench = Bench::of(&json!({ "onFailure": "stop", "steps": [{ "id": "a", "skill": "do.read",
        "foreach": [0, 1, 2, 3, 4], "concurrency": 2, "retry": { "attempts": 1 } }] }));
    bench.finish(item(0, 0), &json!("zero"));
    bench.finish(item(0, 2), &json!("two"));
    bench.fail(item(0, 1), ErrorClass::Unavailable);
    assert_eq!(*bench.status(item(0, 3)), Status::Canceled);
    bench.ok(retry());
    assert_eq!(bench.unit(item(0, 1)).attempt, Attempt(2));
    assert!(is_working(bench.status(item(0, 1))) && is_working(bench.status(item(0, 3))));
    assert_eq!(*bench.status(item(0, 4)), Status::Waiting);
    for at in [1, 3, 4] {
        bench.finish(item(0, at), &json!(at));
    }
    assert_eq!(output(&bench), json!({ "results": ["zero", 1, "two", 3, 4] }));
}

#[test]
fn a_run_that_takes_too_long_fails_and_a_retry_gives_it_new_time() {
    let spec = json!({ "timeout": "1h", "onFailure": "stop", "steps": [{ "id": "a", "skill": "do.read" }] });
    let mut bench = Bench::of(&spec);
    assert!(matches!(bench.refused(Command::FireTimer(TimerKey::Run)), Rejected::Stale(_)));
    bench.fire(TimerKey::Run);
    assert_eq!(failure(&bench).0, ErrorClass::Timeout);
    assert!(matches!(&bench.ended().ending, Ending::Failed(failure) if failure.unit.is_none()));
    assert_eq!(bench.refused(cancel(kapell_kernel::CancelMode::Leave)), Rejected::RunEnded);
    bench.ok(retry());
    assert_eq!(bench.timer(TimerKey::Run), bench.now.after(seconds(3600)));
    bench.finish(one(0), &json!(1));
    assert_eq!(output(&bench), json!(1));
}

#[test]
fn a_run_whose_time_ran_out_before_it_had_a_plan_is_planned_when_it_is_retried() {
    let mut bench =
        Bench::accepted(&json!({ "timeout": "1h", "steps": [{ "id": "a", "skill": "do.read" }] }));
    bench.ok(Command::SupplyContext { context: Json::null(), reasons: vec![] });
    assert!(matches!(
        bench.refused(Command::SupplyContext { context: Json::null(), reasons: vec![] }),
        Rejected::Stale(OrderKey::Context)
    ));
    bench.fire(TimerKey::Run);
    bench.ok(retry());
    assert_eq!(*bench.run.phase(), Phase::Planning);
    assert!(bench.has(OrderKey::Plan));
    bench.ok(Command::AdoptPlan { source: PlanSource::Written, reasons: vec![] });
    bench.finish(one(0), &json!(1));
    assert_eq!(output(&bench), json!(1));
}

/// The plan that a workflow of this spec has.
fn plan(spec: &Value) -> Plan {
    let definition: Definition = serde_json::from_value(workflow(spec)).unwrap();
    let Definition::Workflow(document) = definition else { panic!("no workflow") };
    let document: Document<Workflow> = document;
    let compiled = kapell_model::plan::compile(&document).unwrap();
    Arc::into_inner(compiled.plan).unwrap()
}

fn adopt(plan: Plan) -> Command {
    Command::AdoptPlan { source: PlanSource::Made(Arc::new(plan)), reasons: vec!["it broke".into()] }
}

#[test]
fn a_repaired_plan_keeps_what_has_begun_and_may_build_on_it() {
    let read = |id: &str, after: &[&str]| json!({ "id": id, "skill": "do.read", "after": after });
    let steps = |steps: &[Value]| json!({ "steps": steps });
    let mut bench = Bench::of(&steps(&[read("a", &[]), read("b", &["a"])]));
    let mut other = read("a", &[]);
    other["timeout"] = json!("9s");
    let refused = bench.refused(adopt(plan(&steps(&[other, read("b", &["a"])]))));
    assert_eq!(refused, Rejected::PlanChangesHistory("a".into()));
    let without = bench.refused(adopt(Plan { steps: vec![], ..plan(&steps(&[read("a", &[])])) }));
    assert_eq!(without, Rejected::PlanChangesHistory("a".into()));
    bench.ok(adopt(plan(&steps(&[read("a", &[]), read("c", &["a"]), read("d", &["a", "c"])]))));
    bench.finish(one(0), &json!(1));
    assert_eq!(&*bench.run.plan_step(StepIndex(1)).unwrap().id, "c");
    bench.finish(one(1), &json!(1));
    bench.finish(one(2), &json!("d"));
    assert_eq!(output(&bench), json!("d"));
    let late = bench.refused(adopt(plan(&steps(&[read("a", &[])]))));
    assert_eq!(late, Rejected::Stale(OrderKey::Plan));
    bench.replay();
}

type Breaks = fn(&mut Plan);

#[test]
fn a_plan_that_would_leave_the_run_stuck_is_refused() {
    let spec = json!({ "steps": [
        { "id": "a", "skill": "do.read", "foreach": [1] }, { "id": "b", "skill": "do.read", "after": ["a"] },
    ] });
    let mut bench = Bench::accepted(&spec);
    bench.ok(Command::SupplyContext { context: Json::null(), reasons: vec![] });
    let broken = |breaks: Breaks| {
        let mut plan = plan(&spec);
        breaks(&mut plan);
        adopt(plan)
    };
    let cases: [(Breaks, &str); 6] = [
        (|plan| plan.steps[1].id = "a".into(), "two steps `a`"),
        (|plan| plan.steps[0].retry.attempts_max = 0, "1 to 100 times"),
        (|plan| plan.steps[0].foreach.as_mut().unwrap().concurrency = 0, "no item at once"),
        (|plan| plan.steps[1].needs = vec![StepIndex(9)], "not there"),
        (|plan| plan.steps[0].feeds.clear(), "feeds other steps"),
        (
            |plan| {
                plan.steps[0].needs = vec![StepIndex(1)];
                plan.steps[1].feeds = vec![StepIndex(0)];
            },
            "needs itself",
        ),
    ];
    for (breaks, expected) in cases {
        let Rejected::UnsoundPlan(said) = bench.refused(broken(breaks)) else { panic!("accepted") };
        assert!(said.contains(expected), "{said}");
    }
    let many = bench.refused(broken(|plan| {
        let (first, _) = (plan.steps.pop().unwrap(), plan.steps.clear());
        plan.steps.push(first);
        while plan.steps.len() <= kapell_model::limits::PLAN_STEPS_MAX {
            let id = format!("s{}", plan.steps.len()).into();
            let last = &plan.steps[0];
            plan.steps.push(kapell_model::plan::PlanStep {
                id,
                kind: kapell_model::plan::StepKind::Sleep { span: std::time::Duration::ZERO },
                needs: vec![],
                feeds: vec![],
                when: None,
                foreach: None,
                timeout: None,
                retry: last.retry,
                compensate: None,
            });
        }
    }));
    assert!(many.to_string().contains("10001 steps"), "{many}");
    bench.ok(adopt(plan(&spec)));
    assert!(is_working(bench.status(item(0, 0))));
}

#[test]
fn the_first_failure_names_the_end_and_stops_the_rest() {
    let mut bench = Bench::of(&json!({ "steps": [
        { "id": "a", "skill": "do.read", "retry": { "attempts": 1 } }, { "id": "b", "skill": "do.read" },
        { "id": "c", "wait": { "for": "1h" } }, { "id": "d", "approval": { "ask": "?" } },
        { "id": "e", "wait": { "event": { "type": "t", "correlate": "k" } } }, { "id": "f", "skill": "do.write" },
    ] }));
    bench.fail(one(1), ErrorClass::Unavailable);
    assert!(matches!(bench.status(one(1)), Status::BackingOff { .. }));
    bench.fail(one(0), ErrorClass::Unavailable);
    assert!(matches!(&bench.ended().ending, Ending::Failed(failure) if failure.unit == Some(one(0))));
    for step in 1..6 {
        assert_eq!(*bench.status(one(step)), Status::Canceled);
    }
    assert!(bench.open.is_empty());
    let stale = Command::DecideApproval {
        key: ApprovalKey::Unit(one(3), Attempt(1)),
        answer: kapell_kernel::ApprovalAnswer {
            approved: true,
            by: "ann".into(),
            reason: "".into(),
            result: None,
        },
    };
    assert!(matches!(bench.refused(stale), Rejected::Stale(_)));
}

#[test]
fn a_call_result_too_large_to_keep_still_took_effect() {
    let mut bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.write" }] }));
    bench.follow(one(0));
    bench.intend(one(0), 0);
    let large = Json::of(&json!("x".repeat(kapell_model::limits::PAYLOAD_BYTES_MAX)));
    bench.call_ends(one(0), 0, CallOutcome::Succeeded(large));
    assert!(bench.unit(one(0)).took_effect());
    assert!(bench.journal.iter().all(|entry| !matches!(
        entry, Entry::CallFinished { outcome: CallOutcome::Succeeded(result), .. } if !result.is_null())));
}

#[test]
fn definitions_are_pinned() {
    let bench = Bench::of(&json!({ "steps": [{ "id": "a", "skill": "do.read" }] }));
    let twin = catalogue(&[workflow(&json!({ "steps": [{ "id": "a", "skill": "do.read" }] }))]);
    assert!(twin.by_digest(bench.run.workflow().digest).is_some());
    assert_eq!(bench.run.accepted().nesting, 0);
    assert_eq!(bench.run.plan().steps.len(), 1);
}

#[test]
fn a_refused_retry_says_what_the_run_did_instead_of_failing() {
    let task = json!({ "steps": [{ "id": "a", "skill": "do.read" }] });
    let told = |bench: &mut Bench| bench.refused(retry()).to_string();
    let mut bench = Bench::of(&task);
    assert!(told(&mut bench).starts_with("the run is still going on;"));
    bench.finish(one(0), &json!(1));
    assert!(told(&mut bench).starts_with("the run has completed;"));
    let mut bench = Bench::of(&task);
    bench.ok(cancel(kapell_kernel::CancelMode::Leave));
    assert!(told(&mut bench).starts_with("the run was canceled;"));
}
