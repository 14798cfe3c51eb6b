//! The working copy: where it is, which files belong to it, what Cargo says about it.
//!
//! Owns: every path and file that a check looks at. Never: writes to a tracked file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;
use crate::report::{Format, Verdict};

/// How programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// As it is shipped.
    Release,
}

/// An opened working copy.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    metadata: Value,
    format: Format,
}

impl Workspace {
    /// Asks Cargo, without the network and without resolving dependencies.
    pub(crate) fn open(format: Format) -> Result<Self> {
        let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").to_owned());
        let root = Path::new(&manifest).parent().context("xtask is a folder of the working copy")?;
        let mut cargo = Command::new("cargo");
        cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(root);
        let metadata: Value =
            serde_json::from_str(&process::output(&mut cargo)?).context("cargo metadata")?;
        let target =
            metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
        Ok(Self { root: root.to_owned(), target: PathBuf::from(target), metadata, format })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where Cargo builds to, and where tools are installed (below `tools/`).
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// `cargo metadata --no-deps`.
    pub(crate) fn metadata(&self) -> &Value {
        &self.metadata
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// A command that starts at the root and finds the tools that xtask has installed.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        forget_our_package(&mut command);
        let mut path = self.target.join("tools/bin").into_os_string();
        if let Some(inherited) = std::env::var_os("PATH") {
            path.push(":");
            path.push(inherited);
        }
        command.env("PATH", path);
        command
    }

    /// Where Cargo puts a program of ours.
    pub(crate) fn program(&self, profile: Profile, name: &str) -> PathBuf {
        let folder = match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        };
        self.target.join(folder).join(name)
    }

    /// Builds the programs of some of our packages.
    pub(crate) fn build(&self, profile: Profile, packages: &[&str]) -> Result<Verdict> {
        let mut cargo = self.command("cargo");
        cargo.args(["build", "--bins"]);
        let flags: &[&str] = match profile {
            Profile::Dev => &[],
            Profile::Release => &["--release"],
        };
        cargo.args(flags);
        cargo.args(packages.iter().flat_map(|package| ["-p", package]));
        process::watched(&mut cargo, Format::JsonLines)
    }

    /// Relative paths of all files that are tracked, or new and not ignored, in order.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let mut git = self.command("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = process::output(&mut git)?;
        let mut files = listed
            .split_terminator('\0')
            .filter(|path| self.root.join(path).is_file())
            .map(str::to_owned)
            .collect::<Vec<_>>();
        files.sort();
        files.dedup();
        Ok(files)
    }

    pub(crate) fn read(&self, path: &str) -> Result<String> {
        std::fs::read_to_string(self.root.join(path)).with_context(|| format!("reading {path}"))
    }
}
/// `cargo run` tells xtask which package it is. Build scripts that look at these variables, such as ring's, would run
/// again, and everything above them be built again, whenever Cargo is called once through xtask and once by hand.
pub(crate) fn forget_our_package(command: &mut Command) {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
        command.env_remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_not_told_which_package_xtask_is() {
        let workspace = Workspace::open(Format::JsonLines).unwrap();
        let cargo = workspace.command("cargo");
        let removed = |name: &str| cargo.get_envs().any(|(of, value)| of == name && value.is_none());
        // Cargo runs this test, and tells it so.
        assert!(removed("CARGO_PKG_NAME") && removed("CARGO_MANIFEST_DIR"));
    }
}
