//! The loop of a shard: take a batch, decide, append, and when it is on disk release what it led to.
//!
//! Owns: the pipeline (the next batch is decided while the last is flushed) and the rhythm of timers, ledger and
//! checkpoints. Never: releases an output before its batch is on disk. A failed append kills it; its supervisor
//! starts it anew from the journal.
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use kapell_cluster::Session;
use kapell_journal::{AppendError, Batch, Journal, RunImage};
use kapell_ledger::{Ledger, LedgerBatch, Part};
use kapell_model::{Epoch, Seq, Timestamp};
use kapell_runtime::{Job, OnDeath, Runtime};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::load;
use super::mailbox::Mailbox;
use super::message::{Output, ShardMessage};
use super::state::{ShardRules, ShardState};
use crate::definitions::Definitions;
use crate::links::Links;
use crate::release;

/// Most requests of one batch.
const BATCH_REQUESTS_MAX: usize = 2_048;
/// Batches that may be under way to the disk at once.
const PIPELINE_BATCHES_MAX: usize = 2;
/// Timers fired in one batch.
const BATCH_TIMERS_MAX: usize = 2_048;
/// The clock may step, so no timer is slept for longer than this.
const TICK_MAX: Duration = Duration::from_secs(1);
/// Entries that a hand-over leaves for the next owner to fold: reading so many takes less time than a checkpoint.
const TAIL_ENTRIES_LEFT_MAX: u64 = 2_000;
/// Time that a hand-over spends on a checkpoint. The shard takes requests meanwhile.
const HAND_OVER_CHECKPOINT_MAX: Duration = Duration::from_secs(2);
/// The ledger is close behind when it lacks at most this part of the entries between two checkpoints.
const LEDGER_LACKS_PART: u64 = 10;
/// A checkpoint is overdue after so many times the entries between two.
const CHECKPOINT_OVERDUE: u64 = 5;
/// How often the ledger is told. Shards of a node do it at the same time: what they tell shares a commit.
const FLUSH_EVERY: Duration = Duration::from_millis(200);

const PROJECT: Job = Job { name: "project", on_panic: OnDeath::StopNode };
const CHECKPOINT: Job = Job { name: "checkpoint", on_panic: OnDeath::StopNode };

/// The actor of a shard.
pub(crate) struct Shard;

/// What a shard needs.
#[derive(Clone)]
pub(crate) struct ShardArguments {
    pub(crate) rules: ShardRules,
    /// Under which the cluster gave the shard to this node.
    pub(crate) epoch: Epoch,
    /// Says until when.
    pub(crate) session: Arc<dyn Session>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) links: Arc<Links>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) runtime: Runtime,
}

/// What the actor keeps between messages.
pub(crate) struct Running {
    args: ShardArguments,
    myself: ActorRef<ShardMessage>,
    shard: ShardState,
    batch: u64,
    /// Outputs of batches that are under way to the disk, oldest first.
    in_flight: VecDeque<(u64, Vec<Output>)>,
    /// When the next `Tick` will come.
    tick_at: Option<Timestamp>,
    projecting: bool,
    checkpoint: Checkpoint,
    stay: Stay,
}

/// Whether the shard stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    /// It does.
    Here,
    /// It goes when the checkpoint is stored; until then it takes requests.
    UntilCheckpoint,
    /// It takes no more requests, and ends when nothing is under way to the disk.
    Ending,
}

/// How far the checkpoint is.
struct Checkpoint {
    /// What the last one covers.
    through: Seq,
    /// By a clock that does not step.
    at: Instant,
    under_way: bool,
    /// Waits for the ledger to get as far.
    pending: Option<(Seq, Vec<RunImage>)>,
}

