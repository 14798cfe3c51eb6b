//! How long a restart takes: 100,000 live runs in checkpoints and 200,000 records behind them, over 16 shards.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program that measures"
)]
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::executor::block_on;
use kapell_journal::{Batch, Journal as _, Record, RunImage};
use kapell_journal_local::{Driver, LocalJournal, Options, RealDisk};
use kapell_model::{Epoch, RunId, Seq, ShardId};

const SHARDS: u16 = 16;
const RUNS: u64 = 100_000;
const TAIL: u64 = 200_000;
const IMAGE_BYTES: usize = 600;
const PAYLOAD_BYTES: usize = 300;
/// What a restart may take, in seconds.
const LIMIT_SECONDS: f64 = 2.0;

fn open(dir: &Path) -> LocalJournal {
    let disk = RealDisk::open(dir).unwrap();
    LocalJournal::open(Arc::new(disk), Options::default(), Driver::Thread).unwrap()
}

fn main() {
    let base = std::env::var_os("KAPELL_BENCH_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(base).unwrap();
    fill(&open(dir.path()));
    for round in ["first", "second"] {
        let begun = Instant::now();
        let journal = open(dir.path());
        let opened = begun.elapsed();
        let (mut images, mut records) = (0_u64, 0_u64);
        for shard in (0..SHARDS).map(ShardId) {
            let epoch = Epoch(block_on(journal.epoch(shard)).unwrap().0 + 1);
            let found = block_on(journal.acquire(shard, epoch)).unwrap();
            images += block_on(journal.images(shard).map(|image| u64::from(image.is_ok())).fold(0, add));
            let tail = journal.read(shard, found.checkpointed);
            records += block_on(tail.map(|placed| u64::from(placed.is_ok())).fold(0, add));
        }
        let all = begun.elapsed();
        assert_eq!((images, records), (RUNS, TAIL));
        println!(
            "{round}: opened in {opened:.1?}, {images} images and {records} records read back in {all:.1?}"
        );
        assert!(all.as_secs_f64() < LIMIT_SECONDS);
    }
}

async fn add(sum: u64, one: u64) -> u64 {
    sum + one
}

fn fill(journal: &LocalJournal) {
    let shards = u64::from(SHARDS);
    for shard in (0..SHARDS).map(ShardId) {
        block_on(journal.acquire(shard, Epoch(1))).unwrap();
        append(journal, shard, 1, 1);
        let state = Some(Bytes::from(vec![0x5a; IMAGE_BYTES]));
        let runs = (0..RUNS / shards).map(|low| RunImage { run: run(shard, low), state: state.clone() });
        block_on(journal.checkpoint(shard, Epoch(1), Seq(1), runs.collect())).unwrap();
    }
    // Small batches, shards in turn, as they come in life.
    for round in 0..TAIL / shards / 10 {
        for shard in (0..SHARDS).map(ShardId) {
            append(journal, shard, 2 + round * 10, 10);
        }
    }
}

fn run(shard: ShardId, low: u64) -> RunId {
    RunId::new(shard, u128::from(low) << 40)
}

fn append(journal: &LocalJournal, shard: ShardId, first: u64, count: u64) {
    let payload = Bytes::from(vec![0x5a; PAYLOAD_BYTES]);
    let records = (0..count).map(|low| Record { run: run(shard, first + low), payload: payload.clone() });
    let batch = Batch { shard, epoch: Epoch(1), first: Seq(first), records: records.collect() };
    let (done, answer) = std::sync::mpsc::channel();
    journal.append(batch, Box::new(move |outcome| done.send(outcome).unwrap()));
    answer.recv().unwrap().unwrap();
}
