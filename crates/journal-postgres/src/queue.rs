//! Appends that wait for one database, and what is known of the shards that they are for.
//!
//! Owns: the order of appends, which of them go together, who may append, what a failure closes. Never: waits, sends a
//! statement, or calls back while it is locked.
//!
//! A shard is in one group at a time: what follows is sent when that group is known to be durable. So a record is never
//! durable without all before it, whichever connection fails.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kapell_journal::{AppendDone, AppendError, Batch, Done, Record};
use kapell_model::{Epoch, Seq, ShardId};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::owner::Owned;

/// What a batch takes in the queue besides its payloads, and each record besides its own.
const BATCH_BYTES: usize = 128;
const RECORD_BYTES: usize = 64;
/// Largest batch: as parameters of a statement it must stay well below a gigabyte.
pub(crate) const BATCH_BYTES_MAX: usize = 256 << 20;
/// After so long without a group taken or finished nothing is held back: a connection that hangs holds up its own shards
/// only.
const HELD_BACK_MAX: Duration = Duration::from_millis(10);
/// Appends of strangers that wait to be told who holds their shard.
const STRANGERS_MAX: usize = 1024;

/// As what a shard was acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) epoch: Epoch,
    /// Which acquisition it was; see the table.
    pub(crate) generation: i64,
    /// Of the owner's fence, when this was so for certain.
    pub(crate) version: i64,
    /// Last durable record.
    pub(crate) durable: Seq,
    /// What the last checkpoint covers.
    pub(crate) checkpointed: Seq,
}

/// A batch on its way.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) first: Seq,
    pub(crate) records: Vec<Record>,
    bytes: usize,
    done: Done,
}

/// The appends of one shard in a group.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) shard: ShardId,
    pub(crate) hold: Hold,
    pub(crate) appends: Vec<Append>,
}

/// An append under an epoch that is not known to hold its shard.
#[derive(Debug)]
pub(crate) struct Stranger {
    pub(crate) shard: ShardId,
    pub(crate) epoch: Epoch,
    pub(crate) done: Done,
}

/// What a writer does next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Goes to disk together; at least one part.
    Group(Vec<Part>),
    /// Are told who holds their shards.
    Strangers(Vec<Stranger>),
}

/// How much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) queue_bytes_max: usize,
    pub(crate) group_bytes_max: usize,
    pub(crate) group_records_max: usize,
    /// Batches that a group has at least while another one is under way.
    pub(crate) group_beside_min: usize,
    pub(crate) retry_after: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    work: Notify,
    limits: Limits,
}

#[derive(Debug, Default)]
struct State {
    lanes: BTreeMap<ShardId, Lane>,
    /// Every shard that has something waiting and nothing under way; also some that had.
    ready: VecDeque<ShardId>,
    /// What waits in lanes with nothing under way. Counted along: each append asks for it.
    could_go: usize,
    strangers: Vec<Stranger>,
    /// Groups that writers have taken and not finished.
    under_way: usize,
    /// When one was taken or finished last.
    moved: Option<Instant>,
    bytes: usize,
    closed: bool,
}

/// One shard.
#[derive(Debug, Default)]
struct Lane {
    owner: Option<Owner>,
    waiting: VecDeque<Waiting>,
    is_busy: bool,
}

#[derive(Debug)]
struct Owner {
    hold: Hold,
    /// Place of the record that is to come next.
    next: Seq,
    /// Nothing failed since it was acquired.
    is_open: bool,
}

#[derive(Debug)]
enum Waiting {
    Append(Append),
    /// An answer that must not overtake those before it.
    Answer(Done, Result<(), AppendError>),
}

/// Answers that are due; to be given when nothing is locked.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Answers(Vec<(Done, Result<(), AppendError>)>);

impl Answers {
    pub(crate) fn give(self) {
        for (done, outcome) in self.0 {
            done.answer(outcome);
        }
    }
}