impl Actor for Shard {
    type Msg = ShardMessage;
    type State = Running;
    type Arguments = ShardArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ShardMessage>,
        args: ShardArguments,
    ) -> Result<Running, ActorProcessingErr> {
        let loaded = load::load(&args).await?;
        let now = args.runtime.clock.now();
        let checkpoint =
            Checkpoint { through: loaded.checkpointed, at: Instant::now(), under_way: false, pending: None };
        let mut running = Running {
            myself: myself.clone(),
            shard: loaded.state,
            batch: 0,
            in_flight: VecDeque::new(),
            tick_at: None,
            projecting: false,
            checkpoint,
            stay: Stay::Here,
            args,
        };
        running.shard.drive_all(now, &running.args.definitions.in_force());
        running.finish_batch(now);
        running.args.mailbox.serve(myself.clone());
        running.set_flush();
        Ok(running)
    }

    async fn handle(
        &self,
        _: ActorRef<ShardMessage>,
        message: ShardMessage,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShardMessage::Wake => running.work(),
            ShardMessage::Durable { batch, result } => running.durable(batch, result)?,
            ShardMessage::Tick => {
                running.tick_at = None;
                running.fire();
            }
            ShardMessage::Flush => {
                running.set_flush();
                running.flush();
            }
            ShardMessage::Projected { through, part } => running.projected(through, part),
            ShardMessage::Checkpointed { through } => running.checkpointed(through),
            ShardMessage::HandOver => running.hand_over(),
            ShardMessage::EndNow => running.end(),
        }
        Ok(())
    }
}

impl Running {
    /// Takes the next batch, unless enough are under way; then the next `Durable` does.
    fn work(&mut self) {
        if self.in_flight.len() >= PIPELINE_BATCHES_MAX || !self.may_act() {
            return;
        }
        let requests = self.args.mailbox.take(BATCH_REQUESTS_MAX);
        let (now, in_force) = (self.args.runtime.clock.now(), self.args.definitions.in_force());
        for request in requests {
            self.shard.apply(request, now, &in_force);
        }
        self.finish_batch(now);
    }

    /// Hands the records to the journal; the outputs wait for them.
    fn finish_batch(&mut self, now: Timestamp) {
        let records = std::mem::take(&mut self.shard.records);
        let outputs = std::mem::take(&mut self.shard.outputs);
        self.set_tick(now);
        self.args.mailbox.set_waits(self.shard.has_waits());
        if records.is_empty() {
            match self.in_flight.back_mut() {
                // What was read may not be on disk yet.
                Some((_, waiting)) => waiting.extend(outputs),
                None => self.release(outputs),
            }
            return;
        }
        self.batch += 1;
        let first = Seq(self.shard.last.0 + 1 - records.len() as u64);
        self.in_flight.push_back((self.batch, outputs));
        let (myself, batch) = (self.myself.clone(), self.batch);
        let (at_once, mut answered) = oneshot::channel();
        let done = Box::new(move |result: Result<(), AppendError>| {
            // Nobody listens any more once the call is over.
            let is_late = result.is_err() || at_once.send(()).is_err();
            if is_late && myself.cast(ShardMessage::Durable { batch, result }).is_err() {
                tracing::debug!("a batch became durable after its shard had stopped");
            }
        });
        let append = Batch { shard: self.args.rules.shard, epoch: self.shard.epoch, first, records };
        self.args.journal.append(append, done);
        answered.close();
        if answered.try_recv().is_ok() {
            self.release_through(batch);
            // What is left to do comes by way of the queue: other messages have their turn.
            if self.stay == Stay::Ending || self.args.mailbox.waiting() > 0 {
                drop(self.myself.cast(ShardMessage::Durable { batch, result: Ok(()) }));
            }
        }
    }

    fn durable(&mut self, batch: u64, result: Result<(), AppendError>) -> Result<(), ActorProcessingErr> {
        result?;
        self.release_through(batch);
        if self.stay == Stay::Ending {
            self.end();
        } else if self.args.mailbox.waiting() > 0 {
            self.work();
        }
        Ok(())
    }

    /// Sends on what waited for batches up to this one.
    fn release_through(&mut self, batch: u64) {
        while let Some((no, _)) = self.in_flight.front()
            && *no <= batch
        {
            if let Some((_, outputs)) = self.in_flight.pop_front() {
                self.release(outputs);
            }
        }
    }

