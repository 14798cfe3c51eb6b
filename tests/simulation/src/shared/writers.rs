//! Never two writers: held against everything that the journal does, whatever it checks itself.
//!
//! Owns: the memory of who acquired and who wrote. Never: refuses anything.
use std::collections::BTreeMap;

use kapell_model::{Epoch, ShardId};

/// Who acquired and who wrote, for as long as the simulation lasts.
#[derive(Default)]
pub(super) struct Writers {
    owners: BTreeMap<ShardId, Epoch>,
    /// An epoch is one node's, in all its lives.
    nodes: BTreeMap<Epoch, &'static str>,
}

impl Writers {
    /// Somebody acquired a shard; says what is wrong with it.
    pub(super) fn acquired(&mut self, node: &'static str, shard: ShardId, epoch: Epoch) -> Option<String> {
        let highest = self.owners.get(&shard).copied().unwrap_or(Epoch(0));
        if epoch < highest {
            return Some(format!("{node} acquired shard {shard} under {epoch}, after {highest}"));
        }
        self.owners.insert(shard, epoch);
        self.is_its(node, epoch)
    }

    /// The journal took something of a shard; says what is wrong with it.
    pub(super) fn wrote(&self, node: &'static str, shard: ShardId, epoch: Epoch) -> Option<String> {
        let owner = self.owners.get(&shard).copied().unwrap_or(Epoch(0));
        if epoch != owner {
            return Some(format!(
                "two writers: {node} wrote to shard {shard} under {epoch}, owned under {owner}"
            ));
        }
        let holder = self.nodes.get(&epoch).copied().unwrap_or_default();
        (holder != node).then(|| format!("two writers: {node} wrote under {epoch}, which is {holder}'s"))
    }

    fn is_its(&mut self, node: &'static str, epoch: Epoch) -> Option<String> {
        let holder = *self.nodes.entry(epoch).or_insert(node);
        (holder != node).then(|| format!("{node} acquired a shard under {epoch}, which is {holder}'s"))
    }
}
