//! Histories on which others have judged: a checker that does not give their verdicts proves nothing.
//!
//! A folder of cases holds `expected.json`, an object that says of each file whether it is linearizable, and the
//! files: Jepsen's logs of an etcd register below `jepsen/`, logs of a key-value store below `kv/`.
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::check::{Budget, check};
use crate::history::History;
use crate::model::Model;
use crate::models::key_value::KeyValue;
use crate::models::register::Register;
use crate::parse::{self, ParseError};
use crate::verdict::Verdict;

/// The file that says what is right.
const EXPECTED: &str = "expected.json";

/// Why the cases cannot be judged.
#[derive(Debug)]
pub enum CasesError {
    /// A file that must be there cannot be read.
    Missing {
        /// Which.
        file: String,
        /// Why not.
        source: std::io::Error,
    },
    /// `expected.json` is not an object of booleans.
    Expectations {
        /// What is wrong with it.
        problem: String,
    },
    /// A file is in no folder whose format is known.
    Format {
        /// Which.
        file: String,
    },
    /// A file is not a history.
    Parse {
        /// Which.
        file: String,
        /// Where and why.
        source: ParseError,
    },
}

impl fmt::Display for CasesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CasesError::Missing { file, .. } => {
                write!(f, "{file} cannot be read; it is named in {EXPECTED} or is {EXPECTED} itself")
            }
            CasesError::Expectations { problem } => {
                write!(f, "{EXPECTED} must be an object such as {{\"kv/a.txt\": true}}: {problem}")
            }
            CasesError::Format { file } => {
                write!(f, "the format of {file} is not known: it is `jepsen/…` or `kv/…`")
            }
            CasesError::Parse { file, .. } => write!(f, "{file} is not a history"),
        }
    }
}

impl Error for CasesError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CasesError::Missing { source, .. } => Some(source),
            CasesError::Parse { source, .. } => Some(source),
            CasesError::Expectations { .. } | CasesError::Format { .. } => None,
        }
    }
}

/// What one file came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Operations in it.
    pub operations: usize,
    /// The verdict, as `linearizable`, `not` or `undecided`.
    pub verdict: &'static str,
    /// Whether it is linearizable; `None`: undecided.
    pub is_linearizable: Option<bool>,
    /// For people: where it fails.
    pub why: Option<String>,
}

/// The files of a folder, and whether each is linearizable, in the order of their names.
pub fn expected(folder: &Path) -> Result<BTreeMap<String, bool>, CasesError> {
    let bad = |problem: String| CasesError::Expectations { problem };
    let listed = serde_json::from_str(&read(folder, EXPECTED)?).map_err(|error| bad(error.to_string()))?;
    let Value::Object(listed) = listed else { return Err(bad("it is something else".to_owned())) };
    let verdicts = listed.into_iter().map(|(file, expected)| {
        let verdict = expected.as_bool().ok_or_else(|| bad(format!("{file} is {expected}")))?;
        Ok((file, verdict))
    });
    verdicts.collect()
}

/// Checks one file.
pub fn judge(folder: &Path, file: &str, budget: Budget) -> Result<Judged, CasesError> {
    let broken = |source| CasesError::Parse { file: file.to_owned(), source };
    match file.split_once('/') {
        Some(("jepsen", _)) => {
            let history = parse::etcd(&read(folder, file)?).map_err(broken)?;
            Ok(judged(&Register::default(), &history, budget))
        }
        Some(("kv", _)) => {
            let history = parse::key_value(&read(folder, file)?).map_err(broken)?;
            Ok(judged(&KeyValue, &history, budget))
        }
        Some(_) | None => Err(CasesError::Format { file: file.to_owned() }),
    }
}

fn judged<M: Model>(model: &M, history: &History<M::Input, M::Output>, budget: Budget) -> Judged {
    let (verdict, is_linearizable, why) = match check(model, history, budget) {
        Verdict::Linearizable => ("linearizable", Some(true), None),
        Verdict::Not(failure) => ("not", Some(false), Some(failure.to_string())),
        Verdict::Undecided { .. } => ("undecided", None, None),
    };
    Judged { operations: history.operations().len(), verdict, is_linearizable, why }
}

fn read(folder: &Path, file: &str) -> Result<String, CasesError> {
    let path = folder.join(file);
    let missing = |source| CasesError::Missing { file: path.display().to_string(), source };
    std::fs::read_to_string(&path).map_err(missing)
}
