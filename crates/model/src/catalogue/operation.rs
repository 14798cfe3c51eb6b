//! How a tool is done, with its templates compiled.
//!
//! Owns: what each protocol needs to make a call, and how a lost call is looked for. Never: makes a call.
use std::sync::Arc;

use super::statement::SqlStatement;
use crate::definition::{
    BodyEncoding, HttpOperation, Idempotency, Method, Operation, Protocol, Reconcile, SmtpOperation, SqlMode,
    SqlOperation, Tool,
};
use crate::expr::{Expr, Template};
use crate::field::{FieldCompiler, similar};
use crate::plan::{CompileError, FieldError};
use crate::pointer;

const ARGS_SCOPE: [&str; 1] = ["args"];
const ANSWER_SCOPE: [&str; 3] = ["args", "status", "body"];
const LOST_SCOPE: [&str; 2] = ["args", "call"];
const FOUND_SCOPE: [&str; 3] = ["args", "call", "result"];

/// How a tool is done.
#[derive(Clone, Debug)]
pub enum CompiledOperation {
    /// One HTTP request.
    Http(CompiledHttp),
    /// One SQL statement.
    Sql(CompiledSql),
    /// One mail.
    Smtp(CompiledSmtp),
}

/// One HTTP request; templates see `args`.
#[derive(Clone, Debug)]
pub struct CompiledHttp {
    /// The method.
    pub method: Method,
    /// Path below the endpoint; see [`Template::eval_text`] for percent-encoding.
    pub path: Template,
    /// Query parameters by name; `null` leaves one out.
    pub query: Vec<(String, Template)>,
    /// Headers by name.
    pub headers: Vec<(String, Template)>,
    /// The body; `None`: none.
    pub body: Option<Template>,
    /// How the body is written.
    pub encoding: BodyEncoding,
    /// The result over `args`, `status` and `body`; `None`: the body.
    pub result: Option<Template>,
}

/// One SQL statement.
#[derive(Clone, Debug)]
pub struct CompiledSql {
    /// The statement.
    pub statement: SqlStatement,
    /// What fills each parameter, in the order of their numbers.
    pub parameters: Vec<(Arc<str>, SqlArgument)>,
    /// What it gives.
    pub mode: SqlMode,
}

/// What fills a parameter of a statement.
#[derive(Clone, Debug)]
pub enum SqlArgument {
    /// A value over `args`.
    Value(Template),
    /// The call's idempotency key.
    CallKey,
}

/// One mail; templates see `args`.
#[derive(Clone, Debug)]
pub struct CompiledSmtp {
    /// The sender.
    pub from: Template,
    /// The receivers.
    pub to: Vec<Template>,
    /// The subject.
    pub subject: Template,
    /// The text.
    pub text: Template,
}

/// A read that tells whether a call took effect.
#[derive(Clone, Debug)]
pub struct CompiledReconcile {
    /// A `read` tool of the same connector.
    pub tool: Arc<str>,
    /// Its arguments over `args` and `call`; `None`: the lost call's own.
    pub with: Option<Template>,
    /// Over `args`, `call` and `result`: whether the lost call took effect.
    pub done: Expr,
    /// The result to take for the lost call's, over `args`, `call` and `result`; `None`: the read's result.
    pub result: Option<Template>,
}

impl CompiledOperation {
    /// Compiles how a tool is done; pointers in the errors are relative to the tool.
    pub fn compile(tool: &Tool) -> Result<CompiledOperation, Vec<FieldError>> {
        let mut fields = FieldCompiler::new();
        let carrier = match &tool.idempotency {
            Idempotency::Key { carrier } => Some(carrier.as_str()),
            Idempotency::Natural | Idempotency::None => None,
        };
        let operation = match &tool.operation {
            Operation::Http(http) => compile_http(&mut fields, http, carrier).map(CompiledOperation::Http),
            Operation::Sql(sql) => compile_sql(&mut fields, sql, carrier).map(CompiledOperation::Sql),
            Operation::Smtp(smtp) => {
                check_carrier(&mut fields, carrier);
                compile_smtp(&mut fields, smtp).map(CompiledOperation::Smtp)
            }
        };
        fields.finish(operation)
    }

    /// What it speaks.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self {
            CompiledOperation::Http(_) => Protocol::Http,
            CompiledOperation::Sql(_) => Protocol::Sql,
            CompiledOperation::Smtp(_) => Protocol::Smtp,
        }
    }
}

