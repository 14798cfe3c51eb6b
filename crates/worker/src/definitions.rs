//! The definitions in force, as this worker needs them: which skill is worked on how, by which specialist.
//!
//! Owns: compiling what a coordinator sends, and what can be known about a skill before its first task. Never:
//! changes; a new revision is a new value.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kapell_model::Name;
use kapell_model::catalogue::{Catalogue, CompiledCall, CompiledDecision, CompiledRuntime, SkillEntry};
use kapell_model::definition::{Definition, SpecialistLimits};
use kapell_model::diagnostic::Diagnostic;
use kapell_model::validate;
use kapell_proto::v1;

use crate::agent::{AnyAgent, SkillName};
use crate::options::Hosted;

/// `NAMESPACE/SPECIALIST`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SpecialistName {
    pub(crate) namespace: Name,
    pub(crate) name: Name,
}

impl std::fmt::Display for SpecialistName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A skill that this worker may be given tasks of.
#[derive(Debug)]
pub(crate) struct Skill {
    pub(crate) specialist: SpecialistName,
    pub(crate) limits: SpecialistLimits,
    pub(crate) timeout: Duration,
    pub(crate) how: How,
}

/// How a skill is worked on.
pub(crate) enum How {
    /// A decision table that gives the same output for every input.
    Constant(String),
    /// A decision table.
    Rules(CompiledDecision),
    /// One tool call, and the tool as it is sent.
    Call(Box<CompiledCall>, String),
    /// Code of this process.
    Agent(Arc<dyn AnyAgent>),
    /// Nothing here does it.
    Elsewhere,
}

impl std::fmt::Debug for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            How::Constant(_) => "constant",
            How::Rules(_) => "rules",
            How::Call(_, _) => "call",
            How::Agent(_) => "agent",
            How::Elsewhere => "elsewhere",
        })
    }
}

/// One revision, compiled.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) revision: u64,
    documents: Vec<String>,
    /// By namespace and skill.
    pub(crate) skills: BTreeMap<Box<str>, BTreeMap<Box<str>, Arc<Skill>>>,
}

#[cfg(test)]
impl Compiled {
    pub(crate) fn of(revision: u64, skills: BTreeMap<Box<str>, BTreeMap<Box<str>, Arc<Skill>>>) -> Compiled {
        Compiled { revision, documents: Vec::new(), skills }
    }
}

/// Why definitions cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DefinitionsError {
    #[error("document {at} is no definition of this version")]
    Unreadable {
        at: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("the definitions do not fit together: {}", first(.0))]
    Unsound(Vec<Diagnostic>),
}

fn first(diagnostics: &[Diagnostic]) -> String {
    diagnostics.first().map(ToString::to_string).unwrap_or_default()
}

/// Compiles revisions; coordinators that say the same share one.
pub(crate) struct Compiler {
    hosted: Hosted,
    agents: BTreeMap<SkillName, Arc<dyn AnyAgent>>,
    last: Mutex<Option<Arc<Compiled>>>,
}

impl Compiler {
    pub(crate) fn new(hosted: Hosted, agents: BTreeMap<SkillName, Arc<dyn AnyAgent>>) -> Compiler {
        Compiler { hosted, agents, last: Mutex::new(None) }
    }

    /// May take long for many definitions: never on an async thread.
    pub(crate) fn compile(&self, sent: v1::Definitions) -> Result<Arc<Compiled>, DefinitionsError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let same = |last: &Arc<Compiled>| last.revision == sent.revision && last.documents == sent.documents;
        if let Some(last) = last.filter(same) {
            return Ok(last);
        }
        let mut definitions = Vec::with_capacity(sent.documents.len());
        for (at, document) in sent.documents.iter().enumerate() {
            let definition: Definition = serde_json::from_str(document)
                .map_err(|source| DefinitionsError::Unreadable { at, source })?;
            definitions.push(definition);
        }
        let catalogue = validate::catalogue(definitions).map_err(DefinitionsError::Unsound)?;
        let skills = self.skills(&catalogue);
        let compiled = Arc::new(Compiled { revision: sent.revision, documents: sent.documents, skills });
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&compiled));
        Ok(compiled)
    }

    fn skills(&self, catalogue: &Catalogue) -> BTreeMap<Box<str>, BTreeMap<Box<str>, Arc<Skill>>> {
        let of_namespace = |namespace: &Name, skills: &BTreeMap<Arc<str>, Arc<SkillEntry>>| {
            skills
                .iter()
                .map(|(name, entry)| (Box::from(&**name), Arc::new(self.skill(namespace, name, entry))))
                .collect()
        };
        catalogue
            .namespaces()
            .map(|(name, namespace)| (Box::from(name.as_str()), of_namespace(name, &namespace.skills)))
            .collect()
    }

    fn skill(&self, namespace: &Name, name: &str, entry: &SkillEntry) -> Skill {
        let specialist = SpecialistName { namespace: namespace.clone(), name: entry.specialist.clone() };
        let how = match (&entry.runtime, self.hosted) {
            (CompiledRuntime::Remote(_), _) => {
                let named = SkillName { namespace: namespace.clone(), skill: name.to_owned() };
                self.agents.get(&named).map_or(How::Elsewhere, |agent| How::Agent(Arc::clone(agent)))
            }
            (CompiledRuntime::Call(_) | CompiledRuntime::Rules(_), Hosted::AgentsOnly) => How::Elsewhere,
            (CompiledRuntime::Call(call), Hosted::Everything) => {
                How::Call(Box::new(call.clone()), call.tool.to_string())
            }
            (CompiledRuntime::Rules(table), Hosted::Everything) => match constant(table) {
                Some(output) => How::Constant(output),
                None => How::Rules(table.clone()),
            },
        };
        Skill { specialist, limits: entry.limits, timeout: entry.timeout, how }
    }
}

/// The output of a table that looks at nothing.
fn constant(table: &CompiledDecision) -> Option<String> {
    match (table.bindings.as_slice(), table.rows.first()) {
        ([], Some((None, output))) => output.constant().map(|output| output.as_str().to_owned()),
        _ => None,
    }
}
