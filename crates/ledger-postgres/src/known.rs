//! What this process knows to be stored: a ledger that went back must not be told only what is new.
//!
//! Owns: the farthest watermark of each shard that this process stored or was shown. Never: stands in for the stored
//! one.
//!
//! Somebody may drop the ledger or restore an old copy of it. The rows that were stored since are then missing, and a
//! batch that only brings what changed after them would hide that: the watermark would say that they are contained.
//! Such a batch has to wait until the shard's rows are built anew, or until the shard is loaded again, asks for the
//! watermark and tells everything from there.
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kapell_model::{Seq, ShardId};

#[derive(Default)]
pub(crate) struct Known(Mutex<BTreeMap<ShardId, Mark>>);

#[derive(Clone, Copy)]
struct Mark {
    through: Seq,
    /// How often this process replaced the shard's rows.
    replaced: u64,
}

impl Mark {
    const NONE: Mark = Mark { through: Seq::ZERO, replaced: 0 };
}

/// How often a shard's rows had been replaced when its watermark was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked(u64);

impl Known {
    fn marks(&self) -> MutexGuard<'_, BTreeMap<ShardId, Mark>> {
        // Each change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, shard: ShardId) -> Mark {
        self.marks().get(&shard).copied().unwrap_or(Mark::NONE)
    }

    pub(crate) fn of(&self, shard: ShardId) -> Seq {
        self.mark(shard).through
    }

    /// Rows up to here were stored.
    pub(crate) fn stored(&self, shard: ShardId, through: Seq) {
        let mut marks = self.marks();
        let mark = marks.entry(shard).or_insert(Mark::NONE);
        mark.through = through.max(mark.through);
    }

    pub(crate) fn asking(&self, shard: ShardId) -> Asked {
        Asked(self.mark(shard).replaced)
    }

    /// Whoever asked for the watermark tells everything after it. An answer from before a replacement is none.
    pub(crate) fn shown(&self, asked: Asked, shard: ShardId, through: Seq) {
        let mut marks = self.marks();
        let mark = marks.entry(shard).or_insert(Mark::NONE);
        if mark.replaced == asked.0 {
            mark.through = through;
        }
    }

    /// This process replaced all rows of the shard.
    pub(crate) fn replaced(&self, shard: ShardId, through: Seq) {
        let mut marks = self.marks();
        let mark = marks.entry(shard).or_insert(Mark::NONE);
        *mark = Mark { through, replaced: mark.replaced + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_counts_even_if_it_is_less_but_not_from_before_a_replacement() {
        let (known, shard, other) = (Known::default(), ShardId(3), ShardId(4));
        let asked = [shard, other].map(|shard| known.asking(shard));
        known.shown(asked[0], shard, Seq(7));
        known.stored(shard, Seq(9));
        known.stored(shard, Seq(8));
        assert_eq!((known.of(shard), known.of(other)), (Seq(9), Seq::ZERO));
        known.shown(asked[0], shard, Seq(5));
        assert_eq!(known.of(shard), Seq(5));
        known.replaced(shard, Seq(4));
        known.shown(asked[0], shard, Seq(5));
        known.shown(asked[1], other, Seq(6));
        assert_eq!((known.of(shard), known.of(other)), (Seq(4), Seq(6)));
    }
}
