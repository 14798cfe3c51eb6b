//! The bytes of a group, a frame and a segment header.
//!
//! Owns: layout, checksums, and whether damage looks like a write that was cut short. Never: touches a file.
//! Layout and what other versions do: docs/adr/0002-local-journal-format.md. All numbers are little-endian.
use bytes::Bytes;
use kapell_journal::{Batch, Placed, Record};
use kapell_model::{Epoch, RunId, Seq, ShardId};

use crate::table::{Row, Table};

/// Version that this code writes, and the highest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Bytes of a segment header; groups begin behind it.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 4096;
/// Bytes of a group header.
pub(crate) const GROUP_HEADER_BYTES: usize = 48;
/// Groups begin at multiples of this, so that a group header never crosses a sector.
pub(crate) const GROUP_ALIGN: u64 = 64;
/// Bytes in front of a frame's body.
pub(crate) const FRAME_PREFIX_BYTES: usize = 8;
/// Largest frame that is accepted. Lengths are 32 bits.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 30;

const SECTOR_BYTES: u64 = 512;
const SEGMENT_MAGIC: &[u8; 8] = b"KAPLSEG\x01";
const GROUP_MARK: u32 = 0x4b47_5250;
const GROUP_HEADER_END: u32 = 0xe5e5_e5e5;
/// Last byte of each frame: not zero, so that a lost end shows.
const FRAME_END: u8 = 0xe5;
const FRAME_FIXED_BYTES: usize = 24;
const RECORD_FIXED_BYTES: usize = 20;
const ROW_BYTES: usize = 32;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
pub(crate) fn run_at(bytes: &[u8], at: usize) -> Option<RunId> {
    Some(RunId::from_bytes(bytes.get(at..at + 16)?.try_into().ok()?))
}

/// First page of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Counted from 1.
    pub(crate) number: u64,
    /// Binds groups to this one life of the file.
    pub(crate) salt: u64,
    /// Where the segment before this one ends for ever, whatever else it holds. Zero for the first.
    pub(crate) previous_end: u64,
}

/// Why a segment header is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// Written by a later version.
    TooNew(u32),
    /// Not what was written.
    Damaged(&'static str),
}

impl SegmentHeader {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut page = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        page.extend_from_slice(SEGMENT_MAGIC);
        page.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        page.extend_from_slice(&(SEGMENT_HEADER_BYTES as u32).to_le_bytes());
        for number in [self.number, self.salt, self.previous_end] {
            page.extend_from_slice(&number.to_le_bytes());
        }
        page.extend_from_slice(&crc32c::crc32c(&page).to_le_bytes());
        page.resize(SEGMENT_HEADER_BYTES, 0);
        page
    }

    pub(crate) fn decode(page: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        let short = HeaderFault::Damaged("segment header is cut short");
        let fields = || Some((u32_at(page, 8)?, u64_at(page, 16)?, u64_at(page, 24)?, u64_at(page, 32)?));
        let (version, number, salt, previous_end) = fields().ok_or(short.clone())?;
        if page.get(..8) != Some(SEGMENT_MAGIC.as_slice()) {
            return Err(HeaderFault::Damaged("segment header has no magic"));
        }
        // A later version may place its checksum elsewhere, so the version speaks first.
        if version > FORMAT_VERSION {
            return Err(HeaderFault::TooNew(version));
        }
        if u32_at(page, 40).ok_or(short)? != crc32c::crc32c(&page[..40]) {
            return Err(HeaderFault::Damaged("segment header fails its checksum"));
        }
        Ok(SegmentHeader { number, salt, previous_end })
    }
}

/// In front of the frames that were written and flushed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) body_bytes: u32,
    pub(crate) frames: u32,
    /// CRC32C over the prefixes of all frames: binds the frames to this header.
    pub(crate) prefixes_crc: u32,
}

