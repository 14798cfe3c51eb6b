//! When to dial again, when a heartbeat is due, and how long the coordinator may be silent.
use std::collections::VecDeque;
use std::time::Duration;

use kapell_proto::v1::Welcome;
use tokio::time::Instant;

use crate::limits::{RETRY_FIRST, RETRY_LAST};

/// What the coordinator demands, proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) heartbeat: Duration,
    pub(crate) lease: Duration,
}

/// Why the demands of a coordinator cannot be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a lease of {lease_ms} ms does not hold three heartbeats of {heartbeat_ms} ms, or is longer than a day; \
     correct the coordinator"
)]
pub(crate) struct BadTerms {
    heartbeat_ms: u64,
    lease_ms: u64,
}

impl TryFrom<&Welcome> for Terms {
    type Error = BadTerms;

    fn try_from(welcome: &Welcome) -> Result<Terms, BadTerms> {
        let Welcome { heartbeat_ms, lease_ms, .. } = *welcome;
        if heartbeat_ms == 0 || heartbeat_ms.saturating_mul(3) > lease_ms || lease_ms > LEASE_MS_MAX {
            return Err(BadTerms { heartbeat_ms, lease_ms });
        }
        Ok(Terms { heartbeat: Duration::from_millis(heartbeat_ms), lease: Duration::from_millis(lease_ms) })
    }
}

/// Whoever would wait longer for a dead worker has mistyped.
const LEASE_MS_MAX: u64 = 24 * 3600 * 1000;
/// Heartbeats that are not answered yet are remembered up to this number; more do not fit in any lease.
const HEARTBEATS_MAX: usize = 64;

/// How a session stands.
#[derive(Debug)]
pub(crate) struct State {
    retry: Duration,
    terms: Option<Terms>,
    /// From when the lease counts. `None`: there is nothing to lose.
    held_since: Option<Instant>,
    /// When the hello or the last heartbeats went out.
    sent: VecDeque<(u64, Instant)>,
}

impl State {
    pub(crate) fn new() -> State {
        State { retry: RETRY_FIRST, terms: None, held_since: None, sent: VecDeque::new() }
    }

    /// How long to wait before dialing again: twice as long each time. `jitter` is drawn below 1024.
    pub(crate) fn next_retry(&mut self, jitter: u64) -> Duration {
        let base = self.retry;
        self.retry = (base * 2).min(RETRY_LAST);
        // Between three quarters of it and all of it, so that many workers do not come back at once.
        base.mul_f64(0.75 + 0.25 * (jitter.min(1023) as f64 / 1023.0))
    }

    /// The session is open; the hello went out at `hello`.
    pub(crate) fn welcomed(&mut self, terms: Terms, hello: Instant) {
        self.terms = Some(terms);
        self.held_since = Some(hello);
        self.sent.clear();
    }

    /// The connection has held for a while; the next failure begins from the first delay again.
    pub(crate) fn proved(&mut self) {
        self.retry = RETRY_FIRST;
    }

    pub(crate) fn heartbeat_sent(&mut self, sent_ms: u64, now: Instant) {
        if self.sent.len() >= HEARTBEATS_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((sent_ms, now));
    }

    /// The coordinator answered the heartbeat of that time. It knew then that the worker lives, so its patience
    /// counts from when the heartbeat was sent at the earliest.
    pub(crate) fn heartbeat_answered(&mut self, sent_ms: u64, now: Instant) {
        let sent = self.sent.iter().rev().find(|(of, _)| *of == sent_ms).map(|(_, at)| *at);
        // One that answers nothing says only that the coordinator is there.
        let since = sent.unwrap_or(now);
        self.held_since = self.held_since.map(|before| before.max(since));
    }

    /// Time that passed while nothing was read, for a reason of our own, is not the coordinator's silence.
    pub(crate) fn excuse(&mut self, now: Instant) {
        self.held_since = self.held_since.map(|_| now);
    }

    /// When everything that belongs to the coordinator must be stopped.
    pub(crate) fn lease_ends(&self) -> Option<Instant> {
        Some(self.held_since? + self.terms?.lease)
    }

    pub(crate) fn lease_lost(&mut self) {
        self.held_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(heartbeat_ms: u64, lease_ms: u64) -> Result<Terms, BadTerms> {
        Terms::try_from(&Welcome { heartbeat_ms, lease_ms, definitions: None })
    }

    #[test]
    fn a_lease_holds_three_heartbeats() {
        assert!(terms(100, 300).is_ok());
        assert_eq!(terms(100, 299), Err(BadTerms { heartbeat_ms: 100, lease_ms: 299 }));
        assert!(terms(0, 300).is_err());
        assert!(terms(1, LEASE_MS_MAX).is_ok());
        assert!(terms(1, LEASE_MS_MAX + 1).is_err());
        assert!(terms(u64::MAX, u64::MAX).is_err());
    }

    #[test]
    fn retries_are_spaced_up_to_a_second() {
        let mut state = State::new();
        let full: Vec<u128> = (0..8).map(|_| state.next_retry(1023).as_millis()).collect();
        assert_eq!(full, [20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(state.next_retry(0).as_millis(), 750);
        state.proved();
        assert_eq!(state.next_retry(0).as_millis(), 15);
    }

    #[test]
    fn the_lease_counts_from_when_the_answered_heartbeat_was_sent() {
        let (mut state, start) = (State::new(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(state.lease_ends(), None);
        state.welcomed(terms(100, 300).unwrap(), at(0));
        assert_eq!(state.lease_ends(), Some(at(300)));
        state.heartbeat_sent(7, at(100));
        state.heartbeat_sent(8, at(200));
        state.heartbeat_answered(7, at(290));
        assert_eq!(state.lease_ends(), Some(at(400)));
        state.heartbeat_answered(99, at(350));
        assert_eq!(state.lease_ends(), Some(at(650)));
        state.heartbeat_answered(8, at(360));
        assert_eq!(state.lease_ends(), Some(at(650)), "a late answer does not shorten it");
        state.lease_lost();
        state.heartbeat_answered(8, at(700));
        assert_eq!(state.lease_ends(), None, "what is lost stays lost until the next welcome");
    }
}
