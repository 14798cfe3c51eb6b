//! Files that hold the state of a shard's runs at some point: a base and what changed since.
//!
//! Owns: their bytes, and reading several of them as one in the order of run ids with bounded memory. Never: decides
//! when to write one, or which shard may.
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kapell_journal::{ReadError, RunImage};
use kapell_model::{Seq, ShardId};

use crate::disk::{Disk, DiskFile, read_full, write_all};
use crate::frame::{run_at, u16_at, u32_at, u64_at};
use crate::names::FileName;
use crate::scan::unreadable;

/// The files that make up the last checkpoint of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// It covers all records up to here.
    pub(crate) through: Seq,
    /// Base first, then deltas in order.
    pub(crate) files: Vec<CheckpointFile>,
    /// Numbers up to here may be on disk, whether they count or not.
    pub(crate) used: u64,
    /// A file may lie there that does not count: only a base can follow.
    pub(crate) broken: bool,
}

impl Default for Checkpoint {
    fn default() -> Checkpoint {
        Checkpoint { through: Seq::ZERO, files: Vec::new(), used: 0, broken: false }
    }
}

/// One file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointFile {
    pub(crate) name: FileName,
    /// Length in bytes.
    pub(crate) bytes: u64,
}

const MAGIC: &[u8; 8] = b"KAPLCKP\x01";
const HEADER_BYTES: usize = 48;
const BLOCK_PREFIX_BYTES: usize = 8;
/// A block is closed when it has this many bytes.
const BLOCK_BYTES: usize = 64 << 10;
const IMAGE_FIXED_BYTES: usize = 20;
/// Stands for an image that removes.
const REMOVED: u32 = u32::MAX;

/// What a file says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointHeader {
    pub(crate) shard: ShardId,
    pub(crate) number: u64,
    pub(crate) through: Seq,
    /// Bytes of all blocks.
    pub(crate) body_bytes: u64,
}

impl CheckpointHeader {
    fn encode(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.shard.0.to_le_bytes());
        bytes.extend_from_slice(&[0; 6]);
        for number in [self.number, self.through.0, self.body_bytes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<CheckpointHeader> {
        let crc = crc32c::crc32c(bytes.get(..HEADER_BYTES - 4)?);
        let ours = bytes.get(..8)? == MAGIC && u32_at(bytes, HEADER_BYTES - 4)? == crc;
        let header = CheckpointHeader {
            shard: ShardId(u16_at(bytes, 8)?),
            number: u64_at(bytes, 16)?,
            through: Seq(u64_at(bytes, 24)?),
            body_bytes: u64_at(bytes, 32)?,
        };
        ours.then_some(header)
    }
}

/// Writes images, which come in the order of their ids, a block at a time.
pub(crate) struct ImageWriter {
    file: Arc<dyn DiskFile>,
    block: Vec<u8>,
    at: u64,
}

impl ImageWriter {
    pub(crate) fn create(disk: &dyn Disk, name: &str) -> io::Result<ImageWriter> {
        let block = vec![0; BLOCK_PREFIX_BYTES];
        Ok(ImageWriter { file: disk.create(name)?, block, at: HEADER_BYTES as u64 })
    }

    pub(crate) fn push(&mut self, image: &RunImage) -> io::Result<()> {
        self.block.extend_from_slice(&image.run.to_bytes());
        let state = image.state.as_ref();
        let bytes = state.map_or(REMOVED, |state| state.len() as u32);
        self.block.extend_from_slice(&bytes.to_le_bytes());
        if let Some(state) = state {
            self.block.extend_from_slice(state);
        }
        if self.block.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let body_bytes = (self.block.len() - BLOCK_PREFIX_BYTES) as u32;
        let crc = crc32c::crc32c(&self.block[BLOCK_PREFIX_BYTES..]);
        self.block[0..4].copy_from_slice(&body_bytes.to_le_bytes());
        self.block[4..8].copy_from_slice(&crc.to_le_bytes());
        write_all(&*self.file, &self.block, self.at)?;
        self.at += self.block.len() as u64;
        self.block.truncate(BLOCK_PREFIX_BYTES);
        Ok(())
    }

