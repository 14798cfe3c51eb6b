//! The cluster itself: sessions and their leases, members, owners of shards, epochs.
//!
//! Owns: who has what, and until when. Never: believes a node; a lease ends when its signs of life stay away.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kapell_cluster::{JoinError, Lost, Member, Members, NodeName, Owner, Owners, Revisions};
use kapell_model::{Epoch, Name, ShardId};

use super::post::{Post, Store};
use super::{Stores, Witness};

/// How often it looks for leases that have ended.
const LOOK_EVERY_MS: u64 = 100;

/// Names a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lease(u64);

/// All that a watch shows, at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// A later one has a larger number.
    pub(super) no: u64,
    pub(super) members: Arc<Members>,
    pub(super) owners: Arc<Owners>,
    pub(super) revisions: Arc<Revisions>,
}

/// What a session hears unasked.
pub(super) type Hear = Arc<dyn Fn(Result<View, Lost>) + Send + Sync>;

/// How a session is forgotten that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forget {
    /// Its lease ends early, as after a leader of the store that hung.
    Ended,
    /// Somebody deletes its record.
    Removed,
}

/// Why a shard is not given.
pub(super) enum Refusal {
    HeldBy(Owner),
    Lost(Lost),
}

struct Session {
    host: &'static str,
    member: Member,
    ends_ms: u64,
    hear: Hear,
}

/// See the module.
pub(super) struct Registry {
    post: Post,
    lease_ms: u64,
    witness: Arc<dyn Witness>,
    looked_ms: u64,
    count: u64,
    /// The epoch handed out last, or the highest floor.
    epoch: Epoch,
    sessions: BTreeMap<Lease, Session>,
    /// Why others are over.
    over: BTreeMap<Lease, Lost>,
    held: BTreeMap<ShardId, Lease>,
    view: View,
}

impl Registry {
    pub(super) fn new(post: Post, lease_ms: u64, witness: Arc<dyn Witness>) -> Registry {
        Registry {
            post,
            lease_ms,
            witness,
            looked_ms: 0,
            count: 0,
            epoch: Epoch(0),
            sessions: BTreeMap::new(),
            over: BTreeMap::new(),
            held: BTreeMap::new(),
            view: View::default(),
        }
    }

    /// Gives up the sessions whose time has passed.
    pub(super) fn expire(&mut self, now_ms: u64) {
        if now_ms < self.looked_ms + LOOK_EVERY_MS {
            return;
        }
        self.looked_ms = now_ms;
        let ended = self.sessions.iter().filter(|(_, session)| session.ends_ms <= now_ms);
        let ended: Vec<Lease> = ended.map(|(lease, _)| *lease).collect();
        for lease in ended {
            self.end(lease, Lost::Expired);
        }
    }

    pub(super) fn forget(&mut self, host: &str, how: Forget) -> bool {
        let its = self.sessions.iter().find(|(_, session)| session.host == host);
        let Some(lease) = its.map(|(lease, _)| *lease) else { return false };
        let why = match how {
            Forget::Ended => Lost::Expired,
            Forget::Removed => Lost::Removed,
        };
        self.end(lease, why);
        true
    }

    pub(super) fn join(
        &mut self,
        host: &'static str,
        member: Member,
        floor: Epoch,
        hear: Hear,
    ) -> Result<(Lease, View), JoinError> {
        self.epoch = self.epoch.max(floor);
        let former = self.sessions.iter().find(|(_, session)| session.member.node == member.node);
        if let Some((lease, session)) = former.map(|(lease, session)| (*lease, session)) {
            let address = session.member.address.clone();
            if address != member.address {
                let retry_after = Duration::from_millis(self.lease_ms);
                return Err(JoinError::NameTaken { node: member.node, address, retry_after });
            }
            self.end(lease, Lost::Replaced { address });
        }
        self.count += 1;
        let lease = Lease(self.count);
        self.witness.saw(Store::Cluster, &format!("{} joins", member.node));
        Arc::make_mut(&mut self.view.members).insert(member.node.clone(), member.clone());
        let ends_ms = self.post.now_ms() + self.lease_ms;
        self.sessions.insert(lease, Session { host, member, ends_ms, hear });
        self.changed();
        Ok((lease, self.view.clone()))
    }

