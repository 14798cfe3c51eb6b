//! Client library: talks to the coordinators of a cluster.
//!
//! Owns: the connections, deadlines, trying again, going to another coordinator, and what an error asks of the caller.
//! Never: shows anything, or knows what a definition or a run means.
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
mod homes;
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

use homes::Homes;
use link::Link;

/// Time that one request may take, all tries together, unless the client is told otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);

/// A connection to a cluster, or to its only coordinator. Cheap to clone; many requests may be on their way at once.
#[derive(Clone, Debug)]
pub struct Client {
    link: Link,
}

impl Client {
    /// Connects to `HOST:PORT`, or to several, separated by commas: any coordinator takes any request, so a request
    /// that one does not answer goes to the next, if sending it twice is harmless. One of them must answer now.
    pub async fn connect(addresses: &str) -> Result<Client, ConnectError> {
        Client::connect_over(Arc::new(SystemNet), addresses).await
    }

    /// As [`Client::connect`], over another network than that of the operating system.
    pub async fn connect_over(net: Arc<dyn Net>, addresses: &str) -> Result<Client, ConnectError> {
        let homes = Arc::new(Homes::reach(net, addresses).await?);
        Ok(Client { link: Link { homes, deadline: DEADLINE_DEFAULT } })
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
