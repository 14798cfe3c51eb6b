//! A disk in memory that loses, tears, flips and refuses, as real ones do. For tests and simulation.
//!
//! Owns: what a crash leaves of writes and names that were not synced, and errors on demand. Never: draws a number that
//! its caller did not seed.
//!
//! The model: a write goes to the page cache. [`DiskFile::sync`] makes content and length durable, [`Disk::sync_dir`]
//! makes names durable. At a crash each page that was not synced is kept, lost, or torn at any byte, independently of
//! the others; each change of a name is kept or lost. A failed sync drops what was dirty and marks it clean, as Linux
//! does: reads still see it until the crash, and no later sync writes it.
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::disk::{Disk, DiskFile};
use crate::shared::lock;

const PAGE_BYTES: usize = 4096;
/// Errno of Linux; a test reads the message.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What goes wrong, once, at the next operation that it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A write takes only so many bytes and says so; the caller may go on.
    ShortWrite {
        /// Bytes that are taken.
        bytes: usize,
    },
    /// A write takes nothing: input/output error.
    WriteError,
    /// A write takes nothing: no space left.
    NoSpace,
    /// A sync of a file fails; what was dirty is dropped and counts as clean.
    SyncError,
    /// A sync of the directory fails.
    DirSyncError,
    /// A file does not get its new name.
    RenameError,
    /// A read fails.
    ReadError,
}

/// What a crash does to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// All of it is lost.
    LoseUnsynced,
    /// All of it is kept.
    KeepUnsynced,
    /// Each page and each name by itself is kept, lost or torn, as the seed says.
    Random {
        /// The seed.
        seed: u64,
    },
}

#[derive(Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    cache: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, usize),
    Rename { from: String, to: String, inode: usize },
    Unlink(String),
}

fn apply(names: &mut BTreeMap<String, usize>, change: NameChange) {
    match change {
        NameChange::Link(name, inode) => drop(names.insert(name, inode)),
        NameChange::Rename { from, to, inode } => {
            names.remove(&from);
            names.insert(to, inode);
        }
        NameChange::Unlink(name) => drop(names.remove(&name)),
    }
}

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<NameChange>,
    faults: Vec<(Option<String>, Fault)>,
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
    /// Counts crashes: a handle from before one is dead.
    life: u64,
    capacity_bytes: Option<u64>,
    sync_takes: Duration,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct FaultDisk {
    world: Arc<Mutex<World>>,
}

struct FaultFile {
    world: Arc<Mutex<World>>,
    inode: usize,
    life: u64,
}