impl GroupHeader {
    /// Writes the header into the first bytes of `into`.
    pub(crate) fn encode_into(self, salt: u64, offset: u64, into: &mut [u8]) {
        into[0..4].copy_from_slice(&GROUP_MARK.to_le_bytes());
        into[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        into[8..16].copy_from_slice(&salt.to_le_bytes());
        into[16..24].copy_from_slice(&offset.to_le_bytes());
        into[24..28].copy_from_slice(&self.frames.to_le_bytes());
        into[28..32].copy_from_slice(&self.prefixes_crc.to_le_bytes());
        into[32..40].fill(0);
        let crc = crc32c::crc32c(&into[..40]);
        into[40..44].copy_from_slice(&crc.to_le_bytes());
        into[44..48].copy_from_slice(&GROUP_HEADER_END.to_le_bytes());
    }

    /// `None` if these bytes are no group header of this salt at this place.
    pub(crate) fn decode(bytes: &[u8], salt: u64, offset: u64) -> Option<GroupHeader> {
        let ours = u32_at(bytes, 0)? == GROUP_MARK
            && u64_at(bytes, 8)? == salt
            && u64_at(bytes, 16)? == offset
            && u32_at(bytes, 40)? == crc32c::crc32c(bytes.get(..40)?)
            && u32_at(bytes, 44)? == GROUP_HEADER_END;
        let header = GroupHeader {
            body_bytes: u32_at(bytes, 4)?,
            frames: u32_at(bytes, 24)?,
            prefixes_crc: u32_at(bytes, 28)?,
        };
        ours.then_some(header)
    }
}

/// Where the group after one that ends at `end` begins.
pub(crate) fn next_group(end: u64) -> u64 {
    end.next_multiple_of(GROUP_ALIGN)
}

/// Whether these bytes of a group header, which fails its checks, were never fully written. A group header lies within
/// one sector and ends in a byte that is not zero; what was there before is zero.
pub(crate) fn header_is_torn(bytes: &[u8]) -> bool {
    bytes.last() == Some(&0)
}

/// Pieces of `bytes` that lie in one sector each; `start` is the place of the first byte in the file.
fn sectors(bytes: &[u8], start: u64) -> impl Iterator<Item = &[u8]> {
    let first = ((SECTOR_BYTES - start % SECTOR_BYTES) as usize).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    std::iter::once(head).chain(rest.chunks(SECTOR_BYTES as usize)).filter(|piece| !piece.is_empty())
}

/// How much of a sector's piece is more than trailing zeros: 0 to 512. A write that was cut short leaves less.
fn written(piece: &[u8]) -> usize {
    piece.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Behind the frames of a group: for each sector how much of it was written, a checksum of that, and an end; no byte of
/// it is ever zero. With it a torn write is told from a flipped bit.
pub(crate) fn push_trailer(into: &mut Vec<u8>, start: u64) {
    let trailer = trailer_of(into, start);
    into.extend_from_slice(&trailer);
}

fn trailer_of(group: &[u8], start: u64) -> Vec<u8> {
    let mut trailer: Vec<u8> = sectors(group, start).map(written).flat_map(trailer_entry).collect();
    let crc = crc32c::crc32c(&trailer);
    trailer.extend((0..5).map(|place| 0x80 | (crc >> (7 * place)) as u8));
    trailer.push(FRAME_END);
    trailer
}

fn trailer_entry(written: usize) -> [u8; 2] {
    [0x80 | (written & 0x7f) as u8, 0x80 | (written >> 7) as u8]
}

/// Length of the trailer of a group whose header and frames have `bytes` bytes.
pub(crate) fn trailer_bytes(bytes: u64, start: u64) -> u64 {
    let sectors = (start + bytes).div_ceil(SECTOR_BYTES) - start / SECTOR_BYTES;
    2 * sectors + 6
}

/// What the trailer says of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completeness {
    /// Everything reached the disk once: what is damaged was damaged later.
    Whole,
    /// Some of it never did.
    Torn,
    /// The trailer was damaged later.
    Damaged,
}

/// Compares a group (header and frames) that lies at `start` with its trailer.
pub(crate) fn completeness(group: &[u8], start: u64, trailer: &[u8]) -> Completeness {
    let trailer_start = start + group.len() as u64;
    if sectors(trailer, trailer_start).any(|piece| piece.last() == Some(&0)) {
        return Completeness::Torn;
    }
    if trailer == trailer_of(group, start) {
        return Completeness::Whole;
    }
    let (entries, crc) = trailer.split_at(trailer.len() - 6);
    let told = (0..4).fold(0_u32, |all, place| all | u32::from(crc[place] & 0x7f) << (7 * place));
    // The fifth byte carries the upper four bits.
    let told = told | u32::from(crc[4] & 0x0f) << 28;
    if told != crc32c::crc32c(entries) {
        return Completeness::Damaged;
    }
    let cut = sectors(group, start).zip(entries.chunks_exact(2)).any(|(piece, entry)| {
        written(piece) < (usize::from(entry[0] & 0x7f) | usize::from(entry[1] & 0x7f) << 7)
    });
    // Neither cut nor the same: more was written than was meant, or the end is wrong.
    if cut { Completeness::Torn } else { Completeness::Damaged }
}

/// What a frame is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// Records of one shard.
    Records(RecordsFrame<'a>),
    /// An owner took a shard.
    Acquired { shard: ShardId, epoch: Epoch, last: Seq },
    /// All shards as they were when the segment began.
    Table(Table),
}

/// Records, still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordsFrame<'a> {
    pub(crate) shard: ShardId,
    pub(crate) epoch: Epoch,
    pub(crate) first: Seq,
    pub(crate) count: u32,
    encoded: &'a [u8],
}

