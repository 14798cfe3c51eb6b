//! How a skill works, with its templates and conditions compiled.
//!
//! Owns: mapping a skill's input to a tool's arguments and its result to the output, and evaluating a decision
//! table. Never: calls a tool.
use std::collections::BTreeMap;

use serde_json::Value;

use crate::ToolRef;
use crate::definition::{Decision, Runtime, ToolCall};
use crate::expr::{EvalError, Expr, Scope, Template};
use crate::field::FieldCompiler;
use crate::plan::{CompileError, FieldError};
use crate::pointer;

const CALL_SCOPE: [&str; 1] = ["input"];
const RESULT_SCOPE: [&str; 2] = ["input", "result"];
const ROW_SCOPE: [&str; 2] = ["input", "local"];

/// How a skill works.
#[derive(Clone, Debug)]
pub enum CompiledRuntime {
    /// One tool call.
    Call(CompiledCall),
    /// A decision table.
    Rules(CompiledDecision),
    /// An agent elsewhere; its settings are its own.
    Remote(BTreeMap<String, Value>),
}

/// One tool call.
#[derive(Clone, Debug)]
pub struct CompiledCall {
    /// What is called.
    pub tool: ToolRef,
    /// The arguments over `input`; `None`: the input as it is.
    pub with: Option<Template>,
    /// The output over `input` and `result`; `None`: the result as it is.
    pub output: Option<Template>,
}

/// A decision table.
#[derive(Clone, Debug)]
pub struct CompiledDecision {
    /// In order of their names, each over `input`.
    pub bindings: Vec<(String, Template)>,
    /// From top to bottom: the condition (`None`: always) and the output, over `input` and `local`.
    pub rows: Vec<(Option<Expr>, Template)>,
}

/// Why a decision table gives no output for an input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// A value that is computed first could not be.
    #[error("`let.{name}`: {error}")]
    Binding {
        /// Its name.
        name: String,
        /// Why.
        error: EvalError,
    },
    /// A row could not be evaluated.
    #[error("row {row}: {error}")]
    Row {
        /// Counted from 1.
        row: usize,
        /// Why.
        error: EvalError,
    },
    /// No row holds.
    #[error("no row of the decision table holds for the input {input}")]
    NoRow {
        /// The input, cut to a readable length.
        input: String,
    },
}

impl CompiledRuntime {
    /// Compiles how a skill works; pointers in the errors are relative to the skill.
    pub fn compile(runtime: &Runtime) -> Result<CompiledRuntime, Vec<FieldError>> {
        match runtime {
            Runtime::Call(call) => CompiledCall::compile(call).map(CompiledRuntime::Call),
            Runtime::Rules(decision) => CompiledDecision::compile(decision).map(CompiledRuntime::Rules),
            Runtime::Remote(settings) => Ok(CompiledRuntime::Remote(settings.clone())),
        }
    }
}

impl CompiledCall {
    /// Compiles a call; pointers in the errors are relative to the skill.
    pub fn compile(call: &ToolCall) -> Result<CompiledCall, Vec<FieldError>> {
        let mut fields = FieldCompiler::new();
        let with = call.with.as_ref().and_then(|with| fields.template("/call/with", with, &CALL_SCOPE));
        let output =
            call.output.as_ref().and_then(|output| fields.template("/call/output", output, &RESULT_SCOPE));
        fields.finish(Some(CompiledCall { tool: call.tool.clone(), with, output }))
    }

    /// The tool's arguments for an input of the skill.
    pub fn arguments(&self, input: &Value) -> Result<Value, EvalError> {
        match &self.with {
            Some(with) => with.eval(&scope_of_input(input)),
            None => Ok(input.clone()),
        }
    }

    /// The skill's output for a result of the tool.
    pub fn output(&self, input: &Value, result: &Value) -> Result<Value, EvalError> {
        let Some(output) = &self.output else { return Ok(result.clone()) };
        let mut scope = scope_of_input(input);
        scope.set("result", result);
        output.eval(&scope)
    }
}

impl CompiledDecision {
    /// Compiles a decision table; pointers in the errors are relative to the skill.
    pub fn compile(decision: &Decision) -> Result<CompiledDecision, Vec<FieldError>> {
        let mut fields = FieldCompiler::new();
        let mut bindings = Vec::new();
        for (name, source) in &decision.bindings {
            if let Some(template) = fields.template(&pointer::join("/rules/let", name), source, &CALL_SCOPE) {
                bindings.push((name.clone(), template));
            }
        }
        if decision.rows.is_empty() {
            fields.fail("/rules/rows", CompileError::NoRows);
        }
        let mut rows = Vec::new();
        for (at, row) in decision.rows.iter().enumerate() {
            let when = row
                .when
                .as_ref()
                .and_then(|when| fields.expr(&format!("/rules/rows/{at}/when"), when, &ROW_SCOPE));
            if let Some(output) = fields.template(&format!("/rules/rows/{at}/then"), &row.output, &ROW_SCOPE)
            {
                rows.push((when, output));
            }
        }
        fields.finish(Some(CompiledDecision { bindings, rows }))
    }

    /// The output of the first row that holds.
    pub fn evaluate(&self, input: &Value) -> Result<Value, DecisionError> {
        let mut scope = scope_of_input(input);
        let mut local = serde_json::Map::new();
        for (name, template) in &self.bindings {
            let value = template
                .eval(&scope)
                .map_err(|error| DecisionError::Binding { name: name.clone(), error })?;
            local.insert(name.clone(), value);
        }
        scope.set("local", &Value::Object(local));
        for (row, (when, output)) in (1..).zip(&self.rows) {
            let failed = |error| DecisionError::Row { row, error };
            let holds = match when {
                Some(when) => when.eval_bool(&scope).map_err(failed)?,
                None => true,
            };
            if holds {
                return output.eval(&scope).map_err(failed);
            }
        }
        Err(DecisionError::NoRow { input: crate::expr::shorten(&input.to_string()) })
    }
}

fn scope_of_input(input: &Value) -> Scope {
    let mut scope = Scope::new();
    scope.set("input", input);
    scope
}

#[cfg(test)]
mod tests;
