//! Policies, with their expressions compiled.
use crate::Name;
use crate::definition::PolicyMatch;
use crate::expr::Expr;

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