const KIND_RECORDS: u8 = 1;
const KIND_ACQUIRED: u8 = 2;
const KIND_TABLE: u8 = 3;

fn begin_frame(kind: u8, shard: ShardId, count: u32, epoch: Epoch, first: Seq, room: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_PREFIX_BYTES + FRAME_FIXED_BYTES + room + 1);
    frame.extend_from_slice(&[0; FRAME_PREFIX_BYTES]);
    frame.extend_from_slice(&[kind, 0]);
    frame.extend_from_slice(&shard.0.to_le_bytes());
    frame.extend_from_slice(&count.to_le_bytes());
    frame.extend_from_slice(&epoch.0.to_le_bytes());
    frame.extend_from_slice(&first.0.to_le_bytes());
    frame
}

fn end_frame(mut frame: Vec<u8>) -> Vec<u8> {
    frame.push(FRAME_END);
    let body_bytes = (frame.len() - FRAME_PREFIX_BYTES) as u32;
    let crc = crc32c::crc32c(&frame[FRAME_PREFIX_BYTES..]);
    frame[0..4].copy_from_slice(&body_bytes.to_le_bytes());
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame
}

/// Bytes that the batch takes as a frame.
pub(crate) fn records_frame_bytes(batch: &Batch) -> usize {
    let records: usize = batch.records.iter().map(|record| RECORD_FIXED_BYTES + record.payload.len()).sum();
    FRAME_PREFIX_BYTES + FRAME_FIXED_BYTES + records + 1
}

pub(crate) fn encode_records(batch: &Batch) -> Vec<u8> {
    let count = batch.records.len() as u32;
    let room = records_frame_bytes(batch);
    let mut frame = begin_frame(KIND_RECORDS, batch.shard, count, batch.epoch, batch.first, room);
    for record in &batch.records {
        frame.extend_from_slice(&record.run.to_bytes());
        frame.extend_from_slice(&(record.payload.len() as u32).to_le_bytes());
        frame.extend_from_slice(&record.payload);
    }
    end_frame(frame)
}

pub(crate) fn encode_acquired(shard: ShardId, epoch: Epoch, last: Seq) -> Vec<u8> {
    end_frame(begin_frame(KIND_ACQUIRED, shard, 0, epoch, last, 0))
}

