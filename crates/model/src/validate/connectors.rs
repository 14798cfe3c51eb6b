//! Connectors and connections.
//!
//! Owns: what must hold within a connector, and between a connection and its connector. Never: talks to either.
use std::collections::BTreeSet;

use super::fit::{self, Target};
use super::index::Index;
use super::problem::{Doubt, ReferenceError, RuleError, What};
use super::report::Findings;
use super::schema;
use crate::catalogue::{CompiledOperation, CompiledReconcile, SchemaCheck};
use crate::definition::{
    Connection, Connector, Credential, Document, EffectClass, Idempotency, Kind, Operation, Protocol,
    Reconcile, Secret, Tool,
};
use crate::field::similar;

/// A connector's tool, compiled.
pub(super) struct SoundTool {
    pub(super) operation: CompiledOperation,
    pub(super) reconcile: Option<CompiledReconcile>,
    pub(super) input: SchemaCheck,
    pub(super) output: SchemaCheck,
}

/// Compiles every tool; those that are not sound are put down and left out.
pub(super) fn connector(findings: &mut Findings<'_>, document: &Document<Connector>) -> Vec<SoundTool> {
    let connector = &document.spec;
    let (mut names, mut sound) = (BTreeSet::new(), Vec::new());
    for (at, tool) in connector.tools.iter().enumerate() {
        let mut findings = findings.below(&format!("/spec/tools/{at}"));
        if !is_part_name(&tool.name) {
            findings.add("/name", RuleError::PartName(tool.name.clone()));
        }
        if !names.insert(tool.name.as_str()) {
            findings.add("/name", ReferenceError::DuplicateTool(tool.name.clone()));
        }
        check_protocol(&mut findings, connector.protocol, &tool.operation);
        let input = schema(&mut findings, "/input", tool.input.as_ref());
        let output = schema(&mut findings, "/output", tool.output.as_ref());
        let operation = findings.take(CompiledOperation::compile(tool));
        let reconcile =
            tool.reconcile.as_ref().and_then(|read| check_reconcile(&mut findings, connector, read));
        if tool.effect != EffectClass::Read
            && tool.idempotency == Idempotency::None
            && tool.reconcile.is_none()
        {
            findings.add("/name", Doubt::Unreconcilable(tool.name.clone()));
        }
        if let (Some(operation), Some(input), Some(output)) = (operation, input, output) {
            sound.push(SoundTool { operation, reconcile, input, output });
        }
    }
    sound
}

fn check_protocol(findings: &mut Findings<'_>, protocol: Protocol, operation: &Operation) {
    let (field, spoken) = match operation {
        Operation::Http(_) => ("/http", Protocol::Http),
        Operation::Sql(_) => ("/sql", Protocol::Sql),
        Operation::Smtp(_) => ("/smtp", Protocol::Smtp),
    };
    if spoken != protocol {
        findings.add(field, RuleError::Protocol { protocol, operation: spoken });
    }
}

fn check_reconcile(
    findings: &mut Findings<'_>,
    connector: &Connector,
    reconcile: &Reconcile,
) -> Option<CompiledReconcile> {
    match connector.tool(&reconcile.tool) {
        None => {
            let near = similar(&reconcile.tool, connector.tools.iter().map(|tool| tool.name.as_str()));
            let (owner, tool) = ("this connector".to_owned(), reconcile.tool.clone());
            findings.add("/reconcile/tool", ReferenceError::UnknownTool { owner, tool, near });
        }
        Some(read) => {
            if read.effect != EffectClass::Read {
                findings.add("/reconcile/tool", RuleError::ReconcileNotRead(read.name.clone()));
            }
            if let Some(with) = &reconcile.with {
                fit::check(&mut findings.below("/reconcile/with"), with, &target(read));
            }
        }
    }
    findings.take(CompiledReconcile::compile(reconcile))
}

/// A tool as something to pass arguments to.
pub(super) fn target(tool: &Tool) -> Target<'_> {
    Target { name: format!("tool `{}`", tool.name), schema: tool.input.as_ref() }
}

/// What references can say: a tool or skill by name.
pub(super) fn is_part_name(name: &str) -> bool {
    (1..=127).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Puts down what is wrong with a connection.
pub(super) fn connection(findings: &mut Findings<'_>, document: &Document<Connection>, index: &Index<'_>) {
    let (namespace, connection) = (&document.metadata.namespace, &document.spec);
    let name = connection.connector.as_str();
    let found = index.connectors.get(namespace, name);
    let what = What::Document(Kind::Connector);
    if let Some(connector) = findings.resolve("/spec/connector", found, what, name, namespace) {
        check_endpoint(findings, &connection.endpoint, connector.protocol);
        check_credential(findings, &connection.credential, connector.protocol);
    }
    check_secrets(findings, &connection.credential);
    if connection.limits.concurrency == 0 {
        findings.add("/spec/limits/concurrency", RuleError::Zero("concurrency"));
    }
    if connection.limits.per_second == Some(0) {
        findings.add("/spec/limits/perSecond", RuleError::Zero("perSecond"));
    }
}

fn check_endpoint(findings: &mut Findings<'_>, endpoint: &str, protocol: Protocol) {
    let schemes: &[&str] = match protocol {
        Protocol::Http => &["http://", "https://"],
        Protocol::Sql => &["sqlite:", "postgres://", "postgresql://"],
        Protocol::Smtp => &["smtp://", "smtps://"],
    };
    let rest = schemes.iter().find_map(|scheme| endpoint.strip_prefix(scheme));
    if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/') && !endpoint.starts_with("sqlite:")) {
        findings.add("/spec/endpoint", RuleError::Endpoint { endpoint: endpoint.to_owned(), protocol });
    }
    let host = endpoint.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or(rest));
    if host.is_some_and(|host| host.contains('@')) {
        findings.add("/spec/endpoint", RuleError::EndpointSecret);
    }
}

fn check_credential(findings: &mut Findings<'_>, credential: &Credential, protocol: Protocol) {
    let http_only = match credential {
        Credential::None | Credential::Basic { .. } => false,
        Credential::Bearer { .. } | Credential::ApiKey { .. } => true,
    };
    if http_only && protocol != Protocol::Http {
        findings.add("/spec/credential", RuleError::Credential(protocol));
    }
}

fn check_secrets(findings: &mut Findings<'_>, credential: &Credential) {
    let (at, secret) = match credential {
        Credential::None => return,
        Credential::Basic { password, .. } => ("/spec/credential/basic/password", password),
        Credential::Bearer { token } => ("/spec/credential/bearer/token", token),
        Credential::ApiKey { header, key } => {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if header.is_empty() || !header.bytes().all(allowed) {
                findings.add("/spec/credential/apiKey/header", RuleError::HeaderName(header.clone()));
            }
            ("/spec/credential/apiKey/key", key)
        }
    };
    match secret {
        Secret::Env(name) if !is_variable(name) => {
            findings.add(&format!("{at}/env"), RuleError::SecretEnv(name.clone()));
        }
        Secret::File(path) if path.is_empty() => findings.add(&format!("{at}/file"), RuleError::SecretFile),
        Secret::Env(_) | Secret::File(_) => {}
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
