//! Skills, with their schemas compiled.
//!
//! Owns: checking a value against a JSON Schema. Never: fetches a remote schema.
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::runtime::CompiledRuntime;
use crate::definition::{AutonomyLevel, EffectClass, Skill, SpecialistLimits};
use crate::{Json, Name, ToolRef};

/// A skill and the specialist that offers it.
#[derive(Debug)]
pub struct SkillEntry {
    /// The specialist.
    pub specialist: Name,
    /// How far the specialist may go alone.
    pub autonomy: AutonomyLevel,
    /// What the specialist may use.
    pub limits: SpecialistLimits,
    /// Tools that the specialist may call.
    pub mandate: Vec<ToolRef>,
    /// The skill as it was written.
    pub skill: Skill,
    /// What it does to the world.
    pub effect: EffectClass,
    /// Time that one attempt may take, unless the step says otherwise.
    pub timeout: Duration,
    /// What the input must be.
    pub input: SchemaCheck,
    /// What the output must be.
    pub output: SchemaCheck,
    /// How it works.
    pub runtime: CompiledRuntime,
}

/// A compiled JSON Schema; without one, everything fits.
#[derive(Clone, Default)]
pub struct SchemaCheck(Option<Arc<jsonschema::Validator>>);

/// Why a schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}not a usable JSON Schema: {reason}", place(.at))]
pub struct SchemaError {
    /// JSON pointer into the schema.
    pub at: String,
    /// What is wrong.
    pub reason: String,
}

/// The first way in which a value does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", place(.at))]
pub struct SchemaViolation {
    /// JSON pointer into the value.
    pub at: String,
    /// What does not fit.
    pub reason: String,
}

fn place(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!("at `{at}`: ") }
}

impl SchemaCheck {
    /// Compiles a schema; `None` accepts everything.
    pub fn compile(schema: Option<&serde_json::Value>) -> Result<SchemaCheck, SchemaError> {
        let Some(schema) = schema else { return Ok(SchemaCheck(None)) };
        jsonschema::validator_for(schema)
            .map(|validator| SchemaCheck(Some(Arc::new(validator))))
            .map_err(|error| SchemaError { at: error.instance_path().to_string(), reason: error.to_string() })
    }

    /// Whether the value fits; says the first reason why not.
    pub fn check(&self, value: &Json) -> Result<(), SchemaViolation> {
        if self.0.is_none() { Ok(()) } else { self.check_value(&value.value()) }
    }

    /// As [`SchemaCheck::check`], for a parsed value.
    pub fn check_value(&self, value: &serde_json::Value) -> Result<(), SchemaViolation> {
        let Some(validator) = &self.0 else { return Ok(()) };
        validator.validate(value).map_err(|error| SchemaViolation {
            at: error.instance_path().to_string(),
            reason: error.to_string(),
        })
    }

    /// Every way in which the value does not fit.
    #[must_use]
    pub fn violations(&self, value: &serde_json::Value) -> Vec<SchemaViolation> {
        let Some(validator) = &self.0 else { return Vec::new() };
        validator
            .iter_errors(value)
            .map(|error| SchemaViolation { at: error.instance_path().to_string(), reason: error.to_string() })
            .collect()
    }

    /// Whether there is nothing to check.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for SchemaCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_open() { "anything" } else { "schema" })
    }
}
