//! Everything that can be wrong with a set of definitions, typed, each with what a person can do about it.
//!
//! Owns: the reasons and their hints. Never: where they were found (that is [`super::Findings`]).
use crate::catalogue::SchemaError;
use crate::definition::{EffectClass, Kind, Protocol};
use crate::diagnostic::{Place, Severity};
use crate::field::similar;
use crate::limits::{DEFINITIONS_BYTES_MAX, DEFINITIONS_MAX, NESTING_MAX};
use crate::plan::{CompileError, did_you_mean};
use crate::source::SourceError;
use crate::{Name, NotAName, NotASpan, NotAToolRef, ToolRef};

/// Anything that can be wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// The text cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The document does not have the shape of its kind.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// An expression, a plan or an operation does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A JSON Schema in the definition is none.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Something that is named does not exist, or exists twice.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// What is passed on does not fit where it goes.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// A rule between fields is broken.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// They are too many, or too large together.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// It works, but somebody should look.
    #[error(transparent)]
    Doubt(#[from] Doubt),
}

/// Why no more definitions can be stored.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LimitError {
    /// More than [`DEFINITIONS_MAX`].
    #[error("there would be {count} definitions, at most {DEFINITIONS_MAX} are allowed")]
    Definitions {
        /// How many.
        count: usize,
    },
    /// More than [`DEFINITIONS_BYTES_MAX`].
    #[error("the definitions would have {bytes} bytes together, at most {DEFINITIONS_BYTES_MAX} are allowed")]
    Bytes {
        /// How many.
        bytes: usize,
    },
}

/// Why a document does not have the shape of its kind.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShapeError {
    /// A list or a single value.
    #[error("a definition must be an object with `apiVersion`, `kind`, `metadata` and `spec`")]
    NoObject,
    /// Another version of the format.
    #[error("`{0}` is no known apiVersion")]
    ApiVersion(String),
    /// A kind that does not exist.
    #[error("`{got}` is no kind of definition")]
    Kind {
        /// What was written.
        got: String,
        /// The most similar kind.
        near: Option<String>,
    },
    /// A field that does not exist.
    #[error("there is no field `{name}` here")]
    UnknownField {
        /// What was written.
        name: String,
        /// The most similar field.
        near: Option<String>,
        /// All that exist.
        known: Vec<String>,
    },
    /// A field that must be there.
    #[error("the field `{0}` is missing")]
    MissingField(String),
    /// Text where a number belongs, or the like.
    #[error("expected {expected}, found {found}")]
    Type {
        /// What may stand here.
        expected: String,
        /// What stands here.
        found: String,
        /// Whether quotes would make it right.
        quotable: bool,
    },
    /// None of the allowed words.
    #[error("`{got}` is not one of {}", words(.allowed))]
    Choice {
        /// What was written.
        got: String,
        /// What may be written.
        allowed: Vec<String>,
    },
    /// None or several of some fields.
    #[error("exactly one of {} must be there; found {}", words(.of), if .found.is_empty() { "none".to_owned() } else { words(.found) })]
    ExactlyOne {
        /// The fields.
        of: Vec<String>,
        /// Those that are there.
        found: Vec<String>,
    },
    /// Not the one value that is allowed.
    #[error("the only value allowed here is `{0}`")]
    Constant(String),
    /// No name.
    #[error(transparent)]
    Name(#[from] NotAName),
    /// No duration.
    #[error(transparent)]
    Span(#[from] NotASpan),
    /// No tool reference.
    #[error(transparent)]
    ToolRef(#[from] NotAToolRef),
    /// Anything else that the schema says.
    #[error("{0}")]
    Other(String),
}

/// Something that is named does not exist, or exists twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing of this name.
    #[error("there is no {what} `{name}` in namespace `{namespace}`")]
    Unknown {
        /// What is looked for.
        what: What,
        /// What was written.
        name: String,
        /// Where it was looked for.
        namespace: Name,
        /// The most similar name.
        near: Option<String>,
        /// Another namespace that has it.
        elsewhere: Option<Name>,
    },
    /// A connection without such a tool.
    #[error("{owner} has no tool `{tool}`")]
    UnknownTool {
        /// Whose tool it should be.
        owner: String,
        /// What was written.
        tool: String,
        /// The most similar tool.
        near: Option<String>,
    },
    /// Two documents of one kind and name.
    #[error("there are two definitions of {kind} `{name}`{}", also_at(.first))]
    Duplicate {
        /// Their kind.
        kind: Kind,
        /// Their name.
        name: String,
        /// Where the first is.
        first: Option<Place>,
    },
    /// Two specialists that offer one skill.
    #[error("skill `{skill}` is already offered by specialist `{specialist}`")]
    DuplicateSkill {
        /// The skill.
        skill: String,
        /// The other specialist.
        specialist: Name,
    },
    /// Two tools of one name.
    #[error("there are two tools `{0}`")]
    DuplicateTool(String),
    /// Workflows that start each other without end.
    #[error("workflows start each other without end: {}", .0.join(" -> "))]
    WorkflowCycle(Vec<String>),
    /// Subworkflows too deep.
    #[error("subworkflows nest {0} deep, at most {NESTING_MAX} are allowed")]
    TooDeep(u32),
}

/// What a reference looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A skill of any specialist.
    Skill,
    /// A document of this kind.
    Document(Kind),
}