impl Queue {
    pub(crate) fn new(limits: Limits) -> Queue {
        Queue { state: Mutex::default(), work: Notify::new(), limits }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self, reason: &str) -> AppendError {
        AppendError::Unavailable { reason: reason.to_owned(), retry_after: self.limits.retry_after }
    }

    /// Queues a batch, or answers it at once if it is refused.
    pub(crate) fn append(&self, batch: Batch, done: AppendDone) {
        let done = Done::new(done, self.limits.retry_after);
        let mut state = self.lock();
        let before = state.waits(1);
        let refused = self.admit(&mut state, batch, done);
        // The first that is held back has a writer wait for its time.
        let work = state.has_work(self.limits) || (!before && state.waits(1));
        drop(state);
        if work {
            self.work.notify_one();
        }
        if let Some((done, error)) = refused {
            done.answer(Err(error));
        }
    }

    fn admit(&self, state: &mut State, batch: Batch, done: Done) -> Option<(Done, AppendError)> {
        let Batch { shard, epoch, first, records } = batch;
        if state.closed {
            return Some((done, self.unavailable("the journal was closed")));
        }
        let lane = state.lanes.entry(shard).or_default();
        let Some(owner) = lane.owner.as_mut().filter(|owner| owner.hold.epoch == epoch) else {
            if state.strangers.len() >= STRANGERS_MAX {
                return Some((done, self.unavailable("too many appends for shards that are not held")));
            }
            state.strangers.push(Stranger { shard, epoch, done });
            return None;
        };
        if !owner.is_open {
            return Some((done, AppendError::Poisoned));
        }
        let payloads = records.iter().map(|record| record.payload.len() + RECORD_BYTES).sum::<usize>();
        let bytes = payloads + BATCH_BYTES;
        if bytes > BATCH_BYTES_MAX {
            owner.is_open = false;
            return Some((done, self.unavailable(&format!("a batch may have {BATCH_BYTES_MAX} bytes"))));
        }
        if state.bytes > 0 && state.bytes + bytes > self.limits.queue_bytes_max {
            owner.is_open = false;
            return Some((done, self.unavailable("the queue of the writers is full")));
        }
        let waiting = if first != owner.next {
            owner.is_open = false;
            Waiting::Answer(done, Err(AppendError::OutOfOrder { expected: owner.next, got: first }))
        } else if records.is_empty() {
            Waiting::Answer(done, Ok(()))
        } else {
            owner.next = owner.next.plus(records.len() as u64);
            state.bytes += bytes;
            Waiting::Append(Append { first, records, bytes, done })
        };
        lane.waiting.push_back(waiting);
        if !lane.is_busy {
            state.could_go += 1;
            if lane.waiting.len() == 1 {
                state.ready.push_back(shard);
            }
        }
        None
    }

    /// The next work; waits for it. `None`: the journal is closed and everything is done.
    pub(crate) async fn next(&self) -> Option<Next> {
        loop {
            let (work, answers, closed, held_back) = {
                let mut state = self.lock();
                let (work, answers) = self.take(&mut state);
                (work, answers, state.closed, state.waits(1))
            };
            answers.give();
            match work {
                Some(work) => return Some(work),
                None if closed => {
                    // The next writer ends too.
                    self.work.notify_one();
                    return None;
                }
                None if held_back => drop(timeout(HELD_BACK_MAX, self.work.notified()).await),
                None => self.work.notified().await,
            }
        }
    }

