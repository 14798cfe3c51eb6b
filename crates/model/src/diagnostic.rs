//! What is wrong with definitions, said to people: where, what, and what to do about it.
//!
//! Owns: the form of a message and the order of several. Never: finds anything wrong itself.
use std::fmt;

use serde::Serialize;

use crate::definition::Kind;
use crate::source::Position;

/// One thing that is wrong or looks wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// File, line and column; `None` for a definition that was stored and is not read from a file.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// Whether the definitions can be used nevertheless.
    pub severity: Severity,
    /// Kind of the document, as far as it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// `NAMESPACE/NAME` of the document, as far as it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Such as `spec.steps[2].when`; empty for the document as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What a person can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file's name as it was given.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
}

/// Whether definitions can be used in spite of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// They cannot.
    Error,
    /// They can, but somebody should look.
    Warning,
}

impl Place {
    /// A position in a file.
    #[must_use]
    pub fn new(file: &str, at: Position) -> Place {
        Place { file: file.to_owned(), line: at.line, column: at.column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl fmt::Display for Diagnostic {
    /// One line, and a second one with the hint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, &self.kind, &self.name) {
            (Some(place), _, _) => write!(f, "{place}: ")?,
            (None, Some(kind), Some(name)) => write!(f, "{kind} {name}: ")?,
            (None, Some(_) | None, _) => {}
        }
        match self.severity {
            Severity::Error => {}
            Severity::Warning => f.write_str("warning: ")?,
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic() -> Diagnostic {
        Diagnostic {
            place: Some(Place { file: "vendor.yaml".to_owned(), line: 12, column: 9 }),
            severity: Severity::Error,
            kind: Some(Kind::Workflow),
            name: Some("retail/vendor".to_owned()),
            field: "spec.steps[2].when".to_owned(),
            message: "nothing is called `x` here".to_owned(),
            hint: Some("known here: event".to_owned()),
        }
    }

    #[test]
    fn it_reads_as_one_line_and_a_hint() {
        let mut said = diagnostic();
        assert_eq!(
            said.to_string(),
            "vendor.yaml:12:9: spec.steps[2].when: nothing is called `x` here\n  hint: known here: event"
        );
        said.hint = None;
        said.place = None;
        said.severity = Severity::Warning;
        assert_eq!(
            said.to_string(),
            "Workflow retail/vendor: warning: spec.steps[2].when: nothing is called `x` here"
        );
        said.kind = None;
        said.field = String::new();
        assert_eq!(said.to_string(), "warning: nothing is called `x` here");
    }

    #[test]
    fn it_is_flat_json() {
        assert_eq!(
            serde_json::to_value(diagnostic()).unwrap(),
            serde_json::json!({
                "file": "vendor.yaml", "line": 12, "column": 9, "severity": "error", "kind": "Workflow",
                "name": "retail/vendor", "field": "spec.steps[2].when", "message": "nothing is called `x` here",
                "hint": "known here: event"
            })
        );
    }
}
