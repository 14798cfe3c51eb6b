//! Tools that a check needs and Cargo can build.
//!
//! Owns: which tools, and their installation on first use. Never: touches what is installed for the whole machine.

use std::process::Stdio;

use anyhow::{Result, bail};

use crate::process;
use crate::report::{Format, Verdict};
use crate::workspace::Workspace;

/// A Cargo subcommand that lives in a package of its own.
pub(crate) struct Tool {
    /// The package, which is also the name of the binary: `cargo-nextest`.
    package: &'static str,
    /// The version that is known to work here.
    version: &'static str,
}

/// Runs the tests, one process each.
pub(crate) const NEXTEST: Tool = Tool { package: "cargo-nextest", version: "0.9.143" };
/// Checks licences and duplicates.
pub(crate) const DENY: Tool = Tool { package: "cargo-deny", version: "0.20.2" };
/// Counts covered lines; reads the profiles of any rustc by itself, so no LLVM tools are needed.
pub(crate) const TARPAULIN: Tool = Tool { package: "cargo-tarpaulin", version: "0.37.5" };

/// Makes `tool` runnable through `Workspace::command`: whichever version the machine has, else a build of its own
/// under the target directory, in sight.
pub(crate) fn ensure(tool: &Tool, workspace: &Workspace) -> Result<()> {
    if is_present(tool, workspace) {
        return Ok(());
    }
    let root = workspace.target().join("tools");
    eprintln!("installing {} {} into {} (once, some minutes)", tool.package, tool.version, root.display());
    let mut install = workspace.command("cargo");
    install.args(["install", tool.package, "--version", tool.version, "--locked", "--root"]).arg(&root);
    // A build of a tool shares nothing with ours, and would wait for the lock of the target directory.
    install.env("CARGO_TARGET_DIR", root.join("build"));
    match process::watched(&mut install, Format::JsonLines)? {
        Verdict::Holds if is_present(tool, workspace) => Ok(()),
        Verdict::Holds | Verdict::Broken => bail!("{} could not be installed", tool.package),
    }
}

fn is_present(tool: &Tool, workspace: &Workspace) -> bool {
    let mut probe = workspace.command(tool.package);
    probe.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}
