//! The handle of one registration.
//!
//! Owns: the transactions that give a shard an owner and take it away. Never: believes that a shard is its own because
//! it once was: etcd decides, under the revision of the key.
use std::sync::Arc;

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kapell_cluster::{AcquireError, Lost, Member, Members, Owners, Revisions, Session, SessionError};
use kapell_model::{Epoch, Name, ShardId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::calls;
use crate::record::{self, OwnerRecord};
use crate::registration::Registration;
use crate::trouble::Trouble;
use crate::view::{self, Base};

/// Calls to different members of etcd that fit into the time of one request.
pub(crate) const TRIES: u32 = 3;

/// Its jobs end when it is dropped.
pub(crate) struct EtcdSession {
    pub(crate) registration: Arc<Registration>,
    /// Closed by dropping.
    pub(crate) _alive: watch::Sender<()>,
}

/// What came of one transaction.
enum Acquired {
    As(Epoch),
    /// The base was not the one that we knew.
    BaseMoved(Base),
}

impl EtcdSession {
    /// When to give up; not later than the session itself.
    fn deadline(&self) -> Instant {
        let patience = self.registration.endpoints.call_timeout() * TRIES;
        self.registration.valid_until().min(Instant::now() + patience)
    }

    fn acquire_error(&self, trouble: Trouble) -> AcquireError {
        match self.trouble(trouble) {
            SessionError::Lost(lost) => AcquireError::Lost(lost),
            SessionError::Unavailable { reason, retry_after } => {
                AcquireError::Unavailable { reason, retry_after }
            }
        }
    }

    fn trouble(&self, trouble: Trouble) -> SessionError {
        if trouble == Trouble::LeaseGone {
            self.registration.lose(Lost::Removed);
        }
        match self.registration.live() {
            Err(lost) => SessionError::Lost(lost),
            Ok(()) => SessionError::Unavailable {
                reason: trouble.into_reason(),
                retry_after: self.registration.endpoints.call_timeout(),
            },
        }
    }

    /// Reads the session's own record, which only a leader that most members follow lets a member answer.
    async fn ping_leader(&self) -> Result<(), SessionError> {
        self.registration.live()?;
        let Registration { keys, member, endpoints, .. } = &*self.registration;
        let own = calls::get(endpoints, &keys.member(&member.node), self.deadline()).await;
        self.check_own(own.map_err(|trouble| self.trouble(trouble))?.all.first())?;
        Ok(())
    }

    /// Writes the session's own record anew, and no other's.
    async fn retire_member(&self) -> Result<(), SessionError> {
        self.registration.live()?;
        let Registration { keys, member, lease, endpoints, .. } = &*self.registration;
        let own = keys.member(&member.node);
        let leaving = record::encode_member(&Member { leaving: true, ..member.clone() });
        let txn = Txn::new()
            .when([Compare::lease(own.as_str(), CompareOp::Equal, lease.id)])
            .and_then([TxnOp::put(own.as_str(), leaving, Some(PutOptions::new().with_lease(lease.id)))])
            .or_else([TxnOp::get(own.as_str(), None)]);
        let answer =
            calls::txn(endpoints, &txn, self.deadline()).await.map_err(|trouble| self.trouble(trouble))?;
        if !answer.succeeded() {
            self.check_own(calls::reads(&answer).pop().flatten().as_ref())?;
        }
        Ok(())
    }

    async fn acquire_shard(&self, shard: ShardId) -> Result<Epoch, AcquireError> {
        let until = self.deadline();
        loop {
            self.registration.live()?;
            let acquired = self.try_acquire(shard, until).await?;
            // The answer may have come after the end.
            self.registration.live()?;
            match acquired {
                Acquired::As(epoch) => return Ok(epoch),
                Acquired::BaseMoved(base) => self.registration.learn(base),
            }
            if Instant::now() >= until {
                return Err(self.acquire_error(Trouble::timeout()));
            }
        }
    }

    /// Makes the shard's key, if nobody has, for as long as our record is ours and epochs are counted from `base`. That
    /// key is never changed: the revision that made it is what makes the epoch.
    async fn try_acquire(&self, shard: ShardId, until: Instant) -> Result<Acquired, AcquireError> {
        let Registration { keys, member, lease, endpoints, .. } = &*self.registration;
        let base = self.registration.base();
        let (key, own, base_key) = (keys.shard(shard), keys.member(&member.node), keys.base());
        let value = OwnerRecord::new(member, base.value).encode();
        let txn = Txn::new()
            .when([
                calls::is_absent(&key),
                Compare::lease(own.as_str(), CompareOp::Equal, lease.id),
                calls::is_unchanged(&base_key, base.changed),
            ])
            .and_then([TxnOp::put(key.as_str(), value, Some(PutOptions::new().with_lease(lease.id)))])
            .or_else([key.as_str(), &own, &base_key].map(|key| TxnOp::get(key, None)));
        let answer =
            calls::txn(endpoints, &txn, until).await.map_err(|trouble| self.acquire_error(trouble))?;
        if answer.succeeded() {
            return Ok(Acquired::As(base.epoch(calls::revision(&answer))));
        }
        let mut reads = calls::reads(&answer).into_iter();
        let (held, own, base) = (reads.next().flatten(), reads.next().flatten(), reads.next().flatten());
        self.check_own(own.as_ref())?;
        match held {
            Some(held) => self.held(&key, &held),
            None => self.moved(&base_key, base.as_ref()),
        }
    }

    /// The session is over if the record is gone, or another's.
    fn check_own(&self, own: Option<&KeyValue>) -> Result<(), Lost> {
        let lost = match own {
            Some(own) if own.lease() == self.registration.lease.id => return Ok(()),
            Some(other) => match record::decode_member(other.value()) {
                Ok(member) => Lost::Replaced { address: member.address },
                Err(_) => Lost::Removed,
            },
            None => Lost::Removed,
        };
        self.registration.lose(lost);
        self.registration.live()
    }

    fn held(&self, key: &str, held: &KeyValue) -> Result<Acquired, AcquireError> {
        match view::owner(&calls::stored(held)) {
            Ok(owner) if held.lease() == self.registration.lease.id => Ok(Acquired::As(owner.epoch)),
            Ok(owner) => Err(AcquireError::HeldBy(owner)),
            Err(error) => Err(self.acquire_error(Trouble::Refused(format!("{key} is {error}")))),
        }
    }

    fn moved(&self, key: &str, base: Option<&KeyValue>) -> Result<Acquired, AcquireError> {
        let value = base.map(|base| record::decode_base(base.value()));
        match (base, value) {
            (Some(base), Some(Ok(value))) => {
                Ok(Acquired::BaseMoved(Base { value, changed: base.mod_revision() }))
            }
            (_, Some(Err(error))) => Err(self.acquire_error(Trouble::Refused(format!("{key} is {error}")))),
            (_, None) | (None, _) => {
                // Only whoever joins knows a floor to make it from.
                self.registration.lose(Lost::Removed);
                Err(self.acquire_error(Trouble::timeout()))
            }
        }
    }

    async fn release_shard(&self, shard: ShardId, epoch: Epoch) -> Result<(), SessionError> {
        self.registration.live()?;
        let Registration { keys, lease, endpoints, .. } = &*self.registration;
        let (key, until) = (keys.shard(shard), self.deadline());
        let found = calls::get(endpoints, &key, until).await.map_err(|trouble| self.trouble(trouble))?;
        let Some(held) = found.all.first() else { return Ok(()) };
        let owner = view::owner(&calls::stored(held));
        if held.lease() != lease.id || owner.is_ok_and(|owner| owner.epoch != epoch) {
            return Ok(());
        }
        let delete = TxnOp::delete(key.as_str(), None);
        let txn = Txn::new().when([calls::is_unchanged(&key, held.mod_revision())]).and_then([delete]);
        // If it did change, somebody released it.
        calls::txn(endpoints, &txn, until).await.map_err(|trouble| self.trouble(trouble))?;
        Ok(())
    }

    async fn bump_revision(&self, name: Name) -> Result<(), SessionError> {
        self.registration.live()?;
        let Registration { keys, member, endpoints, .. } = &*self.registration;
        let key = keys.revision(&name);
        // The revision of the change is the counter; who made it is for people. A second try counts once more.
        let txn = Txn::new().and_then([TxnOp::put(key, member.node.as_str(), None)]);
        calls::txn(endpoints, &txn, self.deadline()).await.map_err(|trouble| self.trouble(trouble))?;
        Ok(())
    }

    async fn leave_cluster(&self) -> Result<(), SessionError> {
        self.registration.lose(Lost::Left);
        let Registration { lease, endpoints, .. } = &*self.registration;
        let retry_after = endpoints.call_timeout();
        // By then the lease is over, whoever is told.
        let until = self.registration.valid_until();
        calls::revoke(endpoints, lease.id, until)
            .await
            .map_err(|trouble| SessionError::Unavailable { reason: trouble.into_reason(), retry_after })
    }
}

impl Session for EtcdSession {
    fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.registration.members.subscribe()
    }

    fn owners(&self) -> watch::Receiver<Arc<Owners>> {
        self.registration.owners.subscribe()
    }

    fn revisions(&self) -> watch::Receiver<Arc<Revisions>> {
        self.registration.revisions.subscribe()
    }

    fn lost(&self) -> watch::Receiver<Option<Lost>> {
        self.registration.lost()
    }

    fn valid_until(&self) -> Instant {
        self.registration.valid_until()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        self.ping_leader().boxed()
    }

    fn retire(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        self.retire_member().boxed()
    }

    fn acquire(&self, shard: ShardId) -> BoxFuture<'_, Result<Epoch, AcquireError>> {
        self.acquire_shard(shard).boxed()
    }

    fn release(&self, shard: ShardId, epoch: Epoch) -> BoxFuture<'_, Result<(), SessionError>> {
        self.release_shard(shard, epoch).boxed()
    }

    fn bump(&self, name: &Name) -> BoxFuture<'_, Result<(), SessionError>> {
        self.bump_revision(name.clone()).boxed()
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        self.leave_cluster().boxed()
    }
}
