//! Every reason why the expressions and steps of a single definition do not compile.
//!
//! Owns: the reasons and what a person can do about each. Never: where in a file it was written.
use crate::expr::ExprError;
use crate::field::similar;
use crate::limits::PLAN_STEPS_MAX;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer into what was compiled, such as `/spec/steps/3/when`.
    pub pointer: String,
    /// What is wrong.
    pub error: CompileError,
}

/// Why a definition does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// An expression is no CEL.
    #[error(transparent)]
    Expression(#[from] ExprError),
    /// No steps.
    #[error("the workflow has no steps")]
    NoSteps,
    /// Too many steps.
    #[error("the workflow has {0} steps, at most {PLAN_STEPS_MAX} are allowed")]
    TooManySteps(usize),
    /// A step id that expressions could not say.
    #[error("`{0}` is no step id")]
    StepId(String),
    /// Two steps of one id.
    #[error("there are two steps `{0}`")]
    DuplicateStep(String),
    /// A step that is none or several kinds at once.
    #[error(
        "step `{id}` must have exactly one of `skill`, `approval`, `wait` and `workflow`; it has {found}"
    )]
    StepKind {
        /// The step.
        id: String,
        /// How many it has.
        found: usize,
    },
    /// A wait that is none or several kinds at once.
    #[error("a wait must have exactly one of `for`, `until` and `event`; this has {0}")]
    WaitKind(usize),
    /// A field that means nothing for this kind of step.
    #[error("`{field}` means nothing for a step with {kind}")]
    Meaningless {
        /// The field.
        field: &'static str,
        /// The kind.
        kind: &'static str,
    },
    /// A step that does not exist.
    #[error("there is no step `{name}`")]
    UnknownStep {
        /// What was written.
        name: String,
        /// The most similar id.
        near: Option<String>,
    },
    /// `steps` without a name behind it.
    #[error("`steps` must be followed by a step's id, so that the order is known")]
    StepsAsAWhole,
    /// A step's id where a variable is expected.
    #[error("`{0}` is a step, not a variable")]
    StepAsVariable(String),
    /// A variable that nothing sets here.
    #[error("nothing is called `{name}` here")]
    UnknownVariable {
        /// What was written.
        name: String,
        /// What may be used.
        known: Vec<&'static str>,
    },
    /// Steps that wait for each other.
    #[error("steps wait for each other: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    /// A number outside its limits.
    #[error("{field} is {got}; allowed is {least} to {most}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What was written.
        got: u64,
        /// Least.
        least: u64,
        /// Most.
        most: u64,
    },
    /// A constant where only a list makes sense.
    #[error("foreach needs a list or an expression that gives one")]
    ForeachConstant,
    /// A fixed point in time that is none.
    #[error("`{0}` is no point in time")]
    NotATime(String),
    /// A decision table without rows.
    #[error("the decision table has no rows")]
    NoRows,
    /// A parameter of a statement that nothing fills.
    #[error("the statement names `:{0}` and `parameters` does not fill it")]
    ParameterUnfilled(String),
    /// A parameter that the statement does not name.
    #[error("the statement does not name `:{name}`")]
    ParameterUnused {
        /// What was written.
        name: String,
        /// The most similar parameter of the statement.
        near: Option<String>,
    },
    /// A name that HTTP does not allow for a header.
    #[error("`{0}` is no name of a header")]
    HeaderName(String),
}

impl CompileError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            CompileError::Expression(ExprError::Syntax { .. }) => return None,
            CompileError::Expression(ExprError::TooLong { .. }) => {
                "move part of it into a step of its own".to_owned()
            }
            CompileError::Expression(ExprError::Unclosed { .. }) => "close it with `}`".to_owned(),
            CompileError::NoSteps => "write at least one step".to_owned(),
            CompileError::TooManySteps(_) => "move some to a subworkflow".to_owned(),
            CompileError::StepId(_) => {
                "begin with a-z and go on with a-z, 0-9 and _, so that `steps.ID` can be written".to_owned()
            }
            CompileError::DuplicateStep(_) => "give one of them another id".to_owned(),
            CompileError::StepKind { found: 0, .. } => "add `skill: DOMAIN.VERB-NOUN` for a task".to_owned(),
            CompileError::StepKind { .. } => "split it into several steps".to_owned(),
            CompileError::WaitKind(_) => "such as `wait: { for: 2h }`".to_owned(),
            CompileError::Meaningless { field, .. } => format!("remove `{field}`"),
            CompileError::UnknownStep { near, .. } => return near.as_deref().map(did_you_mean),
            CompileError::StepsAsAWhole => "write `steps.ID`, such as `steps.first.sku`".to_owned(),
            CompileError::StepAsVariable(name) => format!("write `steps.{name}`"),
            CompileError::UnknownVariable { name, known } => match similar(name, known.iter().copied()) {
                Some(near) => did_you_mean(&near),
                None => format!("known here: {}", known.join(", ")),
            },
            CompileError::Cycle(_) => "remove one of these references or `after`".to_owned(),
            CompileError::OutOfRange { .. } => return None,
            CompileError::ForeachConstant => "such as \"${steps.find.items}\"".to_owned(),
            CompileError::NotATime(_) => "write RFC 3339, such as 2026-01-31T08:00:00Z".to_owned(),
            CompileError::NoRows => "write at least one row; one without `when` always holds".to_owned(),
            CompileError::ParameterUnfilled(name) => {
                format!("add `{name}: \"${{args.{name}}}\"` to `parameters`")
            }
            CompileError::ParameterUnused { near: Some(near), .. } => did_you_mean(near),
            CompileError::ParameterUnused { name, near: None } => {
                format!("remove `{name}`, or use `:{name}`")
            }
            CompileError::HeaderName(_) => "use letters, digits and -".to_owned(),
        };
        Some(hint)
    }
}

pub(crate) fn did_you_mean(near: &str) -> String {
    format!("did you mean `{near}`?")
}
