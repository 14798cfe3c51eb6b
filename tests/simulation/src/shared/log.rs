//! The journal itself: what is stored, and who may store.
//!
//! Owns: admission by epoch in the same step as the append. Never: waits for anything.
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use kapell_journal::{AcquireError, Acquired, AppendError, Batch, Placed, ReadError, Record, RunImage};
use kapell_model::{Epoch, RunId, Seq, ShardId};

use super::writers::Writers;
use super::{Store, Witness};

/// Counts the acquisitions of a shard: what was sent before the last one is not taken any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Generation(u64);

impl Generation {
    /// That of nobody.
    pub(super) const NONE: Generation = Generation(0);
}

/// See the module.
pub(super) struct Log {
    shards: BTreeMap<ShardId, Shard>,
    writers: Writers,
    witness: Arc<dyn Witness>,
    appends: u64,
    fenced: u64,
    /// It takes from everybody, though it should not.
    is_open: bool,
}

struct Shard {
    epoch: Epoch,
    generation: Generation,
    /// An append was refused since the last acquisition.
    is_closed: bool,
    /// Those that were not trimmed, by their places.
    records: BTreeMap<Seq, Record>,
    last: Seq,
    checkpointed: Seq,
    trimmed: Seq,
    images: BTreeMap<RunId, Bytes>,
}

impl Default for Shard {
    fn default() -> Shard {
        Shard {
            epoch: Epoch(0),
            generation: Generation::NONE,
            is_closed: false,
            records: BTreeMap::new(),
            last: Seq::ZERO,
            checkpointed: Seq::ZERO,
            trimmed: Seq::ZERO,
            images: BTreeMap::new(),
        }
    }
}

/// Who asks for a change, and under what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    pub(super) node: &'static str,
    pub(super) shard: ShardId,
    pub(super) epoch: Epoch,
    pub(super) generation: Generation,
}

impl Shard {
    fn admit(&self, writer: Writer) -> Result<(), AppendError> {
        if writer.epoch != self.epoch {
            return Err(AppendError::Fenced { held_by: self.epoch });
        }
        let is_late = writer.generation != self.generation || self.generation == Generation::NONE;
        if is_late || self.is_closed { Err(AppendError::Poisoned) } else { Ok(()) }
    }
}

impl Log {
    pub(super) fn new(witness: Arc<dyn Witness>) -> Log {
        Log {
            shards: BTreeMap::new(),
            writers: Writers::default(),
            witness,
            appends: 0,
            fenced: 0,
            is_open: false,
        }
    }

    /// From now on it takes from everybody who ever acquired the shard.
    pub(super) fn open_to_all(&mut self) {
        self.is_open = true;
    }

    pub(super) fn appends(&self) -> u64 {
        self.appends
    }

    pub(super) fn fenced(&self) -> u64 {
        self.fenced
    }

    pub(super) fn epoch(&self, shard: ShardId) -> Epoch {
        self.shards.get(&shard).map_or(Epoch(0), |shard| shard.epoch)
    }

    pub(super) fn acquire(
        &mut self,
        node: &'static str,
        shard: ShardId,
        epoch: Epoch,
    ) -> Result<(Acquired, Generation), AcquireError> {
        let held = self.shards.entry(shard).or_default();
        if held.epoch > epoch {
            self.fenced += 1;
            return Err(AcquireError::Fenced { held_by: held.epoch });
        }
        held.epoch = epoch;
        held.generation.0 += 1;
        held.is_closed = false;
        let acquired = Acquired { last: held.last, checkpointed: held.checkpointed, trimmed: held.trimmed };
        let generation = held.generation;
        self.witness.saw(Store::Journal, &format!("{node} acquires shard {shard} under {epoch}"));
        self.judge(|writers| writers.acquired(node, shard, epoch));
        Ok((acquired, generation))
    }

    /// Takes batches of one shard in their order. What follows a refused one is refused too.
    pub(super) fn append(&mut self, writer: Writer, batches: Vec<Batch>) -> Vec<Result<(), AppendError>> {
        batches.into_iter().map(|batch| self.append_one(writer, batch)).collect()
    }

