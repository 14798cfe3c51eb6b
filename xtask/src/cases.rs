//! Cases that others have judged, against our own judges.
//!
//! Owns: the table, and what is right. Never: brings the cases along, or judges (the checker does).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kapell_tests_linearizability::{Budget, cases};
use serde_json::Value;

use crate::clock::{self, Stopwatch};
use crate::report::{Rows, Verdict};
use crate::workspace::Workspace;

/// Hold our checkers against cases with known verdicts
///
/// The linearizability checker judges our own histories, so it must first give the verdicts that others have given on
/// theirs. Holds when it does so for every file. DIR has a folder `linearizability_histories` with
///
///   expected.json   an object: of each file, whether it is linearizable, such as {"kv/c01-ok.txt": true}
///   jepsen/*.log    logs of Jepsen's tests of an etcd register
///   kv/*.txt        logs of a key-value store, one event a line
///
/// Such a collection are the test data of Porcupine (https://github.com/anishathalye/porcupine). They are not part of
/// this repository.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The folder that holds the cases
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Steps that one search may take before the verdict is `undecided`
    #[arg(long, default_value_t = 4_000_000)]
    steps: u32,
}

/// The folder of the histories.
const HISTORIES: &str = "linearizability_histories";

impl Args {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        let folder = self.dir.join(HISTORIES);
        if !folder.is_dir() {
            bail!(
                "there is no folder {}; `cargo xtask cases --help` says what it must hold and where to find it",
                folder.display()
            );
        }
        let judged = judge_all(&folder, Budget::steps(self.steps))?;
        judged.rows.print(workspace.format());
        judged.wrong.iter().for_each(|wrong| eprintln!("\nwrong: {wrong}"));
        let (right, all) = (judged.all - judged.wrong.len(), judged.all);
        eprintln!("{right} of {all} verdicts are right, after {}", clock::human(judged.watch.elapsed()));
        Ok(Verdict::of(&judged.wrong))
    }
}

/// What all files came to.
struct Judged {
    rows: Rows,
    all: usize,
    /// In words, one for each file with a wrong verdict.
    wrong: Vec<String>,
    watch: Stopwatch,
}

fn judge_all(folder: &Path, budget: Budget) -> Result<Judged> {
    let expected = cases::expected(folder)?;
    if expected.is_empty() {
        bail!("expected.json in {} names no file", folder.display());
    }
    let rows = Rows::new(["file", "operations", "expected", "verdict", "seconds"]);
    let mut judged = Judged { rows, all: expected.len(), wrong: Vec::new(), watch: Stopwatch::start() };
    for (file, expected) in expected {
        let watch = Stopwatch::start();
        let case = cases::judge(folder, &file, budget).with_context(|| format!("judging {file}"))?;
        let seconds = Value::from((watch.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0);
        let right = if expected { "linearizable" } else { "not" };
        if case.is_linearizable != Some(expected) {
            let why = case.why.unwrap_or_else(|| "(nothing to show)".to_owned());
            judged.wrong.push(format!("{file} is `{}`, it should be `{right}`\n{why}", case.verdict));
        }
        let row = [file.into(), case.operations.into(), right.into(), case.verdict.into(), seconds];
        judged.rows.push(row);
    }
    Ok(judged)
}
