//! A cluster of one process.
//!
//! Owns: epochs that count up. Never: stores anything or talks to anybody.
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use kapell_model::{Epoch, Name, ShardId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{
    AcquireError, Cluster, JoinError, Lost, Member, Members, Owner, Owners, Revisions, Session, SessionError,
};

/// How far off "for ever" is. Longer than a process lives, and within what an `Instant` can say everywhere.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// This process owns everything. Whoever joins takes the place of the one before.
#[derive(Debug, Default)]
pub struct Solo {
    shared: Arc<Shared>,
}

/// What outlives a session.
#[derive(Debug, Default)]
struct Shared {
    /// The epoch handed out last, or the highest floor.
    epoch: Mutex<u64>,
    revisions: watch::Sender<Arc<Revisions>>,
    /// The watch of the session that is not lost, if there is one.
    current: Mutex<Option<watch::Sender<Option<Lost>>>>,
}

impl Solo {
    /// Nobody has joined yet.
    #[must_use]
    pub fn new() -> Solo {
        Solo::default()
    }
}

impl Cluster for Solo {
    fn join(&self, member: Member, floor: Epoch) -> BoxFuture<'_, Result<Arc<dyn Session>, JoinError>> {
        {
            let mut epoch = self.shared.epoch.lock().unwrap_or_else(PoisonError::into_inner);
            *epoch = floor.0.max(*epoch);
        }
        let lost = watch::Sender::new(None);
        let mut current = self.shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = current.replace(lost.clone()) {
            end(&former, Lost::Replaced { address: member.address.clone() });
        }
        let members = Members::from([(member.node.clone(), member.clone())]);
        let session: Arc<dyn Session> = Arc::new(SoloSession {
            shared: Arc::clone(&self.shared),
            member,
            members: watch::Sender::new(Arc::new(members)),
            owners: watch::Sender::default(),
            lost,
        });
        ready(Ok(session)).boxed()
    }
}

/// The first reason stays.
fn end(lost: &watch::Sender<Option<Lost>>, why: Lost) {
    lost.send_if_modified(|lost| {
        let first = lost.is_none();
        if first {
            *lost = Some(why);
        }
        first
    });
}

struct SoloSession {
    shared: Arc<Shared>,
    member: Member,
    members: watch::Sender<Arc<Members>>,
    owners: watch::Sender<Arc<Owners>>,
    lost: watch::Sender<Option<Lost>>,
}

impl SoloSession {
    fn live(&self) -> Result<(), Lost> {
        self.lost.borrow().clone().map_or(Ok(()), Err)
    }

    fn acquire_now(&self, shard: ShardId) -> Result<Epoch, AcquireError> {
        self.live()?;
        let mut last = self.shared.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = self.owners.borrow().get(&shard) {
            return Ok(owner.epoch);
        }
        *last += 1;
        let epoch = Epoch(*last);
        let owner = Owner { node: self.member.node.clone(), address: self.member.address.clone(), epoch };
        self.owners.send_modify(|owners| {
            Arc::make_mut(owners).insert(shard, owner);
        });
        Ok(epoch)
    }

    fn release_now(&self, shard: ShardId, epoch: Epoch) -> Result<(), SessionError> {
        self.live()?;
        self.owners.send_if_modified(|owners| {
            let held = owners.get(&shard).is_some_and(|owner| owner.epoch == epoch);
            if held {
                Arc::make_mut(owners).remove(&shard);
            }
            held
        });
        Ok(())
    }

    fn bump_now(&self, name: &Name) -> Result<(), SessionError> {
        self.live()?;
        self.shared.revisions.send_modify(|revisions| {
            *Arc::make_mut(revisions).entry(name.clone()).or_insert(0) += 1;
        });
        Ok(())
    }

    fn retire_now(&self) -> Result<(), SessionError> {
        self.live()?;
        self.members.send_modify(|members| {
            Arc::make_mut(members).values_mut().for_each(|member| member.leaving = true);
        });
        Ok(())
    }

    fn leave_now(&self) {
        end(&self.lost, Lost::Left);
        self.owners.send_replace(Arc::default());
    }
}

impl Session for SoloSession {
    fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.subscribe()
    }

    fn owners(&self) -> watch::Receiver<Arc<Owners>> {
        self.owners.subscribe()
    }

    fn revisions(&self) -> watch::Receiver<Arc<Revisions>> {
        self.shared.revisions.subscribe()
    }

    fn lost(&self) -> watch::Receiver<Option<Lost>> {
        self.lost.subscribe()
    }

    fn valid_until(&self) -> Instant {
        Instant::now() + FOR_EVER
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        ready(self.live().map_err(SessionError::from)).boxed()
    }

    fn retire(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        ready(self.retire_now()).boxed()
    }

    fn acquire(&self, shard: ShardId) -> BoxFuture<'_, Result<Epoch, AcquireError>> {
        ready(self.acquire_now(shard)).boxed()
    }

    fn release(&self, shard: ShardId, epoch: Epoch) -> BoxFuture<'_, Result<(), SessionError>> {
        ready(self.release_now(shard, epoch)).boxed()
    }

    fn bump(&self, name: &Name) -> BoxFuture<'_, Result<(), SessionError>> {
        ready(self.bump_now(name)).boxed()
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        self.leave_now();
        ready(Ok(())).boxed()
    }
}
