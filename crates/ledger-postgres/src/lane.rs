//! The jobs: one that writes, a few that read, each with a connection of its own, and a bounded queue in front.
//!
//! Owns: the queues, what is written together, who answers. Never: knows what is in a row.
//!
//! A pool of connections would be of no use: what is written has an order, and what waits to be written together
//! shares a commit. Readers are few, so that a coordinator never takes more than [`CONNECTIONS`] of the server's.
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kapell_ledger::{ApprovalQuery, ApprovalRow, LedgerBatch, LedgerError, Page, Rebuild, RunQuery, RunRow};
use kapell_model::Seq;
use kapell_runtime::{Job, Jobs, OnDeath};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::known::Known;
use crate::link::{Link, Work};
use crate::read::{One, PageOf, Watermark};
use crate::trouble::{Trouble, unavailable};
use crate::write;

pub(crate) type Answer<T> = BoxFuture<'static, Result<T, LedgerError>>;
type Respond<T> = oneshot::Sender<Result<T, LedgerError>>;

/// Batches that may wait for the writer: shards of a node tell it of their runs at the same time.
const WRITES_WAITING_MAX: usize = 4_096;
/// Queries that may wait for the readers.
const READS_WAITING_MAX: usize = 256;
/// Rows after which a transaction is closed, though more batches wait.
const GROUP_ROWS: usize = 4_096;
/// Queries that are answered at the same time.
const READERS: usize = 3;
/// Connections of one ledger: the writer's and the readers'.
pub(crate) const CONNECTIONS: usize = READERS + 1;

/// Longest time for one query.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// Longest time for a transaction that writes, whatever its size; each of its answers has a limit of its own.
const WRITE_WITHIN: Duration = Duration::from_secs(3_600);

/// Without the writer the ledger would stand still, and with it the checkpoints of the journal.
const WRITER: Job = Job { name: "ledger-writer", on_panic: OnDeath::StopNode };
const READER: Job = Job { name: "ledger-reader", on_panic: OnDeath::StopNode };

/// What is asked of the writer.
pub(crate) enum Write {
    Apply(LedgerBatch, Respond<()>),
    Replace(Rebuild, Respond<()>),
}

/// What is asked of the readers.
pub(crate) enum Read {
    Watermark(Watermark, Respond<Seq>),
    /// The same by somebody who tells nothing of it.
    Contained(Watermark, Respond<Seq>),
    Run(One, Respond<Option<RunRow>>),
    Runs(Box<PageOf<RunQuery>>, Respond<Page<RunRow>>),
    Approvals(Box<PageOf<ApprovalQuery>>, Respond<Page<(RunRow, ApprovalRow)>>),
}

/// Where requests wait.
pub(crate) struct Queue<Request>(mpsc::Sender<Request>);

const ENDED: &str = "the node is stopping, or its job has ended; see the log";

impl<Request> Queue<Request> {
    /// Queues what `request` makes of the way back.
    pub(crate) fn send<T: Send + 'static>(&self, request: impl FnOnce(Respond<T>) -> Request) -> Answer<T> {
        let (respond, answered) = oneshot::channel();
        let refusal = match self.0.try_send(request(respond)) {
            Ok(()) => {
                return Box::pin(async move { answered.await.unwrap_or_else(|_| Err(unavailable(ENDED))) });
            }
            Err(mpsc::error::TrySendError::Full(_)) => unavailable("too many requests wait for it"),
            Err(mpsc::error::TrySendError::Closed(_)) => unavailable(ENDED),
        };
        Box::pin(std::future::ready(Err(refusal)))
    }
}

/// Starts the writer. It ends when the queue is gone and everything in it is done.
pub(crate) fn start_writer(jobs: &Jobs, mut link: Link, known: Arc<Known>) -> Queue<Write> {
    let (queue, mut requests) = mpsc::channel(WRITES_WAITING_MAX);
    jobs.spawn(WRITER, async move {
        while let Some(first) = requests.recv().await {
            write_group(&mut link, &known, first, &mut requests).await;
        }
    });
    Queue(queue)
}

