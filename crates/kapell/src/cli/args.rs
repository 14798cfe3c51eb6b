//! What may be typed.
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kapell_telemetry::Telemetry;

use crate::roles;
use crate::settings::{CoordinatorSettings, LogSettings, MemberSettings};

/// Orchestration cluster for AI agents: an event comes in, finished work comes out.
#[derive(Parser, Debug)]
#[command(name = "kapell", version, arg_required_else_help = true)]
pub(crate) struct Kapell {
    #[command(flatten)]
    log: LogSettings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run all roles in one process, with the embedded journal and ledger.
    Dev(CoordinatorSettings),
    /// Run a coordinator.
    Coordinator(CoordinatorSettings),
    /// Run a worker.
    Worker(MemberSettings),
    /// Run a connector.
    Connector(MemberSettings),
}

impl Kapell {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(_) => return ExitCode::FAILURE,
        };
        match runtime.block_on(self.dispatch()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                #[expect(clippy::print_stderr, reason = "the command line speaks to people")]
                {
                    eprintln!("error: {error:#}");
                }
                ExitCode::FAILURE
            }
        }
    }

    async fn dispatch(self) -> anyhow::Result<()> {
        match self.command {
            Command::Dev(settings) => {
                let _telemetry = Telemetry::start(&self.log.telemetry("dev"))?;
                roles::dev(&settings).await
            }
            Command::Coordinator(settings) => {
                let _telemetry = Telemetry::start(&self.log.telemetry("coordinator"))?;
                roles::coordinator(&settings).await
            }
            Command::Worker(settings) => {
                let _telemetry = Telemetry::start(&self.log.telemetry("worker"))?;
                roles::worker(&settings).await
            }
            Command::Connector(settings) => {
                let _telemetry = Telemetry::start(&self.log.telemetry("connector"))?;
                roles::connector(&settings).await
            }
        }
    }
}