    fn take(&self, state: &mut State) -> (Option<Next>, Answers) {
        let mut answers = Answers::default();
        if !state.strangers.is_empty() {
            return (Some(Next::Strangers(std::mem::take(&mut state.strangers))), answers);
        }
        if !state.has_group(self.limits) {
            return (None, answers);
        }
        let (mut group, mut bytes, mut records) = (Vec::new(), 0, 0);
        while bytes < self.limits.group_bytes_max && records < self.limits.group_records_max {
            let Some(shard) = state.ready.pop_front() else { break };
            let Some(lane) = state.lanes.get_mut(&shard).filter(|lane| !lane.is_busy) else { continue };
            state.could_go -= lane.waiting.len();
            let mut appends = Vec::new();
            while bytes < self.limits.group_bytes_max && records < self.limits.group_records_max {
                match lane.waiting.pop_front() {
                    None => break,
                    Some(Waiting::Append(append)) => {
                        bytes += append.bytes;
                        records += append.records.len();
                        appends.push(append);
                    }
                    Some(Waiting::Answer(done, outcome)) if appends.is_empty() => {
                        answers.0.push((done, outcome));
                    }
                    Some(answer @ Waiting::Answer(..)) => {
                        lane.waiting.push_front(answer);
                        break;
                    }
                }
            }
            match &lane.owner {
                Some(owner) if !appends.is_empty() => {
                    lane.is_busy = true;
                    group.push(Part { shard, hold: owner.hold, appends });
                }
                Some(_) | None => state.could_go += lane.waiting.len(),
            }
        }
        if !group.is_empty() {
            state.under_way += 1;
            state.moved = Some(Instant::now());
        }
        if state.waits(1) {
            self.work.notify_one();
        }
        ((!group.is_empty()).then_some(Next::Group(group)), answers)
    }

    /// Answers the parts of a group and lets what waits behind them go on. What waits behind a failure fails too.
    pub(crate) fn finish(&self, parts: Vec<(Part, Result<(), AppendError>)>) {
        let mut answers = Answers::default();
        let mut shards = Vec::with_capacity(parts.len());
        {
            let mut state = self.lock();
            for (part, outcome) in parts {
                shards.push(part.shard);
                state.settle(part, &outcome, &mut answers);
            }
        }
        // Still busy: no later answer of these shards can overtake.
        answers.give();
        let mut state = self.lock();
        state.under_way -= 1;
        state.moved = Some(Instant::now());
        for shard in shards {
            state.release(shard);
        }
        let more = state.has_work(self.limits);
        drop(state);
        if more {
            self.work.notify_one();
        }
    }

    /// A shard was acquired. What waits for an earlier owner was not appended.
    pub(crate) fn install(&self, shard: ShardId, hold: Hold) {
        let mut answers = Answers::default();
        {
            let mut state = self.lock();
            let (state, mut bytes) = (&mut *state, 0);
            let lane = state.lanes.entry(shard).or_default();
            if !lane.is_busy {
                state.could_go -= lane.waiting.len();
            }
            lane.turn_away(&AppendError::Poisoned, &mut bytes, &mut answers);
            lane.owner = Some(Owner { hold, next: hold.durable.next(), is_open: true });
            state.bytes -= bytes;
        }
        answers.give();
    }

    /// The owner had these shards at this version of its fence.
    pub(crate) fn owned(&self, owned: &Owned) {
        let mut state = self.lock();
        for (shard, (epoch, generation)) in &owned.shards {
            let owner = state.lanes.get_mut(shard).and_then(|lane| lane.owner.as_mut());
            if let Some(owner) =
                owner.filter(|owner| (owner.hold.epoch, owner.hold.generation) == (*epoch, *generation))
            {
                owner.hold.version = owner.hold.version.max(owned.version);
            }
        }
    }

    /// As what this epoch holds the shard. `Err(None)`: it is not known to.
    pub(crate) fn hold(&self, shard: ShardId, epoch: Epoch) -> Result<Hold, Option<AppendError>> {
        let state = self.lock();
        let owner = state.lanes.get(&shard).and_then(|lane| lane.owner.as_ref());
        match owner.filter(|owner| owner.hold.epoch == epoch) {
            Some(owner) if owner.is_open => Ok(owner.hold),
            Some(_) => Err(Some(AppendError::Poisoned)),
            None => Err(None),
        }
    }

