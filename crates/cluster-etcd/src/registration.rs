//! One registration, as its handle and its jobs share it.
//!
//! Owns: how long it is valid, whether it is lost, what it shows. Never: talks to etcd.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kapell_cluster::{Lost, Member, Members, Owners, Revisions};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::endpoints::Endpoints;
use crate::keys::Keys;
use crate::view::{Base, View};

/// This part of a lease is not used: clocks of two machines may not run equally fast, and who hears that the lease is
/// over needs a moment to stop. Why: docs/adr/0008-cluster-in-etcd.md
const MARGIN_PART: u32 = 10;

/// What was granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(crate) id: i64,
    /// As granted, which may be longer than asked.
    pub(crate) ttl: Duration,
    /// When it was asked for.
    pub(crate) sent: Instant,
}

impl Lease {
    /// How long a sign of life that was sent now lasts.
    fn lasts(&self) -> Duration {
        self.ttl - self.ttl / MARGIN_PART
    }
}

/// A node under its lease.
pub(crate) struct Registration {
    pub(crate) keys: Keys,
    pub(crate) member: Member,
    pub(crate) lease: Lease,
    pub(crate) endpoints: Arc<Endpoints>,
    until: Mutex<Instant>,
    base: Mutex<Base>,
    lost: watch::Sender<Option<Lost>>,
    pub(crate) members: watch::Sender<Arc<Members>>,
    pub(crate) owners: watch::Sender<Arc<Owners>>,
    pub(crate) revisions: watch::Sender<Arc<Revisions>>,
}

impl Registration {
    pub(crate) fn new(
        keys: Keys,
        member: Member,
        lease: Lease,
        endpoints: Arc<Endpoints>,
        view: &View,
    ) -> Registration {
        let registration = Registration {
            keys,
            member,
            lease,
            endpoints,
            until: Mutex::new(lease.sent + lease.lasts()),
            base: Mutex::default(),
            lost: watch::Sender::new(None),
            members: watch::Sender::default(),
            owners: watch::Sender::default(),
            revisions: watch::Sender::default(),
        };
        registration.show(view);
        registration
    }

    pub(crate) fn valid_until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sign of life that was sent at `sent` was answered. What counts is the sending: etcd's clock may have begun
    /// any time after it.
    pub(crate) fn renewed(&self, sent: Instant) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that nobody sees the end pass and then move on.
        if Instant::now() < *until {
            *until = (*until).max(sent + self.lease.lasts());
        } else {
            self.lose(Lost::Expired);
        }
    }

    /// Refuses once the session is over, and notices that it is.
    pub(crate) fn live(&self) -> Result<(), Lost> {
        if Instant::now() >= self.valid_until() {
            self.lose(Lost::Expired);
        }
        self.lost.borrow().clone().map_or(Ok(()), Err)
    }

    /// The first reason stays.
    pub(crate) fn lose(&self, why: Lost) {
        let node = &self.member.node;
        self.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            if first {
                if why == Lost::Left {
                    tracing::info!(%node, "the node leaves the cluster");
                } else {
                    tracing::warn!(%node, reason = %why, "the session in the cluster is over");
                }
                *lost = Some(why);
            }
            first
        });
    }

    pub(crate) fn lost(&self) -> watch::Receiver<Option<Lost>> {
        self.lost.subscribe()
    }

    /// Ends when the session is over.
    pub(crate) async fn over(&self) {
        // The sender lives as long as `self`.
        _ = self.lost().wait_for(Option::is_some).await;
    }

    /// Ends when nobody has moved the end of the validity before it came.
    pub(crate) async fn expired(&self) {
        loop {
            let until = self.valid_until();
            tokio::time::sleep_until(until).await;
            if self.valid_until() == until {
                return;
            }
        }
    }

    pub(crate) fn base(&self) -> Base {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A base that was read. One that was read earlier does not take the place of a later one.
    pub(crate) fn learn(&self, base: Base) {
        let mut known = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if base.changed > known.changed {
            *known = base;
        }
    }

    /// Shows what is new in `view`, and wakes nobody for what is not.
    pub(crate) fn show(&self, view: &View) {
        self.learn(view.base);
        show(&self.members, &view.members);
        show(&self.owners, &view.owners);
        show(&self.revisions, &view.revisions);
    }
}