/// What is passed on does not fit where it goes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// A constant that the schema does not allow.
    #[error("{target} does not accept this: {reason}")]
    Value {
        /// Whose input it is.
        target: String,
        /// What the schema says.
        reason: String,
    },
    /// A required property that is not passed.
    #[error("{target} needs `{property}`, which is not passed")]
    Missing {
        /// Whose input it is.
        target: String,
        /// The property.
        property: String,
    },
    /// A property that the schema does not know.
    #[error("{target} knows no `{property}`")]
    Unknown {
        /// Whose input it is.
        target: String,
        /// The property.
        property: String,
        /// The most similar property.
        near: Option<String>,
    },
}

/// A rule between fields is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// An operation that the connector's protocol does not have.
    #[error("a connector of protocol `{}` cannot do `{}`", protocol_name(*.protocol), protocol_name(*.operation))]
    Protocol {
        /// The connector's.
        protocol: Protocol,
        /// The tool's.
        operation: Protocol,
    },
    /// A name that references could not say.
    #[error("`{0}` is no name of a tool or skill")]
    PartName(String),
    /// A reconciling tool that changes something.
    #[error("`{0}` changes things; only a `read` tool can reconcile")]
    ReconcileNotRead(String),
    /// A skill that says less than its tool does.
    #[error("the skill says `{}` but `{tool}` is `{}`", effect_name(*.skill), effect_name(*.is))]
    EffectTooSmall {
        /// What the skill says.
        skill: EffectClass,
        /// The tool.
        tool: ToolRef,
        /// What the tool is.
        is: EffectClass,
    },
    /// An endpoint of another protocol, or none.
    #[error("`{endpoint}` is no endpoint of protocol `{}`", protocol_name(*.protocol))]
    Endpoint {
        /// What was written.
        endpoint: String,
        /// The connector's protocol.
        protocol: Protocol,
    },
    /// A password in an endpoint.
    #[error("the endpoint holds a user or password, which would be stored in the journal")]
    EndpointSecret,
    /// A credential that the protocol cannot carry.
    #[error("protocol `{}` cannot carry a credential of this kind", protocol_name(*.0))]
    Credential(Protocol),
    /// A secret without a source.
    #[error("`{0}` is no name of an environment variable")]
    SecretEnv(String),
    /// A secret without a file.
    #[error("the secret's file has no name")]
    SecretFile,
    /// A header that cannot be sent.
    #[error("`{0}` is no name of a header")]
    HeaderName(String),
    /// Zero where at least one is needed.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A policy without rules.
    #[error("the policy has no rules")]
    NoRules,
    /// A `*` that is not at the end.
    #[error("`{0}`: a `*` may only stand at the end")]
    Pattern(String),
    /// No time table.
    #[error("`{cron}` is no cron expression of five fields: {reason}")]
    Cron {
        /// What was written.
        cron: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A time zone that does not exist.
    #[error("`{name}` is no known time zone")]
    TimeZone {
        /// What was written.
        name: String,
        /// The most similar one.
        near: Option<String>,
    },
}

