//! Histories that others have written down.
//!
//! Owns: two line formats. Never: reads a file.
mod etcd;
mod key_value;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use crate::history::{HistoryError, OperationId};

pub use etcd::etcd;
pub use key_value::key_value;

/// Why a text is not a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl Error for ParseError {}

/// What each process has under way: one operation at most.
#[derive(Default)]
struct UnderWay(BTreeMap<u64, OperationId>);

impl UnderWay {
    fn begin(&mut self, process: u64, operation: OperationId) -> Result<(), String> {
        match self.0.insert(process, operation) {
            Some(_) => Err(format!("process {process} invokes before its last operation ended")),
            None => Ok(()),
        }
    }

    fn end(&mut self, process: u64) -> Result<OperationId, String> {
        self.0.remove(&process).ok_or_else(|| format!("process {process} has nothing under way"))
    }
}

/// Calls `read` with each line that is not blank, and says which one it refused.
fn lines(text: &str, mut read: impl FnMut(&str) -> Result<(), String>) -> Result<(), ParseError> {
    let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    for (at, line) in numbered {
        read(line).map_err(|problem| ParseError { line: at + 1, problem })?;
    }
    Ok(())
}

fn whole(error: &HistoryError) -> ParseError {
    ParseError { line: 1, problem: error.to_string() }
}
