//! Policies, with their expressions compiled.
//!
//! Owns: what a policy is once its expressions are compiled. Never: judges (that is the kernel's `judgement`).
use crate::Name;
use crate::definition::{Document, Policy, PolicyEffect, PolicyMatch};
use crate::expr::Expr;
use crate::field::FieldCompiler;
use crate::plan::FieldError;

const SCOPE: [&str; 4] = ["input", "event", "run", "step"];

/// A policy ready to judge.
#[derive(Debug)]
pub struct CompiledPolicy {
    /// Its name.
    pub name: Name,
    /// Which steps it looks at.
    pub matches: PolicyMatch,
    /// In the order written.
    pub rules: Vec<CompiledRule>,
}

/// One guardrail ready to judge.
#[derive(Debug)]
pub struct CompiledRule {
    /// Over `input`, `event`, `run`, `step`; `None`: always.
    pub when: Option<Expr>,
    /// What follows.
    pub effect: CompiledEffect,
    /// Said to people.
    pub reason: String,
}

/// What a guardrail does.
#[derive(Debug)]
pub enum CompiledEffect {
    /// The step fails.
    Deny,
    /// A person must agree.
    Ask,
    /// The step fails when the amount is above `max`.
    Cap {
        /// Gives a number, over the same variables as `when`.
        amount: Expr,
        /// The largest that is allowed.
        max: i64,
    },
}

impl CompiledPolicy {
    /// Compiles a policy; pointers in the errors are of the document.
    pub fn compile(document: &Document<Policy>) -> Result<CompiledPolicy, Vec<FieldError>> {
        let mut fields = FieldCompiler::new();
        let mut rules = Vec::new();
        for (at, rule) in document.spec.rules.iter().enumerate() {
            let pointer = format!("/spec/rules/{at}");
            let when =
                rule.when.as_ref().and_then(|when| fields.expr(&format!("{pointer}/when"), when, &SCOPE));
            let effect = match &rule.effect {
                PolicyEffect::Deny(_) => Some(CompiledEffect::Deny),
                PolicyEffect::Ask(_) => Some(CompiledEffect::Ask),
                PolicyEffect::Cap { amount, max } => fields
                    .expr(&format!("{pointer}/cap/amount"), amount, &SCOPE)
                    .map(|amount| CompiledEffect::Cap { amount, max: *max }),
            };
            rules.extend(effect.map(|effect| CompiledRule { when, effect, reason: rule.reason.clone() }));
        }
        let (name, matches) = (document.metadata.name.clone(), document.spec.matches.clone());
        fields.finish(Some(CompiledPolicy { name, matches, rules }))
    }
}
