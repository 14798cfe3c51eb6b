//! How much of a crate its own tests run.
//!
//! Owns: what counts as a line of the product, and the minimum. Never: needs LLVM's tools: tarpaulin reads the
//! compiler's profiles itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::parts::{Part, part, test_modules};
use crate::process;
use crate::report::{Format, Rows, Verdict};
use crate::source::Source;
use crate::tools;
use crate::workspace::Workspace;

/// Measure which lines of a crate its own tests run
///
/// Builds the crate with coverage, runs its unit and integration tests, and counts the lines of production code that
/// ran; code under `#[cfg(test)]` and in tests.rs does not count. Examples in documentation do not run.
/// cargo-tarpaulin is built on first use, which takes some minutes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The package, such as kapell-kernel (the prefix may be left out)
    #[arg(value_name = "CRATE")]
    package: String,
    /// Least share of lines that must run, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0)]
    min: f64,
}

/// Lines of one file: `true` when a test ran it.
type Lines = BTreeMap<usize, bool>;

impl Args {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        let (package, folder) = find(workspace.metadata(), &self.package)?;
        tools::ensure(&tools::TARPAULIN, workspace)?;
        let report = measure(workspace, &package)?;
        let files = count(&report, &workspace.root().to_string_lossy(), &folder)?;
        print(&files, workspace.format());
        let (covered, total) = sum(files.values());
        if total == 0 {
            bail!("{package} has no lines that could be covered");
        }
        let share = percent(covered, total);
        Ok(if share >= self.min {
            Verdict::Holds
        } else {
            eprintln!("{package}: {share:.2} % of lines, under the minimum of {} %", self.min);
            Verdict::Broken
        })
    }
}

/// The name of a package and its folder, relative to the root.
fn find(metadata: &Value, name: &str) -> Result<(String, String)> {
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut found = packages.filter_map(|package| {
        let full = package["name"].as_str()?;
        let manifest = package["manifest_path"].as_str()?;
        let folder = manifest.strip_prefix(root)?.trim_matches('/').strip_suffix("/Cargo.toml")?;
        (full == name || full.strip_prefix("kapell-") == Some(name))
            .then(|| (full.to_owned(), folder.to_owned()))
    });
    found.next().with_context(|| format!("no crate of this workspace is called {name}"))
}

fn measure(workspace: &Workspace, package: &str) -> Result<Value> {
    // Instrumented builds share nothing with others, so they get a folder and a lock of their own.
    let folder = workspace.target().join("coverage");
    std::fs::create_dir_all(&folder)?;
    let report = folder.join("tarpaulin-report.json");
    if report.exists() {
        std::fs::remove_file(&report)?;
    }
    let mut tarpaulin = workspace.command("cargo-tarpaulin");
    tarpaulin.args(["tarpaulin", "--engine", "llvm", "--skip-clean", "--out", "json", "--packages", package]);
    tarpaulin.arg("--target-dir").arg(&folder).arg("--output-dir").arg(&folder);
    // It looks for lines in every file below the root otherwise, built ones included.
    tarpaulin.args(["--exclude-files", "target*/*", "--timeout", "600"]);
    // Its own summary counts other crates too; ours is printed as the answer.
    match process::watched(&mut tarpaulin, Format::JsonLines)? {
        Verdict::Holds => {}
        Verdict::Broken => bail!("the tests of {package} failed under coverage, or did not build"),
    }
    serde_json::from_str(&std::fs::read_to_string(&report)?).context("tarpaulin's report")
}

/// The lines of production code below `folder`, by path relative to `root`.
fn count(report: &Value, root: &str, folder: &str) -> Result<BTreeMap<String, Lines>> {
    let mut traced = BTreeMap::new();
    let mut sources = BTreeMap::new();
    for file in report["files"].as_array().context("the report has no files")? {
        let parts = file["path"].as_array().context("a file without a path")?;
        let path = parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("/").replace("//", "/");
        let Some(path) = path.strip_prefix(root).map(|path| path.trim_matches('/').to_owned()) else {
            continue;
        };
        if !path.starts_with(&format!("{folder}/src/")) {
            continue;
        }
        let text = file["content"].as_str().context("a file without its content")?;
        sources.insert(path.clone(), Source::parse(text).with_context(|| path.clone())?);
        traced.insert(path, file["traces"].as_array().context("a file without traces")?);
    }
    let declared = test_modules(sources.iter().map(|(path, source)| (path.as_str(), source)));
    let mut files = BTreeMap::new();
    for (path, traces) in traced {
        let lines = production(traces, &sources[&path], part(&path, &declared));
        if !lines.is_empty() {
            files.insert(path, lines);
        }
    }
    Ok(files)
}

