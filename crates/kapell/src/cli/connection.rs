//! Where to ask, for whom, and how to show the answer: what every asking command shares.
use std::time::Duration;

use clap::{ArgAction, Args};
use kapell_client::Client;

use super::failure::Failure;
use super::output::{Colours, Format, Output};

/// Where to ask, for whom, and how to show the answer.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClientSettings {
    /// Coordinator to talk to, or several of one cluster, separated by commas: one that does not answer is passed over.
    #[arg(
        long,
        env = "KAPELL_ADDRESS",
        default_value = "127.0.0.1:7700",
        value_name = "HOST:PORT",
        global = true,
        hide_env_values = true
    )]
    address: String,
    /// Namespace to work in.
    #[arg(
        short,
        long,
        env = "KAPELL_NAMESPACE",
        default_value = "default",
        value_name = "NAME",
        global = true,
        hide_env_values = true
    )]
    namespace: String,
    /// How answers look.
    #[arg(short, long, value_enum, default_value = "table", global = true)]
    output: Format,
    /// No colours; they are for terminals only anyway. NO_COLOR=1 in the environment does the same.
    #[arg(
        long,
        env = "NO_COLOR",
        global = true,
        action = ArgAction::SetTrue,
        value_parser = clap::builder::FalseyValueParser::new(),
        hide_env = true
    )]
    no_color: bool,
}

/// How long a coordinator may take to start.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two tries to connect.
const CONNECT_AGAIN: Duration = Duration::from_millis(50);
/// Time that one request may take.
const DEADLINE: Duration = Duration::from_secs(30);

impl ClientSettings {
    pub(crate) fn output(&self) -> Output {
        let colours = if self.no_color { Colours::Never } else { Colours::OnTerminal };
        Output { format: self.output, colours }
    }

    pub(crate) fn namespace(&self) -> String {
        self.namespace.clone()
    }

    /// Connects to the coordinator. One that is just starting is waited for.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let give_up = tokio::time::Instant::now() + PATIENCE;
        loop {
            match Client::connect(&self.address).await {
                Ok(client) => return Ok(client.with_deadline(DEADLINE)),
                Err(error) if tokio::time::Instant::now() >= give_up => {
                    return Err(Failure::unreachable(&error));
                }
                Err(_) => tokio::time::sleep(CONNECT_AGAIN).await,
            }
        }
    }
}
