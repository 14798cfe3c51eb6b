//! The catalogue: every valid definition of a node, compiled, as one immutable value.
//!
//! Owns: looking up workflows, skills, tools and policies. Never: changes; a new revision is a new catalogue.
mod operation;
mod policy;
mod runtime;
mod skill;
mod statement;
mod tool;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use operation::{
    CompiledHttp, CompiledOperation, CompiledReconcile, CompiledSmtp, CompiledSql, SqlArgument,
};
pub use policy::{CompiledEffect, CompiledPolicy, CompiledRule};
pub use runtime::{CompiledCall, CompiledDecision, CompiledRuntime, DecisionError};
pub use skill::{SchemaCheck, SchemaError, SchemaViolation, SkillEntry};
pub use statement::SqlStatement;
pub use tool::ToolEntry;

use crate::cron::Cron;
use crate::definition::{Definition, Schedule};
use crate::plan::{CompiledWorkflow, DefinitionDigest};
use crate::{Name, ToolRef};

/// Every valid definition, compiled.
#[derive(Debug, Default)]
pub struct Catalogue {
    namespaces: BTreeMap<Name, Namespace>,
    digests: BTreeMap<DefinitionDigest, Arc<CompiledWorkflow>>,
}

/// What one tenant has defined.
#[derive(Debug, Default)]
pub struct Namespace {
    /// By name.
    pub workflows: BTreeMap<Name, Arc<CompiledWorkflow>>,
    /// By skill name.
    pub skills: BTreeMap<Arc<str>, Arc<SkillEntry>>,
    /// By connection and tool.
    pub tools: BTreeMap<ToolRef, Arc<ToolEntry>>,
    /// In order of their names.
    pub policies: Vec<Arc<CompiledPolicy>>,
    /// By name.
    pub schedules: BTreeMap<Name, Arc<CompiledSchedule>>,
    /// As they were written.
    pub definitions: Vec<Definition>,
}

/// A schedule with its ticks.
#[derive(Clone, Debug)]
pub struct CompiledSchedule {
    /// As it was written.
    pub spec: Schedule,
    /// When it ticks.
    pub cron: Cron,
}

impl Catalogue {
    /// From what `validate` found to be sound.
    #[must_use]
    pub fn new(namespaces: BTreeMap<Name, Namespace>) -> Catalogue {
        let digests = namespaces
            .values()
            .flat_map(|namespace| namespace.workflows.values())
            .map(|workflow| (workflow.digest, Arc::clone(workflow)))
            .collect();
        Catalogue { namespaces, digests }
    }

    /// What a tenant has defined.
    #[must_use]
    pub fn namespace(&self, name: &Name) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// All tenants in order of their names.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Name, &Namespace)> {
        self.namespaces.iter()
    }

    /// The current version of a workflow.
    #[must_use]
    pub fn workflow(&self, namespace: &Name, name: &Name) -> Option<&Arc<CompiledWorkflow>> {
        self.namespaces.get(namespace)?.workflows.get(name)
    }

    /// The version of a workflow that has this digest, if it is a current one.
    #[must_use]
    pub fn by_digest(&self, digest: DefinitionDigest) -> Option<&Arc<CompiledWorkflow>> {
        self.digests.get(&digest)
    }

    /// The workflows that an event of this type and source may start, in order of their names.
    pub fn triggered_by<'a>(
        &'a self,
        namespace: &Name,
        event_type: &'a str,
        source: &'a str,
    ) -> impl Iterator<Item = &'a Arc<CompiledWorkflow>> {
        self.namespaces.get(namespace).into_iter().flat_map(|found| found.workflows.values()).filter(
            move |workflow| {
                workflow.trigger.as_ref().is_some_and(|trigger| {
                    trigger.event_type == event_type
                        && trigger.source.as_ref().is_none_or(|wanted| wanted == source)
                })
            },
        )
    }

    /// A skill and the specialist that offers it.
    #[must_use]
    pub fn skill(&self, namespace: &Name, skill: &str) -> Option<&Arc<SkillEntry>> {
        self.namespaces.get(namespace)?.skills.get(skill)
    }

    /// A tool with its connection.
    #[must_use]
    pub fn tool(&self, namespace: &Name, tool: &ToolRef) -> Option<&Arc<ToolEntry>> {
        self.namespaces.get(namespace)?.tools.get(tool)
    }

    /// The guardrails of a tenant.
    #[must_use]
    pub fn policies(&self, namespace: &Name) -> &[Arc<CompiledPolicy>] {
        self.namespaces.get(namespace).map_or(&[], |found| &found.policies)
    }
}
