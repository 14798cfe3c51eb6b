//! The command line: what may be typed, and the exit code.
mod args;

use std::process::ExitCode;

use clap::Parser as _;

/// Reads the command line and runs it.
pub(crate) fn main() -> ExitCode {
    args::Kapell::parse().run()
}
