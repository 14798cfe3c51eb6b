//! Rules for Rust files.
//!
//! Owns: the limits of a file and a function, and which words and names are refused. Never: reads a file.

use crate::parts::Part;
use crate::report::Finding;
use crate::source::{Function, Source, Token};

/// Lines of a file that are in the product.
const FILE_LINES_MAX: usize = 600;
/// From `fn` to the closing brace: a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// Names that say nothing about what is inside.
const NAMELESS: &[&str] = &["util", "utils", "common", "misc", "helper", "helpers"];
/// Macros that stand for code that is not there.
const UNWRITTEN: &[&str] = &["todo", "unimplemented"];
/// Words that stand for work that is not done.
pub(super) const UNDONE: &[&str] = &["TODO", "FIXME"];
/// First folders of paths that only exist on some machine.
const MACHINE_FOLDERS: &[&str] = &["work", "root", "home", "tmp"];
/// Where the pages of error codes are.
const ERROR_PAGES: &str = concat!("docs/", "errors/");

/// All findings over one file but those that need other files.
pub(super) fn check(path: &str, text: &str, source: &Source, part: Part) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |line: usize, rule: &'static str, problem: String, hint: &str| {
        findings.push(Finding { place: format!("{path}:{line}"), rule, problem, hint: hint.to_owned() });
    };
    if part == Part::Production {
        check_file(path, source, &mut report);
        for (line, written) in production(text, source, part) {
            if let Some(folder) = machine_path(written) {
                report(
                    line,
                    "machine",
                    format!("/{folder}/ is a folder of one machine"),
                    "take the path as a setting",
                );
            }
        }
    }
    for function in
        source.functions.iter().filter(|function| is_long(function) && !has_table_reason(function, source))
    {
        let lines = function.end - function.start + 1;
        let problem = format!("fn {} has {lines} lines, over {FUNCTION_LINES_MAX}", function.name);
        report(
            function.start,
            "function",
            problem,
            "split it; if it is a table, say so above: // table: REASON",
        );
    }
    for (line, comment) in &source.comments {
        if let Some(word) = UNDONE.iter().find(|word| has_word(comment, word)) {
            report(*line, "undone", format!("{word} in a comment"), "do it, or say what is so and why");
        }
    }
    check_tokens(source, part, &mut report);
    if let Some(name) =
        path.split('/').map(|name| name.trim_end_matches(".rs")).find(|name| NAMELESS.contains(name))
    {
        report(
            1,
            "name",
            format!("`{name}` says nothing about what is inside"),
            "name it after what it owns",
        );
    }
    findings
}

fn check_file(path: &str, source: &Source, report: &mut impl FnMut(usize, &'static str, String, &str)) {
    let needs_header = path.starts_with("crates/") || path.starts_with("xtask/");
    if needs_header && !source.has_header {
        report(
            1,
            "header",
            "no module header".to_owned(),
            "begin with //! and what it owns, and what it never does",
        );
    }
    let lines = source.production_lines();
    let has_reason = source.comments.values().any(|comment| reason(comment, "//! Long because:"));
    if lines > FILE_LINES_MAX && !has_reason {
        let problem = format!("{lines} lines of production code, over {FILE_LINES_MAX}");
        report(1, "file", problem, "split it by what it owns, or say //! Long because: REASON");
    }
}

fn check_tokens(source: &Source, part: Part, report: &mut impl FnMut(usize, &'static str, String, &str)) {
    for at in 0..source.tokens.len() {
        let line = source.tokens[at].line;
        match words(&source.tokens[at..]) {
            [name, "!", "(" | "[" | "{", ..] if UNWRITTEN.contains(&name) => {
                report(line, "undone", format!("{name}!"), "write it, or leave the way to it out");
            }
            ["#", "[", "ignore", "]"] => {
                report(
                    line,
                    "ignored",
                    "a test is ignored without a reason".to_owned(),
                    "#[ignore = \"REASON\"]",
                );
            }
            ["mod", name, "{", ..] if NAMELESS.contains(&name) => {
                let problem = format!("`{name}` says nothing about what is inside");
                report(line, "name", problem, "name it after what it owns");
            }
            ["sleep", "(", ..]
                if (part == Part::Test || source.is_test(line))
                    && !(at > 0 && source.tokens[at - 1].text == "fn")
                    && !has_why(line, source) =>
            {
                let hint = "wait for the thing itself; if time is the point, say so above: // why: REASON";
                report(line, "sleep", "a test sleeps".to_owned(), hint);
            }
            _ => {}
        }
    }
}

/// Each page that the product points its users to is there.
pub(super) fn check_error_pages(
    path: &str,
    text: &str,
    source: &Source,
    part: Part,
    exists: &dyn Fn(&str) -> bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, written) in production(text, source, part) {
        for (at, _) in written.match_indices(ERROR_PAGES) {
            let page = written[at..].split(|c: char| !c.is_alphanumeric() && !"/-_.".contains(c)).next();
            let Some(page) = page.filter(|page| page.ends_with(".md") && !exists(page)) else { continue };
            findings.push(Finding {
                place: format!("{path}:{line}"),
                rule: "error page",
                problem: format!("{page} does not exist"),
                hint: "write what the operator sees, why, and what to do".to_owned(),
            });
        }
    }
    findings
}

/// The lines of a file that are in the product, with their numbers.
fn production<'a>(text: &'a str, source: &'a Source, part: Part) -> impl Iterator<Item = (usize, &'a str)> {
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    numbered.filter(move |(line, _)| part == Part::Production && !source.is_test(*line))
}

/// The next four tokens.
fn words(tokens: &[Token]) -> [&str; 4] {
    std::array::from_fn(|at| tokens.get(at).map_or("", |token| token.text.as_str()))
}

fn is_long(function: &Function) -> bool {
    function.end - function.start + 1 > FUNCTION_LINES_MAX
}

/// A reason stands in the comments above the function, in its head, or on the first line of its body.
fn has_table_reason(function: &Function, source: &Source) -> bool {
    let top = comment_top(function.top, source);
    source.comments.range(top..=function.open + 1).any(|(_, comment)| reason(comment, "// table:"))
}

fn has_why(line: usize, source: &Source) -> bool {
    source.comments.range(comment_top(line, source)..=line).any(|(_, comment)| reason(comment, "// why:"))
}

/// The first line of the comments that stand directly above `line`.
fn comment_top(line: usize, source: &Source) -> usize {
    (1..line).rev().take_while(|above| source.comments.contains_key(above)).last().unwrap_or(line)
}

/// Whether `comment` has `marker` and something after it.
fn reason(comment: &str, marker: &str) -> bool {
    comment.split_once(marker).is_some_and(|(_, reason)| !reason.trim().is_empty())
}

pub(super) fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

/// The folder of the first absolute path into a machine that `text` has.
pub(super) fn machine_path(text: &str) -> Option<&'static str> {
    let begins = |at: usize| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !".-_/{}$>*~)]".contains(c))
    };
    MACHINE_FOLDERS.iter().copied().find(|folder| {
        let path = format!("/{folder}/");
        text.match_indices(&path).any(|(at, _)| begins(at))
    })
}