impl FaultDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> FaultDisk {
        FaultDisk::default()
    }

    /// Lets the next operation that `fault` fits go wrong.
    pub fn inject(&self, fault: Fault) {
        lock(&self.world).faults.push((None, fault));
    }

    /// As [`FaultDisk::inject`], for files whose name ends so.
    pub fn inject_on(&self, ending: &str, fault: Fault) {
        lock(&self.world).faults.push((Some(ending.to_owned()), fault));
    }

    /// Bytes that all files together may have; `None` for no end.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        lock(&self.world).capacity_bytes = capacity_bytes;
    }

    /// How long a sync of a file says that it took.
    pub fn set_sync_takes(&self, sync_takes: Duration) {
        lock(&self.world).sync_takes = sync_takes;
    }

    /// How many operations changed something so far: writes, syncs, names.
    #[must_use]
    pub fn operations(&self) -> u64 {
        lock(&self.world).operations
    }

    /// Power goes while that operation (counted as [`FaultDisk::operations`] does, from 1) is under way. It and all
    /// that follow fail until [`FaultDisk::crash`].
    pub fn crash_at(&self, operation: u64) {
        lock(&self.world).crash_at = Some(operation);
    }

    /// Whether the power is gone.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        lock(&self.world).crashed
    }

    /// Power goes, if it has not gone yet, and comes back. Open files are dead; what was not synced fares as `how` says.
    pub fn crash(&self, how: Crash) {
        let mut world = lock(&self.world);
        let mut dice = Dice(match how {
            Crash::LoseUnsynced | Crash::KeepUnsynced => 0,
            Crash::Random { seed } => seed,
        });
        for inode in &mut world.inodes {
            inode.crash(how, &mut dice);
        }
        let mut names = world.durable_names.clone();
        for change in std::mem::take(&mut world.changes) {
            let kept = match how {
                Crash::LoseUnsynced => false,
                Crash::KeepUnsynced => true,
                Crash::Random { .. } => dice.below(2) == 0,
            };
            if kept {
                apply(&mut names, change);
            }
        }
        world.durable_names = names.clone();
        world.names = names;
        world.faults.clear();
        world.crash_at = None;
        world.crashed = false;
        world.life += 1;
    }

    /// Drops clean pages from the cache: what was lost by a failed sync shows.
    pub fn evict(&self) {
        for inode in &mut lock(&self.world).inodes {
            let (durable, dirty) = (inode.durable.clone(), inode.dirty.clone());
            let clean = (0..inode.cache.len().div_ceil(PAGE_BYTES)).filter(|page| !dirty.contains(page));
            for page in clean.collect::<Vec<_>>() {
                copy_page(&durable, &mut inode.cache, page, PAGE_BYTES);
            }
        }
    }

    /// Flips one bit of a file, on disk and in the cache. Answers whether there is such a byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u32) -> bool {
        let mut world = lock(&self.world);
        let Some(inode) = world.names.get(name).copied() else { return false };
        let inode = &mut world.inodes[inode];
        let (at, mask) = (offset as usize, 1_u8 << (bit % 8));
        for bytes in [&mut inode.durable, &mut inode.cache] {
            match bytes.get_mut(at) {
                Some(byte) => *byte ^= mask,
                None => return false,
            }
        }
        true
    }

    /// What the file holds as programs see it.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let world = lock(&self.world);
        world.names.get(name).map(|inode| world.inodes[*inode].cache.clone())
    }

    /// Puts a file there, durable.
    pub fn put(&self, name: &str, content: Vec<u8>) {
        let mut world = lock(&self.world);
        let inode = world.inodes.len();
        world.inodes.push(Inode { durable: content.clone(), cache: content, dirty: BTreeSet::new() });
        world.names.insert(name.to_owned(), inode);
        world.durable_names.insert(name.to_owned(), inode);
    }

    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = lock(&self.world);
        if world.crashed { Err(power_is_gone()) } else { Ok(world) }
    }
}

