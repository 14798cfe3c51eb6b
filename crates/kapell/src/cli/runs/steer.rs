//! Steering a run: cancel, pause, resume, retry, signal.
use clap::Args;
use kapell_client::v1;

use super::show;
use crate::cli::connection::ClientSettings;
use crate::cli::failure::Failure;
use crate::cli::given::{JsonArgument, json_or_empty};

/// Who acts; it is written into the run's story.
#[derive(Args, Debug)]
pub(crate) struct Actor {
    /// Who acts, for the run's story.
    #[arg(long, env = "USER", value_name = "NAME", hide_env_values = true, default_value = "somebody")]
    pub(crate) by: String,
}

/// Which run, who, why.
#[derive(Args, Debug)]
pub(crate) struct Steer {
    /// The run's id.
    run: String,
    #[command(flatten)]
    actor: Actor,
    /// Why, for the run's story.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// What was done under this id is not done again, so that the command may be repeated.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl Steer {
    fn request(self) -> v1::SteerRequest {
        v1::SteerRequest {
            run: self.run,
            by: self.actor.by,
            reason: self.reason,
            request_id: self.request_id.unwrap_or_default(),
        }
    }

    pub(crate) async fn pause(self, to: &ClientSettings) -> Result<(), Failure> {
        show(to, &to.client().await?.runs().pause(self.request()).await?)
    }

    pub(crate) async fn resume(self, to: &ClientSettings) -> Result<(), Failure> {
        show(to, &to.client().await?.runs().resume(self.request()).await?)
    }

    pub(crate) async fn retry(self, to: &ClientSettings) -> Result<(), Failure> {
        show(to, &to.client().await?.runs().retry(self.request()).await?)
    }
}

/// Which run ends, who says so, why, and what becomes of what it did.
#[derive(Args, Debug)]
pub(crate) struct Cancel {
    #[command(flatten)]
    steer: Steer,
    /// Leave things as they are instead of undoing them.
    #[arg(long)]
    leave: bool,
}

impl Cancel {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        let v1::SteerRequest { run, by, reason, request_id } = self.steer.request();
        let request = v1::CancelRequest { run, by, reason, leave: self.leave, request_id };
        show(to, &to.client().await?.runs().cancel(request).await?)
    }
}

/// What a run is told.
#[derive(Args, Debug)]
pub(crate) struct Signal {
    /// The run's id.
    run: String,
    /// CloudEvents type.
    #[arg(long = "type", value_name = "TYPE")]
    event_type: String,
    /// CloudEvents subject.
    #[arg(long)]
    subject: Option<String>,
    /// Data: JSON, @FILE, or @- for standard input.
    #[arg(long, value_name = "JSON|@FILE")]
    data: Option<JsonArgument>,
    /// The same id signals once, so that the command may be repeated.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl Signal {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        let request = v1::SignalRequest {
            run: self.run,
            r#type: self.event_type,
            data: json_or_empty(self.data.as_ref(), "--data")?,
            subject: self.subject.unwrap_or_default(),
            request_id: self.request_id.unwrap_or_default(),
        };
        show(to, &to.client().await?.runs().signal(request).await?)
    }
}
