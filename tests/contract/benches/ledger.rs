//! Rows a second that `apply` stores, and how long queries take on what is stored then: SQLite and PostgreSQL.
//!
//! `cargo bench -p kapell-tests-contract --bench ledger`. SQLite has a fresh directory under `KAPELL_BENCH_DIR` or the
//! working directory: a RAM disk would measure nothing. PostgreSQL is a server of its own under `/tmp`, with `fsync` on.
//! 64 shards take turns with batches of 2,000 rows, one batch at a time.
//!
//! On a shared machine the wall says little, so the time on a core stands beside it: SQLite works inline, in this
//! thread; for PostgreSQL it is the server's process that writes, without this program's share.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program that measures"
)]
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use kapell_ledger::{ApprovalQuery, ApprovalRow, Ledger, LedgerBatch, Part, RunQuery, RunRow, RunState};
use kapell_ledger_postgres::PostgresLedger;
use kapell_ledger_sqlite::{Mode, SqliteLedger};
use kapell_model::{Json, Name, RunId, Seq, ShardId, Timestamp};
use kapell_runtime::Jobs;
use kapell_tests_servers::Setup;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

const SHARDS: u64 = 64;
const BATCH_ROWS: u64 = 2_000;
const ROWS: u64 = 256_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Keyed,
    Rich,
}

fn row(kind: Kind, number: u64, state: RunState) -> RunRow {
    // Run ids are digests: scattered within their shard.
    let low = u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 48 | u128::from(number);
    let ended = (state == RunState::Completed).then_some(Timestamp(1_700_000_000_500 + number));
    let question = || ApprovalRow {
        key: "publish".to_owned(),
        step: "publish".to_owned(),
        kind: "step".to_owned(),
        ask: "Publish?".to_owned(),
        show: Json::null(),
        expires: None,
    };
    RunRow {
        run: RunId::new(ShardId((number / BATCH_ROWS % SHARDS) as u16), low),
        namespace: Name::new(["retail", "wholesale", "default"][number as usize % 3]).unwrap(),
        workflow: Name::new(["vendor-price-change", "churn-retention", "noop"][number as usize / 3 % 3])
            .unwrap(),
        version: "0123456789abcdef".repeat(4),
        key: (kind != Kind::Plain).then(|| format!("V-{}", number % 50_000)),
        state,
        accepted: Timestamp(1_700_000_000_000 + number),
        ended,
        error: None,
        output: ended.map(|_| Json::trusted(r#"{"ok":true,"count":3}"#)),
        outcome: None,
        parent: None,
        entities: if kind == Kind::Rich { vec![format!("vendor:V-{}", number % 50_000)] } else { vec![] },
        approvals: if kind == Kind::Rich && state == RunState::Waiting { vec![question()] } else { vec![] },
    }
}

/// A backend that is measured.
trait Measured {
    fn name(&self) -> &'static str;
    /// An empty ledger.
    fn open(&mut self) -> Box<dyn Ledger>;
    /// Where the kernel says how long the thread or process that writes was on a core.
    fn writer(&self) -> String;
    /// Bytes on disk, indexes and all.
    fn bytes(&self) -> f64;
}

struct Sqlite {
    base: PathBuf,
    dir: Option<tempfile::TempDir>,
}

impl Sqlite {
    fn path(&self) -> PathBuf {
        self.dir.as_ref().unwrap().path().join("ledger.sqlite")
    }
}

impl Measured for Sqlite {
    fn name(&self) -> &'static str {
        "SQLite"
    }

    fn open(&mut self) -> Box<dyn Ledger> {
        self.dir = Some(tempfile::tempdir_in(&self.base).unwrap());
        Box::new(SqliteLedger::open(&self.path(), Mode::Inline).unwrap())
    }

    fn writer(&self) -> String {
        "/proc/thread-self/schedstat".to_owned()
    }

    fn bytes(&self) -> f64 {
        std::fs::metadata(self.path()).unwrap().len() as f64
    }
}

struct Postgres {
    url: String,
    node: Runtime,
    admin: Client,
}

impl Postgres {
    fn new(url: String) -> Postgres {
        let node = Runtime::new().unwrap();
        let (admin, connection) = node.block_on(tokio_postgres::connect(&url, NoTls)).unwrap();
        node.spawn(connection);
        Postgres { url, node, admin }
    }

    fn ask<T: tokio_postgres::types::FromSqlOwned>(&self, sql: &str) -> T {
        self.node.block_on(self.admin.query_one(sql, &[])).unwrap().get(0)
    }
}

impl Measured for Postgres {
    fn name(&self) -> &'static str {
        "PostgreSQL"
    }

    fn open(&mut self) -> Box<dyn Ledger> {
        let jobs = Jobs::new();
        self.node.block_on(PostgresLedger::remove(&self.url, &jobs)).unwrap();
        Box::new(self.node.block_on(PostgresLedger::open(&self.url, &jobs)).unwrap())
    }

    /// Only the writer's connection is open while rows are stored: readers connect when they are asked.
    fn writer(&self) -> String {
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'kapell-ledger' \
             ORDER BY backend_start DESC LIMIT 1";
        format!("/proc/{}/schedstat", self.ask::<i32>(sql))
    }

    fn bytes(&self) -> f64 {
        let sql = "SELECT sum(pg_total_relation_size(oid))::int8 FROM pg_class \
             WHERE relnamespace = 'kapell_ledger'::regnamespace AND relkind = 'r'";
        self.ask::<i64>(sql) as f64
    }
}

