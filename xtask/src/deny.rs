//! Licences, duplicates and sources of the packages that we take in.
//!
//! Owns: which checks of cargo-deny run. Never: fetches the advisory database (that is a job with a network).

use anyhow::Result;

use crate::process;
use crate::report::Verdict;
use crate::tools;
use crate::workspace::Workspace;

/// Check licences, banned and duplicate packages, and where packages come from
///
/// Runs `cargo deny check bans licenses sources` with deny.toml. cargo-deny is built on first use, which takes some
/// minutes, so this is no stage of `cargo xtask test`. Advisories need the network: `cargo deny check advisories`.
#[derive(clap::Args)]
pub(crate) struct Args {}

impl Args {
    #[expect(clippy::unused_self, reason = "every subcommand is run the same way, with arguments or without")]
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        tools::ensure(&tools::DENY, workspace)?;
        let mut deny = workspace.command("cargo-deny");
        deny.args(["--workspace", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
        process::watched(&mut deny, workspace.format())
    }
}
