//! The members of etcd, one of which is talked to at a time.
//!
//! Owns: which one, when others are asked beside it, when it is left, and how long a call may take. Never: knows what
//! is asked.
//!
//! etcd-client can spread calls over all of them by itself; then a dead or an isolated member gets its share of calls
//! for as long as it is dead. Here whoever finds a member bad moves everybody to one that answered.
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Error as EtcdError, Identity, TlsOptions};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kapell_runtime::Entropy;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::options::{EtcdOptions, EtcdTls};
use crate::trouble::Trouble;

/// Pause after a first failure; each further one waits twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(25);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// After such a silence a second member is asked beside the first; after twice that, a third. etcd answers within a few
/// milliseconds, and a planned hand-over must not wait for a member that is cut off.
const HEDGE_AFTER: Duration = Duration::from_millis(150);
/// How often a silent connection is asked for a sign of life. etcd hangs up on those who ask more often than every
/// five seconds; sooner than that the keepalive of the lease notices.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long that sign may take.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Counts how often a member was left; says which one is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(u64);

impl Turn {
    /// The member that would come so many turns later.
    pub(crate) fn after(self, further: usize) -> Turn {
        Turn(self.0 + further as u64)
    }
}

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
    /// The connections of this turn and of those ahead that were asked beside it; a later turn has no use for them.
    clients: Mutex<BTreeMap<Turn, Client>>,
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
            clients: Mutex::default(),
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

    /// How many members there are but the one that is talked to.
    pub(crate) fn others(&self) -> usize {
        self.urls.len() - 1
    }

    /// Ends when the member of `turn` is the one that is talked to.
    pub(crate) async fn met(&self, turn: Turn) {
        // The sender lives as long as `self`.
        _ = self.turn.subscribe().wait_for(|now| self.at(*now) == self.at(turn)).await;
    }

    /// Moves everybody on, unless somebody did already.
    pub(crate) fn leave(&self, turn: Turn) {
        self.leave_for(turn, turn.after(1));
    }

    fn leave_for(&self, turn: Turn, next: Turn) {
        let left = turn != next
            && self.turn.send_if_modified(|now| {
                let current = *now == turn;
                if current {
                    *now = next;
                }
                current
            });
        if left {
            tracing::debug!(from = self.url(turn), to = self.url(next), "leaving a member of etcd");
        }
    }

    fn at(&self, turn: Turn) -> usize {
        usize::try_from(turn.0 % self.urls.len() as u64).unwrap_or(0)
    }

    fn url(&self, turn: Turn) -> &str {
        &self.urls[self.at(turn)]
    }

    /// The connection of this turn, which is made now if need be.
    pub(crate) async fn client(&self, turn: Turn) -> Result<Client, Trouble> {
        if let Some(client) = self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&turn) {
            return Ok(client.clone());
        }
        let client = Client::connect([self.url(turn)], Some(self.connect.clone())).await;
        let client = client.map_err(|error| match error {
            // Nothing is dialed yet: these are keys and certificates that cannot be read.
            error if matches!(error, EtcdError::TransportError(_)) => {
                Trouble::Refused(Trouble::from(error).into_reason())
            }
            error => Trouble::from(error),
        })?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        *clients = clients.split_off(&self.turn());
        clients.insert(turn, client.clone());
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

    /// A call that may be made twice, also at the same time: members are asked until one answers, and everybody moves to
    /// that one. Ends at `until` or a little later, by the time of two calls at most.
    pub(crate) async fn call<T, F>(&self, until: Instant, call: impl Fn(Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let mut backoff = Backoff::new();
        loop {
            let turn = self.turn();
            let reason = match self.round(turn, &call).await {
                Ok((by, answer)) => {
                    self.leave_for(turn, by);
                    return Ok(answer);
                }
                Err(Trouble::Passing(reason)) => reason,
                Err(other @ (Trouble::Refused(_) | Trouble::LeaseGone)) => return Err(other),
            };
            // Another member is first in the next round, and nobody is asked over a connection of this one.
            self.leave_for(turn, turn.after(self.urls.len() + 1));
            let pause = backoff.next();
            if Instant::now() + pause >= until {
                return Err(Trouble::Passing(reason));
            }
            sleep(pause).await;
        }
    }

    /// Asks one member, and the others one by one as long as those that were asked are silent or fail.
    async fn round<T, F>(&self, turn: Turn, call: impl Fn(Client) -> F) -> Result<(Turn, T), Trouble>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let (mut asked, mut failed) = (FuturesUnordered::new(), Vec::new());
        let mut others = (0..self.urls.len()).map(|further| turn.after(further)).peekable();
        let mut patience = HEDGE_AFTER;
        loop {
            if let Some(member) = others.next() {
                let answer = self.once(member, &call);
                asked.push(async move { (member, answer.await) });
            }
            let answer = match others.peek() {
                Some(_) => timeout(patience, asked.next()).await,
                None => Ok(asked.next().await),
            };
            match answer {
                Ok(Some((member, Ok(answer)))) => return Ok((member, answer)),
                Ok(Some((member, Err(Trouble::Passing(reason))))) => {
                    failed.push(format!("{}: {reason}", self.url(member)));
                }
                Ok(Some((_, Err(other @ (Trouble::Refused(_) | Trouble::LeaseGone))))) => return Err(other),
                Ok(None) => return Err(Trouble::Passing(failed.join("; "))),
                Err(_) => patience *= 2,
            }
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

    const MILLIS: Duration = Duration::from_millis(1);

    /// Calls that answer as `members` do, which are given in the order in which they are asked; and when they were asked.
    struct Script<F> {
        members: F,
        asked: Mutex<Vec<Duration>>,
        began: Instant,
    }

    impl<F, A> Script<F>
    where
        F: Fn(usize) -> A,
        A: Future<Output = Result<usize, EtcdError>>,
    {
        fn new(members: F) -> Script<F> {
            Script { members, asked: Mutex::default(), began: Instant::now() }
        }

        fn ask(&self, _: Client) -> A {
            let mut asked = self.asked.lock().unwrap();
            asked.push(self.began.elapsed());
            (self.members)(asked.len() - 1)
        }

        fn asked(&self) -> Vec<u128> {
            self.asked.lock().unwrap().iter().map(Duration::as_millis).collect()
        }
    }

    async fn silent() -> Result<usize, EtcdError> {
        std::future::pending().await
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_silent_is_not_waited_for() {
        let endpoints = endpoints();
        let first = endpoints.turn();
        let script = Script::new(|nth| async move { if nth < 2 { silent().await } else { Ok(nth) } });
        let answer = endpoints.call(Instant::now(), |client| script.ask(client)).await;
        assert_eq!((answer, script.asked()), (Ok(2), vec![0, 150, 450]));
        assert_eq!(endpoints.turn(), first.after(2), "everybody goes to the one that answered");
        let script = Script::new(|nth| async move { Ok(nth) });
        assert_eq!(endpoints.call(Instant::now(), |client| script.ask(client)).await, Ok(0));
        assert_eq!((script.asked(), endpoints.turn()), (vec![0], first.after(2)), "one is asked, and stays");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_member_that_answers_first_is_kept() {
        let endpoints = endpoints();
        let first = endpoints.turn();
        let script = Script::new(|nth| async move {
            // why: time is paused, and how long a member takes is the point
            sleep(MILLIS * 200).await;
            Ok(nth)
        });
        assert_eq!(endpoints.call(Instant::now(), |client| script.ask(client)).await, Ok(0));
        assert_eq!((script.asked(), endpoints.turn()), (vec![0, 150], first));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_the_next_is_asked_at_once() {
        let endpoints = endpoints();
        let first = endpoints.turn();
        let script = Script::new(|nth| async move {
            match nth {
                0 => Err(EtcdError::WatchError("no leader".to_owned())),
                1 => silent().await,
                _ => Ok(nth),
            }
        });
        assert_eq!(endpoints.call(Instant::now(), |client| script.ask(client)).await, Ok(2));
        assert_eq!((script.asked(), endpoints.turn()), (vec![0, 0, 150], first.after(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_of_all_is_an_end_and_the_next_round_begins_elsewhere() {
        let endpoints = endpoints();
        let (first, timeout) = (endpoints.turn(), endpoints.call_timeout());
        let script = Script::new(|_| silent());
        let error = endpoints.call(Instant::now(), |client| script.ask(client)).await.unwrap_err();
        assert!(script.began.elapsed() <= timeout * 2, "{:?}", script.began.elapsed());
        let urls =
            (0..3).map(|further| format!("{}: no answer in time", endpoints.url(first.after(further))));
        assert_eq!(error, Trouble::Passing(urls.collect::<Vec<_>>().join("; ")));
        assert_eq!(endpoints.url(endpoints.turn()), endpoints.url(first.after(1)));
        assert!(endpoints.turn() > first.after(2), "what was asked in vain is connected anew");
        let script = Script::new(|nth| async move { if nth < 4 { silent().await } else { Ok(nth) } });
        let until = Instant::now() + timeout * 3;
        assert_eq!(endpoints.call(until, |client| script.ask(client)).await, Ok(4), "in the second round");
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_member_is_asked_again() {
        let options = EtcdOptions::new(vec!["a:1".to_owned()], Name::new("test").unwrap());
        let endpoints = Endpoints::new(&options, &SeededEntropy::new(1));
        let script = Script::new(|nth| async move { if nth == 0 { silent().await } else { Ok(nth) } });
        let until = Instant::now() + endpoints.call_timeout() * 2;
        assert_eq!(endpoints.call(until, |client| script.ask(client)).await, Ok(1));
        let later = endpoints.call_timeout() + PAUSE_MIN;
        assert_eq!(script.asked(), [0, later.as_millis()]);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_nobody_will_use_are_closed() {
        let endpoints = endpoints();
        let kept = || endpoints.clients.lock().unwrap().keys().map(|turn| turn.0).collect::<Vec<_>>();
        let first = endpoints.turn();
        let script = Script::new(|nth| async move { if nth < 2 { silent().await } else { Ok(nth) } });
        endpoints.call(Instant::now(), |client| script.ask(client)).await.unwrap();
        endpoints.client(first.after(3)).await.unwrap();
        assert_eq!(kept(), [first.after(2).0, first.after(3).0], "of those that were silent none is kept");
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
