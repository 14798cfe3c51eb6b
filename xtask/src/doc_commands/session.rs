//! One document being run.
//!
//! Owns: its folder, its shell state (folder and exported variables) and its background processes. Never: leaves a
//! process running, or lets one run for longer than its limit.

use std::fmt;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::parse::{Mode, Step, substitute};
use crate::clock::{self, Stopwatch};
use crate::process;
use crate::workspace::forget_our_package;

/// How much of an output is shown when it is not what the document says.
const SHOWN_LINES: usize = 60;

/// The state of one document's shell.
pub(super) struct Session {
    folder: PathBuf,
    /// What the shell leaves behind for the next command. Beside the folder, so that no document sees it.
    state: PathBuf,
    path: std::ffi::OsString,
    limit: Duration,
    commands: usize,
    background: Vec<Background>,
}

struct Background {
    command: String,
    child: Child,
    log: PathBuf,
}

/// Why a step is not what the document says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It ran, and did not succeed.
    Exit { command: String, status: String, output: String },
    /// A line is not in the output, at least not after the lines before it.
    Missing { command: String, expected: String, output: String },
    /// It did not end, or a background command did not print its lines.
    TooSlow { command: String, limit: Duration, output: String },
}

impl Session {
    /// Commands start in `folder` and find programs in `bins` first.
    pub(super) fn open(folder: &Path, bins: &[PathBuf], limit: Duration) -> Result<Self> {
        let mut state = folder.as_os_str().to_owned();
        state.push(".state");
        std::fs::create_dir_all(folder)?;
        std::fs::create_dir_all(&state)?;
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(bins.iter().cloned().chain(std::env::split_paths(&inherited)))?;
        let state = PathBuf::from(state);
        Ok(Self { folder: folder.to_owned(), state, path, limit, commands: 0, background: Vec::new() })
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<Result<(), Failure>> {
        match step {
            Step::Write { name, text, .. } => {
                let path = self.folder.join(name);
                std::fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
                std::fs::write(&path, text).with_context(|| format!("writing {name}"))?;
                Ok(Ok(()))
            }
            Step::Run { mode: Mode::Known, .. } => Ok(Ok(())),
            Step::Run { command, expected, mode: Mode::Foreground, .. } => self.foreground(command, expected),
            Step::Run { command, expected, mode: Mode::Background, .. } => self.background(command, expected),
        }
    }

    /// Ends what runs in the background. What ended before by itself, and badly, is a failure.
    pub(super) fn close(&mut self) -> Result<Vec<Failure>> {
        let mut failures = Vec::new();
        for mut job in self.background.drain(..).rev() {
            let early = job.child.try_wait()?;
            process::end_group(&mut job.child)?;
            if let Some(status) = early.filter(|status| !status.success()) {
                failures.push(exit(&job.command, status, read(&job.log)?));
            }
        }
        std::fs::remove_dir_all(&self.state)?;
        Ok(failures)
    }

    fn foreground(&mut self, command: &str, expected: &[String]) -> Result<Result<(), Failure>> {
        let (mut child, log) = self.spawn(command)?;
        let status = process::wait_within(&mut child, self.limit)?;
        // It may have ended and left something running; what is meant to run on is written with ` &` at its end.
        process::end_group(&mut child)?;
        let output = read(&log)?;
        let Some(status) = status else {
            return Ok(Err(Failure::TooSlow { command: command.to_owned(), limit: self.limit, output }));
        };
        if !status.success() {
            return Ok(Err(exit(command, status, output)));
        }
        Ok(match missing(expected, &output) {
            None => Ok(()),
            Some(line) => {
                Err(Failure::Missing { command: command.to_owned(), expected: line.to_owned(), output })
            }
        })
    }

    /// Goes on as soon as it has printed what the document shows.
    fn background(&mut self, command: &str, expected: &[String]) -> Result<Result<(), Failure>> {
        let (child, log) = self.spawn(command)?;
        let mut job = Background { command: command.to_owned(), child, log };
        let watch = Stopwatch::start();
        let outcome = loop {
            let ended = job.child.try_wait()?;
            let output = read(&job.log)?;
            let Some(line) = missing(expected, &output) else { break Ok(()) };
            let (command, line) = (command.to_owned(), line.to_owned());
            if ended.is_some() {
                break Err(Failure::Missing { command, expected: line, output });
            }
            if watch.elapsed() > self.limit {
                break Err(Failure::TooSlow { command, limit: self.limit, output });
            }
            clock::nap();
        };
        self.background.push(job);
        Ok(outcome)
    }

    /// Starts a shell that takes over where the last one ended. Its output goes to a file, which no reader can block.
    fn spawn(&mut self, command: &str) -> Result<(Child, PathBuf)> {
        self.commands += 1;
        let log = self.state.join(format!("{}.log", self.commands));
        let file = File::create(&log)?;
        let xtask = std::env::current_exe()?;
        let script = format!(
            "if [ -f \"$KAPELL_DOC_STATE/shell\" ]; then . \"$KAPELL_DOC_STATE/shell\"; fi\n\
             keep() {{ status=$?; {{ export -p; printf 'cd %q\\n' \"$PWD\"; }} > \"$KAPELL_DOC_STATE/shell\"; exit $status; }}\n\
             trap keep EXIT\n{}\n",
            substitute(command, &format!("'{}'", xtask.display()))
        );
        let mut bash = Command::new("bash");
        forget_our_package(&mut bash);
        bash.args(["-c", &script, "document"]).current_dir(&self.folder).process_group(0);
        bash.env("PATH", &self.path).env("KAPELL_DOC_STATE", &self.state);
        bash.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok((bash.spawn().context("documents are run with bash")?, log))
    }
}

fn exit(command: &str, status: ExitStatus, output: String) -> Failure {
    Failure::Exit { command: command.to_owned(), status: status.to_string(), output }
}

fn read(log: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read(log)?).into_owned())
}

/// The first expected line that `output` does not have after the ones before it.
pub(super) fn missing<'a>(expected: &'a [String], output: &str) -> Option<&'a str> {
    let mut lines = output.lines();
    // `...` alone allows for any lines, and so does every line: it takes none.
    let mut asked = expected.iter().map(|line| line.trim()).filter(|line| *line != "...");
    asked.find(|line| !lines.any(|found| has_parts(found, line)))
}

/// Whether `found` has the parts of `line` between its `...`, in their order.
fn has_parts(found: &str, line: &str) -> bool {
    let mut rest = found;
    line.split("...").map(str::trim).filter(|part| !part.is_empty()).all(|part| {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        true
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let output = match self {
            Failure::Exit { command, status, output } => {
                write!(f, "`{command}` ended with {status}")?;
                output
            }
            Failure::Missing { command, expected, output } => {
                write!(f, "`{command}` did not print this line, or not here:\n    {expected}")?;
                output
            }
            Failure::TooSlow { command, limit, output } => {
                write!(f, "`{command}` took longer than {}", clock::human(*limit))?;
                output
            }
        };
        let lines = output.lines().collect::<Vec<_>>();
        let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        write!(f, "\n  it printed:")?;
        shown.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}
