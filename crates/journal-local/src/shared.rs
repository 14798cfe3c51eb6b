//! What the writer, the readers and the keeper of checkpoints share.
//!
//! Owns: the list of segments and what is durable of each shard. Never: holds its lock over a file operation.
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kapell_journal::{AppendError, ReadError};
use kapell_model::{Epoch, Seq, ShardId};

use crate::checkpoint::Checkpoint;
use crate::disk::{Disk, DiskFile};
use crate::index::{IndexSnapshot, MemoryIndex, Sealed, Sidecar};
use crate::names::FileName;
use crate::options::Options;
use crate::scan::{Extent, Source, unreadable};
use crate::table::{Row, Table};

/// Locks; a panic elsewhere leaves nothing half done that a lock protects here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One file of the log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    /// All shards as they were when it began.
    pub(crate) start: Table,
    /// Byte where it ends, once that will never change.
    pub(crate) end: OnceLock<u64>,
    /// Until the sidecar is written.
    pub(crate) memory: Mutex<Option<MemoryIndex>>,
}

/// One shard as readers may see it: durable.
#[derive(Clone, Debug)]
pub(crate) struct ShardView {
    pub(crate) row: Row,
    pub(crate) closed: bool,
    pub(crate) checkpoint: Arc<Checkpoint>,
}

/// Behind the lock.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Oldest first; the last one is being written.
    pub(crate) segments: VecDeque<Arc<Segment>>,
    pub(crate) shards: BTreeMap<ShardId, ShardView>,
}

impl State {
    pub(crate) fn shard(&self, shard: ShardId) -> ShardView {
        let new = || ShardView { row: Row::NEW, closed: true, checkpoint: Arc::default() };
        self.shards.get(&shard).cloned().unwrap_or_else(new)
    }

    pub(crate) fn shard_mut(&mut self, shard: ShardId) -> &mut ShardView {
        let new = || ShardView { row: Row::NEW, closed: true, checkpoint: Arc::default() };
        self.shards.entry(shard).or_insert_with(new)
    }

    pub(crate) fn table(&self) -> Table {
        let mut table = Table::default();
        for (shard, view) in &self.shards {
            table.set(*shard, view.row);
        }
        table
    }

    /// Records of `shard` up to here are gone.
    pub(crate) fn gone(&self, shard: ShardId) -> Seq {
        self.segments.front().map_or(Seq::ZERO, |oldest| oldest.start.row(shard).last)
    }

    /// The segment that holds place `seq` of `shard`, if it is kept and durable.
    pub(crate) fn segment_of(&self, shard: ShardId, seq: Seq) -> Option<Arc<Segment>> {
        let after = self.segments.partition_point(|segment| segment.start.row(shard).last < seq);
        self.segments.get(after.checked_sub(1)?).cloned()
    }

    /// Whether `epoch` may still act for the shard.
    pub(crate) fn admit(&self, shard: ShardId, epoch: Epoch) -> Result<(), AppendError> {
        let held_by = self.shard(shard).row.epoch;
        if held_by != epoch {
            return Err(AppendError::Fenced { held_by });
        }
        if self.shard(shard).closed {
            return Err(AppendError::Poisoned);
        }
        Ok(())
    }
}

/// A file filled with zeros, ready to become the next segment.
pub(crate) struct Spare {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) state: Mutex<State>,
    pub(crate) spare: Mutex<Option<Spare>>,
    /// Held while a checkpoint gets its name and while an acquisition takes effect: one is wholly before the other.
    pub(crate) publishing: Mutex<()>,
    /// One checkpoint or trim at a time.
    pub(crate) keeping: Mutex<()>,
    passing_names: AtomicU64,
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, options: Options, state: State) -> Shared {
        Shared {
            disk,
            options,
            state: Mutex::new(state),
            spare: Mutex::new(None),
            publishing: Mutex::new(()),
            keeping: Mutex::new(()),
            passing_names: AtomicU64::new(0),
        }
    }

    /// A number that was not used before in this process.
    pub(crate) fn fresh_number(&self) -> u64 {
        self.passing_names.fetch_add(1, Ordering::Relaxed)
    }

    /// Opens a segment for reading.
    pub(crate) fn source(&self, segment: &Segment) -> Result<Source, ReadError> {
        let name = FileName::Segment(segment.number).text();
        match self.disk.open(&name) {
            Ok(file) => Ok(Source { name, file, salt: segment.salt, retry_after: self.options.retry_after }),
            // It may have been trimmed under the reader; if not, the caller finds the same again.
            Err(error) => Err(unreadable(&error, &name, self.options.retry_after)),
        }
    }

    /// Asks the segment's index; rebuilds a sidecar that is missing or damaged.
    pub(crate) fn ask_index<T>(
        &self,
        segment: &Segment,
        from_memory: impl Fn(&IndexSnapshot) -> T,
        from_sidecar: impl Fn(&Sidecar) -> Result<T, crate::index::Useless>,
    ) -> Result<T, ReadError> {
        let held = lock(&segment.memory).as_ref().map(MemoryIndex::snapshot);
        if let Some(snapshot) = held {
            return Ok(from_memory(&snapshot));
        }
        let name = FileName::Index(segment.number).text();
        let sealed = segment.sealed();
        if let Ok(answer) =
            Sidecar::open(&*self.disk, &name, sealed).and_then(|sidecar| from_sidecar(&sidecar))
        {
            return Ok(answer);
        }
        let snapshot = rebuild(&self.source(segment)?, sealed.end)?.snapshot();
        // The index is a convenience: without it the segment is read again the next time.
        drop(snapshot.write(&*self.disk, &name, sealed));
        Ok(from_memory(&snapshot))
    }
}

impl Segment {
    /// What its sidecar must say. Zero as the end fits no sidecar.
    pub(crate) fn sealed(&self) -> Sealed {
        Sealed { number: self.number, salt: self.salt, end: self.end.get().copied().unwrap_or(0) }
    }
}

fn rebuild(source: &Source, end: u64) -> Result<MemoryIndex, ReadError> {
    let mut index = MemoryIndex::new();
    source.scan(Extent::Sealed(end), &mut |place, frame| match frame {
        crate::frame::Frame::Records(records) => index.add(place, &records),
        crate::frame::Frame::Acquired { .. } | crate::frame::Frame::Table(_) => Ok(()),
    })?;
    Ok(index)
}
