//! The command line: what may be typed, what is asked and shown, and the exit code.
//!
//! Owns: the words for people and the field names for scripts. Never: decides about runs; it asks a coordinator.
mod admin;
mod approvals;
mod args;
mod connection;
mod events;
mod failure;
mod given;
mod output;
mod resources;
mod runs;
mod times;
mod view;

use std::process::ExitCode;

use clap::Parser as _;

/// Reads the command line and runs it.
pub(crate) fn main() -> ExitCode {
    args::Kapell::parse().run()
}
