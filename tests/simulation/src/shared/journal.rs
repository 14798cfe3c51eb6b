//! The journal as a node reaches it.
//!
//! Owns: the order of a shard's appends, one group of them under way at a time. Never: takes an append for done, or for
//! not done, that was not answered.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use kapell_journal::{
    AcquireError, Acquired, AppendDone, AppendError, Batch, Done, Journal, Placed, ReadError, RunImage,
};
use kapell_model::{Epoch, RunId, Seq, ShardId};

use super::locked;
use super::log::{Generation, Log, Writer};
use super::post::{Post, Store};

/// Records of one answer.
const PAGE: usize = 100;
const RETRY_AFTER: Duration = Duration::from_millis(200);
const NO_ANSWER: &str = "the journal did not answer in time";

/// See the module. One for each life of a node.
#[derive(Clone)]
pub struct SharedJournal {
    post: Post,
    log: Arc<Mutex<Log>>,
    node: &'static str,
    lanes: Arc<Mutex<BTreeMap<ShardId, Lane>>>,
}

/// Appends of one shard.
#[derive(Default)]
struct Lane {
    generation: Generation,
    is_under_way: bool,
    waiting: VecDeque<(Batch, Done)>,
}

fn unread() -> ReadError {
    ReadError::Unavailable { reason: NO_ANSWER.to_owned(), retry_after: RETRY_AFTER }
}

fn unwritten() -> AppendError {
    AppendError::Unavailable { reason: NO_ANSWER.to_owned(), retry_after: RETRY_AFTER }
}

impl SharedJournal {
    pub(super) fn new(post: Post, log: Arc<Mutex<Log>>, node: &'static str) -> SharedJournal {
        SharedJournal { post, log, node, lanes: Arc::default() }
    }

    /// What the journal says, unless the question or its answer was lost.
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Log) -> T + Send + 'static,
    ) -> BoxFuture<'static, Option<T>> {
        let (post, log, node) = (self.post.clone(), Arc::clone(&self.log), self.node);
        async move { post.ask(node, Store::Journal, move || work(&mut locked(&log))).await }.boxed()
    }

    fn writer(&self, shard: ShardId, epoch: Epoch) -> Writer {
        let generation = locked(&self.lanes).get(&shard).map_or(Generation::NONE, |lane| lane.generation);
        Writer { node: self.node, shard, epoch, generation }
    }

    /// Sends all that wait, if nothing is under way.
    fn send(&self, shard: ShardId) {
        let mut lanes = locked(&self.lanes);
        let lane = lanes.entry(shard).or_default();
        let Some(epoch) = lane.waiting.front().map(|(batch, _)| batch.epoch) else { return };
        if std::mem::replace(&mut lane.is_under_way, true) {
            return;
        }
        let mut group = (Vec::new(), Vec::new());
        while lane.waiting.front().is_some_and(|(batch, _)| batch.epoch == epoch) {
            let (batch, done) = lane.waiting.pop_front().unzip();
            group.0.extend(batch);
            group.1.extend(done);
        }
        let writer = Writer { node: self.node, shard, epoch, generation: lane.generation };
        drop(lanes);
        let ((batches, waiting), log, journal) = (group, Arc::clone(&self.log), self.clone());
        let work = move || locked(&log).append(writer, batches);
        self.post.ask_then(self.node, Store::Journal, work, move |answers| {
            journal.answered(writer, answers, waiting);
        });
    }

    fn answered(&self, writer: Writer, answers: Option<Vec<Result<(), AppendError>>>, waiting: Vec<Done>) {
        {
            let mut lanes = locked(&self.lanes);
            let lane = lanes.entry(writer.shard).or_default();
            lane.is_under_way = false;
            if answers.is_none() && lane.generation == writer.generation {
                // Nobody knows what was done: nothing more is asked for until the shard is acquired again.
                lane.generation = Generation::NONE;
            }
        }
        let answers = answers.unwrap_or_else(|| vec![Err(unwritten()); waiting.len()]);
        waiting.into_iter().zip(answers).for_each(|(done, answer)| done.answer(answer));
        self.send(writer.shard);
    }
}

impl Journal for SharedJournal {
    fn epoch(&self, shard: ShardId) -> BoxFuture<'_, Result<Epoch, ReadError>> {
        self.ask(move |log| log.epoch(shard)).map(|answer| answer.ok_or_else(unread)).boxed()
    }

    fn acquire(&self, shard: ShardId, epoch: Epoch) -> BoxFuture<'_, Result<Acquired, AcquireError>> {
        let node = self.node;
        async move {
            let answer = self.ask(move |log| log.acquire(node, shard, epoch)).await;
            let (acquired, generation) = answer.ok_or_else(unread)??;
            let former = {
                let mut lanes = locked(&self.lanes);
                let lane = lanes.entry(shard).or_default();
                lane.generation = generation;
                std::mem::take(&mut lane.waiting)
            };
            former.into_iter().for_each(|(_, done)| done.answer(Err(AppendError::Poisoned)));
            Ok(acquired)
        }
        .boxed()
    }

    fn append(&self, batch: Batch, done: AppendDone) {
        let shard = batch.shard;
        let done = Done::new(done, RETRY_AFTER);
        locked(&self.lanes).entry(shard).or_default().waiting.push_back((batch, done));
        self.send(shard);
    }

    fn read(&self, shard: ShardId, after: Seq) -> BoxStream<'_, Result<Placed, ReadError>> {
        let pages = stream::try_unfold(Some(after), move |after| async move {
            let Some(after) = after else { return Ok(None) };
            let page = self.ask(move |log| log.read(shard, after, PAGE)).await.ok_or_else(unread)??;
            let next = (page.len() == PAGE).then(|| page.last().map_or(after, |placed| placed.seq));
            Ok::<_, ReadError>(Some((stream::iter(page.into_iter().map(Ok)), next)))
        });
        pages.try_flatten().boxed()
    }

    fn history(&self, run: RunId) -> BoxFuture<'_, Result<Vec<Placed>, ReadError>> {
        self.ask(move |log| log.history(run)).map(|answer| answer.ok_or_else(unread)).boxed()
    }

    fn checkpoint(
        &self,
        shard: ShardId,
        epoch: Epoch,
        through: Seq,
        changed: Vec<RunImage>,
    ) -> BoxFuture<'_, Result<(), AppendError>> {
        let writer = self.writer(shard, epoch);
        let answer = self.ask(move |log| log.checkpoint(writer, through, changed));
        answer.map(|answer| answer.unwrap_or_else(|| Err(unwritten()))).boxed()
    }

    fn images(&self, shard: ShardId) -> BoxStream<'_, Result<RunImage, ReadError>> {
        let all = self.ask(move |log| log.images(shard)).map(|answer| answer.ok_or_else(unread));
        all.map_ok(|all| stream::iter(all.into_iter().map(Ok))).try_flatten_stream().boxed()
    }

    fn trim(&self, shard: ShardId, epoch: Epoch, through: Seq) -> BoxFuture<'_, Result<(), AppendError>> {
        let answer = self.ask({
            let writer = self.writer(shard, epoch);
            move |log| log.trim(writer, through)
        });
        answer.map(|answer| answer.unwrap_or_else(|| Err(unwritten()))).boxed()
    }
}
