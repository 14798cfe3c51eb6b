//! Collecting problems and turning them into diagnostics.
//!
//! Owns: which document and field a problem is about, and where that was written. Never: decides what is wrong.
use super::index::Lookup;
use super::problem::{Problem, ReferenceError, What};
use crate::definition::{Definition, Kind};
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::plan::FieldError;
use crate::source::{SourceDocument, SourceProblem};
use crate::{Name, pointer};

/// What a problem is about: a document of a file, or a definition that was stored.
#[derive(Default)]
pub(super) struct Subject {
    pub(super) kind: Option<Kind>,
    pub(super) name: Option<String>,
    /// The file's name and the document in it.
    pub(super) origin: Option<(String, SourceDocument)>,
}

/// Everything found so far.
#[derive(Default)]
pub(super) struct Report {
    diagnostics: Vec<Diagnostic>,
}

/// Problems of one document, below one JSON pointer.
pub(super) struct Findings<'r> {
    report: &'r mut Report,
    subject: &'r Subject,
    base: String,
}

impl Subject {
    pub(super) fn of(definition: &Definition, origin: Option<(String, SourceDocument)>) -> Subject {
        let metadata = definition.metadata();
        let name = format!("{}/{}", metadata.namespace, metadata.name);
        Subject { kind: Some(definition.kind()), name: Some(name), origin }
    }

    /// Where it begins.
    pub(super) fn place(&self) -> Option<Place> {
        self.origin.as_ref().map(|(file, document)| Place::new(file, document.position("")))
    }
}

impl Report {
    pub(super) fn unreadable(&mut self, file: &str, problem: SourceProblem) {
        let error = Problem::Source(problem.error);
        self.diagnostics.push(Diagnostic {
            place: Some(Place::new(file, problem.at)),
            severity: error.severity(),
            kind: None,
            name: None,
            field: String::new(),
            message: error.to_string(),
            hint: error.hint(),
        });
    }

    pub(super) fn about<'r>(&'r mut self, subject: &'r Subject) -> Findings<'r> {
        Findings { report: self, subject, base: String::new() }
    }

    /// Errors and warnings, each sorted by file and line.
    pub(super) fn finish(mut self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        self.diagnostics.sort();
        self.diagnostics.dedup();
        self.diagnostics.into_iter().partition(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

impl Findings<'_> {
    /// The same document, deeper inside.
    pub(super) fn below(&mut self, pointer: &str) -> Findings<'_> {
        Findings { base: format!("{}{pointer}", self.base), report: self.report, subject: self.subject }
    }

    pub(super) fn add(&mut self, pointer: &str, problem: impl Into<Problem>) {
        let (problem, pointer) = (problem.into(), format!("{}{pointer}", self.base));
        let place = self.subject.origin.as_ref().map(|(file, document)| {
            let named = problem.is_about_the_name();
            let at = if named { document.name_position(&pointer) } else { document.position(&pointer) };
            Place::new(file, at)
        });
        self.report.diagnostics.push(Diagnostic {
            place,
            severity: problem.severity(),
            kind: self.subject.kind,
            name: self.subject.name.clone(),
            field: pointer::readable(&pointer),
            message: problem.to_string(),
            hint: problem.hint(),
        });
    }

    /// What was compiled, or its errors put down.
    pub(super) fn take<T>(&mut self, compiled: Result<T, Vec<FieldError>>) -> Option<T> {
        compiled
            .map_err(|errors| errors.into_iter().for_each(|error| self.add(&error.pointer, error.error)))
            .ok()
    }

    /// What a reference found, or the reason why not put down.
    pub(super) fn resolve<T>(
        &mut self,
        pointer: &str,
        found: Lookup<T>,
        what: What,
        name: &str,
        namespace: &Name,
    ) -> Option<T> {
        match found {
            Lookup::Found(found) => Some(found),
            Lookup::Broken => None,
            Lookup::Missing { near, elsewhere } => {
                let (name, namespace) = (name.to_owned(), namespace.clone());
                self.add(pointer, ReferenceError::Unknown { what, name, namespace, near, elsewhere });
                None
            }
        }
    }
}
