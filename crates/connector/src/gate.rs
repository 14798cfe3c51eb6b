//! Turns: how many calls a connection makes at once and each second.
//!
//! Owns: the concurrency and the pace of one connection, and the queue before it. Never: makes a call.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kapell_model::definition::ConnectionLimits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

/// Calls that wait for one connection at once; more are refused.
pub const CALLS_WAITING_MAX: usize = 1_024;

/// What one connection lets through. Turns come in the order in which they were asked for.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: ConnectionLimits,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    pace: Mutex<Pace>,
}

/// When the next call may begin.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    next: Instant,
}

/// A turn; over when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// Why there was no turn. Nothing was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoTurn {
    /// Too many wait already.
    #[error("{CALLS_WAITING_MAX} calls wait for the connection already")]
    QueueFull,
    /// The turn did not come, or would not come, in time.
    #[error("the call was not begun in time: the connection is at its limits")]
    TooLate {
        /// When its pace would allow another call.
        retry_after: Option<Duration>,
    },
}

/// Counts one waiting call for as long as it lives.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gate {
    pub(crate) fn new(limits: ConnectionLimits) -> Gate {
        let places = usize::try_from(limits.concurrency.max(1)).unwrap_or(usize::MAX);
        let interval =
            limits.per_second.map_or(Duration::ZERO, |count| Duration::from_secs(1) / count.max(1));
        Gate {
            limits,
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            pace: Mutex::new(Pace { interval, next: Instant::now() }),
        }
    }

    pub(crate) fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    /// Waits for a turn until `begin_by`.
    pub(crate) async fn enter(&self, begin_by: Instant) -> Result<Turn, NoTurn> {
        let place = self.queue()?;
        let permit = timeout_at(begin_by, Arc::clone(&self.places).acquire_owned()).await;
        // The semaphore is never closed: both errors are a turn that did not come.
        let Ok(Ok(permit)) = permit else { return Err(NoTurn::TooLate { retry_after: None }) };
        let slot = self.reserve(begin_by)?;
        sleep_until(slot).await;
        drop(place);
        Ok(Turn(permit))
    }

    fn queue(&self) -> Result<Place<'_>, NoTurn> {
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= CALLS_WAITING_MAX {
            drop(place);
            return Err(NoTurn::QueueFull);
        }
        Ok(place)
    }

    /// The moment at which the next call may begin; takes it unless that is too late.
    fn reserve(&self, begin_by: Instant) -> Result<Instant, NoTurn> {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let slot = pace.next.max(now);
        if slot > begin_by {
            return Err(NoTurn::TooLate { retry_after: Some(slot - now) });
        }
        pace.next = slot + pace.interval;
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    fn gate(concurrency: u32, per_second: Option<u32>) -> Arc<Gate> {
        Arc::new(Gate::new(ConnectionLimits { concurrency, per_second }))
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_calls_at_once_than_the_limit_and_each_in_its_turn() {
        let gate = gate(3, None);
        let begin_by = Instant::now() + Duration::from_secs(3_600);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        join_all((0..30).map(|_| async {
            let turn = gate.enter(begin_by).await.unwrap();
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // why: the clock is paused; this is how long a call takes
            tokio::time::sleep(Duration::from_millis(10)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            drop(turn);
        }))
        .await;
        assert_eq!(most.into_inner(), 3);
        assert_eq!(gate.waiting.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_is_kept_in_any_second() {
        let gate = gate(100, Some(20));
        let (begun, begin_by) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        let times = join_all((0..50).map(|_| async {
            gate.enter(begin_by).await.unwrap();
            begun.elapsed()
        }))
        .await;
        for window in times.windows(21) {
            assert!(window[20] - window[0] >= Duration::from_millis(999), "{window:?}");
        }
        assert!(times[49] < Duration::from_millis(2_600), "the pace is used: {:?}", times[49]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_does_not_come_in_time_is_refused() {
        let busy = gate(1, None);
        let soon = Instant::now() + Duration::from_millis(50);
        let held = busy.enter(soon).await.unwrap();
        assert_eq!(busy.enter(soon).await.unwrap_err(), NoTurn::TooLate { retry_after: None });
        assert_eq!(Instant::now(), soon);
        drop(held);
        assert!(busy.enter(Instant::now()).await.is_ok(), "a free turn needs no time");
        let slow = gate(9, Some(1));
        assert!(slow.enter(Instant::now()).await.is_ok());
        let refused = slow.enter(Instant::now() + Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(refused, NoTurn::TooLate { retry_after: Some(Duration::from_secs(1)) });
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_has_a_limit() {
        let gate = gate(1, None);
        let begin_by = Instant::now() + Duration::from_secs(1);
        let held = gate.enter(begin_by).await.unwrap();
        let waiting = join_all((0..=CALLS_WAITING_MAX).map(|_| gate.enter(begin_by))).await;
        let full = waiting.iter().filter(|turn| matches!(turn, Err(NoTurn::QueueFull))).count();
        assert_eq!((full, waiting.len()), (1, CALLS_WAITING_MAX + 1));
        drop(held);
        assert!(gate.enter(Instant::now()).await.is_ok(), "nobody waits any more");
    }
}
