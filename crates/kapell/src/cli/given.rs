//! What is given on the command line: JSON and files.
//!
//! Owns: reading them, and saying what is wrong with them before anybody is asked. Never: sends anything.
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kapell_client::v1;
use kapell_model::limits::{DEFINITION_BYTES_MAX, PAYLOAD_BYTES_MAX};
use kapell_model::{Span, Timestamp};

use super::failure::Failure;

/// Most files of one `apply`.
const FILES_MAX: usize = 10_000;

/// JSON: the text itself, or the content of a file that `@` points to; `@-` is standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JsonArgument {
    /// The text.
    Text(String),
    /// A file.
    File(PathBuf),
}

impl FromStr for JsonArgument {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<JsonArgument, Self::Err> {
        Ok(match text.strip_prefix('@') {
            Some(path) => JsonArgument::File(path.into()),
            None => JsonArgument::Text(text.to_owned()),
        })
    }
}

impl JsonArgument {
    /// The JSON text, proven to be JSON. `option` is what it was given for.
    pub(crate) fn read(&self, option: &str) -> Result<String, Failure> {
        let (text, place) = match self {
            JsonArgument::Text(text) => (text.clone(), option.to_owned()),
            JsonArgument::File(path) => (read_text(path, PAYLOAD_BYTES_MAX)?, path.display().to_string()),
        };
        match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
            Ok(_) => Ok(text),
            Err(error) => Err(Failure::invalid(format!("{place}: this is no JSON: {error}")).hint(format!(
                "quote it for the shell, such as {option} '{{\"name\": \"value\"}}', or write {option} @FILE"
            ))),
        }
    }
}

/// The text of an optional argument; empty: it was not given.
pub(crate) fn json_or_empty(argument: Option<&JsonArgument>, option: &str) -> Result<String, Failure> {
    argument.map_or(Ok(String::new()), |argument| argument.read(option))
}

/// Reads a file, or standard input for `-`, up to a size.
pub(crate) fn read_text(path: &Path, bytes_max: usize) -> Result<String, Failure> {
    let name = path.display();
    let wrong = |error: std::io::Error| Failure::invalid(format!("{name} cannot be read: {error}"));
    let limit = bytes_max as u64 + 1;
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_string(&mut text).map_err(wrong)?;
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(limit).read_to_string(&mut text))
            .map_err(wrong)?;
    }
    if text.len() > bytes_max {
        return Err(Failure::invalid(format!("{name} is larger than {bytes_max} bytes")));
    }
    Ok(text)
}

/// The definition files at these paths; folders are searched for .yaml, .yml and .json, in the order of their names.
pub(crate) fn definition_files(paths: &[PathBuf]) -> Result<Vec<v1::SourceFile>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = found.len();
            search(path, &mut found)?;
            if found.len() == before {
                return Err(Failure::invalid(format!(
                    "{} holds no .yaml, .yml or .json file",
                    path.display()
                )));
            }
        } else {
            found.push(path.clone());
        }
    }
    found
        .iter()
        .map(|path| {
            // A file may hold many documents; each of them is measured when it is read.
            let text = read_text(path, DEFINITION_BYTES_MAX * 16)?;
            Ok(v1::SourceFile { name: path.display().to_string(), text })
        })
        .collect()
}

fn search(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let wrong =
        |error: std::io::Error| Failure::invalid(format!("{} cannot be read: {error}", folder.display()));
    let entries = std::fs::read_dir(folder).map_err(wrong)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || path.is_symlink() && path.is_dir() {
            continue;
        }
        if path.is_dir() {
            search(&path, found)?;
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json") {
            found.push(path);
        }
        if found.len() > FILES_MAX {
            return Err(Failure::invalid(format!("more than {FILES_MAX} files; apply them in parts")));
        }
    }
    Ok(())
}

/// A point in time, written as RFC 3339 or as how long ago it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// A point.
    At(Timestamp),
    /// So long ago.
    Ago(Span),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Since, String> {
        if let Some(at) = Timestamp::from_rfc3339(text) {
            return Ok(Since::At(at));
        }
        let wrong =
            |_| format!("`{text}` is neither a duration such as 2h nor a time such as 2026-05-01T00:00:00Z");
        text.parse().map(Since::Ago).map_err(wrong)
    }
}

impl Since {
    /// In milliseconds since 1970.
    pub(crate) fn millis(self, now: Timestamp) -> i64 {
        let millis = match self {
            Since::At(at) => at.0,
            Since::Ago(span) => {
                now.0.saturating_sub(u64::try_from(span.get().as_millis()).unwrap_or(u64::MAX))
            }
        };
        i64::try_from(millis).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_point_or_a_span() {
        let now = Timestamp(10_000);
        assert_eq!("3s".parse::<Since>().unwrap().millis(now), 7_000);
        assert_eq!("1h".parse::<Since>().unwrap().millis(now), 0);
        assert_eq!("1970-01-01T00:00:01Z".parse::<Since>().unwrap().millis(now), 1_000);
        assert!("yesterday".parse::<Since>().unwrap_err().contains("`yesterday` is neither"));
    }
}
