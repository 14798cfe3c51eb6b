//! What clients and nodes asked and were answered, and whether one order explains it.
//!
//! Owns: the histories of starts and of owners, and the journal that writes the second down. Never: knows how anything
//! is done, or judges what was never answered: that may have taken effect at any time, or never.
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use kapell_journal::{
    AcquireError, Acquired, AppendDone, AppendError, Batch, Journal, Placed, ReadError, RunImage,
};
use kapell_model::{Epoch, RunId, Seq, ShardId};
use kapell_tests_linearizability::models::run_start::{self, RunStart};
use kapell_tests_linearizability::models::shard_owner::{self, Ask, Output, ShardOwner};
use kapell_tests_linearizability::{Budget, History, Model, OperationId, Recorder, Verdict, check};

use crate::world::World;

/// The one who publishes events, and whoever passes them on.
const CLIENT: u64 = 0;
const NODE: u64 = 1;
/// Steps of one search; a history of the simulation needs a few thousand.
const STEPS: u32 = 400_000;

/// See the module.
#[derive(Default)]
pub(crate) struct Histories {
    /// By the event's id, which every sender of the event knows.
    starts: Recorder<run_start::Input<String>, run_start::Output<String>>,
    owners: Recorder<shard_owner::Input<u16, u64>, shard_owner::Output<u64>>,
    answered: u64,
}

impl Histories {
    /// An event is about to be sent.
    pub(crate) fn sends(&mut self, event: &str) -> OperationId {
        self.starts.invoke(CLIENT, run_start::Input::Start(event.to_owned()))
    }

    /// An event is about to be passed on. A node whose stream to the owner breaks asks there again, so that the answer may
    /// be that of the second time: as if somebody else had sent the event too, and heard nothing.
    pub(crate) fn passes_on(&mut self, event: &str) {
        self.starts.invoke(NODE, run_start::Input::Start(event.to_owned()));
    }

    /// It was accepted.
    pub(crate) fn accepted(&mut self, operation: OperationId, event: &str, duplicate: bool) {
        self.answered += 1;
        self.starts.complete(operation, run_start::Output::Started { run: event.to_owned(), duplicate });
    }

    fn owner(&mut self, operation: OperationId, output: Output<u64>) {
        self.answered += 1;
        self.owners.complete(operation, output);
    }

    /// How many operations were answered, and what no order explains.
    pub(crate) fn judge(self) -> (u64, Vec<String>) {
        let wrong = [
            wrong(&RunStart::default(), "starts of runs", self.starts.finish()),
            wrong(&ShardOwner::default(), "owners of shards", self.owners.finish()),
        ];
        (self.answered, wrong.into_iter().flatten().collect())
    }
}

fn wrong<M: Model>(
    model: &M,
    what: &str,
    history: Result<History<M::Input, M::Output>, kapell_tests_linearizability::HistoryError>,
) -> Option<String> {
    match history.map(|history| check(model, &history, Budget::steps(STEPS))) {
        Ok(Verdict::Linearizable) => None,
        Ok(wrong) => Some(format!("{what}: {wrong:?}")),
        Err(error) => Some(format!("{what}: {error}")),
    }
}

/// A journal as one node uses it: who acquired which shard, and who appended what.
pub(crate) struct Recorded {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) world: World,
    /// For people.
    pub(crate) node: u64,
}

impl Recorded {
    fn asks(&self, shard: ShardId, ask: Ask<u64>) -> OperationId {
        let input = shard_owner::Input { shard: shard.0, ask };
        self.world.lock().histories.owners.invoke(self.node, input)
    }
}

impl Journal for Recorded {
    fn acquire(&self, shard: ShardId, epoch: Epoch) -> BoxFuture<'_, Result<Acquired, AcquireError>> {
        Box::pin(async move {
            let operation = self.asks(shard, Ask::Acquire { epoch: Some(epoch.0) });
            let answer = self.journal.acquire(shard, epoch).await;
            let output = match &answer {
                Ok(acquired) => Output::Acquired { epoch: epoch.0, last: Some(acquired.last.0) },
                Err(AcquireError::Fenced { held_by }) => Output::Fenced { held_by: Some(held_by.0) },
                Err(AcquireError::Read(_)) => return answer,
            };
            self.world.lock().histories.owner(operation, output);
            answer
        })
    }

    fn append(&self, batch: Batch, done: AppendDone) {
        let (epoch, first, records) = (batch.epoch.0, batch.first.0, batch.records.len() as u64);
        let operation = self.asks(batch.shard, Ask::Append { epoch, first, records });
        let world = self.world.clone();
        let told = move |outcome: Result<(), AppendError>| {
            match &outcome {
                Ok(()) => world.lock().histories.owner(operation, Output::Appended),
                Err(AppendError::Fenced { held_by }) => {
                    world.lock().histories.owner(operation, Output::Fenced { held_by: Some(held_by.0) });
                }
                // It may be there, or may be yet.
                Err(_) => {}
            }
            done(outcome);
        };
        self.journal.append(batch, Box::new(told));
    }

    fn epoch(&self, shard: ShardId) -> BoxFuture<'_, Result<Epoch, ReadError>> {
        self.journal.epoch(shard)
    }

    fn read(&self, shard: ShardId, after: Seq) -> BoxStream<'_, Result<Placed, ReadError>> {
        self.journal.read(shard, after)
    }

    fn history(&self, run: RunId) -> BoxFuture<'_, Result<Vec<Placed>, ReadError>> {
        self.journal.history(run)
    }

    fn checkpoint(
        &self,
        shard: ShardId,
        epoch: Epoch,
        through: Seq,
        changed: Vec<RunImage>,
    ) -> BoxFuture<'_, Result<(), AppendError>> {
        self.journal.checkpoint(shard, epoch, through, changed)
    }

    fn images(&self, shard: ShardId) -> BoxStream<'_, Result<RunImage, ReadError>> {
        self.journal.images(shard)
    }

    fn trim(&self, shard: ShardId, epoch: Epoch, through: Seq) -> BoxFuture<'_, Result<(), AppendError>> {
        self.journal.trim(shard, epoch, through)
    }
}
