//! Durable appends a second with 1, 64 and 1,024 appenders, each waiting for its answer, on a server of its own.
//!
//! Each appender has a shard of its own, which is the hardest: the journal looks after every shard of a group. A store in
//! PostgreSQL has 64 shards unless it is told otherwise, so 1,024 appenders share 64 of them, too.
//!
//! Beside it the floor: the bare multi-row insert over as many connections into a table with nothing but its primary
//! key, no epochs, no checksums, no history. The ratio comes first. Rows a commit and bytes of PostgreSQL's own log a row
//! are what docs/scaling.md counts on. Run: `cargo bench -p kapell-journal-postgres --bench
//! append`. `KAPELL_BENCH_WRITERS` sets the number of connections, `KAPELL_BENCH_ROUNDS` how often each is measured.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program that measures"
)]
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kapell_journal::{AppendError, Batch, Journal as _, Record};
use kapell_journal_postgres::{Options, PostgresJournal};
use kapell_model::{Epoch, RunId, Seq, ShardId};
use kapell_runtime::Runtime;
use kapell_tests_servers::{Postgres, Setup};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_postgres::NoTls;

const PAYLOAD_BYTES: usize = 300;
const GROUP_MAX: usize = 4096;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);

#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
    /// With the warm-up.
    appends: usize,
}

/// Appenders, and shards that they share. `cargo xtask bench w7` judges the first of each number of appenders.
const CASES: [(u16, u16); 4] = [(1, 1), (64, 64), (1024, 1024), (1024, 64)];

/// What the server did.
#[derive(Clone, Copy)]
struct Work {
    commits: i64,
    log_bytes: i64,
}

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

fn main() {
    let (writers, rounds) =
        (number("KAPELL_BENCH_WRITERS", Options::default().writers), number("KAPELL_BENCH_ROUNDS", 3));
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let setup = Setup::default().setting("shared_buffers", "256MB").setting("max_wal_size", "4GB");
    let Some(server) = setup.start() else { return };
    println!(
        "{writers} writers, best of {rounds} rounds\n{:>9} {:>6} {:>6} | {:>11} {:>7} {:>7} {:>11} {:>9} | floor {:>11} {:>7} {:>7}",
        "appenders",
        "shards",
        "ratio",
        "appends/s",
        "p50 ms",
        "p99 ms",
        "rows/commit",
        "log B/row",
        "appends/s",
        "p50 ms",
        "p99 ms"
    );
    for case in CASES {
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(threads.block_on(measure_journal(&server, writers, case)));
            floor.push(threads.block_on(measure_bare(&server, writers, case)));
        }
        let (appenders, shards) = case;
        let best = |one: &Figures, other: &Figures| one.rate.total_cmp(&other.rate);
        let (ours, a_commit, log) =
            ours.into_iter().max_by(|(one, ..), (other, ..)| best(one, other)).unwrap();
        let floor = floor.into_iter().max_by(best).unwrap();
        println!(
            "{appenders:>9} {shards:>6} {:>6.2} | {:>11.0} {:>7.2} {:>7.2} {:>11.1} {:>9.0} | floor {:>11.0} {:>7.2} {:>7.2}",
            ours.rate / floor.rate,
            ours.rate,
            ours.p50,
            ours.p99,
            a_commit,
            log,
            floor.rate,
            floor.p50,
            floor.p99
        );
    }
}

/// With rows a commit, and bytes of the server's log a row.
async fn measure_journal(server: &Postgres, writers: usize, case: (u16, u16)) -> (Figures, f64, f64) {
    let beside = number("KAPELL_BENCH_BESIDE", Options::default().group_beside_min);
    let options = Options { writers, group_beside_min: beside, ..Options::default() };
    let journal = PostgresJournal::open(&[server.url()], options, &Runtime::system()).await.unwrap();
    for shard in 0..case.1 {
        journal.acquire(ShardId(shard), Epoch(1)).await.unwrap();
    }
    let before = work(server).await;
    let figures = round(Under::Journal(Arc::new(journal)), case).await;
    let after = work(server).await;
    execute(server, "DROP SCHEMA kapell_journal CASCADE; CHECKPOINT").await;
    let a_commit = figures.appends as f64 / (after.commits - before.commits) as f64;
    (figures, a_commit, (after.log_bytes - before.log_bytes) as f64 / figures.appends as f64)
}

async fn measure_bare(server: &Postgres, writers: usize, case: (u16, u16)) -> Figures {
    let table = "DROP TABLE IF EXISTS bare; CREATE TABLE bare (shard int4, seq int8, payload bytea, PRIMARY KEY (shard, seq))";
    execute(server, table).await;
    let (queue, queued) = mpsc::channel(GROUP_MAX);
    let queued = Arc::new(Mutex::new(queued));
    for _ in 0..writers {
        tokio::spawn(write_bare(server.url(), queued.clone()));
    }
    let figures = round(Under::Bare(queue), case).await;
    execute(server, "DROP TABLE bare; CHECKPOINT").await;
    figures
}

