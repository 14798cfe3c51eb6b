//! Schedules: which ticks start a run, which wait, which are left out.
//!
//! Owns: what is due, what becomes of a tick, and what an entry changes. Never: reads a clock, or decides from when
//! ticks count; it is told.
//!
//! A schedule stands above its runs as a run does above its children: it asks for them until they are on disk, and they
//! tell it when they are over. So it knows without asking anybody whether its last run goes on.
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kapell_model::cron::Cron;
use kapell_model::definition::{Catchup, Overlap};
use kapell_model::limits::{
    CATCHUP_TICKS_MAX, SCHEDULE_RUNS_MAX, SCHEDULE_WAITING_MAX, TICK_LATE_MAX, TICKS_COUNTED_MAX,
};
use kapell_model::plan::CompiledWorkflow;
use kapell_model::{Json, RunId, Timestamp};

/// Counts the starts of a schedule, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StartNo(pub u32);

/// A run that a tick starts: all that the start needs, since the definitions may change before it is on disk.
#[derive(Clone, Debug)]
pub struct TickRun {
    /// Derived from the schedule and the tick.
    pub run: RunId,
    /// The definition that it is pinned to.
    pub workflow: Arc<CompiledWorkflow>,
    /// Runs of one key are handled in order.
    pub key: Option<Arc<str>>,
    /// The CloudEvent.
    pub event: Json,
}

impl PartialEq for TickRun {
    fn eq(&self, other: &TickRun) -> bool {
        let known =
            |start: &TickRun| (start.run, start.workflow.digest, start.key.clone(), start.event.clone());
        known(self) == known(other)
    }
}
impl Eq for TickRun {}

/// What has happened to a schedule. Those with a tick also say that every tick up to it is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleEntry {
    /// A tick starts a run.
    TickStarted {
        /// Which start it is.
        no: StartNo,
        /// The tick.
        tick: Timestamp,
        /// The run.
        start: Box<TickRun>,
        /// Of the definitions under which it was decided.
        revision: u64,
    },
    /// A tick waits for the last run to be over.
    TickQueued {
        /// The tick.
        tick: Timestamp,
        /// Of the definitions.
        revision: u64,
    },
    /// Ticks start nothing.
    TicksLeftOut {
        /// The last of them.
        through: Timestamp,
        /// So many, or more if they are [`TICKS_COUNTED_MAX`].
        count: u64,
        /// Why.
        why: LeftOut,
        /// Of the definitions.
        revision: u64,
    },
    /// The run of this start is on disk in its shard.
    RunBegan {
        /// Which start.
        no: StartNo,
    },
    /// The run of this start is over.
    RunOver {
        /// Which start.
        no: StartNo,
    },
    /// Its definition is gone.
    ScheduleRemoved,
}

/// Why ticks were left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// They were missed, and `catchup` does not make up for them.
    Missed,
    /// They were missed, and `catchup: all` makes up for [`CATCHUP_TICKS_MAX`] only.
    TooManyMissed,
    /// The last run goes on, with `overlap: skip`.
    LastRunGoesOn,
    /// [`SCHEDULE_RUNS_MAX`] runs go on, with `overlap: allow`.
    TooManyRuns,
    /// [`SCHEDULE_WAITING_MAX`] ticks wait, with `overlap: queue`.
    TooManyWait,
    /// The workflow cannot be started with it.
    NoStart(Arc<str>),
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LeftOut::Missed => f.write_str("missed while nothing ran or the clock was wrong"),
            LeftOut::TooManyMissed => {
                write!(f, "missed, and only the latest {CATCHUP_TICKS_MAX} are made up for")
            }
            LeftOut::LastRunGoesOn => f.write_str("the last run was not over"),
            LeftOut::TooManyRuns => write!(f, "{SCHEDULE_RUNS_MAX} runs were not over"),
            LeftOut::TooManyWait => write!(f, "{SCHEDULE_WAITING_MAX} ticks were waiting already"),
            LeftOut::NoStart(reason) => write!(f, "the workflow could not be started: {reason}"),
        }
    }
}

/// How far a schedule is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleState {
    /// Every tick up to here is decided.
    pub through: Timestamp,
    /// Of the definitions under which it was decided last.
    pub revision: u64,
    /// Runs that it has started.
    pub starts: u32,
    /// Those that are not over.
    pub open: BTreeMap<StartNo, OpenTick>,
    /// Ticks that wait for the last run to be over.
    pub waiting: VecDeque<Timestamp>,
    /// The last tick that started a run, and the run.
    pub last_start: Option<(Timestamp, RunId)>,
    /// How many ticks were left out.
    pub left_out: u64,
    /// The last that was, and why.
    pub last_left_out: Option<(Timestamp, LeftOut)>,
}

/// A run that a tick has started and that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTick {
    /// The tick.
    pub tick: Timestamp,
    /// The run.
    pub run: RunId,
    /// What to ask its shard for, until it is on disk there.
    pub start: Option<Box<TickRun>>,
}