/// It works, but somebody should look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Nobody can tell whether a lost call took effect.
    #[error("when the answer of a call of `{0}` is lost, a person will be asked whether it took effect")]
    Unreconcilable(String),
    /// A pattern that nothing matches.
    #[error("no {what} matches `{pattern}`, so the policy does nothing for it")]
    MatchesNothing {
        /// What it is matched with.
        what: &'static str,
        /// The pattern.
        pattern: String,
        /// The most similar name.
        near: Option<String>,
    },
    /// There is no such day.
    #[error("`{0}` never comes, so the schedule never starts anything")]
    NeverTicks(String),
}

impl Problem {
    /// Whether the definitions can be used nevertheless.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Problem::Source(_)
            | Problem::Shape(_)
            | Problem::Compile(_)
            | Problem::Schema(_)
            | Problem::Reference(_)
            | Problem::Fit(_)
            | Problem::Rule(_)
            | Problem::Limit(_) => Severity::Error,
            Problem::Doubt(_) => Severity::Warning,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Problem::Source(error) => error.hint(),
            Problem::Shape(error) => error.hint(),
            Problem::Compile(error) => error.hint(),
            Problem::Schema(_) => {
                Some("write JSON Schema, such as { type: object, required: [sku] }".to_owned())
            }
            Problem::Reference(error) => error.hint(),
            Problem::Fit(error) => error.hint(),
            Problem::Rule(error) => error.hint(),
            Problem::Limit(error) => Some(error.hint()),
            Problem::Doubt(doubt) => doubt.hint(),
        }
    }

    /// Whether the name of a field is wrong rather than its value.
    #[must_use]
    pub(super) fn is_about_the_name(&self) -> bool {
        matches!(
            self,
            Problem::Shape(ShapeError::UnknownField { .. })
                | Problem::Fit(FitError::Unknown { .. })
                | Problem::Compile(CompileError::ParameterUnused { .. } | CompileError::HeaderName(_))
                | Problem::Compile(CompileError::Meaningless { .. })
        )
    }
}

impl LimitError {
    fn hint(&self) -> String {
        let less = match self {
            LimitError::Definitions { .. } => "delete some that nothing uses",
            LimitError::Bytes { .. } => "move tables and long texts to where a tool can read them",
        };
        format!("{less}, or use a store of its own for some namespaces")
    }
}

impl ShapeError {
    fn hint(&self) -> Option<String> {
        match self {
            ShapeError::NoObject => Some("begin with `apiVersion: kapell.dev/v1`".to_owned()),
            ShapeError::ApiVersion(_) => Some("write `apiVersion: kapell.dev/v1`".to_owned()),
            ShapeError::Kind { near: Some(near), .. } | ShapeError::UnknownField { near: Some(near), .. } => {
                Some(did_you_mean(near))
            }
            ShapeError::Kind { .. } => {
                Some(format!("known are {}", words(&Kind::ALL.map(|kind| kind.to_string()))))
            }
            ShapeError::UnknownField { known, .. } if known.is_empty() => Some("remove it".to_owned()),
            ShapeError::UnknownField { known, .. } => Some(format!("known here: {}", known.join(", "))),
            ShapeError::Type { quotable: true, .. } => Some("put it in quotes".to_owned()),
            ShapeError::Choice { got, allowed } => {
                similar(got, allowed.iter().map(String::as_str)).as_deref().map(did_you_mean)
            }
            ShapeError::MissingField(_)
            | ShapeError::Type { .. }
            | ShapeError::ExactlyOne { .. }
            | ShapeError::Constant(_)
            | ShapeError::Name(_)
            | ShapeError::Span(_)
            | ShapeError::ToolRef(_)
            | ShapeError::Other(_) => None,
        }
    }
}