    /// What is known to be durable of a shard, by whoever holds it here.
    pub(crate) fn durable(&self, shard: ShardId) -> Seq {
        let state = self.lock();
        let owner = state.lanes.get(&shard).and_then(|lane| lane.owner.as_ref());
        owner.map_or(Seq::ZERO, |owner| owner.hold.durable)
    }

    /// A checkpoint was stored.
    pub(crate) fn checkpointed(&self, shard: ShardId, by: Hold, through: Seq) {
        if let Some(owner) = self.lock().owner(shard, by) {
            owner.hold.checkpointed = owner.hold.checkpointed.max(through);
        }
    }

    /// Takes nothing more. What is queued is still done.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    /// Nobody will do what is queued.
    pub(crate) fn abandon(&self) {
        let left = {
            let mut state = self.lock();
            (state.closed, state.could_go) = (true, 0);
            (std::mem::take(&mut state.lanes), std::mem::take(&mut state.strangers))
        };
        // Each answers for itself.
        drop(left);
    }
}

impl State {
    /// Whether a writer that has nothing to do has something to do.
    fn has_work(&self, limits: Limits) -> bool {
        !self.strangers.is_empty() || self.has_group(limits)
    }

    /// One more does not go beside others before it has some batches to take along, unless they hang.
    fn has_group(&self, limits: Limits) -> bool {
        let moves = self.under_way > 0 && self.moved.is_some_and(|moved| moved.elapsed() < HELD_BACK_MAX);
        self.waits(if moves { limits.group_beside_min } else { 1 })
    }

    /// Whether at least so many batches could go.
    fn waits(&self, least: usize) -> bool {
        let idle = || self.lanes.values().filter(|lane| !lane.is_busy);
        debug_assert_eq!(self.could_go, idle().map(|lane| lane.waiting.len()).sum::<usize>());
        self.could_go >= least
    }

    fn owner(&mut self, shard: ShardId, hold: Hold) -> Option<&mut Owner> {
        let owner = self.lanes.get_mut(&shard)?.owner.as_mut()?;
        (owner.hold.generation == hold.generation && owner.hold.epoch == hold.epoch).then_some(owner)
    }

    fn settle(&mut self, part: Part, outcome: &Result<(), AppendError>, answers: &mut Answers) {
        let (shard, hold) = (part.shard, part.hold);
        let mut bytes = 0;
        let last = part.appends.last().map(|append| Seq(append.first.0 + append.records.len() as u64 - 1));
        for append in part.appends {
            bytes += append.bytes;
            answers.0.push((append.done, outcome.clone()));
        }
        // If it was acquired again meanwhile, what became of this says nothing about the new owner.
        let current = self.owner(shard, hold);
        match (current, outcome) {
            (None, _) => {}
            (Some(owner), Ok(())) => owner.hold.durable = last.unwrap_or(owner.hold.durable),
            (Some(owner), Err(error)) => {
                owner.is_open = false;
                let fenced = matches!(error, AppendError::Fenced { .. });
                let behind = if fenced { error.clone() } else { AppendError::Poisoned };
                if let Some(lane) = self.lanes.get_mut(&shard) {
                    if fenced {
                        lane.owner = None;
                    }
                    lane.turn_away(&behind, &mut bytes, answers);
                }
            }
        }
        self.bytes -= bytes;
    }

    fn release(&mut self, shard: ShardId) {
        if let Some(lane) = self.lanes.get_mut(&shard) {
            lane.is_busy = false;
            self.could_go += lane.waiting.len();
            if !lane.waiting.is_empty() {
                self.ready.push_back(shard);
            }
        }
    }
}

impl Lane {
    fn turn_away(&mut self, error: &AppendError, bytes: &mut usize, answers: &mut Answers) {
        for waiting in self.waiting.drain(..) {
            answers.0.push(match waiting {
                Waiting::Append(append) => {
                    *bytes += append.bytes;
                    (append.done, Err(error.clone()))
                }
                Waiting::Answer(done, outcome) => (done, outcome.and(Err(error.clone()))),
            });
        }
    }
}

#[cfg(test)]
mod tests;
