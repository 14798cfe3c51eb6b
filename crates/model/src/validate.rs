//! From texts and stored definitions to a catalogue, or to everything that is wrong with them.
//!
//! Owns: the order of the checks and that one error never hides another. Never: opens a file, or changes a
//! definition.
mod connectors;
mod fit;
mod index;
mod policies;
mod problem;
mod report;
mod schedules;
mod shape;
mod specialists;
mod workflows;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use problem::{Doubt, FitError, LimitError, Problem, ReferenceError, RuleError, ShapeError, What};

use crate::catalogue::{Catalogue, Namespace, SchemaCheck, SchemaError, ToolEntry};
use crate::definition::{Definition, Kind};
use crate::diagnostic::{Diagnostic, Place};
use crate::limits::{CALL_TIMEOUT_DEFAULT, DEFINITIONS_BYTES_MAX, DEFINITIONS_MAX};
use crate::source::{SourceDocument, SourceFile};
use crate::{Name, Span, ToolRef, pointer};
use connectors::SoundTool;
use index::Index;
use report::{Findings, Report, Subject};
use workflows::Written;

/// Definitions that are sound together.
#[derive(Debug)]
pub struct Loaded {
    /// As they were written, in the order of the files.
    pub definitions: Vec<Definition>,
    /// The same, compiled.
    pub catalogue: Catalogue,
    /// What somebody should look at.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks files that are complete together. Every error of every document is reported at once.
pub fn load(sources: &[SourceFile]) -> Result<Loaded, Vec<Diagnostic>> {
    load_over(sources, Vec::new())
}

/// As [`load`], together with definitions that were stored earlier: a document replaces the stored one of its kind,
/// namespace and name, and may refer to the others. [`Loaded::definitions`] holds all of them.
pub fn load_over(sources: &[SourceFile], stored: Vec<Definition>) -> Result<Loaded, Vec<Diagnostic>> {
    let mut report = Report::default();
    let mut set = Set::default();
    for source in sources {
        for document in source.documents() {
            match document {
                Ok(document) => set.read(&mut report, &source.name, document),
                Err(problem) => {
                    set.unreadable = true;
                    report.unreadable(&source.name, problem);
                }
            }
        }
    }
    // What is stored was within the limits when it came, and must be readable whatever they are now.
    let is_new = !set.items.is_empty();
    set.add_stored(&mut report, stored);
    if is_new {
        set.limit(&mut report);
    }
    set.finish(report)
}

/// Checks definitions that were stored earlier.
pub fn catalogue(definitions: Vec<Definition>) -> Result<Catalogue, Vec<Diagnostic>> {
    load_over(&[], definitions).map(|loaded| loaded.catalogue)
}

type Identity = (Kind, Name, Name);

#[derive(Default)]
struct Set {
    items: Vec<(Subject, Definition)>,
    /// Where the first of each is in `items`.
    known: BTreeMap<Identity, usize>,
    misshapen: Vec<serde_json::Value>,
    unreadable: bool,
}

impl Set {
    fn read(&mut self, report: &mut Report, file: &str, document: SourceDocument) {
        match shape::check(document.value()) {
            Ok(definition) => {
                let subject = Subject::of(&definition, Some((file.to_owned(), document)));
                self.add(report, subject, definition);
            }
            Err(wrong) => {
                let value = document.value().clone();
                let text = |at: &str| value.pointer(at).and_then(serde_json::Value::as_str);
                let name = text("/metadata/name")
                    .map(|name| format!("{}/{name}", text("/metadata/namespace").unwrap_or("default")));
                let kind = shape::kind_of(&value);
                let subject = Subject { kind, name, origin: Some((file.to_owned(), document)) };
                let mut findings = report.about(&subject);
                wrong.into_iter().for_each(|(at, error)| findings.add(&at, error));
                self.misshapen.push(value);
            }
        }
    }

    fn add_stored(&mut self, report: &mut Report, stored: Vec<Definition>) {
        let read = self.items.len();
        for definition in stored {
            let replaced = self.known.get(&identity(&definition)).is_some_and(|at| *at < read);
            if !replaced {
                self.add(report, Subject::of(&definition, None), definition);
            }
        }
    }

    fn limit(&self, report: &mut Report) {
        let nobody = Subject::default();
        let mut findings = report.about(&nobody);
        let count = self.items.len();
        if count > DEFINITIONS_MAX {
            findings.add("", LimitError::Definitions { count });
            return;
        }
        let bytes_of = |definition: &Definition| serde_json::to_vec(definition).map_or(0, |text| text.len());
        let bytes = self.items.iter().map(|(_, definition)| bytes_of(definition)).sum();
        if bytes > DEFINITIONS_BYTES_MAX {
            findings.add("", LimitError::Bytes { bytes });
        }
    }

    fn add(&mut self, report: &mut Report, subject: Subject, definition: Definition) {
        let identity = identity(&definition);
        if let Some(first) = self.known.get(&identity) {
            let first: Option<Place> = self.items[*first].0.place();
            let (kind, _, name) = identity;
            let error = ReferenceError::Duplicate { kind, name: name.to_string(), first };
            report.about(&subject).add("/metadata/name", error);
            return;
        }
        self.known.insert(identity, self.items.len());
        self.items.push((subject, definition));
    }