impl ReferenceError {
    fn hint(&self) -> Option<String> {
        match self {
            ReferenceError::Unknown { elsewhere: Some(other), .. } => {
                Some(format!("namespace `{other}` has it, but references stay within one namespace"))
            }
            ReferenceError::Unknown { near: Some(near), .. }
            | ReferenceError::UnknownTool { near: Some(near), .. } => Some(did_you_mean(near)),
            ReferenceError::Unknown { what: What::Skill, .. } => {
                Some("define a specialist that offers it, or apply both together".to_owned())
            }
            ReferenceError::Unknown { what: What::Document(kind), .. } => {
                Some(format!("define the {kind}, or apply both together"))
            }
            ReferenceError::UnknownTool { .. } => None,
            ReferenceError::Duplicate { .. } | ReferenceError::DuplicateTool(_) => {
                Some("rename or remove one of them".to_owned())
            }
            ReferenceError::DuplicateSkill { .. } => {
                Some("a skill has one specialist; rename one".to_owned())
            }
            ReferenceError::WorkflowCycle(_) => Some("let an event start the next round instead".to_owned()),
            ReferenceError::TooDeep(_) => Some("put the steps of inner workflows into outer ones".to_owned()),
        }
    }
}

impl FitError {
    fn hint(&self) -> Option<String> {
        match self {
            FitError::Value { .. } => None,
            FitError::Missing { property, .. } => Some(format!("add `{property}` to `with`")),
            FitError::Unknown { near, .. } => near.as_deref().map(did_you_mean),
        }
    }
}

impl RuleError {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            RuleError::Protocol { protocol: wanted, .. } => {
                format!("write `{}:` instead", protocol_name(*wanted))
            }
            RuleError::PartName(_) => "use 1 to 127 of a-z, A-Z, 0-9, `.`, `_` and `-`".to_owned(),
            RuleError::ReconcileNotRead(_) => "name a tool with `effect: read`".to_owned(),
            RuleError::EffectTooSmall { is, .. } => format!("write `effect: {}`", effect_name(*is)),
            RuleError::Endpoint { protocol: Protocol::Http, .. } => "write https://HOST/BASE".to_owned(),
            RuleError::Endpoint { protocol: Protocol::Sql, .. } => {
                "write sqlite:PATH or postgres://HOST/DATABASE".to_owned()
            }
            RuleError::Endpoint { protocol: Protocol::Smtp, .. } => "write smtp://HOST:PORT".to_owned(),
            RuleError::EndpointSecret => {
                "move it to `credential.basic`, with the password from `env` or `file`".to_owned()
            }
            RuleError::Credential(Protocol::Http) => return None,
            RuleError::Credential(Protocol::Sql | Protocol::Smtp) => "use `basic`, or none".to_owned(),
            RuleError::SecretEnv(_) => "such as SHOP_TOKEN; the value itself never stands here".to_owned(),
            RuleError::SecretFile => "such as /run/secrets/shop-token".to_owned(),
            RuleError::HeaderName(_) => "such as X-Api-Key".to_owned(),
            RuleError::Zero(_) => return None,
            RuleError::NoRules => "write at least one rule, or remove the policy".to_owned(),
            RuleError::Pattern(_) => "such as `pricing.*`".to_owned(),
            RuleError::Cron { .. } => {
                "minute, hour, day of month, month, day of week, such as `0 8 * * MON-FRI`".to_owned()
            }
            RuleError::TimeZone { near: Some(near), .. } => did_you_mean(near),
            RuleError::TimeZone { near: None, .. } => "such as Europe/Berlin".to_owned(),
        };
        Some(hint)
    }
}

impl Doubt {
    fn hint(&self) -> Option<String> {
        match self {
            Doubt::Unreconcilable(_) => Some(
                "add `reconcile`, or `idempotency: natural` or `key` if the other side allows it".to_owned(),
            ),
            Doubt::MatchesNothing { near, .. } => near.as_deref().map(did_you_mean),
            Doubt::NeverTicks(_) => {
                Some("give a day that its months have, or `L` for the last one".to_owned())
            }
        }
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            What::Skill => f.write_str("skill"),
            What::Document(kind) => write!(f, "{kind}"),
        }
    }
}

fn words(words: &[String]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn also_at(first: &Option<Place>) -> String {
    first.as_ref().map_or_else(String::new, |place| format!("; the other is at {place}"))
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Sql => "sql",
        Protocol::Smtp => "smtp",
    }
}

fn effect_name(effect: EffectClass) -> &'static str {
    match effect {
        EffectClass::Read => "read",
        EffectClass::Write => "write",
        EffectClass::Irreversible => "irreversible",
    }
}
