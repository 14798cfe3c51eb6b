//! Runs that changed and have to be told or stored.
//!
//! Owns: each id once when it is asked for. A set would look for an id at every change, among as many as there are
//! runs; a list is put in order when it has doubled, and when it is taken.
use kapell_model::RunId;

/// Below this many it is not worth the trouble.
const TIDY_AT_LEAST: usize = 4_096;

/// Ids of runs that changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    ids: Vec<RunId>,
    /// How many there were when they were in order last.
    tidy: usize,
}

impl Changed {
    pub(super) fn insert(&mut self, run: RunId) {
        // A run often changes several times in a row.
        if self.ids.last() == Some(&run) {
            return;
        }
        self.ids.push(run);
        if self.ids.len() >= (self.tidy * 2).max(TIDY_AT_LEAST) {
            self.tidy();
        }
    }

    fn tidy(&mut self) {
        self.ids.sort_unstable();
        self.ids.dedup();
        self.tidy = self.ids.len();
    }

    /// All of them, each once, in order; from now on there are none.
    pub(super) fn take(&mut self) -> Vec<RunId> {
        self.tidy();
        std::mem::take(self).ids
    }
}

impl Extend<RunId> for Changed {
    fn extend<I: IntoIterator<Item = RunId>>(&mut self, runs: I) {
        runs.into_iter().for_each(|run| self.insert(run));
    }
}

#[cfg(test)]
mod tests {
    use kapell_model::ShardId;

    use super::*;

    #[test]
    fn each_is_given_once_in_order_and_repeats_take_no_room() {
        let id = |low| RunId::new(ShardId(0), low);
        let mut changed = Changed::default();
        for _ in 0..10 {
            changed.extend((0..3_000).rev().map(id));
        }
        assert!(changed.ids.len() < 2 * TIDY_AT_LEAST, "{}", changed.ids.len());
        assert_eq!(changed.take(), (0..3_000).map(id).collect::<Vec<_>>());
        assert!(changed.take().is_empty());
    }
}
