//! The seams between our code and the world: clock, entropy, network, blocking work and jobs.
//!
//! Owns: the one way to know the time, draw a number, open a connection, leave the async threads and start a job.
//! Never: knows what a run or a journal is. Simulation brings its own clock, entropy and network, and the code
//! above cannot tell.
mod clock;
mod entropy;
mod jobs;
mod net;

use std::sync::Arc;

pub use clock::{Clock, SystemClock};
pub use entropy::{Entropy, SeededEntropy, SystemEntropy};
pub use jobs::{Job, Jobs, NodeStopped, OnDeath};
pub use net::{
    Connection, DialError, Io, Listener, Net, SystemNet, channel, channel_when_asked, incoming,
    incoming_up_to,
};

/// All seams together; cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where numbers come from.
    pub entropy: Arc<dyn Entropy>,
    /// How to reach others.
    pub net: Arc<dyn Net>,
    /// Who runs what in the background.
    pub jobs: Jobs,
    /// Where blocking work goes.
    pub blocking: Blocking,
}

/// Where blocking work goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// To threads of its own.
    Threads,
    /// Done in place: simulation has one thread.
    Inline,
}

impl Runtime {
    /// The real world.
    #[must_use]
    pub fn system() -> Runtime {
        Runtime {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            net: Arc::new(SystemNet),
            jobs: Jobs::new(),
            blocking: Blocking::Threads,
        }
    }

    /// Does work that may block, away from the async threads.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NodeStopped> {
        match self.blocking {
            Blocking::Inline => Ok(work()),
            Blocking::Threads => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "this is the one place that others are sent to"
                )]
                let handle = tokio::task::spawn_blocking(work);
                handle.await.map_err(|_| NodeStopped)
            }
        }
    }
}
