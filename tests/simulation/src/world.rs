//! What outlives every host: the log, the business system, what the client was promised.
//!
//! Owns: the state that no crash touches and the digest over all that happened. Never: decides what goes wrong.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use kapell_tests_simulation::shared::{Store, Witness};

use crate::history::Histories;
use crate::interpose;
use crate::ledger::Rows;

/// Shared by all hosts; they are on one thread.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<State>>);

/// See [`World`].
#[derive(Default)]
pub(crate) struct State {
    /// What happened, in order.
    pub(crate) log: Vec<String>,
    digest: u64,
    began_ms: u64,
    /// When each entry was posted, by its name. More than once is what must not happen.
    pub(crate) postings: BTreeMap<String, Vec<u64>>,
    /// The order in which entries were posted.
    pub(crate) posted: Vec<String>,
    /// Requests that are on their way into the business system, by when they take effect.
    pub(crate) under_way: BTreeSet<(u64, u64, String)>,
    requests: u64,
    /// Runs of each event that was accepted.
    pub(crate) accepted: BTreeMap<String, Vec<String>>,
    /// How each run ended, as far as the client knows.
    pub(crate) ended: BTreeMap<String, String>,
    /// What the promises say is broken.
    pub(crate) broken: Vec<String>,
    /// Set when the client has seen everything end and the doctor found nothing.
    pub(crate) all_well: bool,
    /// What the client last saw that is not well yet.
    pub(crate) not_yet: String,
    /// Coordinators whose process ended, or could not start.
    pub(crate) down: BTreeSet<&'static str>,
    /// Coordinators that were told to leave in order.
    pub(crate) leaving: BTreeSet<&'static str>,
    /// The only one that is left of several, in the end.
    pub(crate) survivor: Option<&'static str>,
    /// No more faults: lost answers neither.
    pub(crate) healed: bool,
    /// Counts the starts of hosts.
    pub(crate) boots: u64,
    /// How much faster than virtual time the time of day passes.
    pub(crate) speed: u64,
    /// How far each host's clock is from the right time.
    pub(crate) clock_steps_ms: BTreeMap<&'static str, i64>,
    /// Every connection, by the host that dialed and the one that was.
    pub(crate) lines: Vec<(&'static str, String, Line)>,
    /// What went wrong on purpose, and how often.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Entries that the business system takes now, though it refused them at first.
    pub(crate) fixed: BTreeSet<String>,
    /// What people do to runs, by the id of the event.
    pub(crate) steered: BTreeMap<String, Steered>,
    /// Since when the schedules tick.
    pub(crate) ticking_since: Option<u64>,
    /// The schedules tick no more.
    pub(crate) stopped: bool,
    /// How many ticks each schedule says that it started and left out.
    pub(crate) scheduled: BTreeMap<String, (u32, u64)>,
    /// How often the ledger was lost, and for which of these it was rebuilt.
    pub(crate) ledger_lost: u64,
    pub(crate) ledger_rebuilt: u64,
    /// How often somebody built it anew.
    pub(crate) rebuilds: u64,
    /// The coordinator was started anew after all was well.
    pub(crate) restarted: bool,
    /// What the ledger said then, and how often it had been built anew.
    pub(crate) found: Option<(Rows, u64)>,
    /// The ledger was held against the journal after that.
    pub(crate) audited: bool,
    /// The revision that was applied last, and whether every coordinator knows it.
    pub(crate) revision: u64,
    pub(crate) is_known: bool,
    /// Runs that wait for ever, as they were last seen.
    pub(crate) parked: BTreeMap<String, String>,
    /// How the live state of a run differed from its journal when it was last looked at.
    pub(crate) differs: BTreeMap<String, String>,
    /// Replays that were compared with a live run.
    pub(crate) replays: u64,
    /// What was asked and answered.
    pub(crate) histories: Histories,
}

/// How far somebody is with what they do to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steered {
    /// When the next thing is done.
    pub(crate) at_ms: u64,
    pub(crate) stage: Stage,
}

/// See [`Steered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Begin,
    /// It was paused.
    Paused,
    Done,
}

