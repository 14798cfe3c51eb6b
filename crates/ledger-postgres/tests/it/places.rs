//! Databases where a ledger cannot be, and tables that are not as this program left them.
use kapell_ledger::{ApprovalQuery, Ledger as _, LedgerError, RunQuery, RunRow};
use kapell_ledger_postgres::PostgresLedger;
use kapell_model::{RunId, ShardId};
use kapell_runtime::Jobs;
use kapell_tests_servers::Postgres;

use crate::rig::{all, client, last, node, question, row, server, watermark};

async fn refusal(url: &str) -> LedgerError {
    PostgresLedger::open(url, &Jobs::new()).await.err().expect("it is refused")
}

async fn misplaced(url: &str, hint: &str) {
    let error = refusal(url).await;
    let text = error.to_string();
    assert!(matches!(error, LedgerError::Misplaced { .. }) && text.contains(hint), "{error:?}");
    assert!(!text.contains("hush") && !text.contains("secret"), "it shows the password: {text}");
}

#[tokio::test]
async fn a_place_that_cannot_hold_a_ledger_is_named_with_what_to_do() {
    misplaced("postgres://kapell:secret@[/ledger", "write postgres://").await;
    let Some(server) = server() else { return };
    let admin = client(&server).await;
    misplaced(&server.url_of("nowhere"), "create the database").await;
    misplaced(&server.url().replace("hush", "secret"), "user and password").await;
    admin.batch_execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0").await.unwrap();
    misplaced(&server.url_of("ascii"), "ENCODING 'UTF8'").await;
    admin.batch_execute("CREATE USER guest PASSWORD 'secret'").await.unwrap();
    let guest = server.url().replace("kapell:hush", "guest:secret");
    misplaced(&guest, "own the schema `kapell_ledger`").await;
    // An administrator makes the schema for a user who may not.
    admin.batch_execute("CREATE SCHEMA kapell_ledger AUTHORIZATION guest").await.unwrap();
    let ledger = PostgresLedger::open(&guest, &Jobs::new()).await.unwrap();
    ledger.apply(last(0, 1, vec![row(0, 1)])).await.unwrap();
    assert_eq!(all(&ledger).await, [row(0, 1)]);
}

#[tokio::test]
async fn a_schema_of_somebody_else_is_left_alone() {
    let Some(server) = server() else { return };
    let admin = client(&server).await;
    admin
        .batch_execute("CREATE SCHEMA kapell_ledger; CREATE TABLE kapell_ledger.runs (mine text)")
        .await
        .unwrap();
    misplaced(&server.url(), "did not make").await;
    let removed = PostgresLedger::remove(&server.url(), &Jobs::new()).await;
    assert!(matches!(removed, Err(LedgerError::Misplaced { .. })), "{removed:?}");
    admin.batch_execute("SELECT mine FROM kapell_ledger.runs").await.unwrap();
    let tables =
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'kapell_ledger'::regnamespace AND relkind = 'r'";
    assert_eq!(admin.query_one(tables, &[]).await.unwrap().get::<_, i64>(0), 1, "nothing was put beside it");
}

async fn set_version(server: &Postgres, major: i32, minor: i32) {
    let sql = format!("UPDATE kapell_ledger.schema_version SET major = {major}, minor = {minor}");
    client(server).await.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn a_newer_major_version_is_refused_and_a_newer_minor_one_is_not() {
    let Some(server) = server() else { return };
    node(&server).await.apply(last(0, 1, vec![row(0, 1)])).await.unwrap();
    set_version(&server, 1, 7).await;
    let ledger = node(&server).await;
    assert_eq!(all(&ledger).await, [row(0, 1)]);
    ledger.apply(last(0, 2, vec![row(0, 2)])).await.unwrap();
    set_version(&server, 2, 0).await;
    let error = refusal(&server.url()).await;
    let text = error.to_string();
    assert!(matches!(error, LedgerError::Unreadable { .. }), "{error:?}");
    for part in ["version 2.0", "knows up to 1.0", "upgrade this node", "kapell ledger rebuild"] {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
    let admin = client(&server).await;
    let version =
        admin.query_one("SELECT major, minor FROM kapell_ledger.schema_version", &[]).await.unwrap();
    assert_eq!((version.get::<_, i32>(0), version.get::<_, i32>(1)), (2, 0), "it was not taken back");
    PostgresLedger::remove(&server.url(), &Jobs::new()).await.unwrap();
    assert_eq!(watermark(&node(&server).await, 0).await, 0);
}

/// The node went on while a newer one brought tables that it cannot use.
#[tokio::test]
async fn tables_that_change_under_a_node_are_unreadable_and_found_again_when_they_are_back() {
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    ledger.apply(last(0, 1, vec![row(0, 1)])).await.unwrap();
    let admin = client(&server).await;
    let unreadable =
        |error: LedgerError| assert!(matches!(error, LedgerError::Unreadable { .. }), "{error:?}");
    admin.batch_execute("ALTER TABLE kapell_ledger.runs RENAME version TO digest").await.unwrap();
    unreadable(ledger.run(row(0, 1).run).await.unwrap_err());
    unreadable(ledger.runs(RunQuery::default()).await.unwrap_err());
    unreadable(ledger.apply(last(0, 2, vec![row(0, 1)])).await.unwrap_err());
    admin.batch_execute("ALTER TABLE kapell_ledger.runs RENAME digest TO version").await.unwrap();
    ledger.apply(last(0, 2, vec![row(0, 2)])).await.unwrap();
    assert_eq!(all(&ledger).await, [row(0, 2), row(0, 1)]);
    admin.batch_execute("DROP SCHEMA kapell_ledger CASCADE").await.unwrap();
    unreadable(ledger.apply(last(0, 3, vec![])).await.unwrap_err());
    // The next use makes the tables; what was in them is missing, so news alone are not taken.
    let held_back = ledger.apply(last(0, 3, vec![])).await;
    assert!(matches!(held_back, Err(LedgerError::Unavailable { .. })), "{held_back:?}");
    assert_eq!(watermark(&ledger, 0).await, 0);
    ledger.apply(last(0, 3, vec![row(0, 1)])).await.unwrap();
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_unreadable() {
    // What a run's questions are is told by their digest: where it is the same, they are left as they are.
    let Some(server) = server() else { return };
    let ledger = node(&server).await;
    let whole = RunRow { approvals: vec![question("q")], ..row(0, 1) };
    let admin = client(&server).await;
    for (through, change) in (1..).zip([
        "runs SET state = 'unheard'",
        "runs SET namespace = 'No Name'",
        "runs SET output = '{'",
        "runs SET entities = '[1]'",
        "runs SET ended = -1",
        "runs SET error_class = 'half'",
        r"runs SET version = E'\x01'",
        "approvals SET show = '{', digest = gen_random_uuid()",
        "approvals SET expires = -1, digest = gen_random_uuid()",
    ]) {
        ledger.apply(last(0, through, vec![whole.clone()])).await.unwrap();
        assert_eq!(all(&ledger).await, std::slice::from_ref(&whole), "before {change}");
        admin.batch_execute(&format!("UPDATE kapell_ledger.{change}")).await.unwrap();
        let one = ledger.run(RunId::new(ShardId(0), 1)).await;
        let listed = ledger.runs(RunQuery { limit: 10, ..RunQuery::default() }).await;
        let asked = ledger.approvals(ApprovalQuery { limit: 10, ..ApprovalQuery::default() }).await;
        for error in [one.err(), listed.err(), asked.err()] {
            assert!(matches!(error, Some(LedgerError::Unreadable { .. })), "{change}: {error:?}");
        }
    }
}