impl Default for ScheduleState {
    /// Nothing is decided.
    fn default() -> ScheduleState {
        ScheduleState {
            through: Timestamp(0),
            revision: 0,
            starts: 0,
            open: BTreeMap::new(),
            waiting: VecDeque::new(),
            last_start: None,
            left_out: 0,
            last_left_out: None,
        }
    }
}

/// What is to be decided now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// What is left out first: the last of them, how many, and why.
    pub left_out: Option<(Timestamp, u64, LeftOut)>,
    /// Ticks whose fate is to be decided, in order.
    pub ticks: Vec<Timestamp>,
}

/// What becomes of a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It starts a run.
    Start,
    /// It waits.
    Wait,
    /// It starts nothing.
    LeaveOut(LeftOut),
}

/// The ticks after one point and up to now, and which of them are made up for; at most so many at once, the rest when
/// these are decided.
#[must_use]
pub fn due(cron: &Cron, catchup: Catchup, after: Timestamp, now: Timestamp, most: usize) -> Due {
    let Some(newest) = cron.last(after, now) else { return Due::default() };
    let before = |tick: Timestamp| Timestamp(tick.0 - 1);
    let left_out = |until: Timestamp, why: LeftOut| {
        cron.last(after, until).map(|through| (through, count(cron, after, through), why))
    };
    match catchup {
        Catchup::Skip if newest.after(TICK_LATE_MAX) < now => {
            Due { left_out: left_out(newest, LeftOut::Missed), ticks: vec![] }
        }
        Catchup::Skip | Catchup::Latest => {
            Due { left_out: left_out(before(newest), LeftOut::Missed), ticks: vec![newest] }
        }
        Catchup::All => {
            let earlier = |tick: &Timestamp| cron.last(after, before(*tick));
            let mut ticks: Vec<Timestamp> =
                std::iter::successors(Some(newest), earlier).take(CATCHUP_TICKS_MAX).collect();
            ticks.reverse();
            let oldest = ticks.first().copied().unwrap_or(newest);
            ticks.truncate(most);
            Due { left_out: left_out(before(oldest), LeftOut::TooManyMissed), ticks }
        }
    }
}

fn count(cron: &Cron, after: Timestamp, through: Timestamp) -> u64 {
    let next = |tick: &Timestamp| cron.next(*tick).filter(|tick| *tick <= through);
    std::iter::successors(next(&after), next).take(TICKS_COUNTED_MAX as usize).count() as u64
}

impl ScheduleState {
    /// What becomes of the next tick.
    #[must_use]
    pub fn fate(&self, overlap: Overlap) -> Fate {
        let is_free = self.open.is_empty() && self.waiting.is_empty();
        match overlap {
            Overlap::Skip if !is_free => Fate::LeaveOut(LeftOut::LastRunGoesOn),
            Overlap::Queue if !is_free && self.waiting.len() >= SCHEDULE_WAITING_MAX => {
                Fate::LeaveOut(LeftOut::TooManyWait)
            }
            Overlap::Queue if !is_free => Fate::Wait,
            Overlap::Allow if self.open.len() >= SCHEDULE_RUNS_MAX => Fate::LeaveOut(LeftOut::TooManyRuns),
            Overlap::Skip | Overlap::Queue | Overlap::Allow => Fate::Start,
        }
    }

    /// The tick that has waited for long enough.
    #[must_use]
    pub fn next_waiting(&self, overlap: Overlap) -> Option<Timestamp> {
        let may_start = match overlap {
            Overlap::Skip | Overlap::Queue => self.open.is_empty(),
            Overlap::Allow => self.open.len() < SCHEDULE_RUNS_MAX,
        };
        self.waiting.front().copied().filter(|_| may_start)
    }

    /// Applies an entry. No judgement; stable for ever.
    pub fn evolve(&mut self, entry: &ScheduleEntry) {
        match entry {
            ScheduleEntry::TickStarted { no, tick, start, revision } => {
                self.decided(*tick, *revision);
                self.waiting.retain(|waiting| waiting != tick);
                self.starts = self.starts.max(no.0);
                self.last_start = Some((*tick, start.run));
                self.open.insert(*no, OpenTick { tick: *tick, run: start.run, start: Some(start.clone()) });
            }
            ScheduleEntry::TickQueued { tick, revision } => {
                self.decided(*tick, *revision);
                self.waiting.push_back(*tick);
            }
            ScheduleEntry::TicksLeftOut { through, count, why, revision } => {
                self.decided(*through, *revision);
                self.waiting.retain(|waiting| waiting != through);
                self.left_out = self.left_out.saturating_add(*count);
                self.last_left_out = Some((*through, why.clone()));
            }
            ScheduleEntry::RunBegan { no } => {
                if let Some(open) = self.open.get_mut(no) {
                    open.start = None;
                }
            }
            ScheduleEntry::RunOver { no } => {
                self.open.remove(no);
            }
            ScheduleEntry::ScheduleRemoved => *self = ScheduleState::default(),
        }
    }

    fn decided(&mut self, tick: Timestamp, revision: u64) {
        self.through = self.through.max(tick);
        self.revision = self.revision.max(revision);
    }
}

#[cfg(test)]
mod tests;
