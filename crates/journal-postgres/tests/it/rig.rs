//! A server, journals on it, and a client that looks behind them.
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use kapell_journal::{AppendError, Batch, Journal as _, Placed, ReadError, Record, RunImage};
use kapell_journal_postgres::{Fsync, OpenError, Options, PostgresJournal};
use kapell_model::{Epoch, RunId, Seq, ShardId};
use kapell_runtime::Runtime;
use kapell_tests_servers::{Durability, Postgres, Setup};
use tokio::sync::oneshot;
use tokio_postgres::{Client, NoTls};

/// Small segments, swept at once.
pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 64 << 10,
        sweep_every: Duration::ZERO,
        retry_after: Duration::from_millis(10),
        fsync: Fsync::NotForTests,
        ..Options::default()
    }
}

/// A server for tests that are not about what is on disk.
pub(crate) fn quick_server() -> Option<Postgres> {
    Setup::default().durability(Durability::Unsynced).start()
}

pub(crate) async fn open(server: &Postgres) -> Arc<PostgresJournal> {
    open_with(&[server.url()], small()).await.unwrap()
}

pub(crate) async fn open_with(urls: &[String], options: Options) -> Result<Arc<PostgresJournal>, OpenError> {
    PostgresJournal::open(urls, options, &Runtime::system()).await.map(Arc::new)
}

/// A look behind the journal.
pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "the connection of a test")]
    tokio::spawn(connection);
    client
}

pub(crate) fn run(shard: u16, low: u128) -> RunId {
    RunId::new(ShardId(shard), low)
}

pub(crate) fn record(shard: u16, payload: impl Into<Vec<u8>>) -> Record {
    Record { run: run(shard, 1), payload: Bytes::from(payload.into()) }
}

pub(crate) fn image(shard: u16, low: u128, state: &str) -> RunImage {
    RunImage { run: run(shard, low), state: Some(Bytes::copy_from_slice(state.as_bytes())) }
}

/// Queues an append; the answer comes later.
pub(crate) fn append(
    journal: &PostgresJournal,
    shard: u16,
    epoch: u64,
    first: u64,
    records: Vec<Record>,
) -> oneshot::Receiver<Result<(), AppendError>> {
    let (done, answer) = oneshot::channel();
    let batch = Batch { shard: ShardId(shard), epoch: Epoch(epoch), first: Seq(first), records };
    journal.append(batch, Box::new(move |outcome| drop(done.send(outcome))));
    answer
}

/// Appends one record and waits.
pub(crate) async fn put(
    journal: &PostgresJournal,
    shard: u16,
    epoch: u64,
    first: u64,
    payload: impl Into<Vec<u8>>,
) -> Result<(), AppendError> {
    append(journal, shard, epoch, first, vec![record(shard, payload)]).await.unwrap()
}

pub(crate) async fn acquire(journal: &PostgresJournal, shard: u16, epoch: u64) -> Seq {
    journal.acquire(ShardId(shard), Epoch(epoch)).await.unwrap().last
}

/// Acquires as soon as the server takes connections again.
pub(crate) async fn acquire_when_it_is_back(journal: &PostgresJournal, shard: u16, epoch: u64) -> Seq {
    for _ in 0..500 {
        if let Ok(acquired) = journal.acquire(ShardId(shard), Epoch(epoch)).await {
            return acquired.last;
        }
        // why: the journal says when to try again, and that is a time
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the journal does not come back");
}

pub(crate) async fn read(
    journal: &PostgresJournal,
    shard: u16,
    after: u64,
) -> Result<Vec<Placed>, ReadError> {
    journal.read(ShardId(shard), Seq(after)).try_collect().await
}

/// The payloads of a shard as text.
pub(crate) async fn texts(journal: &PostgresJournal, shard: u16, after: u64) -> Vec<String> {
    let placed = read(journal, shard, after).await.unwrap();
    placed.into_iter().map(|placed| String::from_utf8(placed.record.payload.to_vec()).unwrap()).collect()
}

/// A number that a statement answers.
pub(crate) async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Waits until a statement answers true.
pub(crate) async fn until(client: &Client, sql: &str) {
    for _ in 0..1_000 {
        if client.query_one(sql, &[]).await.unwrap().get(0) {
            return;
        }
        // why: what happens in a server is seen only by looking
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never becomes true: {sql}");
}
