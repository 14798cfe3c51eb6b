use serde_json::{Value, json};

use super::*;
use crate::definition::Definition;
use crate::expr::ExprError;
use crate::limits::PLAN_STEPS_MAX;

fn compile_spec(spec: Value) -> Result<CompiledWorkflow, Vec<FieldError>> {
    let document =
        json!({"apiVersion": "kapell.dev/v1", "kind": "Workflow", "metadata": {"name": "w"}, "spec": spec});
    let Definition::Workflow(document) = serde_json::from_value(document).unwrap() else {
        panic!("no workflow")
    };
    compile(&document)
}

fn sound(spec: Value) -> CompiledWorkflow {
    compile_spec(spec).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

fn wrong(spec: Value) -> Vec<(String, CompileError)> {
    compile_spec(spec).unwrap_err().into_iter().map(|error| (error.pointer, error.error)).collect()
}

/// The only error of a workflow with these steps.
fn only(steps: Value) -> (String, CompileError) {
    let mut found = wrong(json!({ "steps": steps }));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn pause(id: &str) -> Value {
    json!({"id": id, "wait": {"for": "1s"}})
}

#[test]
fn every_kind_of_step_compiles_to_what_a_run_follows() {
    let workflow = sound(json!({
        "on": {"type": "t", "source": "s", "when": "event.data.n > 0"},
        "key": "event.data.id", "goal": "g", "input": {"type": "object"}, "timeout": "1h", "onFailure": "stop",
        "context": [{"recall": {"about": "x:${key}"}}, {"recall": {}}, {"related": {"from": "x:${event.id}", "via": ["a"]}}],
        "outcome": {"within": "7d", "on": {"type": "o", "correlate": "${key}"}, "success": "event.data.ok && run.id != ''"},
        "steps": [
            {"id": "task", "skill": "a.b", "timeout": "5s", "retry": {"attempts": 2, "backoff": {"initial": "2s", "max": "9s"}}},
            {"id": "ask", "approval": {"ask": "Is ${steps.task.x} right?", "show": "${steps.task}", "expires": "2h", "onExpire": "approve"}},
            {"id": "quiet", "approval": {"ask": "?"}},
            {"id": "sleep", "wait": {"for": "90s"}},
            {"id": "fixed", "wait": {"until": "2026-01-31T08:00:00Z"}},
            {"id": "until", "wait": {"until": "${steps.task.at}"}},
            {"id": "event", "wait": {"event": {"type": "e", "correlate": "${key}", "by": "event.data.id"}}},
            {"id": "child", "workflow": "other", "with": {"a": "${context}"}},
            {"id": "each", "skill": "a.b", "foreach": "${steps.task.items}", "concurrency": 7, "with": {"i": "${index}", "v": "${item}"}},
            {"id": "listed", "skill": "a.b", "foreach": [1, 2]}
        ]
    }));
    let step = |id: &str| workflow.plan.step(workflow.plan.index_of(id).unwrap()).unwrap();
    let retry = RetryRule { attempts_max: 2, initial: Duration::from_secs(2), max: Duration::from_secs(9) };
    assert_eq!((step("task").retry, step("task").timeout), (retry, Some(Duration::from_secs(5))));
    assert_eq!(step("ask").retry.attempts_max, 5);
    assert!(
        matches!(&step("task").kind, StepKind::Task { skill, input } if &**skill == "a.b" && input.source().as_str() == "{}")
    );
    assert!(
        matches!(step("ask").kind, StepKind::Approval { expires, on_expire: OnExpire::Approve, .. } if expires.as_secs() == 7200)
    );
    assert!(
        matches!(&step("quiet").kind, StepKind::Approval { expires, on_expire: OnExpire::Reject, show, .. }
        if expires.as_secs() == 86_400 && show.source().is_null())
    );
    assert_eq!(step("sleep").kind, StepKind::Sleep { span: Duration::from_secs(90) });
    assert!(matches!(&step("fixed").kind, StepKind::Until { at } if at.constant().is_some()));
    assert!(
        matches!(&step("event").kind, StepKind::Event { event_type, by: Some(_), .. } if &**event_type == "e")
    );
    assert!(
        matches!(&step("child").kind, StepKind::Subworkflow { workflow, .. } if workflow.as_str() == "other")
    );
    assert_eq!(step("each").foreach.as_ref().unwrap().concurrency, 7);
    assert_eq!(step("listed").foreach.as_ref().unwrap().concurrency, 100);
    assert_eq!(workflow.plan.on_failure, OnFailure::Stop);
    assert_eq!(workflow.timeout, Some(Duration::from_secs(3600)));
    assert_eq!(workflow.trigger.as_ref().unwrap().source.as_deref(), Some("s"));
    assert!(workflow.outcome.is_some() && workflow.key.is_some() && workflow.input.is_some());
    assert_eq!((workflow.context.len(), workflow.goal.as_str()), (3, "g"));
    assert_eq!(workflow.plan.indices().count(), 10);
}

#[test]
fn a_step_needs_what_it_looks_at_and_what_it_comes_after() {
    let workflow = sound(json!({"steps": [
        pause("a"),
        pause("b"),
        {"id": "c", "when": "steps.a.ok", "skill": "s.k", "with": {"x": ["${steps.b.x}"]}},
        {"id": "d", "after": ["a", "a"], "foreach": "${steps.c.list}", "skill": "s.k",
         "compensate": {"skill": "s.k", "with": {"mine": "${steps.d.x}", "other": "${steps.b.x}", "out": "${output.id}"}}},
        {"id": "e", "approval": {"ask": "${steps.d.a}", "show": "${steps.a.b}"}}
    ]}));
    let numbers = |of: &[StepIndex]| of.iter().map(|at| at.0).collect::<Vec<_>>();
    let needs: Vec<_> = workflow.plan.steps.iter().map(|step| numbers(&step.needs)).collect();
    assert_eq!(needs, [vec![], vec![], vec![0, 1], vec![0, 1, 2], vec![0, 3]]);
    let feeds: Vec<_> = workflow.plan.steps.iter().map(|step| numbers(&step.feeds)).collect();
    assert_eq!(feeds, [vec![2, 3, 4], vec![2, 3], vec![3], vec![4], vec![]]);
}

#[test]
fn the_digest_is_of_the_content_and_not_of_the_writing() {
    let digest = |spec: Value| sound(spec).digest;
    let one = digest(json!({"goal": "g", "steps": [pause("a")]}));
    assert_eq!(one, digest(json!({"steps": [pause("a")], "goal": "g"})));
    assert_ne!(one, digest(json!({"steps": [pause("a")], "goal": "h"})));
    assert_eq!(one.to_string().len(), 32);
    assert_eq!(format!("{one:?}"), one.to_string());
}

#[test]
fn ids_and_counts_of_steps_are_checked() {
    assert_eq!(only(json!([])), ("/spec/steps".to_owned(), CompileError::NoSteps));
    let many: Vec<Value> = (0..=PLAN_STEPS_MAX).map(|at| pause(&format!("s{at}"))).collect();
    assert_eq!(
        wrong(json!({ "steps": many })),
        [("/spec/steps".to_owned(), CompileError::TooManySteps(PLAN_STEPS_MAX + 1))]
    );
    let most: Vec<Value> = (0..PLAN_STEPS_MAX).map(|at| pause(&format!("s{at}"))).collect();
    assert_eq!(sound(json!({ "steps": most })).plan.steps.len(), PLAN_STEPS_MAX, "at the limit");
    for id in ["", "A", "1a", "a-b", "ä", &"x".repeat(64)] {
        assert_eq!(
            only(json!([pause(id)])),
            ("/spec/steps/0/id".to_owned(), CompileError::StepId(id.to_owned()))
        );
    }
    sound(json!({"steps": [pause(&"x".repeat(63))]}));
    let twice = only(json!([pause("a"), pause("a")]));
    assert_eq!(twice, ("/spec/steps/1/id".to_owned(), CompileError::DuplicateStep("a".to_owned())));
}

#[test]
fn a_step_is_exactly_one_thing_and_only_what_fits_it() {
    let kind = |found| CompileError::StepKind { id: "a".to_owned(), found };
    assert_eq!(only(json!([{"id": "a"}])), ("/spec/steps/0".to_owned(), kind(0)));
    assert_eq!(
        only(json!([{"id": "a", "skill": "x.y", "workflow": "w"}])),
        ("/spec/steps/0".to_owned(), kind(2))
    );
    assert_eq!(
        only(json!([{"id": "a", "wait": {}}])),
        ("/spec/steps/0/wait".to_owned(), CompileError::WaitKind(0))
    );
    let two = json!([{"id": "a", "wait": {"for": "1s", "event": {"type": "e", "correlate": "x"}}}]);
    assert_eq!(only(two), ("/spec/steps/0/wait".to_owned(), CompileError::WaitKind(2)));
    for (field, value) in
        [("with", json!(1)), ("concurrency", json!(2)), ("compensate", json!({"skill": "x.y"}))]
    {
        let mut step = pause("a");
        step[field] = value;
        let (at, error) = only(json!([step]));
        assert_eq!(at, format!("/spec/steps/0/{field}"));
        assert!(matches!(error, CompileError::Meaningless { field: named, .. } if named == field), "{error}");
    }
}

#[test]
fn numbers_lists_and_times_are_checked() {
    let (at, error) = only(json!([{"id": "a", "skill": "x.y", "retry": {"attempts": 101}}]));
    assert_eq!(
        (at.as_str(), error.to_string().as_str()),
        ("/spec/steps/0/retry/attempts", "attempts is 101; allowed is 1 to 100")
    );
    let zero = only(json!([{"id": "a", "skill": "x.y", "retry": {"attempts": 0}}]));
    assert!(matches!(zero.1, CompileError::OutOfRange { got: 0, .. }));
    let wide = only(json!([{"id": "a", "skill": "x.y", "foreach": [], "concurrency": 10_001}]));
    assert!(matches!(wide.1, CompileError::OutOfRange { most: 10_000, .. }));
    let constant = only(json!([{"id": "a", "skill": "x.y", "foreach": "all"}]));
    assert_eq!(constant, ("/spec/steps/0/foreach".to_owned(), CompileError::ForeachConstant));
    let time = only(json!([{"id": "a", "wait": {"until": "soon"}}]));
    assert_eq!(time, ("/spec/steps/0/wait/until".to_owned(), CompileError::NotATime("soon".to_owned())));
}

#[test]
fn expressions_name_what_exists_where_they_stand() {
    let near = only(json!([pause("first"), {"id": "b", "after": ["frist"], "wait": {"for": "1s"}}]));
    let error = CompileError::UnknownStep { name: "frist".to_owned(), near: Some("first".to_owned()) };
    assert_eq!(near, ("/spec/steps/1/after/0".to_owned(), error));
    let whole = only(json!([{"id": "a", "when": "size(steps) > 0", "wait": {"for": "1s"}}]));
    assert_eq!(whole, ("/spec/steps/0/when".to_owned(), CompileError::StepsAsAWhole));
    let bare = only(json!([pause("a"), {"id": "b", "skill": "x.y", "with": {"v": ["${a.b}"]}}]));
    assert_eq!(bare, ("/spec/steps/1/with/v/0".to_owned(), CompileError::StepAsVariable("a".to_owned())));
    let unknown = only(json!([{"id": "a", "skill": "x.y", "with": {"v": "${item}"}}]));
    assert!(
        matches!(&unknown.1, CompileError::UnknownVariable { name, known } if name == "item" && known.len() == 5)
    );
    let syntax = only(json!([{"id": "a", "skill": "x.y", "with": {"v/w": "${1 +}"}}]));
    assert_eq!(syntax.0, "/spec/steps/0/with/v~1w");
    assert!(
        matches!(&syntax.1, CompileError::Expression(ExprError::Syntax { reason, .. }) if reason == "it ends too early")
    );
    let open = only(json!([{"id": "a", "skill": "x.y", "with": "${1"}]));
    assert!(matches!(open.1, CompileError::Expression(ExprError::Unclosed { .. })));
    let found = wrong(json!({
        "on": {"type": "t", "when": "run.id == ''"}, "key": "steps.a.x", "steps": [pause("a")],
        "context": [{"recall": {"about": "${steps.a}"}}, {"related": {"from": "${", "via": []}}],
        "outcome": {"within": "1d", "on": {"type": "o", "correlate": "${item}"}, "success": "steps.a.ok"}
    }));
    assert_eq!(
        found.iter().map(|(at, _)| at.as_str()).collect::<Vec<_>>(),
        [
            "/spec/on/when",
            "/spec/key",
            "/spec/outcome/success",
            "/spec/outcome/on/correlate",
            "/spec/context/0/recall/about",
            "/spec/context/1/related/from"
        ]
    );
}

#[test]
fn steps_that_wait_for_each_other_are_named_in_order() {
    let circle = only(json!([
        pause("start"),
        {"id": "a", "after": ["start", "c"], "wait": {"for": "1s"}},
        {"id": "b", "when": "steps.a.ok", "wait": {"for": "1s"}},
        {"id": "c", "approval": {"ask": "${steps.b.ok}"}},
        {"id": "behind", "after": ["c"], "wait": {"for": "1s"}}
    ]));
    let names = ["a", "c", "b", "a"].map(str::to_owned).to_vec();
    assert_eq!(circle, ("/spec/steps/1".to_owned(), CompileError::Cycle(names)));
    let itself = only(json!([{"id": "a", "wait": {"until": "${steps.a.at}"}}]));
    assert!(matches!(&itself.1, CompileError::Cycle(names) if names == &["a", "a"]));
    let undone = only(json!([
        {"id": "a", "skill": "x.y", "with": "${steps.a.x}", "compensate": {"skill": "x.y", "with": "${steps.a.x}"}}
    ]));
    assert!(
        matches!(undone.1, CompileError::Cycle(_)),
        "that its undoing looks at it does not hide the cycle"
    );
}

#[test]
fn what_a_person_can_do_is_said_apart_from_what_is_wrong() {
    let hint = |error: &CompileError| error.hint();
    assert_eq!(hint(&CompileError::OutOfRange { field: "x", got: 1, least: 2, most: 3 }), None);
    assert_eq!(hint(&CompileError::UnknownStep { name: "x".into(), near: None }), None);
    assert_eq!(hint(&CompileError::StepAsVariable("a".into())).unwrap(), "write `steps.a`");
    let variable =
        |name: &str| CompileError::UnknownVariable { name: name.into(), known: vec!["event", "key"] };
    assert_eq!(hint(&variable("evnt")).unwrap(), "did you mean `event`?");
    assert_eq!(hint(&variable("zzz")).unwrap(), "known here: event, key");
    assert!(hint(&CompileError::TooManySteps(1)).unwrap().contains("subworkflow"));
    assert!(hint(&CompileError::Expression(ExprError::TooLong { bytes: 1 })).is_some());
}
