//! Durable appends a second with 1, 64 and 1,024 appenders, each waiting for its answer.
//!
//! Beside it the floor: a bare prepared file, one thread that drains, writes and flushes, nothing else. The ratio comes
//! first. Run: `cargo bench -p kapell-journal-local --bench append`. The directory is a fresh one under `KAPELL_BENCH_DIR` or the working directory: a RAM disk would measure nothing.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program that measures"
)]
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kapell_journal::{AppendError, Batch, Journal as _, Record};
use kapell_journal_local::{Driver, LocalJournal, Options, RealDisk};
use kapell_model::{Epoch, RunId, Seq, ShardId};

const PAYLOAD_BYTES: usize = 300;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);

#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
}

fn main() {
    let base = std::env::var_os("KAPELL_BENCH_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!(
        "{:>9} {:>6} | {:>11} {:>7} {:>7} | floor {:>11} {:>7} {:>7}",
        "appenders", "ratio", "appends/s", "p50 ms", "p99 ms", "appends/s", "p50 ms", "p99 ms"
    );
    for appenders in [1_u16, 64, 1024] {
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let dir = tempfile::tempdir_in(&base).unwrap();
            let disk = RealDisk::open(dir.path()).unwrap();
            let journal = LocalJournal::open(Arc::new(disk), Options::default(), Driver::Thread).unwrap();
            for shard in 0..appenders {
                runtime.block_on(journal.acquire(ShardId(shard), Epoch(1))).unwrap();
            }
            ours.push(runtime.block_on(round(&Under::Journal(Arc::new(journal)), appenders)));
            let bare = Bare::start(&dir.path().join("bare"));
            floor.push(runtime.block_on(round(&Under::Bare(bare), appenders)));
        }
        let (ours, floor) = (best(&ours), best(&floor));
        println!(
            "{appenders:>9} {:>6.2} | {:>11.0} {:>7.2} {:>7.2} | floor {:>11.0} {:>7.2} {:>7.2}",
            ours.rate / floor.rate,
            ours.rate,
            ours.p50,
            ours.p99,
            floor.rate,
            floor.p50,
            floor.p99
        );
    }
}

fn best(rounds: &[Figures]) -> Figures {
    *rounds.iter().max_by(|one, other| one.rate.total_cmp(&other.rate)).unwrap()
}

type Ack = tokio::sync::oneshot::Sender<()>;

/// What is measured.
#[derive(Clone)]
enum Under {
    Journal(Arc<LocalJournal>),
    Bare(Bare),
}

/// The floor.
#[derive(Clone)]
struct Bare {
    queue: mpsc::Sender<(Bytes, Ack)>,
}

impl Bare {
    fn start(path: &Path) -> Bare {
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        for at in 0..512 {
            file.write_all_at(&[0; 1 << 20], at << 20).unwrap();
        }
        file.sync_all().unwrap();
        let (queue, queued) = mpsc::channel::<(Bytes, Ack)>();
        std::thread::Builder::new().spawn(move || Bare::write(&file, &queued)).unwrap();
        Bare { queue }
    }

    fn write(file: &File, queued: &mpsc::Receiver<(Bytes, Ack)>) {
        let (mut at, mut group, mut acks) = (0, Vec::new(), Vec::new());
        while let Ok(first) = queued.recv() {
            for (payload, ack) in std::iter::once(first).chain(queued.try_iter()).take(4096) {
                group.extend_from_slice(&[7; 16]);
                group.extend_from_slice(&payload);
                acks.push(ack);
            }
            file.write_all_at(&group, at).unwrap();
            file.sync_data().unwrap();
            at = (at + group.len() as u64) % (511 << 20);
            group.clear();
            acks.drain(..).for_each(|ack| ack.send(()).unwrap());
        }
    }
}

/// Each appender has a shard of its own, so that each waits for its own answer only.
async fn round(under: &Under, appenders: u16) -> Figures {
    let (stop, measuring) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut jobs = Vec::new();
    for shard in 0..appenders {
        let (stop, measuring) = (Arc::clone(&stop), Arc::clone(&measuring));
        jobs.push(tokio::spawn(appender(under.clone(), shard, stop, measuring)));
    }
    // why: this is the warm-up
    tokio::time::sleep(WARM_UP).await;
    measuring.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    // why: this is the time that is measured
    tokio::time::sleep(MEASURED).await;
    let elapsed = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for job in jobs {
        all.extend(job.await.unwrap());
    }
    all.sort_unstable();
    let at = |share: f64| f64::from(all[(all.len() as f64 * share) as usize]) / 1000.0;
    Figures { rate: all.len() as f64 / elapsed.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}

/// Answers how many microseconds each append took.
async fn appender(under: Under, shard: u16, stop: Arc<AtomicBool>, measuring: Arc<AtomicBool>) -> Vec<u32> {
    let payload = Bytes::from(vec![0x5a; PAYLOAD_BYTES]);
    let mut took = Vec::new();
    let mut first = Seq(1);
    while !stop.load(Ordering::Relaxed) {
        let (done, answer) = tokio::sync::oneshot::channel();
        let begun = Instant::now();
        match &under {
            Under::Journal(journal) => {
                let run = RunId::new(ShardId(shard), u128::from(first.0 % 16));
                let records = vec![Record { run, payload: payload.clone() }];
                let batch = Batch { shard: ShardId(shard), epoch: Epoch(1), first, records };
                let done = move |outcome: Result<(), AppendError>| {
                    outcome.unwrap();
                    done.send(()).unwrap();
                };
                journal.append(batch, Box::new(done));
            }
            Under::Bare(bare) => bare.queue.send((payload.clone(), done)).unwrap(),
        }
        answer.await.unwrap();
        if measuring.load(Ordering::Relaxed) {
            took.push(begun.elapsed().as_micros() as u32);
        }
        first = first.next();
    }
    took
}
