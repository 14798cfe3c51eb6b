//! Client library: talks to a coordinator.
//!
//! Owns: the connection, deadlines, trying again, and what an error asks of the caller. Never: shows anything, or
//! knows what a definition or a run means.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use kapell_client::{Client, v1};
//!
//! let client = Client::connect("127.0.0.1:7700").await?;
//! let request = v1::StartRunRequest { workflow: "greet".to_owned(), ..v1::StartRunRequest::default() };
//! let started = client.runs().start(request).await?;
//! println!("{}", started.run);
//! # Ok(())
//! # }
//! ```
mod error;
mod link;
mod retry;
mod services;
mod starter;

use std::sync::Arc;
use std::time::Duration;

use kapell_runtime::{Net, SystemNet};

pub use error::{ClientError, ConnectError};
pub use kapell_proto::{cloudevents, v1};
pub use services::{Admin, Approvals, Events, Resources, RunChanges, Runs, Schedules};
pub use starter::{AnswerWhen, Starter};

use link::Link;

/// Time that one request may take, all tries together, unless the client is told otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);

/// A connection to a coordinator. Cheap to clone; many requests may be on their way at once.
#[derive(Clone, Debug)]
pub struct Client {
    link: Link,
}

impl Client {
    /// Connects to `HOST:PORT`.
    pub async fn connect(address: &str) -> Result<Client, ConnectError> {
        Client::connect_over(Arc::new(SystemNet), address).await
    }

    /// As [`Client::connect`], over another network than that of the operating system.
    pub async fn connect_over(net: Arc<dyn Net>, address: &str) -> Result<Client, ConnectError> {
        let channel = kapell_runtime::channel(net, address).await?;
        Ok(Client { link: Link { channel, deadline: DEADLINE_DEFAULT } })
    }

    /// The same connection with another time that one request may take, all tries together.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Client {
        self.link.deadline = deadline;
        self
    }

    /// Runs: start, look, steer.
    #[must_use]
    pub fn runs(&self) -> Runs {
        Runs(self.link.clone())
    }

    /// Events in.
    #[must_use]
    pub fn events(&self) -> Events {
        Events(self.link.clone())
    }

    /// Questions that people answer.
    #[must_use]
    pub fn approvals(&self) -> Approvals {
        Approvals(self.link.clone())
    }

    /// Definitions.
    #[must_use]
    pub fn resources(&self) -> Resources {
        Resources(self.link.clone())
    }

    /// What schedules have done and what comes next.
    #[must_use]
    pub fn schedules(&self) -> Schedules {
        Schedules(self.link.clone())
    }

    /// What operators ask.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin(self.link.clone())
    }
}