fn power_is_gone() -> io::Error {
    io::Error::other("the disk has no power")
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

/// Small and repeatable; quality does not matter here.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

/// Copies the first `bytes` of a page; what `from` does not have is zero.
fn copy_page(from: &[u8], into: &mut [u8], page: usize, bytes: usize) {
    let start = (page * PAGE_BYTES).min(into.len());
    let end = (start + bytes).min(into.len());
    let held = from.len().clamp(start, end);
    into[start..held].copy_from_slice(from.get(start..held).unwrap_or_default());
    into[held..end].fill(0);
}

impl Inode {
    fn crash(&mut self, how: Crash, dice: &mut Dice) {
        let dirty = std::mem::take(&mut self.dirty);
        let mut after = self.durable.clone();
        for page in dirty {
            let kept = match how {
                Crash::LoseUnsynced => 0,
                Crash::KeepUnsynced => PAGE_BYTES,
                Crash::Random { .. } => match dice.below(3) {
                    0 => 0,
                    1 => PAGE_BYTES,
                    _torn => dice.below(PAGE_BYTES),
                },
            };
            let end = (page * PAGE_BYTES + kept).min(self.cache.len());
            if kept > 0 && after.len() < end {
                after.resize(end, 0);
            }
            copy_page(&self.cache, &mut after, page, kept);
        }
        // A shorter length is a change of metadata: it lasts or it does not.
        let shorter = self.cache.len() < after.len();
        if shorter && (how == Crash::KeepUnsynced || (how != Crash::LoseUnsynced && dice.below(2) == 0)) {
            after.truncate(self.cache.len());
        }
        self.cache.clone_from(&after);
        self.durable = after;
    }

    fn sync(&mut self) {
        self.durable.resize(self.cache.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            copy_page(&self.cache, &mut self.durable, page, PAGE_BYTES);
        }
    }
}

impl World {
    /// Counts an operation. True if the power goes while it is under way.
    fn step(&mut self) -> bool {
        self.operations += 1;
        self.crashed = self.crash_at == Some(self.operations);
        self.crashed
    }

    fn take_fault(&mut self, inode: Option<usize>, fits: impl Fn(Fault) -> bool) -> Option<Fault> {
        let names = &self.names;
        let named =
            |ending: &str| names.iter().any(|(name, of)| inode == Some(*of) && name.ends_with(ending));
        let ours = |ending: &Option<String>| ending.as_ref().is_none_or(|ending| named(ending));
        let at = self.faults.iter().position(|(ending, fault)| ours(ending) && fits(*fault))?;
        Some(self.faults.remove(at).1)
    }

    fn used_bytes(&self) -> u64 {
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        named.iter().map(|inode| self.inodes[*inode].cache.len() as u64).sum()
    }

    fn change(&mut self, change: NameChange) -> io::Result<()> {
        apply(&mut self.names, change.clone());
        self.changes.push(change);
        if self.step() { Err(power_is_gone()) } else { Ok(()) }
    }
}

impl Disk for FaultDisk {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.world()?.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world()?;
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        world.change(NameChange::Link(name.to_owned(), inode))?;
        let life = world.life;
        Ok(Arc::new(FaultFile { world: Arc::clone(&self.world), inode, life }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let world = self.world()?;
        let inode = *world.names.get(name).ok_or_else(missing)?;
        let life = world.life;
        Ok(Arc::new(FaultFile { world: Arc::clone(&self.world), inode, life }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world()?;
        let inode = *world.names.get(from).ok_or_else(missing)?;
        if world.take_fault(Some(inode), |fault| fault == Fault::RenameError).is_some() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        world.change(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world()?;
        if !world.names.contains_key(name) {
            return Err(missing());
        }
        world.change(NameChange::Unlink(name.to_owned()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut world = self.world()?;
        if world.step() {
            return Err(power_is_gone());
        }
        if world.take_fault(None, |fault| fault == Fault::DirSyncError).is_some() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        world.changes.clear();
        world.durable_names = world.names.clone();
        Ok(())
    }
}

impl FaultFile {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = lock(&self.world);
        if world.crashed || world.life != self.life { Err(power_is_gone()) } else { Ok(world) }
    }
}

impl DiskFile for FaultFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.world()?;
        if world.take_fault(Some(self.inode), |fault| fault == Fault::ReadError).is_some() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let cache = &world.inodes[self.inode].cache;
        let from = (offset as usize).min(cache.len());
        let count = into.len().min(cache.len() - from);
        into[..count].copy_from_slice(&cache[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut world = self.world()?;
        let fault = world.take_fault(Some(self.inode), |fault| {
            matches!(fault, Fault::ShortWrite { .. } | Fault::WriteError | Fault::NoSpace)
        });
        let mut count = bytes.len();
        match fault {
            Some(Fault::ShortWrite { bytes: taken }) => count = count.min(taken).max(1),
            Some(Fault::WriteError) => return Err(io::Error::from_raw_os_error(EIO)),
            Some(Fault::NoSpace) => return Err(io::Error::from_raw_os_error(ENOSPC)),
            Some(Fault::SyncError | Fault::DirSyncError | Fault::RenameError | Fault::ReadError) | None => {}
        }
        let end = offset as usize + count;
        let grows = end.saturating_sub(world.inodes[self.inode].cache.len()) as u64;
        if grows > 0 && world.capacity_bytes.is_some_and(|capacity| world.used_bytes() + grows > capacity) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        let inode = &mut world.inodes[self.inode];
        if grows > 0 {
            inode.cache.resize(end, 0);
        }
        inode.cache[offset as usize..end].copy_from_slice(&bytes[..count]);
        inode.dirty.extend(offset as usize / PAGE_BYTES..end.div_ceil(PAGE_BYTES));
        if world.step() { Err(power_is_gone()) } else { Ok(count) }
    }

    fn sync(&self) -> io::Result<Duration> {
        let mut world = self.world()?;
        if world.step() {
            return Err(power_is_gone());
        }
        if world.take_fault(Some(self.inode), |fault| fault == Fault::SyncError).is_some() {
            world.inodes[self.inode].dirty.clear();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        world.inodes[self.inode].sync();
        Ok(world.sync_takes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.world()?.inodes[self.inode].cache.len() as u64)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.world()?;
        let inode = &mut world.inodes[self.inode];
        inode.cache.truncate(bytes as usize);
        inode.dirty.retain(|page| page * PAGE_BYTES < bytes as usize);
        if world.step() { Err(power_is_gone()) } else { Ok(()) }
    }
}
