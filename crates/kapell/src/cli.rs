//! The command line: what may be typed, what is asked and shown, and the exit code.
//!
//! Owns: the words for people and the field names for scripts. Never: decides about runs; it asks a coordinator.
mod admin;
mod approvals;
mod args;
mod cluster;
mod connection;
mod events;
mod failure;
mod given;
mod output;
mod resources;
mod runs;
mod schedules;
mod times;
mod view;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use failure::Failure;
use output::{Colours, Format, Output};

/// Reads the command line and runs it.
pub(crate) fn main() -> ExitCode {
    match args::Kapell::try_parse() {
        Ok(typed) => typed.run(),
        Err(error) if is_answer(error.kind()) || !wants_json(std::env::args()) => error.exit(),
        Err(error) => {
            let text = error.render().to_string();
            let output = Output { format: Format::Json, colours: Colours::Never };
            Failure::invalid(text.trim_start_matches("error: ").trim_end()).tell(&output)
        }
    }
}

/// Help and the version are what was asked for.
fn is_answer(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// Whether JSON was asked for in words that cannot be parsed as a whole.
fn wants_json(words: impl Iterator<Item = String>) -> bool {
    let words: Vec<String> = words.collect();
    let apart =
        words.windows(2).any(|pair| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json");
    apart || words.iter().any(|word| matches!(word.as_str(), "-ojson" | "-o=json" | "--output=json"))
}