/// All that the server did so far. Each transaction that writes takes a number.
async fn work(server: &Postgres) -> Work {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let sql = "SELECT pg_current_xact_id()::text::int8, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8";
    let row = client.query_one(sql, &[]).await.unwrap();
    Work { commits: row.get(0), log_bytes: row.get(1) }
}

async fn execute(server: &Postgres, sql: &str) {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
}

type Ack = oneshot::Sender<()>;
type Asked = (u16, u64, Bytes, Ack);

/// What is measured.
#[derive(Clone)]
enum Under {
    Journal(Arc<PostgresJournal>),
    Bare(mpsc::Sender<Asked>),
}

/// The floor.
async fn write_bare(url: String, queued: Arc<Mutex<mpsc::Receiver<Asked>>>) {
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let sql = "INSERT INTO bare SELECT * FROM unnest($1::int4[], $2::int8[], $3::bytea[])";
    let insert = client.prepare(sql).await.unwrap();
    let mut group = Vec::new();
    loop {
        if queued.lock().await.recv_many(&mut group, GROUP_MAX).await == 0 {
            return;
        }
        let shards: Vec<i32> = group.iter().map(|(shard, ..)| i32::from(*shard)).collect();
        let seqs: Vec<i64> = group.iter().map(|(_, seq, ..)| *seq as i64).collect();
        let payloads: Vec<&[u8]> = group.iter().map(|(_, _, payload, _)| payload.as_ref()).collect();
        client.execute(&insert, &[&shards, &seqs, &payloads]).await.unwrap();
        drop(payloads);
        group.drain(..).for_each(|(.., ack)| ack.send(()).unwrap());
    }
}

/// Each appender waits for its own answer only.
async fn round(under: Under, (appenders, shards): (u16, u16)) -> Figures {
    let (stop, measuring) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let shards: Vec<Arc<Shard>> = (0..shards)
        .map(|shard| Arc::new(Shard { shard, next: Mutex::new(Seq(1)), under: under.clone() }))
        .collect();
    drop(under);
    let appenders = shards.iter().cycle().take(appenders.into());
    let jobs: Vec<_> = appenders
        .map(|shard| tokio::spawn(appender(shard.clone(), Arc::clone(&stop), Arc::clone(&measuring))))
        .collect();
    // why: this is the warm-up
    tokio::time::sleep(WARM_UP).await;
    measuring.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    // why: this is the time that is measured
    tokio::time::sleep(MEASURED).await;
    let elapsed = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (mut all, mut appends) = (Vec::new(), 0);
    for job in jobs {
        let (took, count) = job.await.unwrap();
        all.extend(took);
        appends += count;
    }
    all.sort_unstable();
    let at = |share: f64| f64::from(all[(all.len() as f64 * share) as usize]) / 1000.0;
    let rate = all.len() as f64 / elapsed.as_secs_f64();
    Figures { rate, p50: at(0.5), p99: at(0.99), appends }
}

/// What is appended to.
struct Shard {
    shard: u16,
    next: Mutex<Seq>,
    under: Under,
}

impl Shard {
    /// In the order of their places.
    async fn append(&self, payload: Bytes, ack: Ack) {
        let mut next = self.next.lock().await;
        let (shard, first) = (ShardId(self.shard), *next);
        *next = first.next();
        match &self.under {
            Under::Journal(journal) => {
                let run = RunId::new(shard, u128::from(first.0 % 16));
                let records = vec![Record { run, payload }];
                let done = move |outcome: Result<(), AppendError>| {
                    outcome.unwrap();
                    ack.send(()).unwrap();
                };
                journal.append(Batch { shard, epoch: Epoch(1), first, records }, Box::new(done));
            }
            Under::Bare(queue) => queue.send((self.shard, first.0, payload, ack)).await.unwrap(),
        }
    }
}

/// Answers how many microseconds each measured append took, and how many there were in all.
async fn appender(shard: Arc<Shard>, stop: Arc<AtomicBool>, measuring: Arc<AtomicBool>) -> (Vec<u32>, usize) {
    let payload = Bytes::from(vec![0x5a; PAYLOAD_BYTES]);
    let (mut took, mut count) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let (done, answer) = oneshot::channel();
        let begun = Instant::now();
        shard.append(payload.clone(), done).await;
        answer.await.unwrap();
        if measuring.load(Ordering::Relaxed) {
            took.push(begun.elapsed().as_micros() as u32);
        }
        count += 1;
    }
    (took, count)
}
