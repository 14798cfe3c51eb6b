//! What this process knows to be stored: a ledger that went back must not be told only what is new.
//!
//! Owns: the farthest watermark of each shard that this process stored or was shown. Never: stands in for the stored
//! one.
//!
//! Another coordinator may empty the ledger to build it anew, or somebody may restore an old copy. The rows that were
//! stored since are then missing, and a batch that only brings what changed after them would hide that: the watermark
//! would say that they are contained. Such a batch has to wait until whoever builds the ledger anew has come as far,
//! or until the shard is loaded again, asks for the watermark and tells everything from there.
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kapell_model::{Seq, ShardId};

#[derive(Default)]
pub(crate) struct Known(Mutex<State>);

#[derive(Default)]
struct State {
    marks: BTreeMap<ShardId, Seq>,
    resets: u64,
}

/// How often the ledger was emptied when a watermark was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked(u64);

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, shard: ShardId) -> Seq {
        self.state().marks.get(&shard).copied().unwrap_or(Seq::ZERO)
    }

    /// Rows up to here were stored.
    pub(crate) fn stored(&self, shard: ShardId, through: Seq) {
        let mut state = self.state();
        let mark = state.marks.entry(shard).or_insert(through);
        *mark = through.max(*mark);
    }

    pub(crate) fn asking(&self) -> Asked {
        Asked(self.state().resets)
    }

    /// Whoever asked for the watermark tells everything after it. An answer from before a reset is none.
    pub(crate) fn shown(&self, asked: Asked, shard: ShardId, through: Seq) {
        let mut state = self.state();
        if state.resets == asked.0 {
            state.marks.insert(shard, through);
        }
    }

    /// This process emptied the ledger.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.marks.clear();
        state.resets += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_counts_even_if_it_is_less_but_not_from_before_a_reset() {
        let (known, shard) = (Known::default(), ShardId(3));
        let asked = known.asking();
        known.shown(asked, shard, Seq(7));
        known.stored(shard, Seq(9));
        known.stored(shard, Seq(8));
        assert_eq!((known.of(shard), known.of(ShardId(4))), (Seq(9), Seq::ZERO));
        known.shown(asked, shard, Seq(5));
        assert_eq!(known.of(shard), Seq(5));
        known.forget();
        known.shown(asked, shard, Seq(5));
        assert_eq!(known.of(shard), Seq::ZERO);
    }
}