    fn finish(self, mut report: Report) -> Result<Loaded, Vec<Diagnostic>> {
        let mut namespaces = self.check(&mut report);
        let (errors, warnings) = report.finish();
        if !errors.is_empty() {
            return Err(merge(errors, warnings));
        }
        let definitions: Vec<Definition> = self.items.into_iter().map(|(_, definition)| definition).collect();
        for definition in &definitions {
            let namespace = namespaces.entry(definition.metadata().namespace.clone()).or_default();
            namespace.definitions.push(definition.clone());
        }
        Ok(Loaded { definitions, catalogue: Catalogue::new(namespaces), warnings })
    }

    /// Checks every definition and compiles what is sound.
    fn check(&self, report: &mut Report) -> BTreeMap<Name, Namespace> {
        let sound = self.items.iter().map(|(_, definition)| definition);
        let index = Index::new(sound, &self.misshapen, self.unreadable);
        let mut namespaces: BTreeMap<Name, Namespace> = BTreeMap::new();
        let mut tools: BTreeMap<(Name, Name), Vec<SoundTool>> = BTreeMap::new();
        for (subject, definition) in &self.items {
            let mut findings = report.about(subject);
            let metadata = definition.metadata();
            let (namespace, name) = (metadata.namespace.clone(), metadata.name.clone());
            let into = namespaces.entry(namespace.clone()).or_default();
            match definition {
                Definition::Connector(document) => {
                    tools.insert((namespace, name), connectors::connector(&mut findings, document));
                }
                Definition::Connection(document) => connectors::connection(&mut findings, document, &index),
                Definition::Specialist(document) => {
                    let entries = specialists::specialist(&mut findings, document, &index);
                    let named =
                        entries.into_iter().map(|entry| (Arc::from(entry.skill.name.as_str()), entry));
                    into.skills.extend(named);
                }
                Definition::Policy(document) => {
                    into.policies.extend(policies::policy(&mut findings, document, &index));
                }
                Definition::Workflow(document) => {
                    let compiled = workflows::workflow(&mut findings, document, &index);
                    into.workflows.extend(compiled.map(|compiled| (name, Arc::new(compiled))));
                }
                Definition::Schedule(document) => {
                    let compiled = schedules::schedule(&mut findings, document, &index);
                    into.schedules.extend(compiled.map(|compiled| (name, Arc::new(compiled))));
                }
            }
        }
        workflows::nesting(report, &self.written());
        self.connect(&mut namespaces, &tools);
        namespaces.values_mut().for_each(|namespace| namespace.policies.sort_by(|a, b| a.name.cmp(&b.name)));
        namespaces
    }

    fn written(&self) -> Vec<Written<'_>> {
        self.items
            .iter()
            .filter_map(|(subject, definition)| match definition {
                Definition::Workflow(document) => Some((subject, document)),
                Definition::Specialist(_)
                | Definition::Connector(_)
                | Definition::Connection(_)
                | Definition::Policy(_)
                | Definition::Schedule(_) => None,
            })
            .collect()
    }

    /// Every tool of every connection.
    fn connect(
        &self,
        namespaces: &mut BTreeMap<Name, Namespace>,
        tools: &BTreeMap<(Name, Name), Vec<SoundTool>>,
    ) {
        for (_, definition) in &self.items {
            let Definition::Connection(document) = definition else { continue };
            let (namespace, name) = (&document.metadata.namespace, &document.metadata.name);
            let of = (Kind::Connector, namespace.clone(), document.spec.connector.clone());
            let connector = self.known.get(&of).map(|at| &self.items[*at].1);
            let Some(Definition::Connector(connector)) = connector else { continue };
            let sound = tools.get(&(of.1, of.2)).map_or(&[][..], Vec::as_slice);
            let into = namespaces.entry(namespace.clone()).or_default();
            for (tool, sound) in connector.spec.tools.iter().zip(sound) {
                let entry = ToolEntry {
                    connection_name: name.clone(),
                    connection: document.spec.clone(),
                    tool: tool.clone(),
                    timeout: tool.timeout.map_or(CALL_TIMEOUT_DEFAULT, Span::get),
                    input: sound.input.clone(),
                    output: sound.output.clone(),
                    operation: sound.operation.clone(),
                    reconcile: sound.reconcile.clone(),
                };
                let reference = ToolRef { connection: name.clone(), tool: Arc::from(tool.name.as_str()) };
                into.tools.insert(reference, Arc::new(entry));
            }
        }
    }
}

fn identity(definition: &Definition) -> Identity {
    let metadata = definition.metadata();
    (definition.kind(), metadata.namespace.clone(), metadata.name.clone())
}

fn merge(mut errors: Vec<Diagnostic>, warnings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    errors.extend(warnings);
    errors.sort();
    errors
}

/// The compiled schema of a field, or what is wrong with it put down.
fn schema(findings: &mut Findings<'_>, at: &str, schema: Option<&serde_json::Value>) -> Option<SchemaCheck> {
    match SchemaCheck::compile(schema) {
        Ok(check) => Some(check),
        Err(error) => {
            let inside: String =
                pointer::segments(&error.at).fold(at.to_owned(), |at, part| pointer::join(&at, &part));
            let SchemaError { reason, .. } = error;
            findings.add(&inside, SchemaError { at: String::new(), reason });
            None
        }
    }
}

#[cfg(test)]
mod tests;
