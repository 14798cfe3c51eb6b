//! Reading a segment from front to back, and telling a torn tail from damage.
//!
//! Owns: which groups of a segment count, and where it ends. Never: writes, or skips anything silently.
use std::io;
use std::sync::Arc;
use std::time::Duration;

use kapell_journal::ReadError;

use crate::disk::{DiskFile, read_full};
use crate::frame::{
    Completeness, FRAME_PREFIX_BYTES, Frame, GROUP_ALIGN, GROUP_HEADER_BYTES, GroupHeader,
    SEGMENT_HEADER_BYTES, completeness, decode_frame, frame_bytes, header_is_torn, next_group, trailer_bytes,
};
use crate::table::Table;

/// Bytes that are read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// A moving view of a file; beyond its end there are zeros.
pub(crate) struct Window {
    file: Arc<dyn DiskFile>,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> io::Result<Window> {
        Ok(Window { length: file.length()?, file, start: 0, bytes: Vec::new() })
    }

    /// The `count` bytes at `offset`. Reads ahead up to `ahead` bytes when it has to read.
    pub(crate) fn get(&mut self, offset: u64, count: usize, ahead: usize) -> io::Result<&[u8]> {
        let held = self.start..=self.start + self.bytes.len() as u64;
        if !(held.contains(&offset) && held.contains(&(offset + count as u64))) {
            self.bytes.clear();
            let left = self.length.saturating_sub(offset) as usize;
            self.bytes.resize(count.max(ahead.min(left)), 0);
            self.start = offset;
            if let Err(error) = read_full(&*self.file, &mut self.bytes, offset) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from..from + count])
    }

    /// Like [`Window::get`] for reading on and on.
    fn next(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        self.get(offset, count, WINDOW_BYTES)
    }
}

/// What is known of a segment's end before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The segment after it says where it ends; anything less is damage.
    Sealed(u64),
    /// The last segment: its tail may be torn.
    Last,
}

/// Where a frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Byte in the segment.
    pub(crate) offset: u64,
    /// Length in bytes, prefix included.
    pub(crate) bytes: u32,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// End of the last group that counts.
    pub(crate) end: u64,
    /// Where the last group that counts begins.
    pub(crate) last_group: u64,
}

/// A segment to be read.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) salt: u64,
    pub(crate) retry_after: Duration,
}

/// Turns a failed read into an answer.
pub(crate) fn unreadable(error: &io::Error, name: &str, retry_after: Duration) -> ReadError {
    ReadError::Unavailable { reason: format!("{name}: {error}"), retry_after }
}