    /// A sign of life.
    pub(super) fn keep(&mut self, lease: Lease) -> Result<View, Lost> {
        let ends_ms = self.post.now_ms() + self.lease_ms;
        self.live(lease)?.ends_ms = ends_ms;
        Ok(self.view.clone())
    }

    pub(super) fn acquire(&mut self, lease: Lease, shard: ShardId) -> Result<Epoch, Refusal> {
        let Member { node, address, .. } = self.live(lease).map_err(Refusal::Lost)?.member.clone();
        if let Some(owner) = self.view.owners.get(&shard) {
            let is_its = self.held.get(&shard) == Some(&lease);
            return if is_its { Ok(owner.epoch) } else { Err(Refusal::HeldBy(owner.clone())) };
        }
        self.epoch.0 += 1;
        let epoch = self.epoch;
        self.witness.saw(Store::Cluster, &format!("{node} is given shard {shard} under {epoch}"));
        self.held.insert(shard, lease);
        Arc::make_mut(&mut self.view.owners).insert(shard, Owner { node, address, epoch });
        self.changed();
        Ok(epoch)
    }

    pub(super) fn release(&mut self, lease: Lease, shard: ShardId, epoch: Epoch) -> Result<(), Lost> {
        self.live(lease)?;
        let is_its = self.held.get(&shard) == Some(&lease);
        if is_its && self.view.owners.get(&shard).is_some_and(|owner| owner.epoch == epoch) {
            self.witness.saw(Store::Cluster, &format!("shard {shard} is free again, under {epoch} so far"));
            self.free(shard);
            self.changed();
        }
        Ok(())
    }

    pub(super) fn bump(&mut self, lease: Lease, name: Name) -> Result<(), Lost> {
        self.live(lease)?;
        *Arc::make_mut(&mut self.view.revisions).entry(name).or_default() += 1;
        self.changed();
        Ok(())
    }

    pub(super) fn retire(&mut self, lease: Lease) -> Result<(), Lost> {
        let session = self.live(lease)?;
        session.member.leaving = true;
        let member = session.member.clone();
        self.witness.saw(Store::Cluster, &format!("{} is leaving", member.node));
        Arc::make_mut(&mut self.view.members).insert(member.node.clone(), member);
        self.changed();
        Ok(())
    }

    pub(super) fn leave(&mut self, lease: Lease) {
        self.end(lease, Lost::Left);
    }

    fn live(&mut self, lease: Lease) -> Result<&mut Session, Lost> {
        let over = self.over.get(&lease).cloned().unwrap_or(Lost::Removed);
        self.sessions.get_mut(&lease).ok_or(over)
    }

    fn free(&mut self, shard: ShardId) {
        self.held.remove(&shard);
        Arc::make_mut(&mut self.view.owners).remove(&shard);
    }

    fn end(&mut self, lease: Lease, why: Lost) {
        let Some(session) = self.sessions.remove(&lease) else { return };
        self.witness.saw(Store::Cluster, &format!("the session of {} is over: {why}", session.member.node));
        Arc::make_mut(&mut self.view.members).remove(&session.member.node);
        let its = self.held.iter().filter(|(_, holder)| **holder == lease);
        let its: Vec<ShardId> = its.map(|(shard, _)| *shard).collect();
        its.into_iter().for_each(|shard| self.free(shard));
        self.over.insert(lease, why.clone());
        self.tell(&session, Err(why));
        self.changed();
    }

    /// Everybody hears of it, each when the news reach it.
    fn changed(&mut self) {
        self.view.no += 1;
        for session in self.sessions.values() {
            self.tell(session, Ok(self.view.clone()));
        }
    }

    fn tell(&self, session: &Session, news: Result<View, Lost>) {
        let hear = Arc::clone(&session.hear);
        self.post.tell(session.host, Store::Cluster, Box::new(move || hear(news)));
    }
}

impl Stores {
    /// Who is a member, as the cluster itself knows.
    #[must_use]
    pub fn members(&self) -> Vec<NodeName> {
        super::locked(&self.registry).view.members.keys().cloned().collect()
    }
}
