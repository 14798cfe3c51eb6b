//! Judgements: policies and autonomy.
use kapell_kernel::judgement::{Judgement, judge};
use kapell_kernel::{QuestionKind, Verdict};
use kapell_model::catalogue::Catalogue;
use serde_json::{Value, json};

use crate::bench::{Bench, document, item, one};

/// What is judged of a step with this skill and input, under these rules.
fn judged(skill: &str, with: &Value, matches: &Value, rules: &Value) -> Judgement {
    let spec = json!({ "steps": [{ "id": "a", "skill": skill, "with": with }] });
    let policy = document("Policy", "rails", json!({ "match": matches, "rules": rules }));
    let bench = Bench::with(&spec, &[policy]);
    judge(&bench.run, one(0), &bench.context())
}

fn under(rules: &Value) -> Judgement {
    judged("do.write", &json!({ "amount": 100 }), &json!({}), rules)
}

fn refused(judgement: &Judgement) -> String {
    match &judgement.verdict {
        Verdict::Refuse { reason } => {
            assert_eq!(judgement.reasons, std::slice::from_ref(reason));
            reason.to_string()
        }
        other => panic!("{other:?}"),
    }
}

fn asked(judgement: &Judgement) -> (QuestionKind, String) {
    match &judgement.verdict {
        Verdict::Escalate { ask, kind, .. } => (*kind, ask.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_rule_against_it_an_autonomous_specialist_acts() {
    let free = under(&json!([{ "when": "input.amount > 500", "deny": true, "reason": "too much" }]));
    assert_eq!(free.verdict, Verdict::Follow);
    assert!(free.reasons[0].contains("robot"));
}

#[test]
fn a_denied_step_is_refused_with_the_reason() {
    let said = refused(&under(&json!([
        { "ask": true, "reason": "look" },
        { "when": "input.amount == 100 && run.workflow == 'w' && step.id == 'a' && step.skill == 'do.write' && event.data == {}",
          "deny": true, "reason": "not on our watch" },
    ])));
    assert_eq!(said, "policy `rails`: not on our watch");
}

#[test]
fn a_cap_holds_at_its_value_and_not_above() {
    let cap = |amount: &str, max: i64| {
        under(&json!([{ "cap": { "amount": amount, "max": max }, "reason": "limit" }]))
    };
    assert_eq!(cap("input.amount", 100).verdict, Verdict::Follow);
    assert!(refused(&cap("input.amount", 99)).contains("100 is above the cap of 99"));
    assert!(refused(&cap("'much'", 100)).contains("no number"));
    assert!(refused(&cap("input.nothing", 100)).contains("its amount failed"));
}

#[test]
fn a_guardrail_that_cannot_be_read_is_not_passed() {
    let said = refused(&under(&json!([{ "when": "input.nothing > 5", "ask": true, "reason": "look" }])));
    assert!(said.contains("its condition failed"), "{said}");
}

#[test]
fn asking_escalates_what_is_autonomous_and_joins_the_reasons_of_what_is_not() {
    let rules = json!([{ "ask": true, "reason": "large" }, { "ask": true, "reason": "late" }]);
    let judgement = under(&rules);
    let (kind, ask) = asked(&judgement);
    assert_eq!(kind, QuestionKind::Agree);
    assert!(ask.contains("large") && ask.contains("late"), "{ask}");
    assert_eq!(judgement.reasons.len(), 2);
    let suggested = judged("help.write", &json!({}), &json!({}), &rules);
    assert_eq!(asked(&suggested).0, QuestionKind::Suggestion);
    assert_eq!(suggested.reasons.len(), 3);
    let approved = judged(
        "ask.write",
        &json!({}),
        &json!({}),
        &json!([{ "when": "false", "ask": true, "reason": "r" }]),
    );
    assert_eq!(asked(&approved).0, QuestionKind::Agree);
    assert!(approved.reasons[0].contains("clerk"));
}

#[test]
fn a_policy_looks_only_at_what_it_matches() {
    let deny = json!([{ "deny": true, "reason": "no" }]);
    for (matches, hit) in [
        (json!({ "skills": ["do.write"] }), true),
        (json!({ "skills": ["do.*"] }), true),
        (json!({ "skills": ["help.*", "do.writ"] }), false),
        (json!({ "workflows": ["w"] }), true),
        (json!({ "workflows": ["v*"] }), false),
        (json!({ "effects": ["write"] }), true),
        (json!({ "effects": ["irreversible"] }), false),
    ] {
        let judgement = judged("do.write", &json!({}), &matches, &deny);
        assert_eq!(judgement.verdict != Verdict::Follow, hit, "{matches}");
    }
    let bench = Bench::with(
        &json!({ "steps": [{ "id": "a", "skill": "do.read" }] }),
        &[document("Policy", "p", json!({ "rules": deny }))],
    );
    assert_eq!(judge(&bench.run, one(0), &bench.context()).verdict, Verdict::Follow, "reads are free");
}

#[test]
fn what_nobody_offers_is_refused() {
    let mut bench = Bench::of(
        &json!({ "steps": [{ "id": "a", "skill": "do.write" }, { "id": "b", "wait": { "for": "1s" } }] }),
    );
    assert!(refused(&judge(&bench.run, one(1), &bench.context())).contains("no specialist"));
    assert!(refused(&judge(&bench.run, item(7, 7), &bench.context())).contains("no specialist"));
    bench.catalogue = std::sync::Arc::new(Catalogue::default());
    assert!(refused(&judge(&bench.run, one(0), &bench.context())).contains("`do.write`"));
}
