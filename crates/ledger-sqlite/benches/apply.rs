//! Rows a second that `apply` stores, and how long queries take on what is stored then.
//!
//! `cargo bench -p kapell-ledger-sqlite --bench apply`. The directory is a fresh one under `KAPELL_BENCH_DIR` or the
//! working directory: a RAM disk would measure nothing. 64 shards take turns with batches of 2,000 rows.
//! Inline, so that the time on the core can be told from the time of waiting for the disk and for other programs.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a program that measures"
)]
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use kapell_ledger::{ApprovalQuery, ApprovalRow, Ledger as _, LedgerBatch, Part, RunQuery, RunRow, RunState};
use kapell_ledger_sqlite::{Mode, SqliteLedger};
use kapell_model::{Json, Name, RunId, Seq, ShardId, Timestamp};

const SHARDS: u64 = 64;
const BATCH_ROWS: u64 = 2_000;
const ROWS: u64 = 512_000;

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

/// Time that this thread spent on a core, where the system tells: on a shared machine the wall says little.
fn on_core() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Stores all rows in `state`; rows a second by the wall, and by the core if the ledger works inline.
fn store(ledger: &SqliteLedger, kind: Kind, state: RunState, first_seq: u64) -> String {
    let (mut wall, mut core) = (Duration::ZERO, Duration::ZERO);
    for first in (0..ROWS).step_by(BATCH_ROWS as usize) {
        let runs = (first..first + BATCH_ROWS).map(|number| row(kind, number, state)).collect();
        let shard = ShardId((first / BATCH_ROWS % SHARDS) as u16);
        let batch = LedgerBatch { shard, through: Seq(first_seq + first), runs, part: Part::Last };
        let (begin, used) = (Instant::now(), on_core());
        block_on(ledger.apply(batch)).unwrap();
        wall += begin.elapsed();
        core += on_core().zip(used).map_or(Duration::ZERO, |(now, then)| now - then);
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

fn queries(ledger: &SqliteLedger) {
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

fn main() {
    let base = std::env::var_os("KAPELL_BENCH_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    for (what, kind) in
        [("plain", Kind::Plain), ("with key", Kind::Keyed), ("with key, entity, question", Kind::Rich)]
    {
        let dir = tempfile::tempdir_in(&base).unwrap();
        let path = dir.path().join("ledger.sqlite");
        let ledger = SqliteLedger::open(&path, Mode::Inline).unwrap();
        let new = store(&ledger, kind, RunState::Waiting, 1);
        let again = store(&ledger, kind, RunState::Waiting, ROWS + 1);
        let open = (kind == Kind::Rich).then(|| {
            println!("queries while all wait:");
            queries(&ledger);
        });
        let ended = store(&ledger, kind, RunState::Completed, 2 * ROWS + 1);
        println!(
            "{what}: rows/s by the wall (by the core): {new} new, {again} unchanged state, {ended} changed state"
        );
        if open.is_none() {
            queries(&ledger);
        }
        drop(ledger);
        println!("  {:.0} bytes a row", std::fs::metadata(&path).unwrap().len() as f64 / ROWS as f64);
    }
}
