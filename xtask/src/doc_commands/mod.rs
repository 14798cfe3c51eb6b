//! Commands in documents are tests.
//!
//! Owns: which documents, what each runs in, and what is printed about it. Never: runs in the working copy itself.

mod parse;
mod session;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock::Stopwatch;
use crate::process;
use crate::report::{Format, Rows, Verdict};
use crate::workspace::Workspace;
use parse::{Mode, Step};
use session::Session;

/// Time for one command, or for what a background command should print.
const LIMIT: Duration = Duration::from_secs(120);

/// Run the commands that README.md and docs/ show
///
/// In blocks marked ```console or ```sh, a line that begins with `$ ` is run by bash, and each line below it must
/// appear in its output, in this order; `...` stands for anything. It must exit with 0. The blocks of one document
/// run in order, in one fresh copy of the files of this repository, with `kapell` on the PATH. A command that ends in
/// ` &` is ended at the end of its document. A block such as ```yaml file=NAME is written to that file. A block after
/// the line `<!-- not run: REASON -->` is left out.
#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// Documents to run; all when none is given
    #[arg(value_name = "FILE")]
    documents: Vec<String>,
}

/// How one step of one document went.
struct Line {
    place: String,
    command: String,
    result: &'static str,
    seconds: f64,
}

impl Args {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        let files = workspace.files()?;
        let is_document =
            |path: &&String| *path == "README.md" || path.starts_with("docs/") && path.ends_with(".md");
        let documents = match self.documents.as_slice() {
            [] => files.iter().filter(is_document).cloned().collect(),
            given => given.to_vec(),
        };
        let mut lines = Vec::new();
        let mut verdict = Verdict::Holds;
        let mut binary = None;
        for document in &documents {
            let steps = match parse::parse(&workspace.read(document)?) {
                Ok(steps) => steps,
                Err(problem) => {
                    eprintln!("{document}:{}: {}", problem.line, problem.text);
                    verdict = Verdict::Broken;
                    continue;
                }
            };
            if !steps.iter().any(Step::is_run) {
                continue;
            }
            if binary.is_none() && steps.iter().any(Step::names_kapell) {
                binary = Some(build(workspace)?);
            }
            let folder = copy(workspace, &files, document)?;
            let bin = binary.as_deref().unwrap_or(workspace.target());
            let mut session = Session::open(&folder, &[bin.to_owned()], LIMIT)?;
            match run_document(&mut session, document, &steps, &mut lines)? {
                Verdict::Holds => std::fs::remove_dir_all(&folder)?,
                Verdict::Broken => {
                    eprintln!("{document}: the files it ran with are left in {}", folder.display());
                    verdict = Verdict::Broken;
                }
            }
        }
        print(&lines, documents.len(), workspace.format());
        Ok(verdict)
    }
}

/// Runs the steps until one fails: the later ones build on it.
fn run_document(
    session: &mut Session,
    document: &str,
    steps: &[Step],
    lines: &mut Vec<Line>,
) -> Result<Verdict> {
    let mut verdict = Verdict::Holds;
    for step in steps {
        let watch = Stopwatch::start();
        let (place, command) = (format!("{document}:{}", step.line()), step.title());
        eprintln!("{place}: {command}");
        let outcome = session.step(step)?;
        if let Err(failure) = &outcome {
            eprintln!("{place}: {failure}");
            verdict = Verdict::Broken;
        }
        let result = match (&outcome, step) {
            (Err(_), _) => "FAILED",
            (Ok(()), Step::Run { mode: Mode::Known, .. }) => "known",
            (Ok(()), Step::Run { .. }) => "passed",
            (Ok(()), Step::Write { .. }) => "written",
        };
        let seconds = (watch.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        lines.push(Line { place, command, result, seconds });
        if outcome.is_err() {
            break;
        }
    }
    for failure in session.close()? {
        eprintln!("{document}: {failure}");
        verdict = Verdict::Broken;
    }
    Ok(verdict)
}

fn print(lines: &[Line], documents: usize, format: Format) {
    let mut rows = Rows::new(["place", "result", "seconds", "command"]);
    for line in lines {
        rows.push([
            line.place.as_str().into(),
            line.result.into(),
            line.seconds.into(),
            line.command.as_str().into(),
        ]);
    }
    rows.print(format);
    let mut all = Rows::new(["documents", "commands"]);
    all.push([documents.into(), lines.len().into()]);
    all.print(format);
}

/// The folder of the binary that the documents speak of.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace.command("cargo");
    cargo.args(["build", "--release", "--package", "kapell"]);
    match process::watched(&mut cargo, workspace.format())? {
        Verdict::Holds => Ok(workspace.target().join("release")),
        Verdict::Broken => bail!("the documents run `kapell`, and it does not build"),
    }
}

/// A fresh folder with the files of the working copy, so that a document finds the examples and dirties nothing.
fn copy(workspace: &Workspace, files: &[String], document: &str) -> Result<PathBuf> {
    let name = document.replace(['/', '.'], "-");
    let folder = std::env::temp_dir().join(format!("kapell-{}-{name}", std::process::id()));
    for file in files {
        let to = folder.join(file);
        std::fs::create_dir_all(to.parent().unwrap_or(Path::new("")))?;
        std::fs::copy(workspace.root().join(file), &to).with_context(|| format!("copying {file}"))?;
    }
    Ok(folder)
}
