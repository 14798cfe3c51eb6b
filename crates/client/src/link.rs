//! One request: its deadline, its tries, and whom they go to.
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::ClientError;
use crate::homes::Homes;
use crate::retry::{Repeat, pause};

/// Largest answer that is read, in bytes: a page of runs with large outputs.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Time that a coordinator gets to answer, on top of what the request itself asks it to wait, when there are others
/// to ask: one that stands still or is cut off says nothing. One that passes the request on to a new owner needs less.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Whom to ask, and how long a request may take.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) homes: Arc<Homes>,
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
        self.ask_waiting(Duration::ZERO, repeat, send).await
    }

    /// As [`Link::ask`], for a request that lets the coordinator wait so long before it answers.
    pub(crate) async fn ask_waiting<T, F>(
        &self,
        wait: Duration,
        repeat: Repeat,
        send: impl Fn(Channel) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let within = self.deadline.saturating_add(wait);
        let end = Instant::now() + within;
        let may_move = repeat == Repeat::Harmless && self.homes.has_others();
        let mut tries = 0;
        loop {
            let home = self.homes.current();
            let answer_by = if may_move { end.min(Instant::now() + wait + ANSWER_MAX) } else { end };
            let error = match timeout_at(answer_by, send(home.channel.clone())).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => ClientError::from(status),
                Err(_) if answer_by < end => ClientError::silent(),
                Err(_) => ClientError::TimedOut { after: within },
            };
            if matches!(error, ClientError::Unavailable { .. } | ClientError::TimedOut { .. }) {
                self.homes.leave(home.at);
            }
            match pause(&error, repeat, tries) {
                Some(pause) if Instant::now() + pause < end => sleep(pause).await,
                Some(_) | None => return Err(error),
            }
            tries += 1;
        }
    }
}
