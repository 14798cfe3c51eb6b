//! Where the frames of a shard and of a run lie in one segment.
//!
//! Owns: the index in memory of a segment that is being written, and the sidecar file of one that is sealed. Never:
//! is trusted where it fails its checks; it is rebuilt from the segment.
use std::io;
use std::sync::Arc;

use kapell_model::{RunId, Seq, ShardId};

use crate::disk::{Disk, DiskFile, read_full, write_all};
use crate::frame::{RecordsFrame, run_at, u16_at, u32_at, u64_at};
use crate::names::UNFINISHED;
use crate::scan::Place;

/// A frame of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FrameEntry {
    pub(crate) shard: ShardId,
    pub(crate) first: Seq,
    pub(crate) count: u32,
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

/// A frame that holds records of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RunEntry {
    pub(crate) run: RunId,
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

/// Entries in the order of the log, in chunks so that a reader takes a copy without copying.
#[derive(Debug)]
struct Chunks<T> {
    full: Vec<Arc<[T]>>,
    open: Vec<T>,
}

const CHUNK_ENTRIES: usize = 4096;

impl<T: Copy> Chunks<T> {
    fn new() -> Chunks<T> {
        Chunks { full: Vec::new(), open: Vec::new() }
    }

    fn push(&mut self, entry: T) {
        self.open.push(entry);
        if self.open.len() == CHUNK_ENTRIES {
            self.full.push(Arc::from(self.open.as_slice()));
            self.open.clear();
        }
    }

    fn snapshot(&self) -> Vec<Arc<[T]>> {
        let mut all = self.full.clone();
        all.push(Arc::from(self.open.as_slice()));
        all
    }
}

/// Index of one segment in memory; as long as it is written and until its sidecar is.
#[derive(Debug)]
pub(crate) struct MemoryIndex {
    frames: Chunks<FrameEntry>,
    runs: Chunks<RunEntry>,
}

impl MemoryIndex {
    pub(crate) fn new() -> MemoryIndex {
        MemoryIndex { frames: Chunks::new(), runs: Chunks::new() }
    }

    /// Adds a frame. The error is a frame that does not hold what it says.
    pub(crate) fn add(&mut self, place: Place, frame: &RecordsFrame<'_>) -> Result<(), &'static str> {
        let (offset, bytes) = (place.offset, place.bytes);
        let entry = FrameEntry { shard: frame.shard, first: frame.first, count: frame.count, offset, bytes };
        self.frames.push(entry);
        let mut before = None;
        let walked = frame.walk(|_, run, _| {
            // Neighbours are often of one run; what is left twice is sorted out when the segment is sealed.
            if before != Some(run) {
                self.runs.push(RunEntry { run, offset, bytes });
            }
            before = Some(run);
        });
        walked.ok_or("records do not fill their frame")
    }

    /// A copy that does not change, cheap to take.
    pub(crate) fn snapshot(&self) -> IndexSnapshot {
        IndexSnapshot { frames: self.frames.snapshot(), runs: self.runs.snapshot() }
    }
}

/// An unchanging copy of a [`MemoryIndex`].
#[derive(Clone, Debug)]
pub(crate) struct IndexSnapshot {
    frames: Vec<Arc<[FrameEntry]>>,
    runs: Vec<Arc<[RunEntry]>>,
}

impl IndexSnapshot {
    /// Frames of `shard` that hold `from` and later places, in order, at most `max`.
    pub(crate) fn frames_from(&self, shard: ShardId, from: Seq, max: usize) -> Vec<FrameEntry> {
        let all = self.frames.iter().flat_map(|chunk| chunk.iter());
        let wanted = all.filter(|entry| entry.shard == shard && reaches(entry, from));
        wanted.copied().take(max).collect()
    }

    /// Frames that hold records of `run`, in order.
    pub(crate) fn frames_of_run(&self, run: RunId) -> Vec<RunEntry> {
        let all = self.runs.iter().flat_map(|chunk| chunk.iter());
        let mut found: Vec<RunEntry> = all.filter(|entry| entry.run == run).copied().collect();
        found.dedup();
        found
    }

