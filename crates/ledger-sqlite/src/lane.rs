//! The threads: one that writes, one that reads, each with a connection of its own and a bounded queue in front.
//!
//! Owns: the queues, what is written together, the end of the threads. Never: knows what is in a row.
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use futures::channel::oneshot;
use futures::future::BoxFuture;
use kapell_ledger::{LedgerBatch, LedgerError, Rebuild};
use rusqlite::Connection;

use crate::trouble::{Trouble, unavailable};
use crate::write;

pub(crate) type Answer<T> = BoxFuture<'static, Result<T, LedgerError>>;
type Respond = oneshot::Sender<Result<(), LedgerError>>;

/// Batches that may wait for the writer: shards of a node tell it of their runs at the same time.
pub(crate) const WRITES_WAITING_MAX: usize = 1_024;
/// Queries that may wait for the reader.
pub(crate) const READS_WAITING_MAX: usize = 256;
/// Rows after which a transaction is closed, though more batches wait.
const GROUP_ROWS: usize = 4_096;

/// A thread that finishes what is queued when its owner goes.
pub(crate) struct Lane<Job> {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl<Job: Send + 'static> Lane<Job> {
    fn start(
        name: &str,
        waiting_max: usize,
        body: impl FnOnce(Receiver<Job>) + Send + 'static,
    ) -> Result<Self, LedgerError> {
        let (queue, jobs) = sync_channel(waiting_max);
        let thread = Builder::new().name(name.to_owned()).spawn(move || body(jobs));
        let thread = thread.map_err(|error| unavailable(&format!("thread {name}: {error}")))?;
        Ok(Lane { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a job; its answer comes through `answered`.
    fn send<T: Send + 'static>(
        &self,
        job: Job,
        answered: oneshot::Receiver<Result<T, LedgerError>>,
    ) -> Answer<T> {
        let refusal = match self.queue.as_ref().map(|queue| queue.try_send(job)) {
            Some(Ok(())) => {
                return Box::pin(async move { answered.await.unwrap_or_else(|_| Err(unavailable(ENDED))) });
            }
            Some(Err(TrySendError::Full(_))) => unavailable("too many requests wait for it"),
            Some(Err(TrySendError::Disconnected(_))) | None => unavailable(ENDED),
        };
        Box::pin(std::future::ready(Err(refusal)))
    }
}

const ENDED: &str = "its thread has ended; see the log and restart this process";

impl<Job> Drop for Lane<Job> {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was answered to whoever waited.
            drop(thread.join());
        }
    }
}

pub(crate) enum Write {
    Apply(LedgerBatch, Respond),
    Replace(Rebuild, Respond),
}

impl Lane<Write> {
    pub(crate) fn writer(mut conn: Connection) -> Result<Lane<Write>, LedgerError> {
        Lane::start("ledger-writer", WRITES_WAITING_MAX, move |jobs: Receiver<Write>| {
            yield_to_the_journal();
            while let Ok(first) = jobs.recv() {
                write_group(&mut conn, first, &jobs);
            }
        })
    }

    pub(crate) fn apply(&self, batch: LedgerBatch) -> Answer<()> {
        let (respond, answered) = oneshot::channel();
        self.send(Write::Apply(batch, respond), answered)
    }

    pub(crate) fn replace(&self, rebuild: Rebuild) -> Answer<()> {
        let (respond, answered) = oneshot::channel();
        self.send(Write::Replace(rebuild, respond), answered)
    }
}

/// How far the writer stands back, as `nice` counts: about a tenth of a contended core is still its own.
const NICENESS: i32 = 10;

/// The ledger may lag; what is accepted and done must not wait for it.
fn yield_to_the_journal() {
    // On Linux this is the calling thread's own. Refused, the writer merely competes as before.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "the ledger's writer keeps its priority");
    }
}

/// Batches that wait together are written together: many shards with few rows each share one commit.
fn write_group(conn: &mut Connection, first: Write, jobs: &Receiver<Write>) {
    let (mut group, mut rows) = (Vec::new(), 0);
    let mut next = Some(first);
    while let Some(job) = next {
        match job {
            Write::Apply(batch, respond) => {
                // A batch without rows still takes its turn.
                rows += batch.runs.len().max(1);
                group.push((batch, respond));
            }
            Write::Replace(rebuild, respond) => {
                flush(conn, std::mem::take(&mut group));
                drop(respond.send(write::replace(conn, &rebuild).map_err(Trouble::answer)));
            }
        }
        next = if rows < GROUP_ROWS { jobs.try_recv().ok() } else { None };
    }
    flush(conn, group);
}

fn flush(conn: &mut Connection, group: Vec<(LedgerBatch, Respond)>) {
    if group.is_empty() {
        return;
    }
    let outcome = write::apply(conn, group.iter().map(|(batch, _)| batch)).map_err(Trouble::answer);
    for (_, respond) in group {
        // Who no longer waits needs no answer.
        drop(respond.send(outcome.clone()));
    }
}

pub(crate) type Read = Box<dyn FnOnce(&mut Connection) + Send>;

impl Lane<Read> {
    pub(crate) fn reader(mut conn: Connection) -> Result<Lane<Read>, LedgerError> {
        Lane::start("ledger-reader", READS_WAITING_MAX, move |jobs: Receiver<Read>| {
            for job in jobs {
                job(&mut conn);
            }
        })
    }

    pub(crate) fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> Result<T, LedgerError> + Send + 'static,
    ) -> Answer<T> {
        let (respond, answered) = oneshot::channel();
        self.send(Box::new(move |conn| drop(respond.send(read(conn)))), answered)
    }
}
