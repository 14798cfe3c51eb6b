//! The two ways in which the engine is driven: by a thread of its own, or inside the call.
//!
//! Owns: the bounded queue in front of the writer, the threads and their end. Never: knows what an append means.
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::BoxFuture;
use kapell_journal::AppendError;
use kapell_model::{Epoch, ShardId};

use crate::engine::{Append, Engine, Item, Reply};
use crate::shared::lock;

/// A thread that is waited for when its owner goes, unless it is the one that goes.
pub(crate) struct Joined(Option<JoinHandle<()>>);

impl Joined {
    pub(crate) fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Joined> {
        Ok(Joined(Some(Builder::new().name(name.to_owned()).spawn(body)?)))
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic there was already answered by the items that it dropped.
            drop(thread.join());
        }
    }
}

struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    acquisitions: usize,
    writer_waits: bool,
    /// Somebody has the engine: the writer, or a caller that found nothing before it.
    taken: bool,
    /// So many groups in a row were one append with nothing behind it, and flushed fast.
    alone: u32,
    closed: bool,
    /// Shards whose owner was turned away; what else it sends is answered at once.
    turned_away: BTreeMap<ShardId, Epoch>,
}

impl Queue {
    fn is_alone(&self, append: &Append) -> bool {
        let is_free = !self.taken && self.items.is_empty();
        is_free && self.alone >= ALONE_MIN && append.count <= ALONE_RECORDS_MAX
    }

    fn turn_away(&mut self, shard: ShardId, epoch: Epoch) {
        // Once is enough: at most one of these waits for each owner.
        if self.turned_away.insert(shard, epoch) != Some(epoch) {
            self.items.push_back(Item::Close { shard, epoch });
        }
    }
}

/// What an append takes in the queue besides its frame.
const ITEM_BYTES: usize = 128;

/// Groups of one append before callers write theirs: with two busy callers one soon comes while another is flushed.
const ALONE_MIN: u32 = 4;
/// More records at once come from a shard that has much to do: what comes next is decided while they are flushed.
const ALONE_RECORDS_MAX: u64 = 16;

pub(crate) struct Limits {
    pub(crate) queue_bytes_max: usize,
    pub(crate) group_bytes_max: usize,
    pub(crate) group_appends_max: usize,
    pub(crate) acquisitions_max: usize,
    pub(crate) caller_flush_max: Duration,
    pub(crate) retry_after: Duration,
}

struct Lane {
    engine: Mutex<Engine>,
    queue: Mutex<Queue>,
    filled: Condvar,
    limits: Limits,
}

/// The writer's thread and the queue in front of it.
pub(crate) struct Writer {
    lane: Arc<Lane>,
    thread: Option<Joined>,
}

impl Writer {
    pub(crate) fn start(engine: Engine, limits: Limits) -> io::Result<Writer> {
        let queue = Queue {
            items: VecDeque::new(),
            bytes: 0,
            acquisitions: 0,
            writer_waits: false,
            taken: false,
            alone: 0,
            closed: false,
            turned_away: BTreeMap::new(),
        };
        let (engine, queue) = (Mutex::new(engine), Mutex::new(queue));
        let lane = Arc::new(Lane { engine, queue, filled: Condvar::new(), limits });
        let theirs = Arc::clone(&lane);
        let thread = Joined::start("journal-writer", move || theirs.write())?;
        Ok(Writer { lane, thread: Some(thread) })
    }

    /// Queues an append, writes it now if there is nothing else to do, or answers it at once if there is no room.
    pub(crate) fn append(&self, append: Append) {
        let mut queue = lock(&self.lane.queue);
        let bytes = append.frame.len() + ITEM_BYTES;
        let refusal = if queue.turned_away.get(&append.shard) == Some(&append.epoch) {
            AppendError::Poisoned
        } else if queue.closed {
            self.lane.unavailable("the journal was closed")
        } else if queue.bytes > 0 && queue.bytes + bytes > self.lane.limits.queue_bytes_max {
            queue.turn_away(append.shard, append.epoch);
            self.lane.unavailable("the queue of the writer is full")
        } else if queue.is_alone(&append) {
            queue.taken = true;
            drop(queue);
            self.lane.commit(std::iter::once(Item::Append(append)), &mut Vec::with_capacity(1));
            return;
        } else {
            queue.bytes += bytes;
            queue.items.push_back(Item::Append(append));
            self.lane.wake(queue);
            return;
        };
        self.lane.wake(queue);
        append.done.answer(Err(refusal));
    }

    /// Queues an acquisition; dropped unanswered if too many wait.
    pub(crate) fn acquire(&self, item: Item) {
        let mut queue = lock(&self.lane.queue);
        if !queue.closed && queue.acquisitions < self.lane.limits.acquisitions_max {
            queue.acquisitions += 1;
            queue.items.push_back(item);
            self.lane.wake(queue);
        }
    }