    /// Writes the sidecar under a passing name, then gives it its own.
    pub(crate) fn write(&self, disk: &dyn Disk, name: &str, of: Sealed) -> io::Result<()> {
        let mut frames: Vec<FrameEntry> =
            self.frames.iter().flat_map(|chunk| chunk.iter()).copied().collect();
        frames.sort_unstable();
        let mut runs: Vec<RunEntry> = self.runs.iter().flat_map(|chunk| chunk.iter()).copied().collect();
        runs.sort_unstable();
        runs.dedup();
        let mut bytes = header_block(of, frames.len() as u64, runs.len() as u64);
        push_blocks(&mut bytes, frames.iter().map(encode_frame_entry));
        push_blocks(&mut bytes, runs.iter().map(encode_run_entry));
        let passing = format!("{name}{UNFINISHED}");
        let file = disk.create(&passing)?;
        write_all(&*file, &bytes, 0)?;
        file.sync()?;
        disk.rename(&passing, name)
    }
}

fn reaches(entry: &FrameEntry, from: Seq) -> bool {
    entry.first.0 + u64::from(entry.count) > from.0
}

/// Which segment a sidecar belongs to; one that says otherwise is of another life of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) end: u64,
}

const BLOCK_BYTES: usize = 4096;
const ENTRY_BYTES: usize = 32;
const BLOCK_ENTRIES: usize = (BLOCK_BYTES - 4) / ENTRY_BYTES;
const INDEX_MAGIC: &[u8; 8] = b"KAPLIDX\x01";
type EncodedEntry = [u8; ENTRY_BYTES];

fn header_block(of: Sealed, frames: u64, runs: u64) -> Vec<u8> {
    let mut block = INDEX_MAGIC.to_vec();
    for number in [of.number, of.salt, of.end, frames, runs] {
        block.extend_from_slice(&number.to_le_bytes());
    }
    seal_block(block)
}

fn seal_block(mut block: Vec<u8>) -> Vec<u8> {
    block.resize(BLOCK_BYTES - 4, 0);
    let crc = crc32c::crc32c(&block);
    block.extend_from_slice(&crc.to_le_bytes());
    block
}

fn push_blocks(into: &mut Vec<u8>, entries: impl Iterator<Item = EncodedEntry>) {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    for entry in entries {
        block.extend_from_slice(&entry);
        if block.len() == BLOCK_ENTRIES * ENTRY_BYTES {
            into.extend_from_slice(&seal_block(std::mem::take(&mut block)));
        }
    }
    if !block.is_empty() {
        into.extend_from_slice(&seal_block(block));
    }
}

fn encode_frame_entry(entry: &FrameEntry) -> EncodedEntry {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[0..2].copy_from_slice(&entry.shard.0.to_le_bytes());
    bytes[4..8].copy_from_slice(&entry.count.to_le_bytes());
    bytes[8..16].copy_from_slice(&entry.first.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&entry.offset.to_le_bytes());
    bytes[24..28].copy_from_slice(&entry.bytes.to_le_bytes());
    bytes
}

fn decode_frame_entry(bytes: &[u8]) -> Option<FrameEntry> {
    Some(FrameEntry {
        shard: ShardId(u16_at(bytes, 0)?),
        count: u32_at(bytes, 4)?,
        first: Seq(u64_at(bytes, 8)?),
        offset: u64_at(bytes, 16)?,
        bytes: u32_at(bytes, 24)?,
    })
}

fn encode_run_entry(entry: &RunEntry) -> EncodedEntry {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[0..16].copy_from_slice(&entry.run.to_bytes());
    bytes[16..24].copy_from_slice(&entry.offset.to_le_bytes());
    bytes[24..28].copy_from_slice(&entry.bytes.to_le_bytes());
    bytes
}

fn decode_run_entry(bytes: &[u8]) -> Option<RunEntry> {
    Some(RunEntry { run: run_at(bytes, 0)?, offset: u64_at(bytes, 16)?, bytes: u32_at(bytes, 24)? })
}

/// The index file of a sealed segment. Reads a block at a time.
pub(crate) struct Sidecar {
    file: Arc<dyn DiskFile>,
    frames: u64,
    runs: u64,
}

/// Why a sidecar is of no use; the caller rebuilds it.
#[derive(Debug)]
pub(crate) struct Useless;

impl From<io::Error> for Useless {
    fn from(_: io::Error) -> Useless {
        Useless
    }
}

