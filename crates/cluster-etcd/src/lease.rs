//! The job that keeps a lease alive.
//!
//! Owns: when a sign of life is sent, and what its answer means. Never: makes a session valid for longer than the
//! sending of an answered sign allows.
use std::convert::Infallible;

use etcd_client::Error as EtcdError;
use kapell_cluster::Lost;
use kapell_runtime::{Job, OnDeath};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::endpoints::{Backoff, Turn};
use crate::registration::Registration;
use crate::trouble::Trouble;

/// Without it the session would end and nobody would be told when.
pub(crate) const KEEP: Job = Job { name: "cluster lease", on_panic: OnDeath::StopNode };

/// Signs of life in the time of one lease.
const SIGNS: u32 = 4;

/// Keeps the lease until the session is over, and says when it is.
pub(crate) async fn keep(registration: &Registration) {
    tokio::select! {
        biased;
        () = registration.over() => {}
        () = registration.expired() => registration.lose(Lost::Expired),
        () = renew(registration) => registration.lose(Lost::Removed),
    }
}

/// Ends when the lease is gone.
async fn renew(registration: &Registration) {
    let mut backoff = Backoff::new();
    loop {
        let turn = registration.endpoints.turn();
        let began = Instant::now();
        let Err(trouble) = signs(registration, turn).await;
        let trouble = match trouble {
            Trouble::LeaseGone => return,
            trouble @ (Trouble::Passing(_) | Trouble::Refused(_)) => trouble.into_reason(),
        };
        tracing::debug!(reason = trouble, "the lease is kept alive elsewhere");
        registration.endpoints.leave(turn);
        if began.elapsed() > registration.lease.ttl {
            backoff = Backoff::new();
        }
        sleep(backoff.next()).await;
    }
}

/// Sends one sign after the other to one member, and waits for each answer, so that an answer belongs to its sending.
async fn signs(registration: &Registration, turn: Turn) -> Result<Infallible, Trouble> {
    let (endpoints, lease) = (&registration.endpoints, registration.lease);
    let mut sent = Instant::now();
    let opened = endpoints.once(turn, |mut client| async move {
        // Sends the first sign, and waits for its answer.
        match client.lease_keep_alive(lease.id).await {
            Err(EtcdError::LeaseKeepAliveError(_)) => Ok(None),
            opened => opened.map(Some),
        }
    });
    let Some((mut keeper, mut answers)) = opened.await? else { return Err(gone(registration, turn).await) };
    registration.renewed(sent);
    loop {
        tokio::select! {
            biased;
            // The watch goes there too: it has no sign of life of its own, and hangs unnoticed where nobody sends one.
            () = endpoints.left(turn) => return Err(Trouble::Passing("the member was left".to_owned())),
            () = sleep_until(sent + lease.ttl / SIGNS) => {}
        }
        sent = Instant::now();
        let sign = async {
            keeper.keep_alive().await?;
            answers.message().await
        };
        let answer = timeout(endpoints.call_timeout(), sign).await.map_err(|_| Trouble::timeout())??;
        match answer {
            Some(answer) if answer.ttl() > 0 => registration.renewed(sent),
            Some(_) => return Err(Trouble::LeaseGone),
            None => return Err(Trouble::Passing("the stream ended".to_owned())),
        }
    }
}

/// A stream that was not opened does not say whether that is because of the lease. This does.
async fn gone(registration: &Registration, turn: Turn) -> Trouble {
    let id = registration.lease.id;
    let asked = registration
        .endpoints
        .once(turn, |mut client| async move { client.lease_time_to_live(id, None).await })
        .await;
    match asked {
        Ok(answer) if answer.ttl() <= 0 => Trouble::LeaseGone,
        Ok(_) => Trouble::Passing("the stream was not opened".to_owned()),
        Err(trouble) => trouble,
    }
}
