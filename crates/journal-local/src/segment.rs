//! Beginning a segment, and the chores that come with it.
//!
//! Owns: the order of steps that makes a new segment durable, spare files, sidecars of sealed ones. Never: decides when.
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};

use crate::disk::{DiskFile, write_all};
use crate::frame::{SEGMENT_HEADER_BYTES, SegmentHeader, encode_table, next_group};
use crate::group::Group;
use crate::index::MemoryIndex;
use crate::lane::Joined;
use crate::names::{FileName, UNFINISHED};
use crate::options::SEGMENT_BYTES_MIN;
use crate::shared::{Segment, Shared, Spare, lock};
use crate::table::Table;

/// Zeros that are written at once while a spare is filled; flushed as often, so that the writer's own flush
/// never waits for much.
const FILL_BYTES: usize = 2 << 20;

/// The segment that is being written.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn DiskFile>,
    /// End of the last group that is durable.
    pub(crate) end: u64,
    /// Where the first group behind the table begins.
    pub(crate) first_group: u64,
    /// Whether it was filled with zeros ahead of time. If not, each flush also has to write the file's new length.
    pub(crate) prepared: bool,
}

impl Active {
    /// Where the next group goes.
    pub(crate) fn next(&self) -> u64 {
        next_group(self.end)
    }
}

/// What the segment before leaves to the new one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) end: u64,
}

impl Before {
    /// Of the very first segment.
    pub(crate) const NOTHING: Before = Before { number: 0, salt: 0, end: 0 };
}

/// Makes the next segment durable: content first, then its name. Nothing in it is visible to readers yet.
pub(crate) fn begin(shared: &Shared, before: Before, table: Table) -> io::Result<Active> {
    let number = before.number + 1;
    let salt = salt_of(shared, before);
    let mut page = SegmentHeader { number, salt, previous_end: before.end }.encode();
    let mut group = Group::new();
    group.push(&encode_table(&table));
    page.extend_from_slice(group.finish(salt, SEGMENT_HEADER_BYTES as u64));

    let spare = lock(&shared.spare).take();
    let prepared = spare.is_some();
    let spare = match spare {
        Some(spare) => spare,
        None => {
            let name = passing_name(shared);
            Spare { file: shared.disk.create(&name)?, name }
        }
    };
    let named = write_all(&*spare.file, &page, 0)
        .and_then(|()| spare.file.sync())
        .and_then(|_| shared.disk.rename(&spare.name, &FileName::Segment(number).text()))
        .and_then(|()| shared.disk.sync_dir());
    if let Err(error) = named {
        // It may be the lack of room; an unfinished file is no use to anybody.
        drop(shared.disk.remove(&spare.name));
        return Err(error);
    }
    let end = page.len() as u64;
    let memory = Mutex::new(Some(MemoryIndex::new()));
    let segment = Segment { number, salt, start: table, end: OnceLock::new(), memory };
    Ok(Active { segment: Arc::new(segment), file: spare.file, end, first_group: next_group(end), prepared })
}

fn passing_name(shared: &Shared) -> String {
    format!("spare-{}{UNFINISHED}", shared.fresh_number())
}

/// Differs for each life of a file, so that bytes of another life never count.
fn salt_of(shared: &Shared, before: Before) -> u64 {
    let mut mixed = shared.options.salt_seed;
    for part in [before.number, before.salt, before.end, shared.fresh_number()] {
        // The finisher of splitmix64: each bit of the input changes half of the output.
        mixed = mixed.wrapping_add(part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
    }
    mixed | 1
}

/// What has to be done around the writer, not by it.
pub(crate) enum Chore {
    /// Fill the next segment with zeros.
    Prepare,
    /// Write the index of a sealed segment and let go of the one in memory.
    Seal(Arc<Segment>),
}

/// Who does the chores.
pub(crate) enum Chores {
    /// Whoever asks, at once.
    Inline,
    /// A thread, which ends with this. When it is far behind, the writer waits, so that indexes in memory stay few.
    Thread { queue: Option<SyncSender<Chore>>, thread: Option<Joined> },
}

/// Chores that wait before the writer does.
const CHORES_WAITING_MAX: usize = 4;

impl Chores {
    /// Starts the thread.
    pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Chores> {
        let (queue, waiting) = sync_channel::<Chore>(CHORES_WAITING_MAX);
        let theirs = Arc::clone(shared);
        let thread = Joined::start("journal-chores", move || {
            for chore in waiting {
                do_chore(&theirs, chore);
            }
        })?;
        Ok(Chores::Thread { queue: Some(queue), thread: Some(thread) })
    }
}

impl Drop for Chores {
    fn drop(&mut self) {
        if let Chores::Thread { queue, thread } = self {
            *queue = None;
            *thread = None;
        }
    }
}

impl Chores {
    pub(crate) fn hand(&self, shared: &Shared, chore: Chore) {
        match self {
            Chores::Inline => do_chore(shared, chore),
            Chores::Thread { queue, .. } => {
                // Without the thread the index stays in memory and files grow as they are written: slower, not wrong.
                if let Some(queue) = queue {
                    drop(queue.send(chore));
                }
            }
        }
    }
}

/// Failures are not answered: all of this can be done without, and the next write meets the same disk.
pub(crate) fn do_chore(shared: &Shared, chore: Chore) {
    match chore {
        Chore::Prepare => prepare(shared),
        Chore::Seal(segment) => seal(shared, &segment),
    }
}

fn prepare(shared: &Shared) {
    if lock(&shared.spare).is_some() {
        return;
    }
    let name = passing_name(shared);
    match fill(shared, &name) {
        Ok(file) => *lock(&shared.spare) = Some(Spare { name, file }),
        Err(_) => drop(shared.disk.remove(&name)),
    }
}

fn fill(shared: &Shared, name: &str) -> io::Result<Arc<dyn DiskFile>> {
    let file = shared.disk.create(name)?;
    let size = shared.options.segment_bytes.max(SEGMENT_BYTES_MIN);
    let zeros = vec![0; FILL_BYTES.min(size as usize)];
    let mut at = 0;
    while at < size {
        let count = (zeros.len() as u64).min(size - at);
        write_all(&*file, &zeros[..count as usize], at)?;
        file.sync()?;
        at += count;
    }
    Ok(file)
}

fn seal(shared: &Shared, segment: &Segment) {
    let held = lock(&segment.memory).as_ref().map(MemoryIndex::snapshot);
    if let Some(snapshot) = held {
        let name = FileName::Index(segment.number).text();
        // If it cannot be written it is rebuilt by the first who needs it: memory must not pile up here.
        drop(snapshot.write(&*shared.disk, &name, segment.sealed()));
        *lock(&segment.memory) = None;
    }
}
