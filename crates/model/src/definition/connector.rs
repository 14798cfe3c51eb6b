//! The Connector and Connection kinds.
//!
//! Owns: their shape. Never: talks to anything.
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::specialist::EffectClass;
use crate::{Name, Span};

/// How to talk to one kind of outside system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connector {
    /// What it is for, in words.
    #[serde(default)]
    pub description: String,
    /// What its tools speak.
    pub protocol: Protocol,
    /// The operations.
    pub tools: Vec<Tool>,
}

/// What a connector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// HTTP with JSON or forms.
    Http,
    /// SQLite or PostgreSQL.
    Sql,
    /// Mail.
    Smtp,
}

/// One operation of a connector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tool {
    /// Unique in the connector.
    pub name: String,
    /// What it does, in words.
    #[serde(default)]
    pub description: String,
    /// What it does to the world.
    #[serde(default)]
    pub effect: EffectClass,
    /// JSON Schema of the arguments; left out: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// JSON Schema of the result; an answer that does not fit is a broken contract.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// What happens when it is called twice.
    #[serde(default)]
    pub idempotency: Idempotency,
    /// How to find out whether a call took effect whose answer was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconcile: Option<Reconcile>,
    /// Time that a call may take; 10 s when left out. After it, nothing more is expected to happen outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// How it is done; exactly one, the connector's protocol.
    #[serde(flatten)]
    pub operation: Operation,
}

/// What happens when a tool is called twice with the same arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Idempotency {
    /// The same as once: it sets a value, or only reads.
    Natural,
    /// The same as once when both carry the same key.
    Key {
        /// HTTP header, SQL parameter or mail header that carries the key.
        carrier: String,
    },
    /// It is done twice; an unknown outcome must be reconciled.
    #[default]
    None,
}

/// A read that tells whether a call took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reconcile {
    /// A `read` tool of the same connector.
    pub tool: String,
    /// Template of its arguments over `args` (of the lost call) and `call.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Value>,
    /// CEL over `args`, `call` and `result`: true when the lost call took effect.
    pub done: String,
    /// Template of the result to take for the lost call's; left out: the read's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

/// How a tool is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// One HTTP request.
    Http(HttpOperation),
    /// One SQL statement.
    Sql(SqlOperation),
    /// One mail.
    Smtp(SmtpOperation),
}

/// One HTTP request; templates see `args`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpOperation {
    /// The method.
    pub method: Method,
    /// Template of the path below the connection's endpoint; values are percent-encoded.
    pub path: String,
    /// Templates of query parameters; `null` leaves one out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, Value>,
    /// Templates of headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Template of the body; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// How the body is written.
    #[serde(default)]
    pub encoding: BodyEncoding,
    /// Template of the result over `args`, `status`, `body`; left out: the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

/// HTTP methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    Get,
    /// Creates or does.
    Post,
    /// Sets.
    Put,
    /// Changes parts.
    Patch,
    /// Removes.
    Delete,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BodyEncoding {
    /// `application/json`.
    #[default]
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
}

/// One SQL statement; parameters only, never string building.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SqlOperation {
    /// The statement with `:name` parameters.
    pub statement: String,
    /// Templates of the parameters over `args`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
    /// What it gives.
    #[serde(default)]
    pub mode: SqlMode,
}

/// What a statement gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SqlMode {
    /// `{"rows": [{…}]}`.
    #[default]
    Rows,
    /// `{"affected": n}`.
    Affected,
}

/// One mail; templates see `args`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SmtpOperation {
    /// Template of the sender.
    pub from: String,
    /// Templates of the receivers.
    pub to: Vec<String>,
    /// Template of the subject.
    pub subject: String,
    /// Template of the text.
    pub text: String,
}

/// One tenant's use of a connector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connection {
    /// The connector, in the same namespace.
    pub connector: Name,
    /// `http(s)://host:port/base`, `sqlite:PATH`, `postgres://…`, `smtp://host:port`.
    pub endpoint: String,
    /// How to prove who we are.
    #[serde(default)]
    pub credential: Credential,
    /// What the outside system can take.
    #[serde(default)]
    pub limits: ConnectionLimits,
}

/// How a connection proves who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Credential {
    /// Not at all.
    #[default]
    None,
    /// User and password.
    Basic {
        /// User.
        user: String,
        /// Password.
        password: Secret,
    },
    /// `Authorization: Bearer …`.
    Bearer {
        /// Token.
        token: Secret,
    },
    /// A key in a header of its own.
    ApiKey {
        /// The header.
        header: String,
        /// The key.
        key: Secret,
    },
}

/// Where a secret comes from; exactly one. The connector process reads it, so it never enters the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Secret {
    /// Environment variable of the connector process.
    Env(String),
    /// File that the connector process can read; a trailing line end is dropped.
    File(String),
}

/// What an outside system can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionLimits {
    /// Calls at once.
    #[serde(default = "sixteen")]
    pub concurrency: u32,
    /// Calls a second; left out: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
}

fn sixteen() -> u32 {
    16
}

impl Default for ConnectionLimits {
    fn default() -> ConnectionLimits {
        ConnectionLimits { concurrency: sixteen(), per_second: None }
    }
}

impl Connector {
    /// The tool of this name.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }
}
