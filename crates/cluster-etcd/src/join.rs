//! How a node gets into the cluster.
//!
//! Owns: the base of the epochs, the lease, the node's record. Never: keeps any of them; that is for the jobs.
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, PutOptions, Txn, TxnOp, TxnResponse};
use kapell_cluster::{JoinError, Member};
use kapell_model::Epoch;
use tokio::time::Instant;

use crate::calls;
use crate::endpoints::Endpoints;
use crate::keys::Keys;
use crate::record::{self, Unreadable};
use crate::registration::{Lease, Registration};
use crate::trouble::Trouble;
use crate::view::{Base, View};

/// One attempt to join.
pub(crate) struct Joining {
    pub(crate) endpoints: Arc<Endpoints>,
    pub(crate) keys: Keys,
    pub(crate) member: Member,
    /// The lease that is asked for.
    pub(crate) ttl: Duration,
    /// When to give up.
    pub(crate) until: Instant,
}

/// Why a step was not done.
enum Failed {
    Trouble(Trouble),
    Join(JoinError),
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Failed {
        Failed::Trouble(trouble)
    }
}

impl Failed {
    fn unreadable(key: &str, error: &Unreadable) -> Failed {
        Failed::Join(JoinError::Refused { reason: format!("{key} is {error}; delete it if nobody needs it") })
    }
}

impl Joining {
    /// A registration, and what is stored as it was at one moment of it.
    pub(crate) async fn join(self, floor: Epoch) -> Result<(Registration, View), JoinError> {
        let retry_after = self.endpoints.call_timeout();
        match self.steps(floor).await {
            Ok(joined) => Ok(joined),
            Err(Failed::Join(error)) => Err(error),
            Err(Failed::Trouble(Trouble::Refused(reason))) => Err(JoinError::Refused { reason }),
            Err(Failed::Trouble(trouble @ (Trouble::Passing(_) | Trouble::LeaseGone))) => {
                Err(JoinError::Unavailable { reason: trouble.into_reason(), retry_after })
            }
        }
    }

    async fn steps(self, floor: Epoch) -> Result<(Registration, View), Failed> {
        self.make_base(floor).await?;
        let lease = self.grant().await?;
        self.register(&lease).await?;
        let found = calls::list(&self.endpoints, self.keys.root(), self.until).await?;
        let mut view = View::new(self.keys.clone(), self.member.node.clone(), lease.id);
        let all = found.all.iter().map(calls::stored);
        view.listed(found.revision, all).map_err(|lost| Trouble::Passing(lost.to_string()))?;
        let registration = Registration::new(self.keys, self.member, lease, self.endpoints, &view);
        registration.live().map_err(|lost| Trouble::Passing(lost.to_string()))?;
        Ok((registration, view))
    }

    /// Sees to it that every epoch from now on is larger than `floor`: in an etcd that is new, and in one that was set
    /// back to an older copy of its data.
    async fn make_base(&self, floor: Epoch) -> Result<(), Failed> {
        let key = self.keys.base();
        loop {
            let found = calls::get(&self.endpoints, &key, self.until).await?;
            let unchanged = match found.all.first() {
                None => calls::is_absent(&key),
                Some(kv) => {
                    let value = record::decode_base(kv.value());
                    let value = value.map_err(|error| Failed::unreadable(&key, &error))?;
                    let changed = kv.mod_revision();
                    if floor <= (Base { value, changed }).epoch(found.revision) {
                        return Ok(());
                    }
                    tracing::warn!(%floor, base = value, "etcd was set back; epochs go on above the floor");
                    calls::is_unchanged(&key, changed)
                }
            };
            let put = TxnOp::put(key.as_str(), record::encode_base(floor.0), None);
            self.txn(Txn::new().when([unchanged]).and_then([put])).await?;
        }
    }

    async fn grant(&self) -> Result<Lease, Failed> {
        let seconds = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
        // One that was granted without our hearing of it ends by itself.
        let grant = |mut client: Client| async move {
            let sent = Instant::now();
            client.lease_grant(seconds, None).await.map(|granted| (granted, sent))
        };
        let (granted, sent) = self.endpoints.call(self.until, grant).await?;
        let ttl = Duration::from_secs(granted.ttl().unsigned_abs());
        Ok(Lease { id: granted.id(), ttl, sent })
    }

    /// Writes the node's record, unless there is one that somebody else may be living by. A former record of this very
    /// node is written over, which tells its process, if it still lives; then its lease is ended, and with it all that
    /// it holds.
    async fn register(&self, lease: &Lease) -> Result<(), Failed> {
        let key = self.keys.member(&self.member.node);
        let attached = PutOptions::new().with_lease(lease.id);
        let put = TxnOp::put(key.as_str(), record::encode_member(&self.member), Some(attached));
        let (mut unchanged, mut former) = (calls::is_absent(&key), None);
        loop {
            let txn = Txn::new().when([unchanged]).and_then([put.clone()]);
            let answer = self.txn(txn.or_else([TxnOp::get(key.as_str(), None)])).await?;
            if answer.succeeded() {
                break;
            }
            match calls::reads(&answer).pop().flatten() {
                // Made by a try of which we did not hear.
                Some(found) if found.lease() == lease.id => break,
                Some(found) => {
                    let there = record::decode_member(found.value());
                    let there = there.map_err(|error| Failed::unreadable(&key, &error))?;
                    if there.address != self.member.address {
                        self.revoke(lease.id).await;
                        return Err(taken(there, lease.ttl));
                    }
                    former = Some(found.lease());
                    unchanged = calls::is_unchanged(&key, found.mod_revision());
                }
                None => (unchanged, former) = (calls::is_absent(&key), None),
            }
        }
        if let Some(former) = former {
            tracing::info!(node = %self.member.node, "taking over from a former process of this node");
            self.revoke(former).await;
        }
        Ok(())
    }

    /// If etcd is not reached, the lease ends when its time has passed.
    async fn revoke(&self, lease: i64) {
        if let Err(trouble) = calls::revoke(&self.endpoints, lease, self.until).await {
            tracing::warn!(reason = trouble.into_reason(), "a lease could not be ended and ends by itself");
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Trouble> {
        if Instant::now() >= self.until {
            // Others change what we want to change, again and again.
            return Err(Trouble::timeout());
        }
        calls::txn(&self.endpoints, &txn, self.until).await
    }
}

fn taken(by: Member, retry_after: Duration) -> Failed {
    let Member { node, address, .. } = by;
    Failed::Join(JoinError::NameTaken { node, address, retry_after })
}
