//! The Policy kind: guardrails as data.
//!
//! Owns: its shape. Never: judges (that is the kernel's `judgement`).
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::specialist::EffectClass;

/// Rules that every consequential step of the namespace must pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Why it exists, in words.
    #[serde(default)]
    pub description: String,
    /// Which steps it looks at.
    #[serde(rename = "match", default)]
    pub matches: PolicyMatch,
    /// The strictest rule that holds wins: deny, then cap, then ask.
    pub rules: Vec<PolicyRule>,
}

/// Which steps a policy looks at; an empty list means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyMatch {
    /// Skills, exactly or with a final `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
    /// Workflows, exactly or with a final `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workflows: Vec<String>,
    /// Effect classes; left out: `write` and `irreversible`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<EffectClass>,
}

/// One guardrail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRule {
    /// CEL over `input`, `event`, `run`, `step`; left out: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What follows.
    #[serde(flatten)]
    pub effect: PolicyEffect,
    /// Said to people: in the journal, in the approval, in the refusal.
    pub reason: String,
}

/// What a guardrail does; exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PolicyEffect {
    /// The step fails.
    Deny(Always),
    /// A person must agree.
    Ask(Always),
    /// CEL that gives a number; above `max` the step fails.
    Cap {
        /// The amount.
        amount: String,
        /// The largest that is allowed.
        max: i64,
    },
}

/// Written as `true`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "bool", into = "bool")]
#[schemars(with = "bool", extend("const" = true))]
pub struct Always;

impl TryFrom<bool> for Always {
    type Error = &'static str;

    fn try_from(truth: bool) -> Result<Always, &'static str> {
        if truth { Ok(Always) } else { Err("write `true`, or leave the rule out") }
    }
}
impl From<Always> for bool {
    fn from(_: Always) -> bool {
        true
    }
}
