//! What may be typed.
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kapell_telemetry::Telemetry;

use super::connection::ClientSettings;
use super::failure::Failure;
use super::{admin, approvals, cluster, events, resources, runs, schedules};
use crate::demo::{self, DemoSettings};
use crate::roles;
use crate::settings::{CoordinatorSettings, LogSettings, MemberSettings};

/// Orchestration cluster for AI agents: an event comes in, finished work comes out.
///
/// Begin with `kapell dev` in one terminal. In another, apply definitions and start a run:
///
///   kapell apply -f definitions/
///   kapell run start WORKFLOW --input '{"name": "value"}' --wait
///   kapell run explain RUN
#[derive(Parser, Debug)]
#[command(
    name = "kapell",
    version,
    arg_required_else_help = true,
    verbatim_doc_comment,
    after_help = EXIT_CODES,
    disable_help_subcommand = true,
    infer_long_args = false
)]
pub(crate) struct Kapell {
    #[command(flatten, next_help_heading = "Asking a coordinator")]
    client: ClientSettings,
    #[command(flatten, next_help_heading = "Logging of roles")]
    log: LogSettings,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  done, but it did not turn out well: the run failed, doctor found something, replay differs
  2  wrong usage or invalid input
  3  not found
  4  refused for now: busy, unavailable, nobody answers";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run all roles in one process, with the embedded journal and ledger.
    ///
    /// Example: kapell dev --data .kapell
    #[command(verbatim_doc_comment)]
    Dev(CoordinatorSettings),
    /// Show it on a small company, with processes that are killed in the middle.
    Demo(DemoSettings),
    /// Run a coordinator.
    ///
    /// Example: kapell coordinator --data /var/lib/kapell --listen 0.0.0.0:7700
    #[command(verbatim_doc_comment)]
    Coordinator(CoordinatorSettings),
    /// Run a worker.
    ///
    /// Example: kapell worker --coordinator 10.0.0.7:7700 --capacity 200
    #[command(verbatim_doc_comment)]
    Worker(MemberSettings),
    /// Run a connector.
    ///
    /// Example: kapell connector --coordinator 10.0.0.7:7700
    #[command(verbatim_doc_comment)]
    Connector(MemberSettings),
    #[command(flatten)]
    Ask(Ask),
}

/// Commands that ask a coordinator, or need nobody.
#[derive(Subcommand, Debug)]
enum Ask {
    /// Apply definitions: all of them or, if one is wrong, none.
    ///
    /// Documents name their own namespace; -n does not change it.
    /// Example: kapell apply -f definitions/ --dry-run
    #[command(verbatim_doc_comment)]
    Apply(resources::Apply),
    /// Show definitions.
    ///
    /// -o yaml prints documents that `kapell apply` reads.
    /// Example: kapell get workflows
    /// Example: kapell get workflow greet -o yaml
    #[command(verbatim_doc_comment)]
    Get(resources::Get),
    /// Delete a definition that no other needs.
    ///
    /// Example: kapell delete workflow greet
    #[command(verbatim_doc_comment)]
    Delete(resources::Delete),
    /// Check definitions without a coordinator.
    ///
    /// Example: kapell validate -f definitions/
    #[command(verbatim_doc_comment)]
    Validate(resources::Validate),
    /// Print the JSON Schema of a kind, for editors.
    ///
    /// Example: kapell schema workflow > workflow.schema.json
    #[command(verbatim_doc_comment)]
    Schema(resources::Schema),
    /// Send events.
    #[command(subcommand)]
    Event(events::EventCommand),
    /// Start, look at and steer runs.
    #[command(subcommand)]
    Run(runs::RunCommand),
    /// See what schedules have done and what comes next.
    #[command(subcommand)]
    Schedule(schedules::ScheduleCommand),
    /// List the questions that wait for a person.
    ///
    /// Example: kapell approvals --run RUN
    #[command(verbatim_doc_comment)]
    Approvals(approvals::List),
    /// Answer a question with yes.
    ///
    /// Example: kapell approve ID --reason "the margin is fine"
    /// Example: kapell approve ID --result '{"price": 12}'
    #[command(verbatim_doc_comment)]
    Approve(approvals::Approve),
    /// Answer a question with no.
    ///
    /// Example: kapell reject ID --reason "too expensive"
    #[command(verbatim_doc_comment)]
    Reject(approvals::Answer),
    /// Say who is connected and how much is going on.
    ///
    /// Example: kapell status
    #[command(verbatim_doc_comment)]
    Status,
    /// Check that no work is stuck; exit code 1 when some is.
    ///
    /// Example: kapell doctor -o json
    #[command(verbatim_doc_comment)]
    Doctor,
    /// Look after the ledger.
    #[command(subcommand)]
    Ledger(admin::LedgerCommand),
    /// Look at the cluster.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
}

impl Kapell {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        let output = self.client.output();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let Command::Worker(settings) | Command::Connector(settings) = &self.command {
            runtime.worker_threads(settings.threads());
        }
        let runtime = match runtime.enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return Failure::from(anyhow::Error::from(error)).tell(&output),
        };
        match runtime.block_on(self.dispatch()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.tell(&output),
        }
    }

    async fn dispatch(self) -> Result<(), Failure> {
        let telemetry = |role: &str| Telemetry::start(&self.log.telemetry(role)).map_err(anyhow::Error::from);
        match self.command {
            Command::Dev(settings) => {
                let _telemetry = telemetry("dev")?;
                Ok(roles::dev(&settings).await?)
            }
            Command::Demo(settings) => Ok(demo::run(&settings).await?),
            Command::Coordinator(settings) => {
                let _telemetry = telemetry("coordinator")?;
                Ok(roles::coordinator(&settings).await?)
            }
            Command::Worker(settings) => {
                let _telemetry = telemetry("worker")?;
                Ok(roles::worker(&settings).await?)
            }
            Command::Connector(settings) => {
                let _telemetry = telemetry("connector")?;
                Ok(roles::connector(&settings).await?)
            }
            Command::Ask(ask) => ask.run(&self.client).await,
        }
    }
}

impl Ask {
    async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        match self {
            Ask::Apply(apply) => apply.run(to).await,
            Ask::Get(get) => get.run(to).await,
            Ask::Delete(delete) => delete.run(to).await,
            Ask::Validate(validate) => validate.run(&to.output()),
            Ask::Schema(schema) => schema.run(&to.output()),
            Ask::Event(event) => event.run(to).await,
            Ask::Run(run) => run.run(to).await,
            Ask::Schedule(schedule) => schedule.run(to).await,
            Ask::Approvals(list) => list.run(to).await,
            Ask::Approve(approve) => approve.run(to).await,
            Ask::Reject(answer) => answer.reject(to).await,
            Ask::Status => admin::status(to).await,
            Ask::Doctor => admin::doctor(to).await,
            Ask::Ledger(ledger) => ledger.run(to).await,
            Ask::Cluster(cluster) => cluster.run(to).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn what_may_be_typed_does_not_contradict_itself() {
        Kapell::command().debug_assert();
    }
}
