//! Which shards are here, as a desk knows it.
//!
//! Owns: under which epoch each is owned, and how long what was found in its journal may still be held by somebody.
//! Never: claims anything itself.
use std::collections::BTreeMap;

use kapell_model::{Epoch, ShardId};
use kapell_wire::claim::ShardClaim;
use tokio::time::Instant;

/// Which shards are here.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    owned: BTreeMap<ShardId, Epoch>,
    /// Until when somebody may come with what was found in the journal.
    adoption: BTreeMap<ShardId, Instant>,
}

impl Shards {
    /// The shard is here.
    pub(crate) fn own(&mut self, claim: ShardClaim) {
        self.owned.insert(claim.shard, claim.epoch);
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

    /// Something of the shard was found in the journal; whoever holds it may come until then.
    pub(crate) fn found(&mut self, shard: ShardId, until: Instant) {
        self.adoption.insert(shard, until);
    }

    /// Whether somebody may still come with what was found.
    pub(crate) fn awaits(&self, shard: ShardId) -> bool {
        self.adoption.contains_key(&shard)
    }

    /// Shards for whose finds nobody will come any more; told once.
    pub(crate) fn adopted(&mut self, now: Instant) -> Vec<ShardId> {
        let over: Vec<ShardId> =
            self.adoption.iter().filter(|(_, until)| **until <= now).map(|(shard, _)| *shard).collect();
        for shard in &over {
            self.adoption.remove(shard);
        }
        over
    }
}
