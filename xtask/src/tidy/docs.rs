//! Rules for documents.
//!
//! Owns: which links are followed, and how decisions are numbered. Never: reads a file.

use std::collections::BTreeMap;

use super::rust::{UNDONE, has_word, machine_path};
use crate::report::Finding;

const ADRS: &str = "docs/adr/";
const ADR_LIST: &str = "docs/adr/README.md";

/// All findings over one document.
pub(super) fn check(path: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |line: usize, rule: &'static str, problem: String, hint: &str| {
        findings.push(Finding { place: format!("{path}:{line}"), rule, problem, hint: hint.to_owned() });
    };
    for (line, written, is_code) in lines(text) {
        if let Some(folder) = machine_path(written) {
            report(line, "machine", format!("/{folder}/ is a folder of one machine"), "use a relative path");
        }
        if is_code {
            continue;
        }
        let prose = without_code(written);
        if let Some(word) = UNDONE.iter().find(|word| has_word(&prose, word)) {
            report(line, "undone", format!("{word} in a document"), "do it, or say what is so and why");
        }
        for target in links(&prose) {
            let Some(file) = resolve(path, target) else { continue };
            if !exists(&file) {
                report(line, "link", format!("{target} leads nowhere"), "links are relative to the document");
            }
        }
    }
    findings
}

/// Decisions have a number of their own and are on the list, if there is one.
pub(super) fn check_adrs(texts: &BTreeMap<String, String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut numbers = BTreeMap::new();
    let adrs =
        texts.keys().filter(|path| path.starts_with(ADRS) && path.ends_with(".md") && *path != ADR_LIST);
    for path in adrs {
        let mut report = |problem: String, hint: &str| {
            findings.push(Finding { place: path.clone(), rule: "adr", problem, hint: hint.to_owned() });
        };
        let name = path.trim_start_matches(ADRS);
        let number = name.split('-').next().unwrap_or(name);
        if number.len() != 4 || !number.chars().all(|c| c.is_ascii_digit()) || number.len() == name.len() {
            report(format!("{name} has no number"), "name it 0007-what-was-decided.md");
        } else if let Some(other) = numbers.insert(number, path) {
            report(format!("{number} is taken by {other}"), "take the next free number");
        }
        if texts.get(ADR_LIST).is_some_and(|list| !list.contains(name)) {
            report(format!("{ADR_LIST} does not list it"), "add a line with a link to it");
        }
    }
    findings
}

/// Lines with their numbers, and whether they are in a fenced block.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str, bool)> {
    let mut fence: Option<&str> = None;
    text.lines().enumerate().map(move |(at, line)| {
        let start = line.trim_start();
        let marks = ["```", "~~~"].into_iter().find(|marks| start.starts_with(marks));
        let is_code = fence.is_some() || marks.is_some();
        if fence.is_none() {
            fence = marks;
        } else if marks == fence {
            fence = None;
        }
        (at + 1, line, is_code)
    })
}

/// A line without its `code`.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// Targets of `[text](target)` and `[name]: target`.
fn links(line: &str) -> Vec<&str> {
    let inline = line.match_indices("](").map(|(at, marks)| &line[at + marks.len()..]);
    let inline = inline.filter_map(|rest| rest.split(')').next());
    let named =
        line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
    // A title may follow the target.
    inline.chain(named).filter_map(|target| target.split_whitespace().next()).collect()
}

/// The file that a link of `path` leads to, relative to the root; `None` when it leads out of the working copy.
fn resolve(path: &str, target: &str) -> Option<String> {
    let target = target.trim_start_matches('<').trim_end_matches('>');
    let file = target.split('#').next().filter(|file| !file.is_empty())?;
    if file.contains("://") || file.starts_with("mailto:") {
        return None;
    }
    let mut folders = path.split('/').collect::<Vec<_>>();
    folders.pop();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            // What leads above the root is not there; the caller finds out.
            ".." => folders.truncate(folders.len().saturating_sub(1)),
            name => folders.push(name),
        }
    }
    Some(folders.join("/"))
}
