//! What CI runs, in order.
//!
//! Owns: the list of stages. Never: stops at the first failure: one run tells everything that is wrong.

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use serde_json::json;

use crate::clock::{self, Stopwatch};
use crate::process;
use crate::report::{Format, Rows, Verdict};
use crate::workspace::Workspace;
use crate::{chaos, crash, doc_commands, layers, servers, tidy, tools};

/// Run everything that CI runs
///
/// Installs what is missing, runs every stage in order, goes on after a failed one, and fails at the end. The last
/// line is `N passed, N failed`, counting stages.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only this stage (may be given more than once)
    #[arg(long = "stage", value_name = "NAME", value_parser = PossibleValuesParser::new(STAGES.iter().map(|s| s.name)))]
    stages: Vec<String>,
    /// Print the stages and what each is for
    #[arg(long)]
    list: bool,
}

/// One thing that has to hold.
struct Stage {
    name: &'static str,
    /// What it shows, in a few words.
    about: &'static str,
    work: fn(&Workspace) -> Result<Verdict>,
}

/// Cheap ones first, so that what is often wrong is seen early. A new stage is one line.
const STAGES: &[Stage] = &[
    Stage { name: "fmt", about: "code is formatted", work: |w| cargo(w, "fmt --all -- --check") },
    Stage { name: "layers", about: "crates point downwards", work: |w| layers::Args::default().run(w) },
    Stage { name: "tidy", about: "sizes, headers, names, links", work: |w| tidy::Args::default().run(w) },
    Stage {
        name: "clippy",
        about: "no lint fires",
        work: |w| cargo(w, "clippy --workspace --all-targets -- -D warnings"),
    },
    Stage { name: "nextest", about: "unit and system tests", work: nextest },
    Stage { name: "doctests", about: "examples in code", work: |w| cargo(w, "test --workspace --doc") },
    Stage {
        name: "doc-commands",
        about: "commands in documents",
        work: |w| doc_commands::Args::default().run(w),
    },
    // With the release build that the documents need: for the matrix alone most would be built once more.
    Stage {
        name: "crash",
        about: "roles are killed under load",
        work: |w| crash::Args::small().run_as_built(w),
    },
    Stage {
        name: "chaos",
        about: "a cluster survives what happens to clusters",
        work: |w| chaos::Args::small().run_as_built(w),
    },
];

impl Args {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        let format = workspace.format();
        if self.list {
            let mut rows = Rows::new(["stage", "about"]);
            STAGES.iter().for_each(|stage| rows.push([stage.name.into(), stage.about.into()]));
            rows.print(format);
            return Ok(Verdict::Holds);
        }
        let chosen =
            |stage: &&Stage| self.stages.is_empty() || self.stages.iter().any(|name| name == stage.name);
        let stages = STAGES.iter().filter(chosen).collect::<Vec<_>>();
        let verdicts = run_all(&stages, workspace);
        let (text, json) = last_line(&verdicts);
        match format {
            Format::Table => println!("{text}"),
            Format::JsonLines => println!("{json}"),
        }
        Ok(if verdicts.contains(&Verdict::Broken) { Verdict::Broken } else { Verdict::Holds })
    }
}

fn run_all(stages: &[&Stage], workspace: &Workspace) -> Vec<Verdict> {
    let mut rows = Rows::new(["stage", "result", "seconds", "about"]);
    let mut verdicts = Vec::new();
    let whole = Stopwatch::start();
    for (at, stage) in stages.iter().enumerate() {
        eprintln!("\n== {}/{} {}: {}", at + 1, stages.len(), stage.name, stage.about);
        let watch = Stopwatch::start();
        let verdict = (stage.work)(workspace).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Verdict::Broken
        });
        eprintln!("== {} {} after {}", stage.name, result(verdict), clock::human(watch.elapsed()));
        let seconds = (watch.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        rows.push([stage.name.into(), result(verdict).into(), seconds.into(), stage.about.into()]);
        verdicts.push(verdict);
    }
    eprintln!("\n== all after {}", clock::human(whole.elapsed()));
    rows.print(workspace.format());
    verdicts
}

fn result(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "passed",
        Verdict::Broken => "FAILED",
    }
}

/// For people, and for programs.
fn last_line(verdicts: &[Verdict]) -> (String, serde_json::Value) {
    let passed = verdicts.iter().filter(|verdict| **verdict == Verdict::Holds).count();
    let failed = verdicts.len() - passed;
    (format!("{passed} passed, {failed} failed"), json!({ "passed": passed, "failed": failed }))
}

fn cargo(workspace: &Workspace, arguments: &str) -> Result<Verdict> {
    process::watched(workspace.command("cargo").args(arguments.split(' ')), workspace.format())
}

fn nextest(workspace: &Workspace) -> Result<Verdict> {
    tools::ensure(&tools::NEXTEST, workspace)?;
    servers::ensure_all(workspace)?;
    let mut nextest = workspace.command("cargo");
    nextest.args(["nextest", "run", "--workspace", "--profile", "ci"]);
    // The servers are there: a test that does not find its own must not pass as skipped.
    nextest.env(servers::REQUIRED, "required");
    process::watched(&mut nextest, workspace.format())
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn names_of_stages_are_their_own() {
        let mut names = STAGES.iter().map(|stage| stage.name).collect::<Vec<_>>();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STAGES.len());
    }

    #[test]
    fn a_failed_stage_does_not_hide_the_next() {
        let stages = [
            Stage { name: "a", about: "", work: |_| Ok(Verdict::Broken) },
            Stage { name: "b", about: "", work: |_| bail!("no tool") },
            Stage { name: "c", about: "", work: |_| Ok(Verdict::Holds) },
        ];
        let workspace = Workspace::open(Format::JsonLines).unwrap();
        let verdicts = run_all(&stages.iter().collect::<Vec<_>>(), &workspace);
        assert_eq!(verdicts, [Verdict::Broken, Verdict::Broken, Verdict::Holds]);
        assert_eq!(last_line(&verdicts).0, "1 passed, 2 failed");
    }
}