/// One connection: how many bytes may still be sent before it is reset.
#[derive(Clone, Default)]
pub(crate) struct Line(Arc<Mutex<LineState>>);

#[derive(Default)]
struct LineState {
    left: Option<usize>,
    waiting: Vec<Waker>,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets it after so many more bytes; says whether it was open.
    pub(crate) fn cut(&self, after_bytes: usize) -> bool {
        let mut state = self.lock();
        let was_open = state.left.is_none() && Arc::strong_count(&self.0) > 1;
        state.left.get_or_insert(after_bytes);
        state.waiting.drain(..).for_each(Waker::wake);
        was_open
    }

    /// Bytes that may still be sent; wakes whoever asked when that changes.
    pub(crate) fn left(&self, context: &Context<'_>) -> Option<usize> {
        let mut state = self.lock();
        state.waiting.retain(|other| !other.will_wake(context.waker()));
        state.waiting.push(context.waker().clone());
        state.left
    }

    pub(crate) fn passed(&self, bytes: usize) {
        let mut state = self.lock();
        if let Some(left) = &mut state.left {
            *left -= bytes;
            if *left == 0 {
                state.waiting.drain(..).for_each(Waker::wake);
            }
        }
    }
}

impl World {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what happened.
    pub(crate) fn log(&self, host: &str, what: &str) {
        self.lock().log(host, what);
    }
}

impl Witness for World {
    fn saw(&self, store: Store, what: &str) {
        let store = match store {
            Store::Journal => "log",
            Store::Cluster => "etcd",
        };
        self.log(store, what);
    }

    fn bytes(&self, bytes: &[u8]) {
        self.lock().fold(bytes);
    }

    fn broken(&self, what: String) {
        let mut world = self.lock();
        world.log("log", &format!("BROKEN: {what}"));
        world.broken.push(what);
    }
}

impl State {
    /// Time zero is now.
    pub(crate) fn begin(&mut self) {
        self.began_ms = interpose::now_ms();
        self.speed = 1;
        self.digest = 0xcbf2_9ce4_8422_2325;
    }

    /// The right time of day, in milliseconds since the Unix epoch.
    pub(crate) fn time_of_day_ms(&self) -> u64 {
        self.began_ms + self.elapsed_ms() * self.speed
    }

    /// Virtual time since the start, in milliseconds.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        interpose::now_ms() - self.began_ms
    }

    /// Whether nothing goes wrong any more, and the schedules have ticked for so many milliseconds.
    pub(crate) fn has_ticked_for(&self, enough: u64) -> bool {
        let enough = |since| self.elapsed_ms() >= since + enough;
        self.healed && self.ticking_since.is_none_or(enough)
    }

    /// Whether it has not been built anew since it was lost.
    pub(crate) fn is_ledger_lost(&self) -> bool {
        self.ledger_rebuilt < self.ledger_lost
    }

    pub(crate) fn log(&mut self, host: &str, what: &str) {
        let line = format!("{:>8} ms {host:<5} {what}", self.elapsed_ms());
        self.fold(line.as_bytes());
        self.log.push(line);
    }

    /// Counts something that goes wrong on purpose.
    pub(crate) fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Takes bytes into the digest without a line of their own.
    pub(crate) fn fold(&mut self, bytes: &[u8]) {
        // FNV-1a.
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// A request leaves for the business system and takes effect there later, whatever becomes of who sent it.
    pub(crate) fn send(&mut self, entry: &str, arrives_in_ms: u64) {
        self.requests += 1;
        let at = interpose::now_ms() + arrives_in_ms;
        self.under_way.insert((at, self.requests, entry.to_owned()));
    }

    /// What has arrived takes effect.
    pub(crate) fn arrive(&mut self) {
        while let Some((at, _, _)) = self.under_way.first()
            && *at <= interpose::now_ms()
        {
            let Some((_, _, entry)) = self.under_way.pop_first() else { return };
            self.log("bank", &format!("posts {entry}"));
            let at = self.elapsed_ms();
            self.postings.entry(entry.clone()).or_default().push(at);
            self.posted.push(entry);
        }
    }
}