fn production(traces: &[Value], source: &Source, part: Part) -> Lines {
    let mut lines = Lines::new();
    for trace in traces {
        let hits = trace["stats"]["Line"].as_u64();
        let line = trace["line"].as_u64().and_then(|line| usize::try_from(line).ok());
        if let (Some(hits), Some(line), Part::Production) = (hits, line, part)
            && !source.is_test(line)
        {
            *lines.entry(line).or_insert(false) |= hits > 0;
        }
    }
    lines
}

fn print(files: &BTreeMap<String, Lines>, format: Format) {
    let mut rows = Rows::new(["file", "covered", "lines", "percent", "missed"]);
    for (path, lines) in files {
        let (covered, total) = sum([lines]);
        let missed = ranges(&lines.iter().filter(|(_, ran)| !**ran).map(|(line, _)| *line).collect());
        rows.push([
            path.as_str().into(),
            covered.into(),
            total.into(),
            rounded(covered, total),
            missed.into(),
        ]);
    }
    let (covered, total) = sum(files.values());
    rows.push(["all".into(), covered.into(), total.into(), rounded(covered, total), "".into()]);
    rows.print(format);
}

fn sum<'a>(files: impl IntoIterator<Item = &'a Lines>) -> (usize, usize) {
    let each = files.into_iter().map(|lines| (lines.values().filter(|ran| **ran).count(), lines.len()));
    each.fold((0, 0), |(covered, total), (more, lines)| (covered + more, total + lines))
}

#[expect(clippy::cast_precision_loss, reason = "no crate has 2^52 lines")]
fn percent(covered: usize, total: usize) -> f64 {
    100.0 * covered as f64 / total.max(1) as f64
}

fn rounded(covered: usize, total: usize) -> Value {
    Value::from((percent(covered, total) * 100.0).round() / 100.0)
}

/// `3-5 9`.
fn ranges(lines: &BTreeSet<usize>) -> String {
    let mut ranges: Vec<RangeInclusive<usize>> = Vec::new();
    for line in lines.iter().copied() {
        match ranges.last_mut() {
            Some(last) if *last.end() + 1 == line => *last = *last.start()..=line,
            Some(_) | None => ranges.push(line..=line),
        }
    }
    let written = ranges.iter().map(|range| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    });
    written.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(path: &str, content: &str, hits: &[(usize, u64)]) -> Value {
        let traces = hits.iter().map(|(line, hits)| json!({ "line": line, "stats": { "Line": hits } }));
        let path = std::iter::once("/").chain(path.split('/')).collect::<Vec<_>>();
        json!({ "path": path, "content": content, "traces": traces.collect::<Vec<_>>() })
    }

    #[test]
    fn only_production_lines_of_the_crate_count() {
        let code = "fn f() {\n    g();\n    h();\n}\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\n#[cfg(test)]\nmod fixture;\n";
        let report = json!({ "files": [
            file("repo/crates/kernel/src/lib.rs", code, &[(1, 4), (2, 4), (3, 0), (7, 1)]),
            file("repo/crates/kernel/src/fixture.rs", "fn f() {}", &[(1, 1)]),
            file("repo/crates/kernel/src/run/tests.rs", "fn f() {}", &[(1, 1)]),
            file("repo/crates/kernel/tests/all.rs", "fn f() {}", &[(1, 1)]),
            file("repo/crates/kernel-other/src/lib.rs", "fn f() {}", &[(1, 1)]),
            file("elsewhere/lib.rs", "fn f() {}", &[(1, 1)]),
        ] });
        let files = count(&report, "/repo", "crates/kernel").unwrap();
        let lib = Lines::from([(1, true), (2, true), (3, false)]);
        assert_eq!(files, BTreeMap::from([("crates/kernel/src/lib.rs".to_owned(), lib)]));
        assert_eq!(sum(files.values()), (2, 3));
        assert_eq!(rounded(2, 3), json!(66.67));
    }

    #[test]
    fn missed_lines_are_shown_as_ranges() {
        assert_eq!(ranges(&BTreeSet::from([3, 4, 5, 9, 11, 12])), "3-5 9 11-12");
        assert_eq!(ranges(&BTreeSet::new()), "");
    }

    #[test]
    fn a_crate_is_found_by_its_short_name() {
        let metadata = json!({ "workspace_root": "/repo", "packages": [
            { "name": "kapell-model", "manifest_path": "/repo/crates/model/Cargo.toml" } ] });
        let expected = ("kapell-model".to_owned(), "crates/model".to_owned());
        assert_eq!(find(&metadata, "model").unwrap(), expected);
        assert_eq!(find(&metadata, "kapell-model").unwrap(), expected);
        assert!(find(&metadata, "mode").is_err());
    }
}
