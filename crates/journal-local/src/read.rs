//! Reading records and images in chunks that end soon.
//!
//! Owns: where a reader stands. Never: reads beyond what is durable, or goes on over a gap.
use std::sync::Arc;

use kapell_journal::{Placed, ReadError};
use kapell_model::{RunId, Seq, ShardId};

use crate::checkpoint::Merge;
use crate::frame::{Frame, decode_frame};
use crate::scan::{Source, Window};
use crate::shared::{Segment, Shared, lock};

/// Bytes that one chunk holds, about.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Frames that one chunk looks at.
const CHUNK_FRAMES: usize = 4096;
/// Bytes that are read ahead within a segment.
const AHEAD_BYTES: usize = 256 << 10;

/// Where a reader of one shard stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    shard: ShardId,
    next: Seq,
    last: Seq,
}

impl Cursor {
    /// Stands behind `after`; ends at what is durable now.
    pub(crate) fn new(shared: &Shared, shard: ShardId, after: Seq) -> Result<Cursor, ReadError> {
        let state = lock(&shared.state);
        let through = state.gone(shard);
        if after < through {
            return Err(ReadError::Trimmed { through });
        }
        Ok(Cursor { shard, next: after.next(), last: state.shard(shard).row.last })
    }

    /// The next records, in order; empty at the end.
    pub(crate) fn chunk(&mut self, shared: &Shared) -> Result<Vec<Placed>, ReadError> {
        if self.next > self.last {
            return Ok(Vec::new());
        }
        let found = self.chunk_of_segment(shared);
        // A segment that was trimmed under the reader is no damage.
        let through = lock(&shared.state).gone(self.shard);
        if self.next <= through && found.is_err() {
            return Err(ReadError::Trimmed { through });
        }
        found
    }

    fn chunk_of_segment(&mut self, shared: &Shared) -> Result<Vec<Placed>, ReadError> {
        let Some(segment) = lock(&shared.state).segment_of(self.shard, self.next) else {
            return Err(ReadError::Trimmed { through: lock(&shared.state).gone(self.shard) });
        };
        let (shard, from) = (self.shard, self.next);
        let entries = shared.ask_index(
            &segment,
            |index| index.frames_from(shard, from, CHUNK_FRAMES),
            |sidecar| sidecar.frames_from(shard, from, CHUNK_FRAMES),
        )?;
        let mut reader = FrameReader::open(shared, &segment)?;
        let mut records = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let next = self.next;
            let last = Seq(entry.first.0 + u64::from(entry.count) - 1);
            if entry.first > next {
                break;
            }
            let mut found = Ok(());
            reader.read(entry.offset, entry.bytes, |frame| {
                if frame.shard != shard || frame.first != entry.first || frame.last() != last {
                    return Err("index leads to another frame");
                }
                found = frame.collect(&mut records, |seq, _| seq >= next);
                Ok(())
            })?;
            found.map_err(|reason| reader.source.corrupt(entry.offset, reason))?;
            self.next = last.next();
            bytes += entry.bytes as usize;
            if bytes >= CHUNK_BYTES || self.next > self.last {
                break;
            }
        }
        if records.is_empty() {
            return Err(reader.source.corrupt(0, &format!("record {} of shard {} is missing", from, shard)));
        }
        records.retain(|placed| placed.seq <= self.last);
        Ok(records)
    }
}

struct FrameReader {
    source: Source,
    window: Window,
}

impl FrameReader {
    fn open(shared: &Shared, segment: &Segment) -> Result<FrameReader, ReadError> {
        let source = shared.source(segment)?;
        let window = source.window()?;
        Ok(FrameReader { source, window })
    }

    fn read(
        &mut self,
        offset: u64,
        bytes: u32,
        each: impl FnOnce(crate::frame::RecordsFrame<'_>) -> Result<(), &'static str>,
    ) -> Result<(), ReadError> {
        let source = &self.source;
        let frame = self.window.get(offset, bytes as usize, AHEAD_BYTES);
        let frame = frame.map_err(|error| source.failed(&error))?;
        let checked = match decode_frame(frame) {
            Ok(Frame::Records(records)) => each(records),
            Ok(Frame::Acquired { .. } | Frame::Table(_)) => Err("index leads to another frame"),
            Err(reason) => Err(reason),
        };
        checked.map_err(|reason| source.corrupt(offset, reason))
    }
}

/// Everything that is kept of one run, by index.
pub(crate) fn history(shared: &Shared, run: RunId) -> Result<Vec<Placed>, ReadError> {
    let shard = run.shard();
    let mut records = Vec::new();
    let (segments, last) = {
        let state = lock(&shared.state);
        let segments: Vec<Arc<Segment>> = state.segments.iter().cloned().collect();
        (segments, state.shard(shard).row.last)
    };
    for (place, segment) in segments.iter().enumerate() {
        let end = segments.get(place + 1).map_or(last, |next| next.start.row(shard).last);
        if end == segment.start.row(shard).last {
            continue;
        }
        let found = history_of(shared, segment, run, &mut records);
        let kept = lock(&shared.state).segments.front().is_some_and(|oldest| oldest.number <= segment.number);
        if kept {
            found?;
        }
    }
    records.retain(|placed| placed.seq <= last);
    Ok(records)
}

fn history_of(
    shared: &Shared,
    segment: &Segment,
    run: RunId,
    records: &mut Vec<Placed>,
) -> Result<(), ReadError> {
    let entries =
        shared.ask_index(segment, |index| index.frames_of_run(run), |sidecar| sidecar.frames_of_run(run))?;
    if entries.is_empty() {
        return Ok(());
    }
    let mut reader = FrameReader::open(shared, segment)?;
    for entry in entries {
        reader.read(entry.offset, entry.bytes, |frame| frame.collect(records, |_, of| of == run))?;
    }
    Ok(())
}

/// Opens the files of a shard's last checkpoint.
pub(crate) fn images(shared: &Shared, shard: ShardId) -> Result<Merge, ReadError> {
    loop {
        let checkpoint = lock(&shared.state).shard(shard).checkpoint;
        match Merge::open(&*shared.disk, &checkpoint, shared.options.retry_after) {
            Ok(merge) => return Ok(merge),
            Err(error) => {
                // A later checkpoint may have replaced the files between the look and the opening.
                if lock(&shared.state).shard(shard).checkpoint == checkpoint {
                    return Err(error);
                }
            }
        }
    }
}
