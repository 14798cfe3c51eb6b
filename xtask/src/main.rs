//! The one entry point for people and CI: `cargo xtask CHECK`.
//!
//! Owns: the list of subcommands, and which exit code an answer gets. Never: is shipped, or imported by a crate that is.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks through its streams"
)]

mod bench;
mod cases;
mod chaos;
mod clock;
mod coverage;
mod crash;
mod deny;
mod doc_commands;
mod layers;
mod parts;
mod process;
mod report;
mod servers;
mod sim;
mod soak;
mod source;
mod stages;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use report::{Format, Verdict};
use workspace::Workspace;

/// The checks of this repository, one subcommand each
///
/// Every check exits with 0 only when what it checks holds, with 1 when it does not, and with 2 when it could not
/// tell (a broken manifest, a tool that cannot be installed). What people read and what `--json` prints is the same.
#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    after_help = "Start with `cargo xtask test`: it is exactly what CI runs.\n\
                  Use `cargo xtask test --list` for its stages and `--stage NAME` to run one of them."
)]
struct Cli {
    /// Print one JSON object a line instead of tables
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    task: Task,
}

/// A new subcommand is a module with an `Args` struct whose doc comment is its help, and one line in the list below.
macro_rules! tasks {
    ($($name:ident($module:ident),)*) => {
        #[derive(Subcommand)]
        enum Task {
            $($name($module::Args),)*
        }

        impl Task {
            fn run(&self, workspace: &Workspace) -> anyhow::Result<Verdict> {
                match self {
                    $(Task::$name(args) => args.run(workspace),)*
                }
            }
        }
    };
}

tasks! {
    Test(stages),
    Layers(layers),
    Tidy(tidy),
    DocCommands(doc_commands),
    Coverage(coverage),
    Deny(deny),
    Servers(servers),
    Crash(crash),
    Chaos(chaos),
    Bench(bench),
    Sim(sim),
    Soak(soak),
    Cases(cases),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = if cli.json { Format::JsonLines } else { Format::Table };
    match Workspace::open(format).and_then(|workspace| cli.task.run(&workspace)) {
        Ok(Verdict::Holds) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn every_subcommand_says_what_it_is_for() {
        let command = Cli::command();
        command.clone().debug_assert();
        for task in command.get_subcommands() {
            assert!(task.get_about().is_some(), "{} has no help", task.get_name());
        }
    }
}
