//! Which files are the product, and which are its tests.
//!
//! Owns: the one answer to that, for tidy and coverage alike. Never: reads a file.

use std::collections::BTreeSet;
use std::path::Path;

use crate::source::Source;

/// What a Rust file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Of a crate or of xtask: it needs a header.
    Production,
    /// Runs only under test.
    Test,
}

/// The folders, without extension, of modules that another file declares under `#[cfg(test)]`.
pub(crate) fn test_modules<'a>(sources: impl IntoIterator<Item = (&'a str, &'a Source)>) -> BTreeSet<String> {
    let declared = sources.into_iter().flat_map(|(path, source)| {
        let folder = module_folder(path);
        source.test_modules.iter().map(move |name| format!("{folder}/{name}"))
    });
    declared.collect()
}

/// Where the modules live that a file declares.
fn module_folder(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((folder, "lib.rs" | "main.rs" | "mod.rs")) => folder,
        Some(_) | None => path.trim_end_matches(".rs"),
    }
}

/// What the file at `path` is for, given what [`test_modules`] found.
pub(crate) fn part(path: &str, declared: &BTreeSet<String>) -> Part {
    let is_declared = Path::new(path).ancestors().any(|ancestor| {
        let ancestor = ancestor.to_string_lossy();
        declared.contains(ancestor.trim_end_matches(".rs"))
    });
    // benches/ of the root holds programs that measure; benches/ of a crate holds what only `cargo bench` runs.
    let mut folders = path.strip_prefix("benches/").unwrap_or(path).split('/');
    if is_declared || folders.any(|name| matches!(name, "tests" | "tests.rs" | "benches")) {
        return Part::Test;
    }
    Part::Production
}