pub(crate) fn encode_table(table: &Table) -> Vec<u8> {
    let count = table.len() as u32;
    let mut frame = begin_frame(KIND_TABLE, ShardId(0), count, Epoch(0), Seq::ZERO, table.len() * ROW_BYTES);
    for (shard, row) in table.rows() {
        frame.extend_from_slice(&u64::from(shard.0).to_le_bytes());
        for number in [row.epoch.0, row.last.0, row.trimmed.0] {
            frame.extend_from_slice(&number.to_le_bytes());
        }
    }
    end_frame(frame)
}

/// Length of the frame that begins here, prefix included, if it can be one.
pub(crate) fn frame_bytes(prefix: &[u8]) -> Option<usize> {
    let body = u32_at(prefix, 0)? as usize;
    (body > FRAME_FIXED_BYTES && body <= FRAME_BYTES_MAX).then_some(FRAME_PREFIX_BYTES + body)
}

/// Reads one whole frame. The error says which check failed.
pub(crate) fn decode_frame(bytes: &[u8]) -> Result<Frame<'_>, &'static str> {
    if frame_bytes(bytes) != Some(bytes.len()) {
        return Err("frame length is wrong");
    }
    let body = &bytes[FRAME_PREFIX_BYTES..];
    if u32_at(bytes, 4) != Some(crc32c::crc32c(body)) {
        return Err("frame fails its checksum");
    }
    parse_body(body).ok_or("frame does not parse")
}

/// Reads a frame that we have just encoded, without its checksum.
pub(crate) fn parse_frame(bytes: &[u8]) -> Option<Frame<'_>> {
    parse_body(bytes.get(FRAME_PREFIX_BYTES..)?)
}

fn parse_body(body: &[u8]) -> Option<Frame<'_>> {
    let shard = ShardId(u16_at(body, 2)?);
    let count = u32_at(body, 4)?;
    let epoch = Epoch(u64_at(body, 8)?);
    let first = Seq(u64_at(body, 16)?);
    let encoded = body.get(FRAME_FIXED_BYTES..body.len() - 1)?;
    match *body.first()? {
        KIND_RECORDS => Some(Frame::Records(RecordsFrame { shard, epoch, first, count, encoded })),
        KIND_ACQUIRED => Some(Frame::Acquired { shard, epoch, last: first }),
        KIND_TABLE => Some(Frame::Table(parse_table(encoded, count)?)),
        _ => None,
    }
}

fn parse_table(encoded: &[u8], count: u32) -> Option<Table> {
    let mut table = Table::default();
    for row in 0..count as usize {
        let at = row * ROW_BYTES;
        let shard = ShardId(u16::try_from(u64_at(encoded, at)?).ok()?);
        table.set(
            shard,
            Row {
                epoch: Epoch(u64_at(encoded, at + 8)?),
                last: Seq(u64_at(encoded, at + 16)?),
                trimmed: Seq(u64_at(encoded, at + 24)?),
            },
        );
    }
    Some(table)
}

