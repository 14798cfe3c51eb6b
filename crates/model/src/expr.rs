//! Expressions: CEL over what a run knows, and templates that hold it.
//!
//! Owns: compiling, what an expression may refer to, evaluation within a bound. Never: reads a clock or a
//! random number, so the same scope gives the same value on every node.
mod convert;
mod references;
mod template;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, Program, Value};

use convert::NoJson;
pub use references::References;
pub use template::{Template, TemplateError, TemplateErrors};

use crate::json::Json;
use crate::limits::{EXPRESSION_BYTES_MAX, EXPRESSION_ITERATIONS_MAX, EXPRESSION_VALUE_BYTES_MAX};
use references::Shape;

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let extended = env.add_extension(text::extend);
    debug_assert!(extended.is_ok(), "a text function is in the standard library now: {extended:?}");
    Arc::new(env)
});

/// One compiled CEL expression.
#[derive(Clone)]
pub struct Expr(Arc<Compiled>);

struct Compiled {
    source: String,
    program: Program,
    references: References,
    shape: Shape,
}

/// Why a text is no usable expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// CEL cannot parse it.
    #[error("`{expression}` is not valid CEL at column {column}: {reason}")]
    Syntax {
        /// The text, cut to a readable length.
        expression: String,
        /// Counted from 1.
        column: u64,
        /// What the parser said.
        reason: String,
    },
    /// Longer than [`EXPRESSION_BYTES_MAX`].
    #[error("the expression is {bytes} bytes long, at most {EXPRESSION_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// `${` without `}`.
    #[error("`{text}` opens `${{` and never closes it")]
    Unclosed {
        /// The text, cut to a readable length.
        text: String,
    },
}

/// Why an expression gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// CEL could not evaluate it: a missing field, a wrong type.
    #[error("`{expression}` failed: {reason}")]
    Failed {
        /// The expression.
        expression: String,
        /// What CEL said.
        reason: String,
    },
    /// It would iterate more often than [`EXPRESSION_ITERATIONS_MAX`].
    #[error(
        "`{expression}` could take {iterations} iterations, at most {EXPRESSION_ITERATIONS_MAX} are allowed"
    )]
    TooCostly {
        /// The expression.
        expression: String,
        /// Longest list that it may go through, to the power of the nesting of macros.
        iterations: u64,
    },
    /// It gave more than [`EXPRESSION_VALUE_BYTES_MAX`].
    #[error("`{expression}` gave more than {EXPRESSION_VALUE_BYTES_MAX} bytes; pass a reference instead")]
    TooLarge {
        /// The expression.
        expression: String,
    },
    /// The value has no JSON form or the wrong type.
    #[error("`{expression}` gave {got}, expected {expected}")]
    WrongType {
        /// The expression.
        expression: String,
        /// What it gave.
        got: String,
        /// What is needed here.
        expected: &'static str,
    },
}

/// The variables that an expression sees. Built for one evaluation or one batch of them.
#[derive(Default)]
pub struct Scope {
    variables: BTreeMap<&'static str, Value>,
    /// Length of the longest list in any variable.
    list_len_max: u64,
}

impl Scope {
    /// Nothing visible.
    #[must_use]
    pub fn new() -> Scope {
        Scope::default()
    }

    /// Makes `value` visible as `name`.
    pub fn set(&mut self, name: &'static str, value: &serde_json::Value) {
        let value = convert::to_cel(value, &mut self.list_len_max);
        self.variables.insert(name, value);
    }
}

impl Expr {
    /// Compiles CEL.
    pub fn compile(source: &str) -> Result<Expr, ExprError> {
        if source.len() > EXPRESSION_BYTES_MAX {
            return Err(ExprError::TooLong { bytes: source.len() });
        }
        let program = ENV.compile(source).map_err(|errors| {
            let first = errors.errors.first();
            ExprError::Syntax {
                expression: shorten(source),
                column: first.map_or(1, |e| u64::try_from(e.pos.1).unwrap_or(1)),
                reason: first.map_or_else(|| "empty expression".to_owned(), |e| readable(&e.msg)),
            }
        })?;
        let (references, shape) = references::of(program.expression());
        Ok(Expr(Arc::new(Compiled { source: source.to_owned(), program, references, shape })))
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The variables and steps that it looks at.
    #[must_use]
    pub fn references(&self) -> &References {
        &self.0.references
    }

    /// Its value as JSON.
    pub fn eval(&self, scope: &Scope) -> Result<serde_json::Value, EvalError> {
        let value = self.eval_cel(scope)?;
        let expression = || shorten(self.source());
        convert::to_json(&value, EXPRESSION_VALUE_BYTES_MAX).map_err(|why| match why {
            NoJson::TooLarge => EvalError::TooLarge { expression: expression() },
            NoJson::NotJson => EvalError::WrongType {
                expression: expression(),
                got: value.type_of().to_string(),
                expected: "a value that JSON can hold",
            },
        })
    }

    /// Its value, which must be true or false.
    pub fn eval_bool(&self, scope: &Scope) -> Result<bool, EvalError> {
        let value = self.eval(scope)?;
        value.as_bool().ok_or_else(|| self.wrong_type(&value, "true or false"))
    }

    /// Its value as a key: a string, or the text of a number or truth value.
    pub fn eval_key(&self, scope: &Scope) -> Result<String, EvalError> {
        match self.eval(scope)? {
            serde_json::Value::String(text) => Ok(text),
            other @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => Ok(other.to_string()),
            other
            @ (serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_)) => {
                Err(self.wrong_type(&other, "a string or a number"))
            }
        }
    }

    fn eval_cel(&self, scope: &Scope) -> Result<Value, EvalError> {
        let iterations = self.0.shape.iterations(scope.list_len_max);
        if iterations > EXPRESSION_ITERATIONS_MAX {
            return Err(EvalError::TooCostly { expression: shorten(self.source()), iterations });
        }
        let mut context = Context::with_env(Arc::clone(&ENV));
        for (name, value) in &scope.variables {
            if self.0.references.variables.contains(*name) {
                context.add_variable_from_value(*name, value.clone());
            }
        }
        text::begin(self.0.shape.macro_depth);
        self.0.program.execute(&context).map_err(|error| EvalError::Failed {
            expression: shorten(self.source()),
            reason: shorten(&error.to_string()),
        })
    }

    fn wrong_type(&self, got: &serde_json::Value, expected: &'static str) -> EvalError {
        EvalError::WrongType { expression: shorten(self.source()), got: shorten(&got.to_string()), expected }
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.source())
    }
}
impl PartialEq for Expr {
    fn eq(&self, other: &Expr) -> bool {
        self.source() == other.source()
    }
}
impl Eq for Expr {}

/// What the parser said, without its grammar's inner words.
fn readable(message: &str) -> String {
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let message = message.split(" expecting {").next().unwrap_or(message);
    message.replace("mismatched input '<EOF>'", "it ends too early").replace("mismatched input", "unexpected")
}

/// The text, cut to a readable length.
pub(crate) fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    if text.chars().count() <= CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CHARS_MAX).chain("…".chars()).collect()
}

/// The scope of one JSON text under one name; what most tests and triggers need.
#[must_use]
pub fn scope_of(name: &'static str, value: &Json) -> Scope {
    let mut scope = Scope::new();
    scope.set(name, &value.value());
    scope
}

#[cfg(test)]
mod tests;
