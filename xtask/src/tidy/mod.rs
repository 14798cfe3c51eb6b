//! What lints cannot see.
//!
//! Owns: which files are looked at, and as what. Never: holds a list of files that may break a rule: an exception is
//! a reason written beside the code.

mod docs;
mod rust;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::parts::{part, test_modules};
use crate::report::{Finding, Rows, Verdict};
use crate::source::Source;
use crate::workspace::Workspace;

/// Check sizes, headers, names and links, which no lint sees
///
/// Looks at all tracked files, and at new ones that are not ignored. Where a rule does harm, write the reason beside
/// the code: `//! Long because: ...` in the header of a file over 600 lines, `// table: ...` above a function over 70
/// lines, `// why: ...` above a sleep in a test.
#[derive(Default, clap::Args)]
pub(crate) struct Args {}

impl Args {
    #[expect(clippy::unused_self, reason = "every subcommand is run the same way, with arguments or without")]
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        let mut texts = BTreeMap::new();
        for path in workspace.files()? {
            if path.ends_with(".rs") || path.ends_with(".md") {
                texts.insert(path.clone(), workspace.read(&path)?);
            }
        }
        let exists = |path: &str| workspace.root().join(path).exists();
        let findings = check(&texts, &exists);
        if findings.is_empty() {
            let mut rows = Rows::new(["rust_files", "documents"]);
            let rust = texts.keys().filter(|path| path.ends_with(".rs")).count();
            rows.push([rust.into(), (texts.len() - rust).into()]);
            rows.print(workspace.format());
        }
        Rows::of_findings(&findings).print(workspace.format());
        Ok(Verdict::of(&findings))
    }
}

/// All findings over the texts of a working copy, ordered by place.
fn check(texts: &BTreeMap<String, String>, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut sources = BTreeMap::new();
    for (path, text) in texts {
        if path.ends_with(".md") {
            findings.extend(docs::check(path, text, exists));
            continue;
        }
        match Source::parse(text) {
            Ok(source) => {
                sources.insert(path.as_str(), source);
            }
            Err(error) => findings.push(Finding {
                place: path.clone(),
                rule: "rust",
                problem: format!("{error:#}"),
                hint: "tidy reads files as the compiler does".to_owned(),
            }),
        }
    }
    findings.extend(docs::check_adrs(texts));
    let declared = test_modules(sources.iter().map(|(path, source)| (*path, source)));
    for (path, source) in &sources {
        let part = part(path, &declared);
        findings.extend(rust::check(path, &texts[*path], source, part));
        findings.extend(rust::check_error_pages(path, &texts[*path], source, part, exists));
    }
    findings.sort();
    findings
}
