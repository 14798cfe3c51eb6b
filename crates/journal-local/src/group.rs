//! Frames that are written and flushed together.
//!
//! Owns: gathering them behind one header. Never: touches a file or knows what a frame is about.
use crate::frame::{FRAME_PREFIX_BYTES, GROUP_HEADER_BYTES, GroupHeader, push_trailer, trailer_bytes};
use crate::scan::Place;

/// A group that is being filled; its room is used again for the next one.
#[derive(Debug)]
pub(crate) struct Group {
    bytes: Vec<u8>,
    /// Where each frame begins in `bytes`, and its length.
    frames: Vec<(usize, u32)>,
    prefixes_crc: u32,
}

impl Group {
    pub(crate) fn new() -> Group {
        Group { bytes: vec![0; GROUP_HEADER_BYTES], frames: Vec::new(), prefixes_crc: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.truncate(GROUP_HEADER_BYTES);
        self.frames.clear();
        self.prefixes_crc = 0;
    }

    pub(crate) fn push(&mut self, frame: &[u8]) {
        self.frames.push((self.bytes.len(), frame.len() as u32));
        self.prefixes_crc = crc32c::crc32c_append(self.prefixes_crc, &frame[..FRAME_PREFIX_BYTES]);
        self.bytes.extend_from_slice(frame);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Length on disk, header and trailer included, if it lies at `offset`; before it is finished.
    pub(crate) fn bytes_at(&self, offset: u64) -> u64 {
        let bytes = self.bytes.len() as u64;
        bytes + trailer_bytes(bytes, offset)
    }

    /// Fills in header and trailer, once; these bytes belong at `offset` of the segment with that salt.
    pub(crate) fn finish(&mut self, salt: u64, offset: u64) -> &[u8] {
        let header = GroupHeader {
            body_bytes: (self.bytes.len() - GROUP_HEADER_BYTES) as u32,
            frames: self.frames.len() as u32,
            prefixes_crc: self.prefixes_crc,
        };
        header.encode_into(salt, offset, &mut self.bytes[..GROUP_HEADER_BYTES]);
        push_trailer(&mut self.bytes, offset);
        &self.bytes
    }

    /// The frames with their places, if the group lies at `offset`.
    pub(crate) fn frames(&self, offset: u64) -> impl Iterator<Item = (Place, &[u8])> {
        self.frames.iter().map(move |&(at, bytes)| {
            let place = Place { offset: offset + at as u64, bytes };
            (place, &self.bytes[at..at + bytes as usize])
        })
    }
}
