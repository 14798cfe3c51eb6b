//! Knobs that make an outside system behave badly, in the ways that real ones do.
//!
//! Owns: how many of the next requests go wrong, where in the request, and how.
//! Never: does or undoes the work itself.
//!
//! A request meets the knobs in this order: latency, throttle, unavailable, drop before; then the work is done; then
//! answer delay, error after, drop after. A request takes at most one count on each side of the work, and a request
//! that the service itself refused takes none after it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// The longest latency or answer delay that may be set.
pub const FAULT_DELAY_MAX_MS: u64 = 600_000;

/// Which requests the knobs touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Only those that change something.
    #[default]
    Writes,
    /// Reads too.
    All,
}

/// What goes wrong from now on. The default is: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Waiting time before the work. A client that goes away meanwhile leaves it undone.
    pub latency_ms: u64,
    /// Waiting time between the work, which is done, and its answer.
    pub answer_delay_ms: u64,
    /// So many of the next requests are told to come back later: HTTP 429 with `Retry-After`, SMTP 450. Not done.
    pub throttle_next: u32,
    /// The `Retry-After` of throttled requests.
    pub retry_after_s: u32,
    /// So many of the next requests are refused for now: HTTP 503, SMTP 451. Not done.
    pub unavailable_next: u32,
    /// So many of the next requests lose their connection before the work. Not done, which the client can't know.
    pub drop_before_next: u32,
    /// So many of the next requests are done and yet answered with an error: HTTP 500, SMTP 451.
    pub error_after_next: u32,
    /// So many of the next requests are done and then lose their connection without an answer.
    pub drop_after_next: u32,
    /// Which requests are meant.
    pub reach: Reach,
}

/// The faults can't be set so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// A delay is over [`FAULT_DELAY_MAX_MS`].
    #[error("a delay is at most {FAULT_DELAY_MAX_MS} ms")]
    DelayTooLong,
}

/// A handle to the faults of one running service. Clones turn the same knobs.
#[derive(Clone, Debug, Default)]
pub struct Knobs(Arc<Mutex<Faults>>);

/// What a request does to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// What happens to a request before the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Work,
    Throttle { retry_after_s: u32 },
    Unavailable,
    Drop,
}

/// What happens to a request after the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Answer,
    Error,
    Drop,
}

impl Knobs {
    /// Replaces all faults, counts included.
    ///
    /// # Errors
    /// A delay is over its limit; nothing changed.
    pub fn set(&self, faults: Faults) -> Result<(), FaultError> {
        if faults.latency_ms.max(faults.answer_delay_ms) > FAULT_DELAY_MAX_MS {
            return Err(FaultError::DelayTooLong);
        }
        *self.lock() = faults;
        Ok(())
    }

    /// The faults as they stand; counts show what is left.
    #[must_use]
    pub fn get(&self) -> Faults {
        self.lock().clone()
    }

    pub(crate) fn latency(&self, access: Access) -> Duration {
        let faults = self.lock();
        if faults.touches(access) { Duration::from_millis(faults.latency_ms) } else { Duration::ZERO }
    }

    pub(crate) fn before(&self, access: Access) -> Before {
        let mut faults = self.lock();
        if !faults.touches(access) {
            return Before::Work;
        }
        if take(&mut faults.throttle_next) {
            return Before::Throttle { retry_after_s: faults.retry_after_s };
        }
        if take(&mut faults.unavailable_next) {
            return Before::Unavailable;
        }
        if take(&mut faults.drop_before_next) { Before::Drop } else { Before::Work }
    }

    /// What happens to the answer, and how long it waits first.
    pub(crate) fn after(&self, access: Access) -> (Duration, After) {
        let mut faults = self.lock();
        if !faults.touches(access) {
            return (Duration::ZERO, After::Answer);
        }
        let delay = Duration::from_millis(faults.answer_delay_ms);
        if take(&mut faults.error_after_next) {
            return (delay, After::Error);
        }
        let after = if take(&mut faults.drop_after_next) { After::Drop } else { After::Answer };
        (delay, after)
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        // Whole values only are written under this lock, so a panicked holder left a valid one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Faults {
    fn touches(&self, access: Access) -> bool {
        match (self.reach, access) {
            (Reach::All, Access::Read | Access::Write) | (Reach::Writes, Access::Write) => true,
            (Reach::Writes, Access::Read) => false,
        }
    }
}

fn take(count: &mut u32) -> bool {
    let any = *count > 0;
    *count = count.saturating_sub(1);
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_takes_one_count_on_each_side_of_the_work() {
        let knobs = Knobs::default();
        let faults = Faults {
            throttle_next: 1,
            retry_after_s: 7,
            unavailable_next: 1,
            drop_before_next: 1,
            error_after_next: 1,
            drop_after_next: 1,
            ..Faults::default()
        };
        knobs.set(faults).unwrap();
        assert_eq!(knobs.before(Access::Read), Before::Work);
        let before: Vec<_> = (0..4).map(|_| knobs.before(Access::Write)).collect();
        assert_eq!(
            before,
            [Before::Throttle { retry_after_s: 7 }, Before::Unavailable, Before::Drop, Before::Work]
        );
        let after: Vec<_> = (0..3).map(|_| knobs.after(Access::Write).1).collect();
        assert_eq!(after, [After::Error, After::Drop, After::Answer]);
        assert_eq!(knobs.get(), Faults { retry_after_s: 7, ..Faults::default() });
    }

    #[test]
    fn reads_are_touched_only_when_asked() {
        let knobs = Knobs::default();
        knobs
            .set(Faults { latency_ms: 5, unavailable_next: 1, reach: Reach::All, ..Faults::default() })
            .unwrap();
        assert_eq!(knobs.latency(Access::Read), Duration::from_millis(5));
        assert_eq!(knobs.before(Access::Read), Before::Unavailable);
    }

    #[test]
    fn a_delay_has_a_limit() {
        let knobs = Knobs::default();
        knobs.set(Faults { answer_delay_ms: FAULT_DELAY_MAX_MS, ..Faults::default() }).unwrap();
        let too_long = Faults { answer_delay_ms: FAULT_DELAY_MAX_MS + 1, ..Faults::default() };
        assert_eq!(knobs.set(too_long), Err(FaultError::DelayTooLong));
        assert_eq!(knobs.get().answer_delay_ms, FAULT_DELAY_MAX_MS);
    }
}