fn show<T: PartialEq + Clone>(shown: &watch::Sender<Arc<T>>, now: &T) {
    shown.send_if_modified(|shown| {
        let new = **shown != *now;
        if new {
            *shown = Arc::new(now.clone());
        }
        new
    });
}

#[cfg(test)]
mod tests {
    use kapell_cluster::NodeName;
    use kapell_model::Name;
    use kapell_runtime::SeededEntropy;
    use tokio::time::advance;

    use super::*;
    use crate::options::EtcdOptions;

    /// With a lease of ten seconds, of which nine are used.
    fn registration() -> Registration {
        let options = EtcdOptions::new(vec!["a:1".to_owned()], Name::new("test").unwrap());
        let keys = Keys::new("/kapell", &options.cluster);
        let node = NodeName::new("a").unwrap();
        let member = Member::new(node.clone(), "a:7700".to_owned(), "1".to_owned());
        let lease = Lease { id: 7, ttl: Duration::from_secs(10), sent: Instant::now() };
        let endpoints = Arc::new(Endpoints::new(&options, &SeededEntropy::new(1)));
        Registration::new(keys.clone(), member, lease, endpoints, &View::new(keys, node, 7))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn validity_counts_from_the_sending_and_leaves_a_margin() {
        let registration = registration();
        let start = Instant::now();
        assert_eq!(registration.valid_until(), start + SECOND * 9);
        advance(SECOND * 3).await;
        let sent = Instant::now();
        advance(SECOND * 2).await;
        registration.renewed(sent);
        assert_eq!(registration.valid_until(), start + SECOND * 12, "not five and nine");
        registration.renewed(start);
        assert_eq!(registration.valid_until(), start + SECOND * 12, "a late answer takes nothing back");
        assert_eq!(registration.live(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_too_late_revives_nothing() {
        let registration = registration();
        let sent = Instant::now() + SECOND * 8;
        advance(SECOND * 9).await;
        registration.renewed(sent);
        assert_eq!(*registration.lost().borrow(), Some(Lost::Expired));
        assert_eq!(registration.live(), Err(Lost::Expired));
        assert!(registration.valid_until() <= Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_noticed_without_any_job() {
        let registration = registration();
        advance(SECOND * 9 - Duration::from_millis(1)).await;
        assert_eq!(registration.live(), Ok(()));
        advance(Duration::from_millis(1)).await;
        assert_eq!(registration.live(), Err(Lost::Expired));
        registration.lose(Lost::Left);
        assert_eq!(registration.live(), Err(Lost::Expired), "the first reason stays");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_end_follows_it() {
        let registration = registration();
        let start = Instant::now();
        let renew = async {
            // why: the time itself is renewed, and it is virtual
            tokio::time::sleep(SECOND * 5).await;
            registration.renewed(start + SECOND * 5);
        };
        tokio::join!(registration.expired(), renew);
        assert_eq!(Instant::now(), start + SECOND * 14);
    }

    #[tokio::test]
    async fn nobody_is_woken_without_a_change() {
        let registration = registration();
        let (members, owners) = (registration.members.subscribe(), registration.owners.subscribe());
        let mut view = View::new(registration.keys.clone(), registration.member.node.clone(), 7);
        registration.show(&view);
        assert!(!members.has_changed().unwrap());
        view.members.insert(registration.member.node.clone(), registration.member.clone());
        registration.show(&view);
        assert!(members.has_changed().unwrap() && !owners.has_changed().unwrap());
    }

    #[tokio::test]
    async fn an_older_base_does_not_take_the_place_of_a_newer_one() {
        let registration = registration();
        registration.learn(Base { value: 9, changed: 4 });
        registration.learn(Base { value: 5, changed: 3 });
        assert_eq!(registration.base(), Base { value: 9, changed: 4 });
    }
}