/// Batches that wait together are written together: many shards with few rows each share one commit.
async fn write_group(link: &mut Link, known: &Known, first: Write, requests: &mut mpsc::Receiver<Write>) {
    let (mut group, mut waiting, mut rows) = (Vec::new(), Vec::new(), 0);
    let mut next = Some(first);
    while let Some(request) = next {
        match request {
            Write::Apply(batch, respond) => {
                // A batch without rows still takes its turn.
                rows += batch.runs.len().max(1);
                group.push(batch);
                waiting.push(respond);
            }
            Write::Replace(rebuild, respond) => {
                flush(link, known, std::mem::take(&mut group), std::mem::take(&mut waiting)).await;
                let done = link.run(WRITE_WITHIN, &write::Replace { rebuild: &rebuild, known }).await;
                reply(respond, done.map_err(Trouble::answer));
            }
        }
        next = if rows < GROUP_ROWS { requests.try_recv().ok() } else { None };
    }
    flush(link, known, group, waiting).await;
}

async fn flush(link: &mut Link, known: &Known, group: Vec<LedgerBatch>, waiting: Vec<Respond<()>>) {
    let verdicts = match apply(link, known, &group).await {
        Err(trouble) if trouble.is_of_one() && group.len() > 1 => one_by_one(link, known, &group).await,
        outcome => outcome.unwrap_or_else(|trouble| vec![Err(trouble.answer()); group.len()]),
    };
    for (respond, verdict) in waiting.into_iter().zip(verdicts) {
        reply(respond, verdict);
    }
}

async fn apply(
    link: &mut Link,
    known: &Known,
    group: &[LedgerBatch],
) -> Result<Vec<write::Verdict>, Trouble> {
    if group.is_empty() {
        return Ok(Vec::new());
    }
    link.run(WRITE_WITHIN, &write::Apply { group, known }).await
}

/// What PostgreSQL does not take must not hold back the batches of other shards.
async fn one_by_one(link: &mut Link, known: &Known, group: &[LedgerBatch]) -> Vec<write::Verdict> {
    let mut verdicts = Vec::with_capacity(group.len());
    for batch in group {
        let alone = apply(link, known, std::slice::from_ref(batch)).await;
        verdicts.push(alone.map_err(Trouble::answer).and_then(|verdicts| verdicts.into_iter().collect()));
    }
    verdicts
}

/// Starts the readers. They end when the queue is gone and everything in it is answered.
pub(crate) fn start_readers(jobs: &Jobs, link: impl Fn() -> Link, known: &Arc<Known>) -> Queue<Read> {
    let (queue, requests) = mpsc::channel(READS_WAITING_MAX);
    let requests = Arc::new(Mutex::new(requests));
    for _ in 0..READERS {
        let (mut link, known, requests) = (link(), known.clone(), requests.clone());
        jobs.spawn(READER, async move {
            loop {
                let next = requests.lock().await.recv().await;
                let Some(request) = next else { break };
                serve(&mut link, &known, request).await;
            }
        });
    }
    Queue(queue)
}

async fn serve(link: &mut Link, known: &Known, request: Read) {
    match request {
        Read::Watermark(work, respond) => {
            let asked = known.asking(work.0);
            let found = answer(link, &work).await;
            if let Ok(through) = found {
                known.shown(asked, work.0, through);
            }
            reply(respond, found);
        }
        Read::Contained(work, respond) => reply(respond, answer(link, &work).await),
        Read::Run(work, respond) => reply(respond, answer(link, &work).await),
        Read::Runs(work, respond) => reply(respond, answer(link, &*work).await),
        Read::Approvals(work, respond) => reply(respond, answer(link, &*work).await),
    }
}

async fn answer<W: Work>(link: &mut Link, work: &W) -> Result<W::Answer, LedgerError> {
    link.run(READ_WITHIN, work).await.map_err(Trouble::answer)
}

fn reply<T>(respond: Respond<T>, outcome: Result<T, LedgerError>) {
    // Who no longer waits needs no answer.
    drop(respond.send(outcome));
}
