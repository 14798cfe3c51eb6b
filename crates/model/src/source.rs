//! Text of definitions: files of one or more YAML (or JSON) documents, with the position of every value.
//!
//! Owns: where one document ends and the next begins, the limits of reading, and positions. Never: opens a
//! file, or knows what a document means.
mod node;

use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

pub use node::Position;

use crate::limits::{DEFINITION_BYTES_MAX, DOCUMENT_ALIAS_NODES_MAX, DOCUMENT_DEPTH_MAX};
use node::Node;

/// One file as somebody read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// As it is shown to people, such as its path.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// One document of a file.
#[derive(Debug)]
pub struct SourceDocument {
    root: Node,
    /// Lines of the file before the document.
    lines_before: u32,
    value: Value,
}

/// A document that cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceProblem {
    /// Where reading stopped.
    pub at: Position,
    /// Why.
    pub error: SourceError,
}

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Larger than a definition may be.
    #[error("the document is {bytes} bytes long, at most {DEFINITION_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Two members of one name.
    #[error("`{0}` is written twice in the same place")]
    DuplicateKey(String),
    /// Too deep, or aliases that multiply.
    #[error("the document unfolds into too much: {0}")]
    TooMuch(String),
    /// No YAML.
    #[error("this is not valid YAML: {0}")]
    Syntax(String),
}

impl SourceError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            SourceError::TooLarge { .. } => {
                Some("split it, or keep large data outside and refer to it".to_owned())
            }
            SourceError::DuplicateKey(name) => Some(format!("keep one `{name}` and remove the other")),
            SourceError::TooMuch(_) => {
                Some("write values out instead of nesting or repeating aliases".to_owned())
            }
            SourceError::Syntax(reason) if reason.contains("mapping values are not allowed") => {
                Some("put a text that holds `: ` in quotes".to_owned())
            }
            SourceError::Syntax(reason) if reason.contains("tab") => Some("indent with spaces".to_owned()),
            SourceError::Syntax(_) => None,
        }
    }
}

impl SourceFile {
    /// Its documents in order; one that cannot be read does not hide the others.
    #[must_use]
    pub fn documents(&self) -> Vec<Result<SourceDocument, SourceProblem>> {
        chunks(self.text.strip_prefix('\u{feff}').unwrap_or(&self.text))
            .into_iter()
            .filter_map(|chunk| read(chunk).transpose())
            .collect()
    }
}

impl SourceDocument {
    /// What was written.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Where the value stands that the JSON pointer names, or the nearest one around it.
    #[must_use]
    pub fn position(&self, pointer: &str) -> Position {
        self.root.value_at(pointer).below(self.lines_before)
    }

    /// Where the name of the member stands that the JSON pointer names.
    #[must_use]
    pub fn name_position(&self, pointer: &str) -> Position {
        self.root.name_at(pointer).below(self.lines_before)
    }
}

#[derive(Clone, Copy)]
struct Chunk<'a> {
    lines_before: u32,
    text: &'a str,
}

/// Cuts at `---` and `...`, which YAML allows at the beginning of a line for nothing else.
fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut from, mut lines_before, mut at) = (0, 0, 0);
    for (line_no, line) in (0_u32..).zip(text.split_inclusive('\n')) {
        let begins = marks(line, "---") && !is_preamble(&text[from..at]);
        let ends = marks(line, "...");
        if begins || ends {
            chunks.push(Chunk { lines_before, text: &text[from..at] });
            from = if ends { at + line.len() } else { at };
            lines_before = line_no + u32::from(ends);
        }
        at += line.len();
    }
    chunks.push(Chunk { lines_before, text: &text[from..] });
    chunks
}

fn marks(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Nothing but comments and directives, which belong to the document that follows.
fn is_preamble(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.starts_with(['#', '%']))
}

fn read(chunk: Chunk<'_>) -> Result<Option<SourceDocument>, SourceProblem> {
    if is_preamble(chunk.text) {
        return Ok(None);
    }
    if chunk.text.len() > DEFINITION_BYTES_MAX {
        let at = Position { line: 1, column: 1 }.below(chunk.lines_before);
        return Err(SourceProblem { at, error: SourceError::TooLarge { bytes: chunk.text.len() } });
    }
    let root: Node = serde_saphyr::from_str_with_options(chunk.text, options())
        .map_err(|error| problem(&error, chunk.lines_before))?;
    if root.is_null() {
        return Ok(None);
    }
    let value = root.to_value();
    Ok(Some(SourceDocument { root, lines_before: chunk.lines_before, value }))
}

/// YAML 1.2 and nothing that surprises: `on`, `yes` and `0755` are text.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DOCUMENT_DEPTH_MAX,
            flow_nesting_limit: DOCUMENT_DEPTH_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: DOCUMENT_ALIAS_NODES_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

fn problem(error: &serde_saphyr::Error, lines_before: u32) -> SourceProblem {
    use serde_saphyr::Error;
    let error = error.without_snippet();
    let at = error.location().map_or(Position { line: 1, column: 1 }, Position::of).below(lines_before);
    let text = error.to_string();
    // The position is said once, by the diagnostic.
    let reason = text.split(" at line ").next().unwrap_or(&text).to_owned();
    let error = if let Error::DuplicateMappingKey { key, .. } = error {
        SourceError::DuplicateKey(key.clone().unwrap_or_default())
    } else if reason.contains("limit exceeded") || matches!(error, Error::Budget { .. }) {
        // Scanner, aliases and budget each have a limit and an error of their own; all say it in these words.
        SourceError::TooMuch(reason)
    } else {
        SourceError::Syntax(reason)
    };
    SourceProblem { at, error }
}

#[cfg(test)]
mod tests;
