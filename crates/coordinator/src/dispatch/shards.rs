//! Which shards are here, as a desk knows it.
//!
//! Owns: under which epoch each is owned, and how long what was found in its journal may still be held by somebody.
//! Never: claims anything itself.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kapell_model::{Epoch, ShardId};
use kapell_wire::claim::ShardClaim;
use tokio::time::Instant;

use super::SessionId;

/// Which shards are here.
#[derive(Debug)]
pub(crate) struct Shards {
    /// Whoever lives and reaches this node comes within so long.
    lease: Duration,
    /// When the first one came.
    first_came: Option<Instant>,
    owned: BTreeMap<ShardId, Epoch>,
    /// Shards in whose journals something was found.
    adoption: BTreeMap<ShardId, Adoption>,
}

/// Somebody may come with what was found in the journal of a shard.
#[derive(Debug)]
struct Adoption {
    until: Instant,
    /// Who has said what they hold of it.
    answered: BTreeSet<SessionId>,
}

impl Shards {
    /// None is here.
    pub(crate) fn new(lease: Duration) -> Shards {
        Shards { lease, first_came: None, owned: BTreeMap::new(), adoption: BTreeMap::new() }
    }

    /// Somebody connected.
    pub(crate) fn came(&mut self, now: Instant) {
        self.first_came.get_or_insert(now);
    }

    /// The shard is here, and everybody is asked what they hold of it.
    pub(crate) fn own(&mut self, claim: ShardClaim) {
        self.owned.insert(claim.shard, claim.epoch);
        if let Some(adoption) = self.adoption.get_mut(&claim.shard) {
            adoption.answered.clear();
        }
    }

    /// The shard is not here any more.
    pub(crate) fn disown(&mut self, shard: ShardId) {
        self.owned.remove(&shard);
        self.adoption.remove(&shard);
    }

    /// Whether it is here.
    pub(crate) fn is_here(&self, shard: ShardId) -> bool {
        self.owned.contains_key(&shard)
    }

    /// As it is sent with what is handed out.
    pub(crate) fn epoch(&self, shard: ShardId) -> u64 {
        self.owned.get(&shard).map_or(0, |epoch| epoch.0)
    }

    /// All that are here.
    pub(crate) fn claims(&self) -> Vec<ShardClaim> {
        self.owned.iter().map(|(shard, epoch)| ShardClaim { shard: *shard, epoch: *epoch }).collect()
    }

    /// Something of the shard was found in the journal. However long recovery took, whoever holds it has a whole lease
    /// to come with it.
    pub(crate) fn found(&mut self, shard: ShardId, now: Instant) {
        let until = now + self.lease;
        let adoption = self.adoption.entry(shard);
        adoption.or_insert_with(|| Adoption { until, answered: BTreeSet::new() }).until = until;
    }

    /// Somebody has said what they hold of these.
    pub(crate) fn answered(&mut self, session: SessionId, shards: &[ShardId]) {
        for shard in shards {
            if let Some(adoption) = self.adoption.get_mut(shard) {
                adoption.answered.insert(session);
            }
        }
    }

    /// Whether somebody may still come with what was found.
    pub(crate) fn awaits(&self, shard: ShardId) -> bool {
        self.adoption.contains_key(&shard)
    }

    /// Shards for whose finds nobody will come any more; told once. The lease is over, or all `sessions` have answered
    /// and there is nobody else: the first one came so long ago that all who live have come. Somebody who cannot reach
    /// this node may still be at work on an attempt; it does not count any more when another is made.
    pub(crate) fn adopted(
        &mut self,
        now: Instant,
        sessions: impl Iterator<Item = SessionId> + Clone,
    ) -> Vec<ShardId> {
        let are_all_here = self.first_came.is_some_and(|first| first + self.lease <= now);
        let over = self.adoption.iter().filter(|(shard, adoption)| {
            let were_asked = || self.owned.contains_key(*shard);
            let have_answered = || sessions.clone().all(|session| adoption.answered.contains(&session));
            adoption.until <= now || are_all_here && were_asked() && have_answered()
        });
        let over: Vec<ShardId> = over.map(|(shard, _)| *shard).collect();
        for shard in &over {
            self.adoption.remove(shard);
        }
        over
    }
}
