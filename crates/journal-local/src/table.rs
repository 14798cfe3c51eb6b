//! What is known of each shard at one point of the log.
//!
//! Owns: the rows. Never: knows files or owners' intentions.
use std::collections::BTreeMap;

use kapell_model::{Epoch, Seq, ShardId};

/// One shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Highest epoch that acquired it.
    pub(crate) epoch: Epoch,
    /// Last record.
    pub(crate) last: Seq,
    /// Its owner let go of records up to here.
    pub(crate) trimmed: Seq,
}

impl Row {
    /// A shard that nobody ever acquired.
    pub(crate) const NEW: Row = Row { epoch: Epoch(0), last: Seq::ZERO, trimmed: Seq::ZERO };
}

/// All shards that were ever acquired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table(BTreeMap<ShardId, Row>);

impl Table {
    pub(crate) fn row(&self, shard: ShardId) -> Row {
        self.0.get(&shard).copied().unwrap_or(Row::NEW)
    }

    pub(crate) fn set(&mut self, shard: ShardId, row: Row) {
        self.0.insert(shard, row);
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (ShardId, Row)> {
        self.0.iter().map(|(shard, row)| (*shard, *row))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