impl CompiledReconcile {
    /// Compiles a reconciling read; pointers in the errors are relative to the tool.
    pub fn compile(reconcile: &Reconcile) -> Result<CompiledReconcile, Vec<FieldError>> {
        let mut fields = FieldCompiler::new();
        let with =
            reconcile.with.as_ref().and_then(|with| fields.template("/reconcile/with", with, &LOST_SCOPE));
        let done = fields.expr("/reconcile/done", &reconcile.done, &FOUND_SCOPE);
        let result = reconcile
            .result
            .as_ref()
            .and_then(|result| fields.template("/reconcile/result", result, &FOUND_SCOPE));
        let tool = Arc::from(reconcile.tool.as_str());
        fields.finish(done.map(|done| CompiledReconcile { tool, with, done, result }))
    }
}

fn compile_http(
    fields: &mut FieldCompiler<'_>,
    http: &HttpOperation,
    carrier: Option<&str>,
) -> Option<CompiledHttp> {
    check_carrier(fields, carrier);
    let path = fields.text("/http/path", &http.path, &ARGS_SCOPE);
    let mut query = Vec::new();
    for (name, source) in &http.query {
        let template = fields.template(&pointer::join("/http/query", name), source, &ARGS_SCOPE);
        query.extend(template.map(|template| (name.clone(), template)));
    }
    let mut headers = Vec::new();
    for (name, source) in &http.headers {
        let at = pointer::join("/http/headers", name);
        if !is_header_name(name) {
            fields.fail(&at, CompileError::HeaderName(name.clone()));
        }
        headers.extend(fields.text(&at, source, &ARGS_SCOPE).map(|template| (name.clone(), template)));
    }
    let body = http.body.as_ref().and_then(|body| fields.template("/http/body", body, &ARGS_SCOPE));
    let result =
        http.result.as_ref().and_then(|result| fields.template("/http/result", result, &ANSWER_SCOPE));
    let (method, encoding) = (http.method, http.encoding);
    Some(CompiledHttp { method, path: path?, query, headers, body, encoding, result })
}

fn check_carrier(fields: &mut FieldCompiler<'_>, carrier: Option<&str>) {
    if let Some(carrier) = carrier.filter(|carrier| !is_header_name(carrier)) {
        fields.fail("/idempotency/key/carrier", CompileError::HeaderName(carrier.to_owned()));
    }
}

/// A token of RFC 9110.
fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn compile_sql(
    fields: &mut FieldCompiler<'_>,
    sql: &SqlOperation,
    carrier: Option<&str>,
) -> Option<CompiledSql> {
    let statement = SqlStatement::read(&sql.statement);
    let mut filled = std::collections::BTreeMap::new();
    for (name, source) in &sql.parameters {
        let at = pointer::join("/sql/parameters", name);
        check_named(fields, &statement, &at, name);
        let template = fields.template(&at, source, &ARGS_SCOPE);
        filled.insert(name.as_str(), template.map(SqlArgument::Value));
    }
    if let Some(carrier) = carrier {
        check_named(fields, &statement, "/idempotency/key/carrier", carrier);
        filled.insert(carrier, Some(SqlArgument::CallKey));
    }
    let mut parameters = Vec::new();
    for name in statement.parameters() {
        match filled.remove(&**name) {
            Some(argument) => parameters.extend(argument.map(|argument| (Arc::clone(name), argument))),
            None => fields.fail("/sql/statement", CompileError::ParameterUnfilled(name.to_string())),
        }
    }
    Some(CompiledSql { statement, parameters, mode: sql.mode })
}

fn check_named(fields: &mut FieldCompiler<'_>, statement: &SqlStatement, at: &str, name: &str) {
    let known = statement.parameters();
    if !known.iter().any(|known| **known == *name) {
        let near = similar(name, known.iter().map(|known| &**known));
        fields.fail(at, CompileError::ParameterUnused { name: name.to_owned(), near });
    }
}

fn compile_smtp(fields: &mut FieldCompiler<'_>, smtp: &SmtpOperation) -> Option<CompiledSmtp> {
    let from = fields.text("/smtp/from", &smtp.from, &ARGS_SCOPE);
    let mut to = Vec::new();
    for (at, receiver) in smtp.to.iter().enumerate() {
        to.extend(fields.text(&format!("/smtp/to/{at}"), receiver, &ARGS_SCOPE));
    }
    let subject = fields.text("/smtp/subject", &smtp.subject, &ARGS_SCOPE);
    let text = fields.text("/smtp/text", &smtp.text, &ARGS_SCOPE);
    Some(CompiledSmtp { from: from?, to, subject: subject?, text: text? })
}

#[cfg(test)]
mod tests;