    /// Not while the shard may be somebody else's already: the journal would refuse what is decided, but what is read
    /// here could be old.
    fn may_act(&self) -> bool {
        self.stay != Stay::Ending && Instant::now() < self.args.session.valid_until()
    }

    fn hand_over(&mut self) {
        if self.stay != Stay::Here {
            return;
        }
        if self.shard.last.0 - self.checkpoint.through.0 <= TAIL_ENTRIES_LEFT_MAX {
            return self.end();
        }
        self.stay = Stay::UntilCheckpoint;
        self.myself.send_after(HAND_OVER_CHECKPOINT_MAX, || ShardMessage::EndNow);
        self.flush();
    }

    /// Requests that wait are for the next owner; what is on its way to the disk is still answered here.
    fn end(&mut self) {
        if self.stay != Stay::Ending {
            self.stay = Stay::Ending;
            self.args.mailbox.hold();
        }
        if self.in_flight.is_empty() {
            self.myself.stop(None);
        }
    }

    fn release(&self, outputs: Vec<Output>) {
        if !outputs.is_empty() {
            release::release(outputs, &self.args, &self.myself);
        }
    }

    fn fire(&mut self) {
        if !self.may_act() {
            // Its successor fires them.
            return;
        }
        let (now, in_force) = (self.args.runtime.clock.now(), self.args.definitions.in_force());
        if self.shard.fire(now, BATCH_TIMERS_MAX, &in_force) {
            // More are due: they come in the next batch.
            self.tick_at = None;
        }
        self.finish_batch(now);
    }

    fn set_tick(&mut self, now: Timestamp) {
        let Some(next) = self.shard.next_due() else { return };
        let at = next.min(now.after(TICK_MAX));
        if self.tick_at.is_some_and(|set| set <= at) {
            return;
        }
        self.tick_at = Some(at);
        self.myself.send_after(now.until(at), || ShardMessage::Tick);
    }

    fn set_flush(&self) {
        let wait = until_next(FLUSH_EVERY, self.args.links.flushes_from.elapsed());
        self.myself.send_after(wait, || ShardMessage::Flush);
    }

    fn flush(&mut self) {
        if !self.may_act() {
            return;
        }
        let (now, in_force) = (self.args.runtime.clock.now(), self.args.definitions.in_force());
        self.shard.follow_schedules(now, &in_force);
        self.shard.ask_again(Instant::now(), now, &in_force);
        self.begin_checkpoint(now);
        // Nothing may be left to tell the ledger.
        self.store_checkpoint();
        if !self.projecting {
            self.project();
        }
        self.finish_batch(now);
    }

    fn project(&mut self) {
        let batch = self.shard.project();
        self.projecting = batch.is_some();
        self.shard.outputs.extend(batch.map(Output::Project));
    }

    fn begin_checkpoint(&mut self, now: Timestamp) {
        let done = self.shard.last.0 - self.checkpoint.through.0;
        let rules = &self.args.rules;
        let due = done >= rules.checkpoint_entries
            || self.stay == Stay::UntilCheckpoint
            || (done > 0 && self.checkpoint.at.elapsed() >= rules.checkpoint_every);
        let ledger_lacks = self.shard.last.0 - self.shard.projected.0;
        let may_hold_images = self.stay == Stay::UntilCheckpoint
            || may_hold_images(ledger_lacks, done, rules.checkpoint_entries);
        let is_free = !self.checkpoint.under_way && self.checkpoint.pending.is_none();
        if due && may_hold_images && is_free && !self.is_defining() {
            let images = self.shard.images(now, &self.args.definitions);
            self.checkpoint.pending = Some((self.shard.last, images));
        }
    }

    /// Definitions are in force once they are on disk; an image taken before would cover them without holding them.
    fn is_defining(&self) -> bool {
        self.in_flight.iter().flat_map(|(_, outputs)| outputs).any(|out| matches!(out, Output::Defined(_)))
    }

    fn projected(&mut self, through: Seq, part: Part) {
        match part {
            Part::More => {
                self.project();
                self.finish_batch(self.args.runtime.clock.now());
            }
            Part::Last => {
                self.projecting = false;
                self.shard.projected = self.shard.projected.max(through);
                self.store_checkpoint();
            }
        }
    }