    /// Writes the header and makes the content durable; the name is left to the caller. Answers the length.
    pub(crate) fn finish(mut self, shard: ShardId, number: u64, through: Seq) -> io::Result<u64> {
        if self.block.len() > BLOCK_PREFIX_BYTES {
            self.flush()?;
        }
        let body_bytes = self.at - HEADER_BYTES as u64;
        let header = CheckpointHeader { shard, number, through, body_bytes };
        write_all(&*self.file, &header.encode(), 0)?;
        self.file.sync()?;
        Ok(self.at)
    }
}

/// Reads one file.
pub(crate) struct ImageReader {
    name: String,
    file: Arc<dyn DiskFile>,
    at: u64,
    end: u64,
    retry_after: Duration,
}

/// Images of one age, in order; those that come from a file are read a block at a time.
struct Layer {
    reader: Option<ImageReader>,
    read: VecDeque<RunImage>,
}

impl Layer {
    /// The next image, without taking it.
    fn peek(&mut self) -> Result<Option<&RunImage>, ReadError> {
        if let Some(reader) = self.reader.as_mut()
            && self.read.is_empty()
            && reader.at < reader.end
        {
            reader.read_block(&mut self.read)?;
        }
        Ok(self.read.front())
    }
}

impl ImageReader {
    /// Opens a file and checks its header and length.
    pub(crate) fn open(
        disk: &dyn Disk,
        name: FileName,
        retry_after: Duration,
    ) -> Result<(CheckpointHeader, ImageReader), ReadError> {
        let name = name.text();
        let failed = |error: io::Error| unreadable(&error, &name, retry_after);
        let file = disk.open(&name).map_err(failed)?;
        let mut bytes = vec![0; HEADER_BYTES];
        read_full(&*file, &mut bytes, 0).map_err(failed)?;
        let length = file.length().map_err(failed)?;
        let header = CheckpointHeader::decode(&bytes);
        let Some(header) = header.filter(|header| HEADER_BYTES as u64 + header.body_bytes == length) else {
            let reason = "checkpoint header fails its checksum or length".to_owned();
            return Err(ReadError::Corrupt { segment: name, offset: 0, reason });
        };
        Ok((header, ImageReader { name, file, at: HEADER_BYTES as u64, end: length, retry_after }))
    }

    /// Length of the file in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    fn read_block(&mut self, into: &mut VecDeque<RunImage>) -> Result<(), ReadError> {
        let failed = |error: io::Error| unreadable(&error, &self.name, self.retry_after);
        let corrupt = |reason: &str| ReadError::Corrupt {
            segment: self.name.clone(),
            offset: self.at,
            reason: reason.to_owned(),
        };
        let mut prefix = [0; BLOCK_PREFIX_BYTES];
        read_full(&*self.file, &mut prefix, self.at).map_err(failed)?;
        let bytes = u32_at(&prefix, 0).unwrap_or(0);
        let start = self.at + BLOCK_PREFIX_BYTES as u64;
        if bytes == 0 || start + u64::from(bytes) > self.end {
            return Err(corrupt("checkpoint block length is wrong"));
        }
        let mut body = vec![0; bytes as usize];
        read_full(&*self.file, &mut body, start).map_err(failed)?;
        if u32_at(&prefix, 4) != Some(crc32c::crc32c(&body)) {
            return Err(corrupt("checkpoint block fails its checksum"));
        }
        parse_images(&body, into).ok_or_else(|| corrupt("checkpoint block does not parse"))?;
        self.at = start + u64::from(bytes);
        Ok(())
    }
}

fn parse_images(mut body: &[u8], into: &mut VecDeque<RunImage>) -> Option<()> {
    while !body.is_empty() {
        let run = run_at(body, 0)?;
        let bytes = u32_at(body, 16)?;
        body = &body[IMAGE_FIXED_BYTES..];
        if bytes == REMOVED {
            into.push_back(RunImage { run, state: None });
        } else {
            let state = Bytes::copy_from_slice(body.get(..bytes as usize)?);
            into.push_back(RunImage { run, state: Some(state) });
            body = &body[bytes as usize..];
        }
    }
    Some(())
}

/// All files of a checkpoint as one, each run once, in order; what was removed does not appear.
pub(crate) struct Merge {
    /// Oldest first; of a run that several hold, the last one counts.
    sources: Vec<Layer>,
}

impl Merge {
    /// Opens all files, so that their removal by a later checkpoint does no harm.
    pub(crate) fn open(
        disk: &dyn Disk,
        checkpoint: &Checkpoint,
        retry_after: Duration,
    ) -> Result<Merge, ReadError> {
        let open = |file: &CheckpointFile| {
            let (_, reader) = ImageReader::open(disk, file.name, retry_after)?;
            Ok(Layer { reader: Some(reader), read: VecDeque::new() })
        };
        Ok(Merge { sources: checkpoint.files.iter().map(open).collect::<Result<_, ReadError>>()? })
    }

    /// Puts newer images, in the order of their ids, on top.
    pub(crate) fn overlay(&mut self, images: Vec<RunImage>) {
        self.sources.push(Layer { reader: None, read: images.into() });
    }

    pub(crate) fn next(&mut self) -> Result<Option<RunImage>, ReadError> {
        loop {
            let mut lowest = None;
            for source in &mut self.sources {
                if let Some(image) = source.peek()? {
                    lowest = Some(lowest.map_or(image.run, |run: kapell_model::RunId| run.min(image.run)));
                }
            }
            let Some(run) = lowest else { return Ok(None) };
            let mut newest = None;
            for source in &mut self.sources {
                if source.read.front().is_some_and(|image| image.run == run) {
                    newest = source.read.pop_front();
                }
            }
            if let Some(image) = newest.filter(|image| image.state.is_some()) {
                return Ok(Some(image));
            }
        }
    }

    /// About `bytes_max` bytes of images; empty at the end.
    pub(crate) fn chunk(&mut self, bytes_max: usize) -> Result<Vec<RunImage>, ReadError> {
        let mut images = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some(image) = self.next()? else { break };
            bytes += IMAGE_FIXED_BYTES + image.state.as_ref().map_or(0, Bytes::len);
            images.push(image);
        }
        Ok(images)
    }
}
