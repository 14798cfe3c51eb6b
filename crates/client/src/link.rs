//! One request: its deadline and its tries.
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::ClientError;
use crate::retry::{Repeat, pause};

/// Largest answer that is read, in bytes: a page of runs with large outputs.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A channel, and how long a request may take.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) channel: Channel,
    pub(crate) deadline: Duration,
}

impl Link {
    /// Sends a request until it is answered, may not be sent again, or the time is over. When the time ends during a
    /// pause, the last error is the answer: it says more than that the time is over.
    pub(crate) async fn ask<T, F>(
        &self,
        repeat: Repeat,
        send: impl Fn(Channel) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask_within(self.deadline, repeat, send).await
    }

    /// As [`Link::ask`], with another deadline.
    pub(crate) async fn ask_within<T, F>(
        &self,
        within: Duration,
        repeat: Repeat,
        send: impl Fn(Channel) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let end = Instant::now() + within;
        let mut tries = 0;
        loop {
            let error = match timeout_at(end, send(self.channel.clone())).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => ClientError::from(status),
                Err(_) => return Err(ClientError::TimedOut { after: within }),
            };
            match pause(&error, repeat, tries) {
                Some(pause) if Instant::now() + pause < end => sleep(pause).await,
                Some(_) | None => return Err(error),
            }
            tries += 1;
        }
    }
}