    /// Closes the shard for an owner whose append was turned away.
    pub(crate) fn turn_away(&self, shard: ShardId, epoch: Epoch) {
        let mut queue = lock(&self.lane.queue);
        queue.turn_away(shard, epoch);
        self.lane.wake(queue);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut queue = lock(&self.lane.queue);
        queue.closed = true;
        self.lane.wake(queue);
        self.thread = None;
    }
}

impl Lane {
    fn unavailable(&self, reason: &str) -> AppendError {
        AppendError::Unavailable { reason: reason.to_owned(), retry_after: self.limits.retry_after }
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        // Who has the engine wakes the writer for what has come meanwhile.
        let wake = !queue.taken && std::mem::take(&mut queue.writer_waits);
        drop(queue);
        if wake {
            self.filled.notify_one();
        }
    }

    fn write(&self) {
        let mut items = Vec::new();
        let mut replies = Vec::new();
        while self.drain(&mut items) {
            self.commit(items.drain(..), &mut replies);
        }
    }

    /// Writes one group and gives its answers, for whoever has taken the engine; gives the engine back.
    fn commit(&self, items: impl ExactSizeIterator<Item = Item>, replies: &mut Vec<Reply>) {
        let count = items.len();
        let answer_all_if_it_panics = CloseLane(self);
        let flushed_in = lock(&self.engine).commit(items, replies);
        let is_fast = flushed_in.is_some_and(|took| took <= self.limits.caller_flush_max);
        let mut queue = lock(&self.queue);
        let was_alone = count == 1 && queue.items.is_empty() && is_fast;
        queue.alone = if was_alone { queue.alone.saturating_add(1) } else { 0 };
        drop(queue);
        for reply in replies.drain(..) {
            reply.give();
        }
        std::mem::forget(answer_all_if_it_panics);
        // Only now: the answers of the next group come after these.
        let mut queue = lock(&self.queue);
        queue.taken = false;
        if !queue.items.is_empty() || queue.closed {
            self.wake(queue);
        }
    }

    /// Takes what is queued, up to the size of a group. Waits if there is nothing; false at the end.
    fn drain(&self, items: &mut Vec<Item>) -> bool {
        let mut queue = lock(&self.queue);
        while queue.items.is_empty() || queue.taken {
            if queue.closed && !queue.taken {
                return false;
            }
            queue.writer_waits = true;
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let mut bytes = 0;
        while items.len() < self.limits.group_appends_max && bytes < self.limits.group_bytes_max {
            let Some(item) = queue.items.pop_front() else { break };
            match &item {
                Item::Append(append) => bytes += append.frame.len() + ITEM_BYTES,
                // From here on the engine itself refuses what the shard sends.
                Item::Close { shard, .. } => drop(queue.turned_away.remove(shard)),
                Item::Acquire { .. } => queue.acquisitions -= 1,
            }
            items.push(item);
        }
        queue.bytes -= bytes;
        queue.taken = true;
        true
    }
}

/// Closes the queue when a panic ends whoever has the engine; items that are dropped answer for themselves.
struct CloseLane<'a>(&'a Lane);

impl Drop for CloseLane<'_> {
    fn drop(&mut self) {
        let left = {
            let mut queue = lock(&self.0.queue);
            queue.closed = true;
            queue.taken = false;
            let left = std::mem::take(&mut queue.items);
            self.0.wake(queue);
            left
        };
        drop(left);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Where reads, checkpoints and trims are done: never on the caller's async worker.
pub(crate) enum Jobs {
    /// Inside the call.
    Inline,
    /// By a thread, one after the other.
    Thread { queue: Option<SyncSender<Job>>, thread: Option<Joined> },
}

/// The job was not done: too many wait, or the thread has ended.
pub(crate) struct TooMany;

impl Jobs {
    pub(crate) fn start(name: &str, waiting_max: usize) -> io::Result<Jobs> {
        let (queue, jobs) = sync_channel::<Job>(waiting_max);
        let thread = Joined::start(name, move || {
            for job in jobs {
                job();
            }
        })?;
        Ok(Jobs::Thread { queue: Some(queue), thread: Some(thread) })
    }

    /// Does the job and answers what it answered.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, TooMany>> {
        let queue = match self {
            Jobs::Inline => return Box::pin(std::future::ready(Ok(job()))),
            Jobs::Thread { queue, .. } => queue,
        };
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || drop(answer.send(job())));
        match queue.as_ref().map(|queue| queue.try_send(job)) {
            Some(Ok(())) => Box::pin(async move { answered.await.map_err(|_| TooMany) }),
            None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => {
                Box::pin(std::future::ready(Err(TooMany)))
            }
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        if let Jobs::Thread { queue, thread } = self {
            // The thread ends when it has done what is queued.
            *queue = None;
            *thread = None;
        }
    }
}
