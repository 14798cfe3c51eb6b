//! What a seed's simulation is made of, beside its crashes: drawn from the seed, so that many seeds cover everything.
//!
//! Owns: the draw. Never: acts on it.
use std::time::Duration;

use kapell_runtime::{Entropy as _, SeededEntropy};

/// See the module. The first one is kept as it was, so that the seeds of past bugs still mean what they meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    /// More kinds of work than the first mix had, steered by people; and a last look at ledger and replays.
    pub(crate) is_wide: bool,
    /// How often shards are checkpointed, and how much is kept.
    pub(crate) keep: Option<Keep>,
    /// The ledger's file may be lost.
    pub(crate) loses_ledger: bool,
    /// The clocks of hosts step.
    pub(crate) steps_clocks: bool,
    /// Connections are reset, now or in the middle of a frame.
    pub(crate) resets: bool,
    /// Nothing but clocks goes wrong, so no attempt fails that was not refused.
    pub(crate) is_only_clocks: bool,
    /// Hosts are cut off for longer than a lease, and then everything that they sent arrives.
    pub(crate) stalls: bool,
    /// Subworkflows take too long.
    pub(crate) is_slow: bool,
    /// So many schedules.
    pub(crate) schedules: usize,
    /// So many coordinators: one with a journal of its own, or several that share a journal and a cluster.
    pub(crate) coordinators: usize,
}

/// Coordinators of a cluster.
pub(crate) const TOGETHER: usize = 3;

/// Checkpoints and history of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    pub(crate) entries: u64,
    pub(crate) every: Duration,
    pub(crate) history: u64,
}

impl Mix {
    /// What the simulation had at first.
    pub(crate) const FIRST: Mix = Mix {
        is_wide: false,
        keep: None,
        loses_ledger: false,
        steps_clocks: false,
        resets: false,
        is_only_clocks: false,
        stalls: false,
        is_slow: false,
        schedules: 0,
        coordinators: 1,
    };

    /// Only the clocks go wrong.
    pub(crate) const CLOCKS: Mix =
        Mix { is_wide: true, steps_clocks: true, is_only_clocks: true, ..Mix::FIRST };

    /// The mix of a seed.
    pub(crate) fn of(seed: u64) -> Mix {
        let dice = SeededEntropy::new(seed ^ 0x313c);
        let often = || dice.below(3) > 0;
        let keep = often().then(|| Keep {
            entries: 10 + dice.below(90),
            every: Duration::from_millis(300 + dice.below(2_000)),
            // Half of the time nothing is trimmed, so that every run can be folded anew in the end.
            history: if dice.below(2) == 0 { u64::MAX } else { dice.below(150) },
        });
        Mix {
            is_wide: true,
            keep,
            loses_ledger: often(),
            steps_clocks: often(),
            resets: often(),
            is_only_clocks: false,
            stalls: often(),
            is_slow: often(),
            schedules: 0,
            coordinators: 1,
        }
    }

    /// The same with a cluster.
    pub(crate) fn together(self) -> Mix {
        Mix { coordinators: TOGETHER, ..self }
    }

    /// Whether coordinators share a journal and a cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        self.coordinators > 1
    }

    /// The mix of a seed before subworkflows took too long.
    pub(crate) fn second_of(seed: u64) -> Mix {
        Mix { is_slow: false, ..Mix::of(seed) }
    }

    /// The mix of a seed with schedules. Clocks always step, and there are always checkpoints.
    pub(crate) fn of_schedules(seed: u64, schedules: usize) -> Mix {
        let dice = SeededEntropy::new(seed ^ 0x71c5);
        let keep = Keep {
            entries: 10 + dice.below(90),
            every: Duration::from_millis(300 + dice.below(2_000)),
            history: if dice.below(2) == 0 { u64::MAX } else { dice.below(150) },
        };
        Mix { keep: Some(keep), steps_clocks: true, schedules, ..Mix::of(seed) }
    }

    /// Whether the journal forgets the beginnings of runs.
    pub(crate) fn trims(&self) -> bool {
        self.keep.is_some_and(|keep| keep.history < u64::MAX)
    }
}