    fn append_one(&mut self, writer: Writer, batch: Batch) -> Result<(), AppendError> {
        let Writer { node, shard, epoch, generation } = writer;
        let held = self.shards.entry(shard).or_default();
        let is_let_in = self.is_open && generation != Generation::NONE;
        let admitted = if is_let_in { Ok(()) } else { held.admit(writer) };
        self.fenced += u64::from(matches!(admitted, Err(AppendError::Fenced { .. })));
        admitted?;
        let expected = held.last.next();
        if batch.first != expected {
            held.is_closed = true;
            return Err(AppendError::OutOfOrder { expected, got: batch.first });
        }
        let count = batch.records.len();
        for record in batch.records {
            self.witness.bytes(&record.payload);
            held.last = held.last.next();
            held.records.insert(held.last, record);
        }
        self.appends += 1;
        let text = format!("{node} appends {count} to shard {shard} at {expected} under {epoch}");
        self.witness.saw(Store::Journal, &text);
        self.judge(|writers| writers.wrote(node, shard, epoch));
        Ok(())
    }

    pub(super) fn checkpoint(
        &mut self,
        writer: Writer,
        through: Seq,
        changed: Vec<RunImage>,
    ) -> Result<(), AppendError> {
        let held = self.shards.entry(writer.shard).or_default();
        held.admit(writer)?;
        for bound in [held.checkpointed.max(through), held.last.min(through)] {
            if bound != through {
                return Err(AppendError::OutOfOrder { expected: bound, got: through });
            }
        }
        for image in changed {
            match image.state {
                Some(state) => drop(held.images.insert(image.run, state)),
                None => drop(held.images.remove(&image.run)),
            }
        }
        held.checkpointed = through;
        let text = format!("{} checkpoints shard {} through {through}", writer.node, writer.shard);
        self.witness.saw(Store::Journal, &text);
        self.judge(|writers| writers.wrote(writer.node, writer.shard, writer.epoch));
        Ok(())
    }

    pub(super) fn trim(&mut self, writer: Writer, through: Seq) -> Result<(), AppendError> {
        let held = self.shards.entry(writer.shard).or_default();
        held.admit(writer)?;
        if through > held.checkpointed {
            return Err(AppendError::OutOfOrder { expected: held.checkpointed, got: through });
        }
        held.records.retain(|seq, _| *seq > through);
        held.trimmed = held.trimmed.max(through);
        let text = format!("{} trims shard {} through {through}", writer.node, writer.shard);
        self.witness.saw(Store::Journal, &text);
        self.judge(|writers| writers.wrote(writer.node, writer.shard, writer.epoch));
        Ok(())
    }

    /// At most so many records after a place.
    pub(super) fn read(&self, shard: ShardId, after: Seq, most: usize) -> Result<Vec<Placed>, ReadError> {
        let Some(held) = self.shards.get(&shard) else { return Ok(vec![]) };
        if after < held.trimmed {
            return Err(ReadError::Trimmed { through: held.trimmed });
        }
        let found = held.records.range(after.next()..).take(most);
        Ok(found.map(|(seq, record)| Placed { seq: *seq, record: record.clone() }).collect())
    }

    pub(super) fn history(&self, run: RunId) -> Vec<Placed> {
        let Some(held) = self.shards.get(&run.shard()) else { return vec![] };
        let its = held.records.iter().filter(|(_, record)| record.run == run);
        its.map(|(seq, record)| Placed { seq: *seq, record: record.clone() }).collect()
    }

    pub(super) fn images(&self, shard: ShardId) -> Vec<RunImage> {
        let held = self.shards.get(&shard);
        let images = held.into_iter().flat_map(|held| &held.images);
        images.map(|(run, state)| RunImage { run: *run, state: Some(state.clone()) }).collect()
    }

    fn judge(&mut self, ask: impl FnOnce(&mut Writers) -> Option<String>) {
        if let Some(wrong) = ask(&mut self.writers) {
            self.witness.broken(wrong);
        }
    }
}
