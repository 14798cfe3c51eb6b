//! What is stored, as one node has seen it so far.
//!
//! Owns: folding a listing and the changes after it into members, owners, counters and the base of the epochs; noticing
//! that the node's own record is not its own any more. Never: talks to etcd, or waits.
use kapell_cluster::{Lost, Members, NodeName, Owner, Owners, Revisions};
use kapell_model::Epoch;

use crate::keys::{Key, Keys};
use crate::record::{self, OwnerRecord, Unreadable};

/// A stored key with its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    /// The lease that it is attached to, or 0.
    pub(crate) lease: i64,
    /// The revision that made the key.
    pub(crate) created: i64,
    /// The revision that changed it last; when it is deleted, the one that did.
    pub(crate) changed: i64,
}

/// One change.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    Put(Stored<'a>),
    /// Only the key and the revision are told.
    Deleted(Stored<'a>),
}

/// What etcd's revision is added to, and the revision that says whether it is still so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) value: u64,
    pub(crate) changed: i64,
}

impl Base {
    pub(crate) fn epoch(self, revision: i64) -> Epoch {
        epoch(self.value, revision)
    }
}

/// An epoch: the base with the revision that made the shard's key.
pub(crate) fn epoch(base: u64, revision: i64) -> Epoch {
    Epoch(base.saturating_add(revision.unsigned_abs()))
}

pub(crate) fn owner(stored: &Stored<'_>) -> Result<Owner, Unreadable> {
    let record = OwnerRecord::decode(stored.value)?;
    let epoch = epoch(record.base, stored.created);
    Ok(Owner { node: record.node(), address: record.address, epoch })
}

/// Everything below the root of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct View {
    keys: Keys,
    node: NodeName,
    lease: i64,
    /// All changes up to here are contained.
    revision: i64,
    pub(crate) members: Members,
    pub(crate) owners: Owners,
    pub(crate) revisions: Revisions,
    pub(crate) base: Base,
}

impl View {
    /// Of the node that holds `lease`; empty until something is listed.
    pub(crate) fn new(keys: Keys, node: NodeName, lease: i64) -> View {
        View {
            keys,
            node,
            lease,
            revision: 0,
            members: Members::new(),
            owners: Owners::new(),
            revisions: Revisions::new(),
            base: Base::default(),
        }
    }

    /// Where to go on.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// Takes a whole listing, as it was at `revision`, for what is there.
    pub(crate) fn listed<'a>(
        &mut self,
        revision: i64,
        all: impl IntoIterator<Item = Stored<'a>>,
    ) -> Result<(), Lost> {
        if revision < self.revision {
            // Revisions only grow: this etcd was set up anew, or from an older copy of its data.
            return Err(Lost::Removed);
        }
        let mut fresh = View::new(self.keys.clone(), self.node.clone(), self.lease);
        for stored in all {
            fresh.put(&stored)?;
        }
        if !fresh.members.contains_key(&fresh.node) {
            return Err(Lost::Removed);
        }
        fresh.revision = revision;
        *self = fresh;
        Ok(())
    }

    /// Takes one change. One that is contained already is left alone.
    pub(crate) fn apply(&mut self, change: Change<'_>) -> Result<(), Lost> {
        let (Change::Put(stored) | Change::Deleted(stored)) = change;
        if stored.changed <= self.revision {
            return Ok(());
        }
        match change {
            Change::Put(stored) => self.put(&stored),
            Change::Deleted(stored) => self.delete(&stored),
        }
    }

    /// All changes up to `revision` were applied. Several may share one, so this comes after the last of them.
    pub(crate) fn reached(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
    }

    fn put(&mut self, stored: &Stored<'_>) -> Result<(), Lost> {
        let read = match self.keys.parse(stored.key) {
            Some(Key::Member(node)) if node == self.node && stored.lease != self.lease => {
                let address = record::decode_member(stored.value).map(|member| member.address);
                return Err(Lost::Replaced { address: address.unwrap_or_else(|_| "?".to_owned()) });
            }
            Some(Key::Member(node)) => {
                self.members.remove(&node);
                record::decode_member(stored.value).map(|member| _ = self.members.insert(node, member))
            }
            Some(Key::Shard(shard)) => {
                self.owners.remove(&shard);
                owner(stored).map(|owner| _ = self.owners.insert(shard, owner))
            }
            Some(Key::Revision(name)) => {
                self.revisions.insert(name, stored.changed.unsigned_abs());
                Ok(())
            }
            Some(Key::Base) => record::decode_base(stored.value)
                .map(|value| self.base = Base { value, changed: stored.changed }),
            None => Ok(()),
        };
        if let Err(error) = read {
            let key = String::from_utf8_lossy(stored.key);
            tracing::warn!(%key, %error, "a value in etcd cannot be read and is left out");
        }
        Ok(())
    }

    fn delete(&mut self, stored: &Stored<'_>) -> Result<(), Lost> {
        match self.keys.parse(stored.key) {
            Some(Key::Member(node)) if node == self.node => return Err(Lost::Removed),
            Some(Key::Member(node)) => {
                self.members.remove(&node);
            }
            Some(Key::Shard(shard)) => {
                self.owners.remove(&shard);
            }
            Some(Key::Revision(name)) => {
                self.revisions.remove(&name);
            }
            // Whoever acquires next finds out, and asks for it to be made again.
            Some(Key::Base) | None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