impl RecordsFrame<'_> {
    /// Last record's place.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count) - 1)
    }

    /// Calls `each` with run and payload of each record. `None` if the bytes do not hold what they say.
    pub(crate) fn walk<'a>(&'a self, mut each: impl FnMut(Seq, RunId, &'a [u8])) -> Option<()> {
        let mut rest = self.encoded;
        for place in 0..u64::from(self.count) {
            let run = run_at(rest, 0)?;
            let bytes = u32_at(rest, 16)? as usize;
            each(self.first.plus(place), run, rest.get(RECORD_FIXED_BYTES..RECORD_FIXED_BYTES + bytes)?);
            rest = &rest[RECORD_FIXED_BYTES + bytes..];
        }
        (rest.is_empty() && self.count > 0).then_some(())
    }

    /// The records that `keep` wants, appended to `into`.
    pub(crate) fn collect(
        &self,
        into: &mut Vec<Placed>,
        keep: impl Fn(Seq, RunId) -> bool,
    ) -> Result<(), &'static str> {
        let walked = self.walk(|seq, run, payload| {
            if keep(seq, run) {
                into.push(Placed { seq, record: Record { run, payload: Bytes::copy_from_slice(payload) } });
            }
        });
        walked.ok_or("records do not fill their frame")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let run = RunId::new(ShardId(3), 77);
        let records = vec![
            Record { run, payload: Bytes::from_static(b"one") },
            Record { run, payload: Bytes::from_static(b"") },
        ];
        Batch { shard: ShardId(3), epoch: Epoch(9), first: Seq(41), records }
    }

    /// A stored byte is a promise: these may never change for version 1.
    #[test]
    fn golden_bytes_of_version_1() {
        let frame = encode_records(&batch());
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN_FRAME);
        let page = SegmentHeader { number: 7, salt: 0x0102_0304_0506_0708, previous_end: 4096 }.encode();
        let hex: String = page[..44].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN_HEADER);
        let mut group = [0; GROUP_HEADER_BYTES];
        GroupHeader { body_bytes: 5, frames: 1, prefixes_crc: 6 }.encode_into(8, 4096, &mut group);
        let hex: String = group.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN_GROUP);
        let hex: String = trailer_of(&frame, 4096).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN_TRAILER);
    }
    const GOLDEN_FRAME: &str = "44000000a6202a700100030002000000090000000000000029000000000000000003\
        000000000000000000000000004d030000006f6e650003000000000000000000000000004d00000000e5";
    const GOLDEN_HEADER: &str =
        "4b41504c53454701010000000010000007000000000000000807060504030201001000000000000066c71289";
    const GOLDEN_GROUP: &str =
        "5052474b050000000800000000000000001000000000000001000000060000000000000000000000d3314bfae5e5e5e5";
    const GOLDEN_TRAILER: &str = "cc80b3a4f7a68ae5";

    #[test]
    fn a_frame_survives_and_any_flipped_bit_shows() {
        let good = encode_records(&batch());
        let Ok(Frame::Records(records)) = decode_frame(&good) else { panic!("does not decode") };
        let mut read = Vec::new();
        records.collect(&mut read, |_, _| true).unwrap();
        assert_eq!(read.into_iter().map(|placed| placed.record).collect::<Vec<_>>(), batch().records);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_frame(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_of_a_group_shows_and_no_flipped_bit_looks_like_one() {
        for start in [4096, 4096 + 448, 4096 + 510] {
            let mut whole = encode_records(&batch());
            // Zeros everywhere, also where sectors end.
            whole.extend_from_slice(&[0; 1500]);
            whole.push(7);
            let group = whole.len();
            push_trailer(&mut whole, start);
            assert_eq!(whole.len() as u64, group as u64 + trailer_bytes(group as u64, start));
            let check = |bytes: &[u8]| completeness(&bytes[..group], start, &bytes[group..]);
            assert_eq!(check(&whole), Completeness::Whole);
            for kept in 0..whole.len() {
                let mut cut = whole.clone();
                cut[kept..].fill(0);
                assert_eq!(check(&cut), Completeness::Torn, "cut at {kept}");
            }
            let mut at = 0;
            for sector in sectors(&whole, start) {
                let mut lost = whole.clone();
                lost[at..at + sector.len()].fill(0);
                let expected = if written(sector) == 0 { Completeness::Whole } else { Completeness::Torn };
                assert_eq!(check(&lost), expected, "sector at {at}");
                at += sector.len();
            }
            for at in 0..whole.len() {
                let mut bad = whole.clone();
                bad[at] ^= 1 << (at % 3 + 3);
                assert_ne!(check(&bad), Completeness::Torn, "flipped at {at}");
            }
        }
    }

    #[test]
    fn a_group_header_of_another_life_or_place_is_none_of_ours() {
        let mut bytes = [0; GROUP_HEADER_BYTES];
        let header = GroupHeader { body_bytes: 5, frames: 1, prefixes_crc: 6 };
        header.encode_into(8, 4096, &mut bytes);
        assert_eq!(GroupHeader::decode(&bytes, 8, 4096), Some(header));
        assert_eq!(GroupHeader::decode(&bytes, 9, 4096), None);
        assert_eq!(GroupHeader::decode(&bytes, 8, 4160), None);
    }
}
