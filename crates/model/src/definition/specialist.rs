//! The Specialist kind.
//!
//! Owns: its shape. Never: runs anything.
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Span, ToolRef};

/// A supervised agent for one domain: what it may do, how, with what limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Specialist {
    /// What it is for, in words.
    #[serde(default)]
    pub description: String,
    /// How far it may go alone.
    #[serde(default)]
    pub autonomy: AutonomyLevel,
    /// The kinds of work that it offers.
    pub skills: Vec<Skill>,
    /// Tools that it may call beside those that its `call` skills name, as `CONNECTION/TOOL`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolRef>,
    /// What it may use.
    #[serde(default)]
    pub limits: SpecialistLimits,
}

/// How far a specialist may go alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AutonomyLevel {
    /// It says what it would do; a person does it and answers with the result.
    Suggest,
    /// A person agrees to each consequential step first.
    Approve,
    /// It acts.
    #[default]
    Autonomous,
}

/// What a tool or skill does to the world.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum EffectClass {
    /// Nothing.
    #[default]
    Read,
    /// Changes that can be undone.
    Write,
    /// Changes that cannot.
    Irreversible,
}

/// One kind of work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Skill {
    /// `DOMAIN.VERB-NOUN`, unique in the namespace.
    pub name: String,
    /// What it does, in words.
    #[serde(default)]
    pub description: String,
    /// JSON Schema of the input; left out: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// JSON Schema of the output; left out: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// What it does to the world; steps with `write` or `irreversible` are judged first.
    #[serde(default)]
    pub effect: EffectClass,
    /// How it works.
    #[serde(flatten)]
    pub runtime: Runtime,
    /// Time that one attempt may take, unless the step says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
}

/// How a skill works; exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Runtime {
    /// One tool, inputs mapped by templates.
    Call(ToolCall),
    /// A decision table.
    Rules(Decision),
    /// An agent in another process or language, connected over the worker stream.
    Remote(BTreeMap<String, Value>),
}

/// One tool call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolCall {
    /// `CONNECTION/TOOL`.
    pub tool: ToolRef,
    /// Template of the arguments over `input`; left out: the input as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Value>,
    /// Template of the output over `input` and `result`; left out: the result as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// A decision table: the first row whose condition holds gives the output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decision {
    /// Values computed first, in order of their names, each a template over `input`; rows see them as `local`
    /// (CEL reserves the word `let`).
    #[serde(rename = "let", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bindings: BTreeMap<String, Value>,
    /// From top to bottom.
    pub rows: Vec<RuleRow>,
}

/// One row of a decision table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleRow {
    /// CEL over `input` and `local`; left out: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Template of the output over `input` and `local`.
    #[serde(rename = "then")]
    pub output: Value,
}

/// What a specialist may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpecialistLimits {
    /// Tasks at once on one worker.
    #[serde(default = "hundred")]
    pub concurrency: u32,
    /// Deaths of its actor within a minute before it is put in quarantine.
    #[serde(default = "ten")]
    pub restarts_per_minute: u32,
}

fn hundred() -> u32 {
    100
}
fn ten() -> u32 {
    10
}

impl Default for SpecialistLimits {
    fn default() -> SpecialistLimits {
        SpecialistLimits { concurrency: hundred(), restarts_per_minute: ten() }
    }
}

impl Specialist {
    /// Every tool that it may call.
    pub fn mandate(&self) -> impl Iterator<Item = &ToolRef> {
        let called = self.skills.iter().filter_map(|skill| match &skill.runtime {
            Runtime::Call(call) => Some(&call.tool),
            Runtime::Rules(_) | Runtime::Remote(_) => None,
        });
        self.tools.iter().chain(called)
    }
}