    /// Stores the checkpoint that waits, once the ledger is as far.
    fn store_checkpoint(&mut self) {
        if self.checkpoint.pending.as_ref().is_none_or(|(needs, _)| *needs > self.shard.projected) {
            return;
        }
        let Some((through, images)) = self.checkpoint.pending.take() else { return };
        self.checkpoint.under_way = true;
        let (journal, myself) = (self.args.journal.clone(), self.myself.clone());
        let (shard, epoch) = (self.args.rules.shard, self.shard.epoch);
        let trim = self.shard.trim_to(through);
        // From now on, whether it is trimmed already or not.
        self.shard.trimmed = trim.unwrap_or(self.shard.trimmed);
        self.shard.checkpointed = None;
        self.args.runtime.jobs.spawn(CHECKPOINT, async move {
            let stored = journal.checkpoint(shard, epoch, through, images).await;
            if let Err(error) = &stored {
                tracing::warn!(%shard, %error, "a checkpoint was not stored; the next one is tried later");
            }
            if let (Ok(()), Some(trim)) = (&stored, trim)
                && let Err(error) = journal.trim(shard, epoch, trim).await
            {
                tracing::warn!(%shard, %error, "the journal was not trimmed");
            }
            let through = stored.is_ok().then_some(through);
            drop(myself.cast(ShardMessage::Checkpointed { through }));
        });
    }

    fn checkpointed(&mut self, through: Option<Seq>) {
        self.checkpoint.under_way = false;
        self.checkpoint.at = Instant::now();
        match through {
            Some(through) => {
                self.checkpoint.through = through;
                self.shard.checkpointed = Some(through);
                if self.stay == Stay::UntilCheckpoint {
                    self.end();
                }
            }
            // The images of the failed one are lost: the next one holds everything.
            None => self.shard.save_everything(),
        }
    }
}

/// A checkpoint waits for the ledger, and its images wait in memory: they are taken when the ledger is close behind, or
/// when so much is to be folded at a start that it would take too long. All three are entries, `done` those since the
/// last checkpoint, `between` those that make one due.
fn may_hold_images(ledger_lacks: u64, done: u64, between: u64) -> bool {
    ledger_lacks <= between / LEDGER_LACKS_PART || done >= between.saturating_mul(CHECKPOINT_OVERDUE)
}

/// Time until the next multiple of `every`.
fn until_next(every: Duration, elapsed: Duration) -> Duration {
    let into = elapsed.as_nanos() % every.as_nanos();
    every - Duration::from_nanos(u64::try_from(into).unwrap_or_default())
}

/// Stores rows in the ledger until it takes them, then says so.
pub(crate) fn project(args: &ShardArguments, myself: &ActorRef<ShardMessage>, batch: LedgerBatch) {
    let (ledger, links, myself) = (args.ledger.clone(), args.links.clone(), myself.clone());
    args.runtime.jobs.spawn(PROJECT, async move {
        let (through, part) = (batch.through, batch.part);
        loop {
            let together = links.ledger.read().await;
            let Err(error) = ledger.apply(batch.clone()).await else { break };
            drop(together);
            tracing::warn!(%error, "the ledger does not take rows; they are sent again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        drop(myself.cast(ShardMessage::Projected { through, part }));
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{may_hold_images, until_next};

    #[test]
    fn whoever_counts_from_the_same_moment_is_there_at_the_same_time() {
        let wait =
            |elapsed| until_next(Duration::from_millis(200), Duration::from_millis(elapsed)).as_millis();
        assert_eq!([0, 1, 199, 200, 350, 1_000].map(wait), [200, 199, 1, 200, 50, 200]);
    }

    #[test]
    fn images_are_taken_when_the_ledger_is_close_behind_or_the_checkpoint_is_overdue() {
        let between = 200_000;
        assert!(may_hold_images(20_000, between, between));
        assert!(!may_hold_images(20_001, between, between));
        assert!(!may_hold_images(300_000, 999_999, between));
        assert!(may_hold_images(300_000, 1_000_000, between));
    }
}