impl Sidecar {
    /// Opens the sidecar if it belongs to that segment.
    pub(crate) fn open(disk: &dyn Disk, name: &str, of: Sealed) -> Result<Sidecar, Useless> {
        let file = disk.open(name)?;
        let head = block(&*file, 0)?;
        let counts = || Some((u64_at(&head, 32)?, u64_at(&head, 40)?));
        let (frames, runs) = counts().ok_or(Useless)?;
        if head.get(..48) != header_block(of, frames, runs).get(..48) {
            return Err(Useless);
        }
        let blocks = 1 + blocks_of(frames) + blocks_of(runs);
        if file.length()? != blocks * BLOCK_BYTES as u64 {
            return Err(Useless);
        }
        Ok(Sidecar { file, frames, runs })
    }

    /// Frames of `shard` that hold `from` and later places, in order, at most `max`.
    pub(crate) fn frames_from(
        &self,
        shard: ShardId,
        from: Seq,
        max: usize,
    ) -> Result<Vec<FrameEntry>, Useless> {
        let part = Part { file: &*self.file, first_block: 1, entries: self.frames };
        let before = |bytes: &[u8]| {
            let entry = decode_frame_entry(bytes)?;
            Some(entry.shard < shard || (entry.shard == shard && !reaches(&entry, from)))
        };
        let found = part.collect(
            before,
            |bytes| decode_frame_entry(bytes).filter(|entry| entry.shard == shard),
            max,
        )?;
        Ok(found)
    }

    /// Frames that hold records of `run`, in order.
    pub(crate) fn frames_of_run(&self, run: RunId) -> Result<Vec<RunEntry>, Useless> {
        let part = Part { file: &*self.file, first_block: 1 + blocks_of(self.frames), entries: self.runs };
        let before = |bytes: &[u8]| Some(decode_run_entry(bytes)?.run < run);
        part.collect(before, |bytes| decode_run_entry(bytes).filter(|entry| entry.run == run), usize::MAX)
    }
}

fn blocks_of(entries: u64) -> u64 {
    entries.div_ceil(BLOCK_ENTRIES as u64)
}

fn block(file: &dyn DiskFile, number: u64) -> Result<Vec<u8>, Useless> {
    let mut bytes = vec![0; BLOCK_BYTES];
    read_full(file, &mut bytes, number * BLOCK_BYTES as u64)?;
    let body = &bytes[..BLOCK_BYTES - 4];
    (u32_at(&bytes, BLOCK_BYTES - 4) == Some(crc32c::crc32c(body))).then_some(bytes).ok_or(Useless)
}

/// Sorted entries in blocks.
struct Part<'a> {
    file: &'a dyn DiskFile,
    first_block: u64,
    entries: u64,
}

impl Part<'_> {
    /// Entries from the first one that is not `before`, as long as `take` wants them.
    fn collect<T>(
        &self,
        before: impl Fn(&[u8]) -> Option<bool>,
        take: impl Fn(&[u8]) -> Option<T>,
        max: usize,
    ) -> Result<Vec<T>, Useless> {
        let mut number = self.block_of(&before)?;
        let mut found = Vec::new();
        while number < blocks_of(self.entries) {
            let bytes = block(self.file, self.first_block + number)?;
            for entry in self.entries_of(&bytes, number) {
                if before(entry).ok_or(Useless)? {
                    continue;
                }
                match take(entry) {
                    Some(entry) if found.len() < max => found.push(entry),
                    Some(_) | None => return Ok(found),
                }
            }
            number += 1;
        }
        Ok(found)
    }

    fn entries_of<'b>(&self, bytes: &'b [u8], number: u64) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        let here = (self.entries - number * BLOCK_ENTRIES as u64).min(BLOCK_ENTRIES as u64) as usize;
        bytes[..here * ENTRY_BYTES].chunks_exact(ENTRY_BYTES)
    }

    /// The last block whose first entry is `before`, or the first block.
    fn block_of(&self, before: &impl Fn(&[u8]) -> Option<bool>) -> Result<u64, Useless> {
        let (mut low, mut high) = (0, blocks_of(self.entries));
        while low < high {
            let middle = low + (high - low) / 2;
            let bytes = block(self.file, self.first_block + middle)?;
            if before(&bytes[..ENTRY_BYTES]).ok_or(Useless)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.saturating_sub(1))
    }
}