enum Group<'a> {
    Good { frames: Vec<(Place, Frame<'a>)>, end: u64 },
    Bad { at: u64, reason: &'static str, torn: bool },
}

impl Source {
    pub(crate) fn corrupt(&self, offset: u64, reason: &str) -> ReadError {
        ReadError::Corrupt { segment: self.name.clone(), offset, reason: reason.to_owned() }
    }

    pub(crate) fn failed(&self, error: &io::Error) -> ReadError {
        unreadable(error, &self.name, self.retry_after)
    }

    /// A view of the whole segment.
    pub(crate) fn window(&self) -> Result<Window, ReadError> {
        Window::new(Arc::clone(&self.file)).map_err(|error| self.failed(&error))
    }

    /// Calls `each` with every frame in order; what it answers as an error is damage at that frame.
    pub(crate) fn scan(
        &self,
        extent: Extent,
        each: &mut dyn FnMut(Place, Frame<'_>) -> Result<(), &'static str>,
    ) -> Result<Scanned, ReadError> {
        let mut window = self.window()?;
        let mut at = SEGMENT_HEADER_BYTES as u64;
        let mut found = Scanned { end: at, last_group: at };
        let length = window.length;
        let until = match extent {
            Extent::Sealed(end) => end,
            Extent::Last => length,
        };
        while at < until {
            match self.group(&mut window, at, extent)? {
                Group::Good { frames, end } => {
                    for (place, frame) in frames {
                        each(place, frame).map_err(|reason| self.corrupt(place.offset, reason))?;
                    }
                    found = Scanned { end, last_group: at };
                    at = next_group(end);
                }
                Group::Bad { at: place, reason, torn } => {
                    if extent != Extent::Last || !torn || self.goes_on(&mut window, at, length)? {
                        return Err(self.corrupt(place, reason));
                    }
                    break;
                }
            }
        }
        match extent {
            Extent::Sealed(end) if found.end != end => {
                Err(self.corrupt(found.end, "segment does not end where it was sealed"))
            }
            Extent::Sealed(_) | Extent::Last => Ok(found),
        }
    }

    /// The table that the segment begins with. It was durable before the segment had its name.
    pub(crate) fn table(&self) -> Result<Table, ReadError> {
        let at = SEGMENT_HEADER_BYTES as u64;
        let mut window = self.window()?;
        match self.group(&mut window, at, Extent::Last)? {
            Group::Good { mut frames, .. } => match frames.pop() {
                Some((_, Frame::Table(table))) if frames.is_empty() => Ok(table),
                Some(_) | None => Err(self.corrupt(at, "segment does not begin with its table")),
            },
            Group::Bad { at, reason, .. } => Err(self.corrupt(at, reason)),
        }
    }

    /// Checks the group at `at` as a whole.
    fn group<'w>(&self, window: &'w mut Window, at: u64, extent: Extent) -> Result<Group<'w>, ReadError> {
        let bytes = window.next(at, GROUP_HEADER_BYTES).map_err(|error| self.failed(&error))?;
        let Some(header) = GroupHeader::decode(bytes, self.salt, at) else {
            return Ok(Group::Bad { at, reason: "group header is damaged", torn: header_is_torn(bytes) });
        };
        let filled = GROUP_HEADER_BYTES as u64 + u64::from(header.body_bytes);
        let end = at + filled + trailer_bytes(filled, at);
        if let Extent::Sealed(seal) = extent
            && end > seal
        {
            return Ok(Group::Bad { at, reason: "group goes beyond the sealed end", torn: false });
        }
        let bytes = window.next(at, (end - at) as usize).map_err(|error| self.failed(&error))?;
        let (group, trailer) = bytes.split_at(filled as usize);
        let complete = completeness(group, at, trailer);
        let torn = complete == Completeness::Torn;
        let bad = |at, reason| Ok(Group::Bad { at, reason, torn });
        match frames_of(&group[GROUP_HEADER_BYTES..], at + GROUP_HEADER_BYTES as u64, header) {
            Ok(_) if torn => bad(at, "group is cut short"),
            Ok(_) if complete == Completeness::Damaged => bad(at + filled, "group trailer is damaged"),
            Ok(frames) => Ok(Group::Good { frames, end }),
            Err((at, reason)) => bad(at, reason),
        }
    }

    /// Whether anything of this segment was written after `at`: then what is at `at` was once flushed.
    fn goes_on(&self, window: &mut Window, at: u64, length: u64) -> Result<bool, ReadError> {
        let mut later = at + GROUP_ALIGN;
        while later < length {
            let bytes = window.next(later, GROUP_HEADER_BYTES).map_err(|error| self.failed(&error))?;
            if GroupHeader::decode(bytes, self.salt, later).is_some() {
                return Ok(true);
            }
            later += GROUP_ALIGN;
        }
        Ok(false)
    }
}

/// The frames of a group; the error is the place of the first one that is not as it should be.
fn frames_of(
    body: &[u8],
    start: u64,
    header: GroupHeader,
) -> Result<Vec<(Place, Frame<'_>)>, (u64, &'static str)> {
    let mut frames = Vec::new();
    let mut prefixes = 0;
    let mut from = 0;
    for _ in 0..header.frames {
        let rest = &body[from..];
        let offset = start + from as u64;
        let count = frame_bytes(rest).filter(|count| *count <= rest.len());
        let count = count.ok_or((offset, "frame length is wrong"))?;
        let frame = decode_frame(&rest[..count]).map_err(|reason| (offset, reason))?;
        frames.push((Place { offset, bytes: count as u32 }, frame));
        prefixes = crc32c::crc32c_append(prefixes, &rest[..FRAME_PREFIX_BYTES]);
        from += count;
    }
    if from != body.len() || prefixes != header.prefixes_crc {
        return Err((start, "frames are not those of their group"));
    }
    Ok(frames)
}
