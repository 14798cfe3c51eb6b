//! Judgement: may a consequential attempt be made?
//!
//! Owns: policies in CEL that deny, cap or ask, and the fixed autonomy levels. Pure: the shell calls it to answer a
//! `Judge` order, and another mind may answer in its place.
use std::sync::Arc;

use kapell_model::Json;
use kapell_model::catalogue::{CompiledEffect, CompiledPolicy, CompiledRule, SkillEntry};
use kapell_model::definition::{AutonomyLevel, EffectClass, PolicyMatch};
use kapell_model::expr::Scope;
use serde_json::json;

use crate::command::Verdict;
use crate::order::QuestionKind;
use crate::outstanding::skill_of;
use crate::run::Run;
use crate::unit::UnitId;
use crate::{Context, scope};

/// What shall happen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What.
    pub verdict: Verdict,
    /// Why, for people; never empty.
    pub reasons: Vec<Arc<str>>,
}

/// Judges one unit by the guardrails in force and the specialist's autonomy level. The strictest wins.
#[must_use]
pub fn judge(run: &Run, unit: UnitId, context: &Context<'_>) -> Judgement {
    let namespace = &run.workflow().namespace;
    let name = skill_of(run, unit).unwrap_or_else(|| "".into());
    let Some(skill) = context.catalogue.skill(namespace, &name) else {
        return refuse(format!("no specialist offers `{name}`").into());
    };
    let input = run.unit(unit).map_or_else(Json::null, |unit| unit.input.clone());
    let seen = scope_of(run, unit, &name, &input);
    let mut asks: Vec<Arc<str>> = Vec::new();
    for policy in context.catalogue.policies(namespace) {
        if !looks_at(&policy.matches, run, &name, skill.effect) {
            continue;
        }
        for rule in &policy.rules {
            match apply(policy, rule, &seen) {
                Ruling::Passes => {}
                Ruling::Forbids(reason) => return refuse(reason),
                Ruling::Asks(reason) => asks.push(reason),
            }
        }
    }
    by_autonomy(skill, &name, input, asks)
}

enum Ruling {
    Passes,
    Forbids(Arc<str>),
    Asks(Arc<str>),
}

fn apply(policy: &CompiledPolicy, rule: &CompiledRule, seen: &Scope) -> Ruling {
    let because =
        |what: &str| -> Arc<str> { format!("policy `{}`: {}{what}", policy.name, rule.reason).into() };
    let holds = match rule.when.as_ref().map(|when| when.eval_bool(seen)) {
        None | Some(Ok(true)) => true,
        Some(Ok(false)) => false,
        // A guardrail that cannot be read must not be passed.
        Some(Err(error)) => return Ruling::Forbids(because(&format!(" (its condition failed: {error})"))),
    };
    if !holds {
        return Ruling::Passes;
    }
    match &rule.effect {
        CompiledEffect::Deny => Ruling::Forbids(because("")),
        CompiledEffect::Ask => Ruling::Asks(because("")),
        CompiledEffect::Cap { amount, max } => match amount.eval(seen).map(|value| value.as_f64()) {
            Ok(Some(amount)) if amount <= *max as f64 => Ruling::Passes,
            Ok(Some(amount)) => Ruling::Forbids(because(&format!(" ({amount} is above the cap of {max})"))),
            Ok(None) => Ruling::Forbids(because(" (its amount is no number)")),
            Err(error) => Ruling::Forbids(because(&format!(" (its amount failed: {error})"))),
        },
    }
}

fn by_autonomy(skill: &SkillEntry, name: &str, input: Json, mut asks: Vec<Arc<str>>) -> Judgement {
    let specialist = &skill.specialist;
    match skill.autonomy {
        AutonomyLevel::Suggest => {
            asks.push(format!("specialist `{specialist}` may only suggest").into());
            let ask = format!("`{specialist}` suggests `{name}`; do it and answer with the result");
            escalate(ask, input, QuestionKind::Suggestion, asks)
        }
        AutonomyLevel::Approve => {
            asks.push(format!("specialist `{specialist}` needs a person's agreement").into());
            escalate(format!("May `{specialist}` do `{name}`?"), input, QuestionKind::Agree, asks)
        }
        AutonomyLevel::Autonomous if asks.is_empty() => {
            let reason = format!("no policy stands against it and specialist `{specialist}` is autonomous");
            Judgement { verdict: Verdict::Follow, reasons: vec![reason.into()] }
        }
        AutonomyLevel::Autonomous => {
            let ask = format!("May `{specialist}` do `{name}`? {}", asks.join("; "));
            escalate(ask, input, QuestionKind::Agree, asks)
        }
    }
}

fn escalate(ask: String, show: Json, kind: QuestionKind, reasons: Vec<Arc<str>>) -> Judgement {
    Judgement { verdict: Verdict::Escalate { ask: ask.into(), show, kind }, reasons }
}

fn refuse(reason: Arc<str>) -> Judgement {
    Judgement { verdict: Verdict::Refuse { reason: reason.clone() }, reasons: vec![reason] }
}

fn scope_of(run: &Run, unit: UnitId, skill: &str, input: &Json) -> Scope {
    let mut seen = Scope::new();
    seen.set("input", &input.value());
    seen.set("event", &run.accepted().event.value());
    seen.set("run", &scope::about(run));
    let id = run.plan_step(unit.step).map_or("", |step| &*step.id);
    seen.set("step", &json!({ "id": id, "skill": skill }));
    seen
}

fn looks_at(matches: &PolicyMatch, run: &Run, skill: &str, effect: EffectClass) -> bool {
    let named = |patterns: &[String], name: &str| {
        patterns.is_empty()
            || patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => pattern == name,
            })
    };
    let effects = if matches.effects.is_empty() {
        effect != EffectClass::Read
    } else {
        matches.effects.contains(&effect)
    };
    effects && named(&matches.skills, skill) && named(&matches.workflows, run.workflow().name.as_str())
}
