//! What the tests of this crate share: calls that wait, and records whose content says what they must be.
#![allow(dead_code, reason = "each test program uses its part")]
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::executor::block_on;
use kapell_journal::{
    AcquireError, Acquired, AppendError, Batch, Journal, Placed, ReadError, Record, RunImage,
};
use kapell_journal_local::fault::FaultDisk;
use kapell_journal_local::{Driver, LocalJournal, OpenError, Options};
use kapell_model::{Epoch, RunId, Seq, ShardId};

pub(crate) const SEGMENT_BYTES: u64 = 16 << 10;

pub(crate) fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, checkpoint_files_max: 4, salt_seed: 1, ..Options::default() }
}

pub(crate) fn try_open(disk: &FaultDisk) -> Result<LocalJournal, OpenError> {
    LocalJournal::open(Arc::new(disk.clone()), options(), Driver::Inline)
}

pub(crate) fn open(disk: &FaultDisk) -> LocalJournal {
    try_open(disk).unwrap()
}

/// The record that belongs at a place, and only there. No byte of it is zero.
pub(crate) fn record(shard: u16, seq: u64, bytes: usize) -> Record {
    let mut payload = format!("shard {shard} seq {seq} ").into_bytes();
    payload.resize(payload.len().max(bytes), b'a' + (seq % 26) as u8);
    Record { run: RunId::new(ShardId(shard), u128::from(seq % 5)), payload: Bytes::from(payload) }
}

pub(crate) fn records(shard: u16, first: u64, count: u64, bytes: usize) -> Vec<Record> {
    (first..first + count).map(|seq| record(shard, seq, bytes)).collect()
}

pub(crate) fn acquire(journal: &LocalJournal, shard: u16, epoch: u64) -> Result<Acquired, AcquireError> {
    block_on(journal.acquire(ShardId(shard), Epoch(epoch)))
}

pub(crate) fn append(
    journal: &LocalJournal,
    (shard, epoch): (u16, u64),
    first: u64,
    records: Vec<Record>,
) -> Result<(), AppendError> {
    let (done, answer) = mpsc::channel();
    let batch = Batch { shard: ShardId(shard), epoch: Epoch(epoch), first: Seq(first), records };
    journal.append(batch, Box::new(move |outcome| done.send(outcome).unwrap()));
    answer.recv().unwrap()
}

pub(crate) fn read(journal: &LocalJournal, shard: u16, after: u64) -> Result<Vec<Placed>, ReadError> {
    block_on(journal.read(ShardId(shard), Seq(after)).try_collect())
}

pub(crate) fn images(journal: &LocalJournal, shard: u16) -> Result<Vec<RunImage>, ReadError> {
    block_on(journal.images(ShardId(shard)).try_collect())
}

pub(crate) fn checkpoint(
    journal: &LocalJournal,
    shard: u16,
    epoch: u64,
    through: u64,
) -> Result<(), AppendError> {
    block_on(journal.checkpoint(ShardId(shard), Epoch(epoch), Seq(through), image_of(shard, through)))
}

/// What the checkpoint of a place holds: one image that names it.
pub(crate) fn image_of(shard: u16, through: u64) -> Vec<RunImage> {
    let state = Some(Bytes::from(format!("through {through}")));
    vec![RunImage { run: RunId::new(ShardId(shard), 0), state }]
}

pub(crate) fn trim(journal: &LocalJournal, shard: u16, epoch: u64, through: u64) -> Result<(), AppendError> {
    block_on(journal.trim(ShardId(shard), Epoch(epoch), Seq(through)))
}

/// That what is read after `after` is gapless and each record the one that belongs there. Answers the last place.
pub(crate) fn assert_whole(journal: &LocalJournal, shard: u16, after: u64, bytes: usize) -> u64 {
    let read = read(journal, shard, after).unwrap();
    for (placed, seq) in read.iter().zip(after + 1..) {
        assert_eq!(placed.seq, Seq(seq));
        assert_eq!(placed.record, record(shard, seq, bytes), "shard {shard} seq {seq}");
    }
    after + read.len() as u64
}

/// The segment that is written last among those in the directory.
pub(crate) fn last_segment(disk: &FaultDisk) -> String {
    segments(disk).pop().unwrap()
}

/// The segments, oldest first.
pub(crate) fn segments(disk: &FaultDisk) -> Vec<String> {
    use kapell_journal_local::Disk as _;
    let mut names = disk.list().unwrap();
    names.retain(|name| name.ends_with(".log"));
    names.sort();
    names
}
