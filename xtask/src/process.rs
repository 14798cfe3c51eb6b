//! Child processes: run, captured, with a limit, ended.
//!
//! Owns: every wait for a child. Never: leaves one behind.

use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock::{self, Stopwatch};
use crate::report::{Format, Verdict};

/// Time that a process gets between being asked to end and being killed.
const GRACE: Duration = Duration::from_secs(5);

/// What it prints, or an error that ends with what it complained about.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` did not print UTF-8"))
}

/// Runs it in sight of the reader. When the reader is a program, stdout belongs to the JSON lines, so the child
/// speaks on stderr.
pub(crate) fn watched(command: &mut Command, format: Format) -> Result<Verdict> {
    let shown = shown(command);
    if format == Format::JsonLines {
        command.stdout(std::io::stderr().as_fd().try_clone_to_owned()?);
    }
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start `{shown}`"))?;
    Ok(if status.success() { Verdict::Holds } else { Verdict::Broken })
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Its status, or `None` when it still runs after `limit`.
pub(crate) fn wait_within(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let watch = Stopwatch::start();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if watch.elapsed() >= limit {
            return Ok(None);
        }
        clock::nap();
    }
}

/// Ends a child and all that it started. The child must lead its own process group.
pub(crate) fn end_group(child: &mut Child) -> Result<()> {
    for signal in ["-TERM", "-KILL"] {
        let group = format!("-{}", child.id());
        // The group may be gone already; what counts is whether the child is, which the next lines find out.
        Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status()?;
        if wait_within(child, GRACE)?.is_some() && signal == "-KILL" {
            return Ok(());
        }
    }
    bail!("process {} does not end", child.id())
}
