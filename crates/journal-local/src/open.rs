//! Opening: what is on disk, is it whole, where does writing go on.
//!
//! Owns: the order of checks and repairs. Never: repairs anything but a torn tail of the last segment.
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};

use kapell_journal::ReadError;
use kapell_model::{Seq, ShardId};

use crate::checkpoint::{Checkpoint, CheckpointFile, ImageReader};
use crate::disk::{Disk, read_full, write_all};
use crate::frame::{Frame, HeaderFault, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::index::MemoryIndex;
use crate::names::FileName;
use crate::options::Options;
use crate::scan::{Extent, Scanned, Source, unreadable};
use crate::segment::{Active, Before, begin};
use crate::shared::{Segment, ShardView, Shared, State, lock};
use crate::table::{Row, Table};

/// Why the journal cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Written by a later version of Kapell; run that one.
    #[error("{segment} in {place} has format version {found}, this build reads up to {known}")]
    TooNew {
        /// The directory.
        place: String,
        /// The file.
        segment: String,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// What is stored cannot be trusted or reached.
    #[error("journal in {place} cannot be opened")]
    Read {
        /// The directory.
        place: String,
        /// What is wrong.
        source: ReadError,
    },
    /// The store refuses to be written.
    #[error("journal in {place} cannot be written: {reason}")]
    Write {
        /// The directory.
        place: String,
        /// What it said.
        reason: String,
    },
}

struct Opening {
    disk: Arc<dyn Disk>,
    options: Options,
}

struct Listing {
    segments: Vec<u64>,
    indexes: Vec<u64>,
    bases: BTreeMap<ShardId, Vec<u64>>,
    deltas: BTreeMap<ShardId, Vec<u64>>,
}

/// Opens or creates the journal; what is answered can be written at once.
pub(crate) fn open(disk: Arc<dyn Disk>, options: Options) -> Result<(Arc<Shared>, Active), OpenError> {
    let opening = Opening { disk, options };
    let listing = opening.list()?;
    let mut checkpoints = opening.checkpoints(&listing)?;
    let mut segments = opening.segments(&listing.segments)?;
    let mut table = Table::default();
    let mut before = Before::NOTHING;
    let mut cut = None;
    if let Some((last, source)) = segments.pop_back() {
        let mut last = last;
        let (rows, index, scanned) = opening.read_last(&last, &source)?;
        table = rows;
        before = Before { number: last.number, salt: last.salt, end: scanned.end };
        last.end = OnceLock::from(scanned.end);
        last.memory = Mutex::new(Some(index));
        segments.push_back((last, source));
        cut = Some(scanned.end);
    }
    let oldest = segments.front().map(|(segment, _)| segment.start.clone()).unwrap_or_default();
    opening.agree(&table, &oldest, &checkpoints)?;

    let mut state = State { segments: VecDeque::new(), shards: BTreeMap::new() };
    for (shard, row) in table.rows() {
        let checkpoint = Arc::new(checkpoints.remove(&shard).unwrap_or_default());
        state.shards.insert(shard, ShardView { row, closed: true, checkpoint });
    }
    let last_file = segments.back().map(|(_, source)| Arc::clone(&source.file));
    state.segments.extend(segments.into_iter().map(|(segment, _)| Arc::new(segment)));
    let shared = Shared::new(Arc::clone(&opening.disk), opening.options.clone(), state);
    let active = begin(&shared, before, table).map_err(|error| opening.unwritable(&error))?;
    lock(&shared.state).segments.push_back(Arc::clone(&active.segment));
    if let (Some(file), Some(end)) = (last_file, cut) {
        // Only gives room back: the new header already says where this segment ends.
        drop(file.truncate(end));
    }
    Ok((Arc::new(shared), active))
}

impl Opening {
    fn unread(&self, source: ReadError) -> OpenError {
        OpenError::Read { place: self.disk.place(), source }
    }

    fn unwritable(&self, error: &std::io::Error) -> OpenError {
        OpenError::Write { place: self.disk.place(), reason: error.to_string() }
    }

    fn corrupt(&self, segment: String, reason: &str) -> OpenError {
        self.unread(ReadError::Corrupt { segment, offset: 0, reason: reason.to_owned() })
    }

    /// Sorts the files by kind and removes those that nobody finished.
    fn list(&self) -> Result<Listing, OpenError> {
        let names = self.disk.list();
        let names =
            names.map_err(|error| self.unread(unreadable(&error, "directory", self.options.retry_after)))?;
        let mut listing = Listing {
            segments: Vec::new(),
            indexes: Vec::new(),
            bases: BTreeMap::new(),
            deltas: BTreeMap::new(),
        };
        for name in names {
            match FileName::parse(&name) {
                Some(FileName::Segment(number)) => listing.segments.push(number),
                Some(FileName::Index(number)) => listing.indexes.push(number),
                Some(FileName::Base(shard, number)) => listing.bases.entry(shard).or_default().push(number),
                Some(FileName::Delta(shard, number)) => listing.deltas.entry(shard).or_default().push(number),
                Some(FileName::Unfinished) => drop(self.disk.remove(&name)),
                None => {}
            }
        }
        listing.segments.sort_unstable();
        for index in &listing.indexes {
            if listing.segments.binary_search(index).is_err() {
                drop(self.disk.remove(&FileName::Index(*index).text()));
            }
        }
        Ok(listing)
    }

    /// Headers and tables of all segments; where each one ends is said by the one after it.
    fn segments(&self, numbers: &[u64]) -> Result<VecDeque<(Segment, Source)>, OpenError> {
        let mut segments: VecDeque<(Segment, Source)> = VecDeque::new();
        for &number in numbers {
            let (header, segment, source) = self.segment(number)?;
            if let Some((before, _)) = segments.back_mut() {
                if before.number + 1 != number {
                    let name = FileName::Segment(before.number + 1).text();
                    return Err(self.corrupt(name, "segment is missing"));
                }
                before.end = OnceLock::from(header.previous_end);
            }
            segments.push_back((segment, source));
        }
        Ok(segments)
    }

    fn segment(&self, number: u64) -> Result<(SegmentHeader, Segment, Source), OpenError> {
        let name = FileName::Segment(number).text();
        let retry_after = self.options.retry_after;
        let failed = |error: std::io::Error| self.unread(unreadable(&error, &name, retry_after));
        let file = self.disk.open(&name).map_err(failed)?;
        let mut page = vec![0; SEGMENT_HEADER_BYTES];
        read_full(&*file, &mut page, 0).map_err(failed)?;
        let header = match SegmentHeader::decode(&page) {
            Ok(header) => header,
            Err(HeaderFault::TooNew(found)) => {
                let (place, known) = (self.disk.place(), crate::frame::FORMAT_VERSION);
                return Err(OpenError::TooNew { place, segment: name, found, known });
            }
            // It was durable before it had this name: never a torn write.
            Err(HeaderFault::Damaged(reason)) => return Err(self.corrupt(name, reason)),
        };
        if header.number != number {
            return Err(self.corrupt(name, "segment header names another segment"));
        }
        let source = Source { name, file, salt: header.salt, retry_after };
        let start = source.table().map_err(|error| self.unread(error))?;
        let segment =
            Segment { number, salt: header.salt, start, end: OnceLock::new(), memory: Mutex::new(None) };
        Ok((header, segment, source))
    }

    /// Reads the last segment in full and makes sure that what was read is really on disk.
    fn read_last(
        &self,
        segment: &Segment,
        source: &Source,
    ) -> Result<(Table, MemoryIndex, Scanned), OpenError> {
        let mut rows = segment.start.clone();
        let mut index = MemoryIndex::new();
        let scanned = source.scan(Extent::Last, &mut |place, frame| match frame {
            Frame::Records(records) => {
                let row = rows.row(records.shard);
                if records.epoch != row.epoch || records.first != row.last.next() {
                    return Err("records do not follow those before them");
                }
                index.add(place, &records)?;
                rows.set(records.shard, Row { last: records.last(), ..row });
                Ok(())
            }
            Frame::Acquired { shard, epoch, last } => {
                let row = rows.row(shard);
                if epoch < row.epoch || last != row.last {
                    return Err("acquisition does not follow what is before it");
                }
                rows.set(shard, Row { epoch, ..row });
                Ok(())
            }
            Frame::Table(_) => Ok(()),
        });
        let scanned = scanned.map_err(|error| self.unread(error))?;
        self.settle(source, scanned).map_err(|error| self.unwritable(&error))?;
        Ok((rows, index, scanned))
    }

    /// The process that wrote the last group may have died before, or after, its flush failed; then the group is in
    /// the page cache only, and marked as clean. Written once more, it is flushed for sure.
    fn settle(&self, source: &Source, scanned: Scanned) -> std::io::Result<()> {
        let mut group = vec![0; (scanned.end - scanned.last_group) as usize];
        read_full(&*source.file, &mut group, scanned.last_group)?;
        write_all(&*source.file, &group, scanned.last_group)?;
        source.file.sync().map(drop)
    }

    fn checkpoints(&self, listing: &Listing) -> Result<BTreeMap<ShardId, Checkpoint>, OpenError> {
        let mut found = BTreeMap::new();
        for (shard, bases) in &listing.bases {
            let Some(&base) = bases.iter().max() else { continue };
            let mut deltas: Vec<u64> = listing.deltas.get(shard).cloned().unwrap_or_default();
            deltas.sort_unstable();
            let outdone = deltas.partition_point(|number| *number < base);
            for number in bases.iter().filter(|number| **number < base) {
                drop(self.disk.remove(&FileName::Base(*shard, *number).text()));
            }
            for number in deltas.drain(..outdone) {
                drop(self.disk.remove(&FileName::Delta(*shard, number).text()));
            }
            let mut names = vec![(base, FileName::Base(*shard, base))];
            names.extend(deltas.iter().map(|number| (*number, FileName::Delta(*shard, *number))));
            found.insert(*shard, self.checkpoint(*shard, &names)?);
        }
        match listing.deltas.iter().find(|(shard, _)| !listing.bases.contains_key(shard)) {
            Some((shard, _)) => Err(self.corrupt(format!("{:05}-*.base", shard.0), "checkpoint has no base")),
            None => Ok(found),
        }
    }

    fn checkpoint(&self, shard: ShardId, names: &[(u64, FileName)]) -> Result<Checkpoint, OpenError> {
        let mut checkpoint = Checkpoint::default();
        for (number, name) in names {
            let opened = ImageReader::open(&*self.disk, *name, self.options.retry_after);
            let (header, reader) = opened.map_err(|error| self.unread(error))?;
            let follows = checkpoint.files.is_empty() || checkpoint.used + 1 == *number;
            let ours = header.shard == shard && header.number == *number;
            if !follows || !ours || header.through < checkpoint.through {
                return Err(self.corrupt(name.text(), "checkpoint does not follow the one before it"));
            }
            checkpoint.through = header.through;
            checkpoint.used = *number;
            checkpoint.files.push(CheckpointFile { name: *name, bytes: reader.bytes() });
        }
        Ok(checkpoint)
    }

    /// What log and checkpoints say of each other: neither may miss what the other takes for granted.
    fn agree(
        &self,
        table: &Table,
        oldest: &Table,
        checkpoints: &BTreeMap<ShardId, Checkpoint>,
    ) -> Result<(), OpenError> {
        for (shard, checkpoint) in checkpoints {
            if checkpoint.through > table.row(*shard).last {
                let name = checkpoint.files.last().map_or_else(String::new, |file| file.name.text());
                return Err(self.corrupt(name, "checkpoint covers records that the log does not have"));
            }
        }
        for (shard, row) in oldest.rows() {
            let through = checkpoints.get(&shard).map_or(Seq::ZERO, |checkpoint| checkpoint.through);
            if row.last > through {
                let name = format!("{:05}-*.base", shard.0);
                return Err(self.corrupt(name, "no checkpoint covers the records that were trimmed"));
            }
        }
        Ok(())
    }
}
