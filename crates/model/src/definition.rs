//! Definitions as people write them: Kubernetes-shaped documents.
//!
//! Owns: the shape of every kind. Never: decides whether documents fit together (that is `validate`) or
//! what a run does with them (that is the kernel).
mod connector;
mod policy;
mod schedule;
mod specialist;
mod workflow;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use connector::{
    BodyEncoding, Connection, ConnectionLimits, Connector, Credential, HttpOperation, Idempotency, Method,
    Operation, Protocol, Reconcile, Secret, SmtpOperation, SqlMode, SqlOperation, Tool,
};
pub use policy::{Always, Policy, PolicyEffect, PolicyMatch, PolicyRule};
pub use schedule::{Catchup, Overlap, Schedule};
pub use specialist::{
    AutonomyLevel, Decision, EffectClass, RuleRow, Runtime, Skill, Specialist, SpecialistLimits, ToolCall,
};
pub use workflow::{
    ApprovalStep, Backoff, Compensation, ContextQuery, EventWait, OnExpire, OnFailure, Outcome, OutcomeEvent,
    Recall, Related, Retry, Step, Trigger, WaitStep, Workflow,
};

use crate::Name;

/// The only `apiVersion` there is.
pub const API_VERSION: &str = "kapell.dev/v1";

/// What every document carries beside its spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Unique within kind and namespace.
    pub name: Name,
    /// Tenant; `default` when left out.
    #[serde(default = "Name::default_namespace")]
    pub namespace: Name,
    /// For people and selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For people and tools; never read by Kapell.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One document: a kind, its name and its spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub enum Definition {
    /// What triggers work, its goal and its steps.
    Workflow(Document<Workflow>),
    /// A supervised agent for one domain.
    Specialist(Document<Specialist>),
    /// How to talk to one kind of outside system.
    Connector(Document<Connector>),
    /// One tenant's use of a connector.
    Connection(Document<Connection>),
    /// Guardrails as data.
    Policy(Document<Policy>),
    /// A workflow that starts by the clock.
    Schedule(Document<Schedule>),
}

/// A document of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document<S> {
    /// `kapell.dev/v1`.
    #[schemars(extend("const" = API_VERSION))]
    pub api_version: String,
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What is defined.
    pub spec: S,
}

/// The kinds of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// See [`Workflow`].
    Workflow,
    /// See [`Specialist`].
    Specialist,
    /// See [`Connector`].
    Connector,
    /// See [`Connection`].
    Connection,
    /// See [`Policy`].
    Policy,
    /// See [`Schedule`].
    Schedule,
}

impl Kind {
    /// Every kind, in the order in which they depend on each other.
    pub const ALL: [Kind; 6] =
        [Kind::Connector, Kind::Connection, Kind::Specialist, Kind::Policy, Kind::Workflow, Kind::Schedule];

    /// As it is written in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Workflow => "Workflow",
            Kind::Specialist => "Specialist",
            Kind::Connector => "Connector",
            Kind::Connection => "Connection",
            Kind::Policy => "Policy",
            Kind::Schedule => "Schedule",
        }
    }

    /// The kind of this name, in any case, singular or plural.
    #[must_use]
    pub fn named(text: &str) -> Option<Kind> {
        let lower = text.to_ascii_lowercase();
        let plural = |kind: &str| match kind.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{kind}s"),
        };
        Kind::ALL.into_iter().find(|kind| {
            let name = kind.as_str().to_ascii_lowercase();
            lower == name || lower == plural(&name)
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Definition {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Definition::Workflow(_) => Kind::Workflow,
            Definition::Specialist(_) => Kind::Specialist,
            Definition::Connector(_) => Kind::Connector,
            Definition::Connection(_) => Kind::Connection,
            Definition::Policy(_) => Kind::Policy,
            Definition::Schedule(_) => Kind::Schedule,
        }
    }

    /// Its name, namespace and labels.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        match self {
            Definition::Workflow(document) => &document.metadata,
            Definition::Specialist(document) => &document.metadata,
            Definition::Connector(document) => &document.metadata,
            Definition::Connection(document) => &document.metadata,
            Definition::Policy(document) => &document.metadata,
            Definition::Schedule(document) => &document.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_in_any_case_and_number() {
        for (text, kind) in [
            ("workflow", Kind::Workflow),
            ("Policies", Kind::Policy),
            ("CONNECTIONS", Kind::Connection),
            ("connector", Kind::Connector),
            ("specialists", Kind::Specialist),
            ("Schedule", Kind::Schedule),
        ] {
            assert_eq!(Kind::named(text), Some(kind), "{text}");
        }
        assert_eq!(Kind::named("tool"), None);
    }
}
