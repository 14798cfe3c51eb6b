//! Migrations: forward only, once, all or nothing.
use kapell_ledger::LedgerError;
use kapell_runtime::Jobs;
use kapell_tests_servers::{Durability, Postgres, Setup};
use tokio_postgres::Client;

use super::{STEPS, Step, Todo, Version, check, look, migrate};
use crate::link::Target;
use crate::trouble::Trouble;

const fn step(major: i32, minor: i32, sql: &'static str) -> Step {
    Step { to: Version { major, minor }, sql }
}

const FIRST: Step = step(1, 0, include_str!("../../migrations/1.0.sql"));
const RAN: &str = "ALTER TABLE kapell_ledger.runs ADD COLUMN note text; \
     CREATE TABLE kapell_ledger.ran (at timestamptz DEFAULT now()); INSERT INTO kapell_ledger.ran DEFAULT VALUES";
const SECOND: Step = step(1, 1, RAN);
const THIRD: Step = step(2, 0, "ALTER TABLE kapell_ledger.runs DROP COLUMN note");

const MINOR: &[Step] = &[FIRST, SECOND];
const MAJOR: &[Step] = &[FIRST, SECOND, THIRD];
const BROKEN: &[Step] = &[FIRST, SECOND, step(2, 0, "ALTER TABLE kapell_ledger.runs DROP COLUMN nothing")];

fn server() -> Option<Postgres> {
    Setup::default().durability(Durability::Unsynced).start()
}

async fn connect(server: &Postgres) -> Client {
    Target::new(&server.url(), &Jobs::new(), STEPS).unwrap().connect().await.unwrap()
}

async fn version(client: &Client) -> String {
    match look(client).await.unwrap() {
        super::Found::Ours(version) => version.to_string(),
        found @ (super::Found::Nothing | super::Found::Foreign) => format!("{found:?}"),
    }
}

/// As a node does when it connects.
async fn open(client: &Client, steps: &[Step]) -> Result<(), Trouble> {
    match check(client, steps).await? {
        Todo::Nothing => Ok(()),
        Todo::Migrate => migrate(client, steps).await,
    }
}

#[tokio::test]
async fn tables_go_forward_step_by_step_and_never_back() {
    let Some(server) = server() else { return };
    let client = connect(&server).await;
    assert_eq!(version(&client).await, "Nothing");
    for (steps, is) in
        [(STEPS, "1.0"), (STEPS, "1.0"), (MINOR, "1.1"), (STEPS, "1.1"), (MAJOR, "2.0"), (MAJOR, "2.0")]
    {
        open(&client, steps).await.unwrap();
        assert_eq!(version(&client).await, is);
    }
    for older in [STEPS, MINOR] {
        let refused = open(&client, older).await;
        assert!(matches!(refused, Err(Trouble::Answered(LedgerError::Unreadable { .. }))), "{refused:?}");
        // A node that looked before the newer one migrated meets it behind the lock.
        client.batch_execute("ROLLBACK").await.unwrap();
        assert!(matches!(
            migrate(&client, older).await,
            Err(Trouble::Answered(LedgerError::Unreadable { .. }))
        ));
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    assert_eq!(version(&client).await, "2.0");
}

#[tokio::test]
async fn an_empty_database_gets_all_steps_at_once() {
    let Some(server) = server() else { return };
    let client = connect(&server).await;
    open(&client, MAJOR).await.unwrap();
    assert_eq!(version(&client).await, "2.0");
}

#[tokio::test]
async fn a_step_that_fails_leaves_everything_as_it_was() {
    let Some(server) = server() else { return };
    let client = connect(&server).await;
    open(&client, STEPS).await.unwrap();
    assert!(open(&client, BROKEN).await.is_err());
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(version(&client).await, "1.0");
    client.batch_execute("SELECT note FROM kapell_ledger.runs").await.unwrap_err();
    open(&client, MAJOR).await.unwrap();
    assert_eq!(version(&client).await, "2.0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_migrate_at_the_same_time_do_each_step_once() {
    let Some(server) = server() else { return };
    open(&connect(&server).await, STEPS).await.unwrap();
    let nodes = (0..6).map(|_| async {
        let client = connect(&server).await;
        // All have looked before the first one is done.
        migrate(&client, MINOR).await
    });
    let done = futures::future::join_all(nodes).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    let client = connect(&server).await;
    let ran: i64 = client.query_one("SELECT count(*) FROM kapell_ledger.ran", &[]).await.unwrap().get(0);
    assert_eq!((ran, version(&client).await), (1, "1.1".to_owned()));
}
