//! A server for one test, the nodes that use it, and rows to store.
use kapell_ledger::{
    ApprovalRow, Ledger as _, LedgerBatch, LedgerError, Part, Rebuild, RunQuery, RunRow, RunState,
};
use kapell_ledger_postgres::PostgresLedger;
use kapell_model::{Json, Name, RunId, Seq, ShardId, Timestamp};
use kapell_runtime::Jobs;
use kapell_tests_servers::{Durability, Postgres, Setup};
use tokio_postgres::{Client, NoTls};

/// A server, if one is installed.
pub(crate) fn server() -> Option<Postgres> {
    Setup::default().durability(Durability::Unsynced).start()
}

/// A node's ledger.
pub(crate) async fn node(server: &Postgres) -> PostgresLedger {
    PostgresLedger::open(&server.url(), &Jobs::new()).await.unwrap()
}

/// A connection beside the ledger.
pub(crate) async fn client(server: &Postgres) -> Client {
    client_at(&server.url()).await
}

pub(crate) async fn client_at(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    Jobs::new().spawn(
        kapell_runtime::Job { name: "test-connection", on_panic: kapell_runtime::OnDeath::Log },
        // It ends when the server does.
        async move { drop(connection.await) },
    );
    client
}

pub(crate) fn row(shard: u16, low: u128) -> RunRow {
    RunRow {
        run: RunId::new(ShardId(shard), low),
        namespace: Name::new("retail").unwrap(),
        workflow: Name::new("pricing").unwrap(),
        version: "v".to_owned(),
        key: None,
        state: RunState::Running,
        accepted: Timestamp(1_000 + low as u64),
        ended: None,
        error: None,
        output: None,
        outcome: None,
        parent: None,
        entities: vec![],
        approvals: vec![],
    }
}

pub(crate) fn question(key: &str) -> ApprovalRow {
    ApprovalRow {
        key: key.to_owned(),
        step: "publish".to_owned(),
        kind: "step".to_owned(),
        ask: "?".to_owned(),
        show: Json::null(),
        expires: None,
    }
}

pub(crate) fn last(shard: u16, through: u64, runs: Vec<RunRow>) -> LedgerBatch {
    LedgerBatch { shard: ShardId(shard), through: Seq(through), runs, part: Part::Last }
}

pub(crate) fn more(shard: u16, through: u64, runs: Vec<RunRow>) -> LedgerBatch {
    LedgerBatch { part: Part::More, ..last(shard, through, runs) }
}

/// Of a shard that was contained up to `found` and is up to `through` now.
pub(crate) fn rebuild(shard: u16, (found, through): (u64, u64), runs: Vec<RunRow>) -> Rebuild {
    Rebuild { shard: ShardId(shard), found: Seq(found), through: Seq(through), runs }
}

/// As if somebody had put back a copy of the ledger from before anything was told.
pub(crate) async fn empty(server: &Postgres) {
    let tables =
        ["watermarks", "runs", "run_entities", "approvals"].map(|name| format!("kapell_ledger.{name}"));
    client(server).await.batch_execute(&format!("TRUNCATE {}", tables.join(", "))).await.unwrap();
}

pub(crate) async fn watermark(ledger: &PostgresLedger, shard: u16) -> u64 {
    ledger.watermark(ShardId(shard)).await.unwrap().0
}

/// Every run, in order.
pub(crate) async fn all(ledger: &PostgresLedger) -> Vec<RunRow> {
    let (mut rows, mut query) = (Vec::new(), RunQuery { limit: 1_000, ..RunQuery::default() });
    loop {
        let page = ledger.runs(query.clone()).await.unwrap();
        rows.extend(page.rows);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return rows,
        }
    }
}

/// Asks again while the ledger says that it cannot be used now.
pub(crate) async fn until_stored(ledger: &PostgresLedger, batch: &LedgerBatch) {
    for _ in 0..100 {
        match ledger.apply(batch.clone()).await {
            Ok(()) => return,
            // why: the server does not tell when it is busy
            Err(LedgerError::Unavailable { retry_after, .. }) => tokio::time::sleep(retry_after).await,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("never stored");
}
