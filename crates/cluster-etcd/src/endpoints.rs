//! The members of etcd, one of which is talked to at a time.
//!
//! Owns: which one, when it is left for the next, and how long a call may take. Never: knows what is asked.
//!
//! etcd-client can spread calls over all of them by itself; then a dead or an isolated member gets its share of calls
//! for as long as it is dead. Here whoever finds a member bad moves everybody to the next.
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error as EtcdError, Identity, TlsOptions};
use kapell_runtime::Entropy;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::options::{EtcdOptions, EtcdTls};
use crate::trouble::Trouble;

/// Pause after a first failure; each further one waits twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(25);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How often a silent connection is asked for a sign of life. etcd hangs up on those who ask more often than every
/// five seconds; sooner than that the keepalive of the lease notices.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long that sign may take.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Counts how often a member was left; says which one is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn(u64);

/// Pauses that grow.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff(PAUSE_MIN)
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

/// All members of one etcd.
pub(crate) struct Endpoints {
    urls: Vec<String>,
    connect: ConnectOptions,
    call_timeout: Duration,
    turn: watch::Sender<Turn>,
    /// The connection of a turn; a later turn has no use for it.
    client: Mutex<Option<(Turn, Client)>>,
}

impl Endpoints {
    /// Begins with any of them, so that not all nodes begin with the same.
    pub(crate) fn new(options: &EtcdOptions, entropy: &dyn Entropy) -> Endpoints {
        let first = entropy.below(options.endpoints.len() as u64);
        Endpoints {
            urls: options.endpoints.clone(),
            connect: connect_options(options),
            call_timeout: options.call_timeout(),
            turn: watch::Sender::new(Turn(first)),
            client: Mutex::new(None),
        }
    }

    pub(crate) fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    pub(crate) fn turn(&self) -> Turn {
        *self.turn.borrow()
    }

    /// Ends when `turn` is over.
    pub(crate) async fn left(&self, turn: Turn) {
        // The sender lives as long as `self`.
        _ = self.turn.subscribe().wait_for(|now| *now != turn).await;
    }

    /// Moves everybody on, unless somebody did already.
    pub(crate) fn leave(&self, turn: Turn) {
        let left = self.turn.send_if_modified(|now| {
            let current = *now == turn;
            if current {
                now.0 += 1;
            }
            current
        });
        if left {
            tracing::debug!(from = self.url(turn), to = self.url(self.turn()), "leaving a member of etcd");
        }
    }

    fn url(&self, turn: Turn) -> &str {
        let at = usize::try_from(turn.0 % self.urls.len() as u64).unwrap_or(0);
        &self.urls[at]
    }

    /// The connection of this turn, which is made now if need be.
    pub(crate) async fn client(&self, turn: Turn) -> Result<Client, Trouble> {
        {
            let kept = self.client.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((of, client)) = &*kept
                && *of == turn
            {
                return Ok(client.clone());
            }
        }
        let client = Client::connect([self.url(turn)], Some(self.connect.clone())).await;
        let client = client.map_err(|error| match error {
            // Nothing is dialed yet: these are keys and certificates that cannot be read.
            error if matches!(error, EtcdError::TransportError(_)) => {
                Trouble::Refused(Trouble::from(error).into_reason())
            }
            error => Trouble::from(error),
        })?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some((turn, client.clone()));
        Ok(client)
    }

    /// One call, on one member.
    pub(crate) async fn once<T, F>(&self, turn: Turn, call: impl FnOnce(Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let whole = async { call(self.client(turn).await?).await.map_err(Trouble::from) };
        timeout(self.call_timeout, whole).await.unwrap_or_else(|_| Err(Trouble::timeout()))
    }

    /// A call that may be made twice, on one member after the other until one answers. Ends at `until` or a little later,
    /// by the time of one call at most.
    pub(crate) async fn call<T, F>(&self, until: Instant, call: impl Fn(Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let mut backoff = Backoff::new();
        loop {
            let turn = self.turn();
            let reason = match self.once(turn, &call).await {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Passing(reason)) => reason,
                Err(other @ (Trouble::Refused(_) | Trouble::LeaseGone)) => return Err(other),
            };
            let reason = format!("{}: {reason}", self.url(turn));
            self.leave(turn);
            let pause = backoff.next();
            if Instant::now() + pause >= until {
                return Err(Trouble::Passing(reason));
            }
            sleep(pause).await;
        }
    }
}

fn connect_options(options: &EtcdOptions) -> ConnectOptions {
    let mut connect = ConnectOptions::new()
        // A member without a leader answers from what it remembers. Not to us.
        .with_require_leader(true)
        .with_connect_timeout(options.connect_timeout)
        .with_keep_alive(PING_EVERY, PING_TIMEOUT)
        .with_keep_alive_while_idle(false);
    if let Some(tls) = &options.tls {
        connect = connect.with_tls(tls_options(tls));
    }
    if let Some(user) = &options.user {
        connect = connect.with_user(&user.name, &user.password).with_auto_token_refresh(true);
    }
    connect
}

fn tls_options(tls: &EtcdTls) -> TlsOptions {
    let mut chosen = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
    if let Some((certificate, key)) = &tls.identity {
        chosen = chosen.identity(Identity::from_pem(certificate, key));
    }
    if let Some(name) = &tls.server_name {
        chosen = chosen.domain_name(name);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use kapell_model::Name;
    use kapell_runtime::SeededEntropy;

    use super::*;

    fn endpoints() -> Endpoints {
        let urls = ["a:1", "b:2", "c:3"].map(str::to_owned).to_vec();
        Endpoints::new(&EtcdOptions::new(urls, Name::new("test").unwrap()), &SeededEntropy::new(1))
    }

    #[test]
    fn whoever_finds_a_member_bad_moves_everybody_once() {
        let endpoints = endpoints();
        let first = endpoints.turn();
        endpoints.leave(first);
        endpoints.leave(first);
        let second = endpoints.turn();
        assert_eq!(second.0, first.0 + 1, "both had trouble with the same member");
        assert_ne!(endpoints.url(first), endpoints.url(second));
        endpoints.leave(second);
        endpoints.leave(endpoints.turn());
        assert_eq!(endpoints.url(first), endpoints.url(endpoints.turn()), "three of them");
        assert_ne!(first, endpoints.turn(), "and yet everything is connected anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_is_given_up_and_made_elsewhere() {
        let (endpoints, asked) = (endpoints(), Mutex::new(Vec::new()));
        let until = Instant::now() + endpoints.call_timeout() * 2;
        let call = |_: Client| {
            asked.lock().unwrap().push(endpoints.url(endpoints.turn()).to_owned());
            std::future::pending::<Result<(), EtcdError>>()
        };
        let error = endpoints.call(until, call).await.unwrap_err();
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert_ne!(asked[0], asked[1]);
        assert_eq!(error, Trouble::Passing(format!("{}: no answer in time", asked[1])));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_tried_again() {
        let endpoints = endpoints();
        let before = endpoints.turn();
        let call = |_: Client| async { Err::<(), _>(EtcdError::InvalidArgs("no".to_owned())) };
        let error = endpoints.call(Instant::now() + PING_EVERY, call).await.unwrap_err();
        assert_eq!(error, Trouble::Refused("invalid arguments: no".to_owned()));
        assert_eq!(endpoints.turn(), before);
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let mut backoff = Backoff::new();
        let pauses = (0..7).map(|_| backoff.next().as_millis()).collect::<Vec<_>>();
        assert_eq!(pauses, [25, 50, 100, 200, 400, 500, 500]);
    }
}
