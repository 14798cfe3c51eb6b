//! Leases: until when a coordinator counts on this connector.
//!
//! Owns: the last moment at which calls of one session may be begun, and which session's a call is. Never: sends a
//! heartbeat.
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// The lease of one session; clones are the same lease.
#[derive(Clone, Debug)]
pub(crate) struct Lease(Arc<Mutex<Option<Instant>>>);

impl Lease {
    /// Held until `until`.
    pub(crate) fn until(until: Instant) -> Lease {
        Lease(Arc::new(Mutex::new(Some(until))))
    }

    /// Held until `until` at least, unless it was lost.
    pub(crate) fn renew(&self, until: Instant) {
        let mut held = self.lock();
        *held = held.map(|before| before.max(until));
    }

    /// Lost for good: nothing more is begun under it.
    pub(crate) fn lose(&self) {
        *self.lock() = None;
    }

    /// One that was never held.
    pub(crate) fn none() -> Lease {
        Lease(Arc::default())
    }

    /// Whether a call may be begun now.
    pub(crate) fn is_held(&self) -> bool {
        self.lock().is_some_and(|until| Instant::now() < until)
    }

    /// When it ends; `None`: it was lost.
    pub(crate) fn end(&self) -> Option<Instant> {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lease that an order is held under. It follows the order to the session that counts on it now; clones are the same
/// tenure.
#[derive(Clone, Debug)]
pub(crate) struct Tenure(Arc<Mutex<Lease>>);

impl Tenure {
    /// Under this lease.
    pub(crate) fn under(lease: Lease) -> Tenure {
        Tenure(Arc::new(Mutex::new(lease)))
    }

    /// Under another lease from now on.
    pub(crate) fn move_to(&self, lease: Lease) {
        *self.lock() = lease;
    }

    /// Whether the order may be begun now.
    pub(crate) fn is_held(&self) -> bool {
        self.lock().is_held()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lease> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_unless_it_is_renewed_and_never_comes_back_once_lost() {
        let lease = Lease::until(Instant::now() + Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(900)).await;
        lease.renew(Instant::now() + Duration::from_secs(1));
        lease.renew(Instant::now());
        tokio::time::advance(Duration::from_millis(900)).await;
        assert!(lease.is_held());
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(!lease.is_held());
        lease.renew(Instant::now() + Duration::from_secs(1));
        assert!(lease.is_held());
        lease.lose();
        lease.renew(Instant::now() + Duration::from_secs(1));
        assert!(!lease.is_held() && lease.end().is_none());
    }
    #[tokio::test(start_paused = true)]
    async fn an_order_may_be_begun_under_the_lease_that_it_has_moved_to() {
        let [first, second] = [(); 2].map(|()| Lease::until(Instant::now() + Duration::from_secs(1)));
        let (tenure, other) = (Tenure::under(first.clone()), Tenure::under(first.clone()));
        let same = tenure.clone();
        tenure.move_to(second.clone());
        first.lose();
        assert!(same.is_held() && !other.is_held());
        second.lose();
        assert!(!same.is_held());
    }
}