fn on_core(writer: &str) -> Option<Duration> {
    let text = std::fs::read_to_string(writer).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Stores all rows in `state`; rows a second by the wall and by the core.
fn store(ledger: &dyn Ledger, writer: &str, kind: Kind, state: RunState, first_seq: u64) -> String {
    let (mut wall, mut core) = (Duration::ZERO, Duration::ZERO);
    for first in (0..ROWS).step_by(BATCH_ROWS as usize) {
        let runs = (first..first + BATCH_ROWS).map(|number| row(kind, number, state)).collect();
        let shard = ShardId((first / BATCH_ROWS % SHARDS) as u16);
        let batch = LedgerBatch { shard, through: Seq(first_seq + first), runs, part: Part::Last };
        let (begin, used) = (Instant::now(), on_core(writer));
        block_on(ledger.apply(batch)).unwrap();
        wall += begin.elapsed();
        core += on_core(writer).zip(used).map_or(Duration::ZERO, |(now, then)| now - then);
    }
    let rate = |span: Duration| ROWS as f64 / span.as_secs_f64();
    format!("{:.0} ({:.0})", rate(wall), rate(core))
}

fn median_micros(mut ask: impl FnMut(u64)) -> f64 {
    let mut spans: Vec<Duration> = (0..101)
        .map(|turn| {
            let begin = Instant::now();
            ask(turn);
            begin.elapsed()
        })
        .collect();
    spans.sort_unstable();
    spans[50].as_secs_f64() * 1e6
}

fn queries(ledger: &dyn Ledger) {
    let name = |text: &str| Some(Name::new(text).unwrap());
    let page = |what: &str, query: RunQuery| {
        let micros = median_micros(|_| {
            block_on(ledger.runs(RunQuery { limit: 100, ..query.clone() })).unwrap();
        });
        println!("  page of 100, {what:<34} {micros:>8.0} us");
    };
    page("everything", RunQuery::default());
    page("namespace", RunQuery { namespace: name("retail"), ..RunQuery::default() });
    let in_workflow = RunQuery { namespace: name("retail"), workflow: name("noop"), ..RunQuery::default() };
    page("namespace, workflow", in_workflow.clone());
    page("namespace, workflow, one state", RunQuery { states: vec![RunState::Completed], ..in_workflow });
    page("workflow of all namespaces", RunQuery { workflow: name("noop"), ..RunQuery::default() });
    page("key", RunQuery { key: Some("V-77".to_owned()), ..RunQuery::default() });
    page("entity", RunQuery { entity: Some("vendor:V-77".to_owned()), ..RunQuery::default() });
    let one = median_micros(|turn| {
        let wanted = row(Kind::Plain, turn * 5_000, RunState::Queued).run;
        assert!(block_on(ledger.run(wanted)).unwrap().is_some());
    });
    println!("  {:<47} {one:>8.0} us", "one run");
    let asked = median_micros(|_| {
        block_on(ledger.approvals(ApprovalQuery { limit: 100, ..ApprovalQuery::default() })).unwrap();
    });
    println!("  {:<47} {asked:>8.0} us", "100 questions");
}

fn measure(backend: &mut dyn Measured, what: &str, kind: Kind) {
    let ledger = backend.open();
    let (ledger, writer) = (ledger.as_ref(), backend.writer());
    println!("{}, {what}:", backend.name());
    let new = store(ledger, &writer, kind, RunState::Waiting, 1);
    let again = store(ledger, &writer, kind, RunState::Waiting, ROWS + 1);
    if kind == Kind::Rich {
        println!(" queries while all wait:");
        queries(ledger);
    }
    let ended = store(ledger, &writer, kind, RunState::Completed, 2 * ROWS + 1);
    println!(" rows/s by the wall (by the core): {new} new, {again} unchanged state, {ended} changed state");
    if kind != Kind::Rich {
        println!(" queries after that:");
        queries(ledger);
    }
    println!("  {:.0} bytes a row", backend.bytes() / ROWS as f64);
}

fn main() {
    let base = std::env::var_os("KAPELL_BENCH_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let settings = Setup::default().setting("shared_buffers", "512MB").setting("max_wal_size", "4GB");
    let server = settings.start();
    let mut backends: Vec<Box<dyn Measured>> = vec![Box::new(Sqlite { base, dir: None })];
    backends.extend(server.as_ref().map(|server| Box::new(Postgres::new(server.url())) as Box<dyn Measured>));
    for (what, kind) in
        [("plain", Kind::Plain), ("with key", Kind::Keyed), ("with key, entity, question", Kind::Rich)]
    {
        for backend in &mut backends {
            measure(backend.as_mut(), what, kind);
        }
    }
}
