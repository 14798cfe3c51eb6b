//! How tables come from one version to the next, in a cluster whose nodes are not all of one version.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::time::Duration;

use kapell_postgres::{Schema, SchemaError, Session, Step, Target, Todo, Version};
use kapell_tests_servers::{Durability, Postgres, Setup};
use tokio_postgres::Client;

const ONE: Step = Step { to: Version { major: 1, minor: 0 }, sql: "CREATE TABLE kapell_x.kept (n int)" };
const ADDS: Step = Step {
    to: Version { major: 1, minor: 1 },
    sql: "ALTER TABLE kapell_x.kept ADD COLUMN more text; CREATE INDEX ON kapell_x.kept (n)",
};
const BREAKS: Step =
    Step { to: Version { major: 2, minor: 0 }, sql: "ALTER TABLE kapell_x.kept RENAME n TO m" };
const WRONG: Step =
    Step { to: Version { major: 3, minor: 0 }, sql: "CREATE TABLE kapell_x.half (n int); SELECT 1 / 0" };

const fn schema(steps: &'static [Step]) -> Schema {
    Schema { name: "kapell_x", steps }
}

async fn connect(server: &Postgres) -> Client {
    let session = Session { application_name: "test", options: "", connect_within: Duration::from_secs(5) };
    let (client, connection) = Target::parse(&server.url(), &session).unwrap().connect().await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "the connection of a test")]
    tokio::spawn(connection);
    client
}

fn server() -> Option<Postgres> {
    Setup::default().durability(Durability::Unsynced).start()
}

#[tokio::test]
async fn tables_are_made_once_however_many_nodes_start_together() {
    let Some(server) = server() else { return };
    let mut nodes = Vec::new();
    for _ in 0..8 {
        let client = connect(&server).await;
        #[expect(clippy::disallowed_methods, reason = "a node of a test")]
        nodes.push(tokio::spawn(async move { schema(&[ONE, ADDS]).prepare(&client).await }));
    }
    for node in nodes {
        node.await.unwrap().unwrap();
    }
    let client = connect(&server).await;
    client.batch_execute("INSERT INTO kapell_x.kept (n, more) VALUES (1, 'x')").await.unwrap();
}

#[tokio::test]
async fn an_older_program_shares_tables_with_a_newer_minor_version_and_refuses_a_newer_major_one() {
    let Some(server) = server() else { return };
    let client = connect(&server).await;
    schema(&[ONE]).prepare(&client).await.unwrap();
    client.batch_execute("INSERT INTO kapell_x.kept VALUES (7)").await.unwrap();
    schema(&[ONE, ADDS]).prepare(&client).await.unwrap();
    schema(&[ONE]).prepare(&client).await.unwrap();
    schema(&[ONE, ADDS, BREAKS]).prepare(&client).await.unwrap();
    let kept = client.query_one("SELECT m FROM kapell_x.kept", &[]).await.unwrap();
    assert_eq!(kept.get::<_, i32>(0), 7, "what was stored is still there");
    let refused = schema(&[ONE, ADDS]).prepare(&client).await.unwrap_err();
    let (v11, v20) = (Version { major: 1, minor: 1 }, Version { major: 2, minor: 0 });
    assert!(
        matches!(refused, SchemaError::Newer { found, known, .. } if found == v20 && known == v11),
        "{refused}"
    );
    assert!(refused.to_string().contains("newer Kapell"), "{refused}");
}

#[tokio::test]
async fn a_step_that_fails_leaves_everything_as_it_was() {
    let Some(server) = server() else { return };
    let client = connect(&server).await;
    schema(&[ONE]).prepare(&client).await.unwrap();
    let failed = schema(&[ONE, WRONG]).prepare(&client).await.unwrap_err();
    assert!(failed.to_string().contains("22012"), "{failed}");
    let half = client.query_one("SELECT to_regclass('kapell_x.half') IS NULL", &[]).await.unwrap();
    assert!(half.get::<_, bool>(0));
    schema(&[ONE]).prepare(&client).await.unwrap();
}

#[tokio::test]
async fn a_schema_that_somebody_else_made_is_left_alone() {
    let Some(server) = server() else { return };
    let client = connect(&server).await;
    client.batch_execute("CREATE SCHEMA kapell_x").await.unwrap();
    schema(&[ONE]).prepare(&client).await.expect("an empty one was made for us");
    client.batch_execute("DROP TABLE kapell_x.schema_version").await.unwrap();
    let refused = schema(&[ONE]).prepare(&client).await.unwrap_err();
    assert!(matches!(refused, SchemaError::Foreign { .. }), "{refused}");
}

#[tokio::test]
async fn a_node_that_looked_before_a_newer_one_migrated_does_not_take_it_back() {
    let Some(server) = server() else { return };
    let client = connect(&server).await;
    assert_eq!(schema(&[ONE]).check(&client).await.unwrap(), Todo::Migrate);
    schema(&[ONE, ADDS, BREAKS]).prepare(&client).await.unwrap();
    let refused = schema(&[ONE]).migrate(&client).await.unwrap_err();
    assert!(matches!(refused, SchemaError::Newer { .. }), "{refused}");
    assert_eq!(schema(&[ONE, ADDS, BREAKS]).check(&client).await.unwrap(), Todo::Nothing);
}

/// A limit for statements is for rows, not for tables.
#[tokio::test]
async fn a_step_that_takes_long_is_waited_for() {
    const SLOW: Step = Step { to: Version { major: 1, minor: 1 }, sql: "SELECT pg_sleep(0.5)" };
    let Some(server) = server() else { return };
    let client = connect(&server).await;
    client.batch_execute("SET statement_timeout = '200ms'").await.unwrap();
    schema(&[ONE, SLOW]).prepare(&client).await.unwrap();
    let slow = client.batch_execute("SELECT pg_sleep(0.5)").await.unwrap_err();
    assert_eq!(slow.code().unwrap().code(), "57014", "the limit holds again");
}

#[tokio::test]
async fn tables_are_removed_whatever_their_version_and_those_of_others_are_not() {
    let Some(server) = server() else { return };
    let client = connect(&server).await;
    schema(&[ONE]).remove(&client).await.expect("none is fine");
    schema(&[ONE, ADDS, BREAKS]).prepare(&client).await.unwrap();
    schema(&[ONE]).remove(&client).await.unwrap();
    assert_eq!(schema(&[ONE]).check(&client).await.unwrap(), Todo::Migrate);
    client.batch_execute("CREATE SCHEMA kapell_x; CREATE TABLE kapell_x.theirs (n int)").await.unwrap();
    let refused = schema(&[ONE]).remove(&client).await.unwrap_err();
    assert!(matches!(refused, SchemaError::Foreign { .. }), "{refused}");
    client.batch_execute("SELECT n FROM kapell_x.theirs").await.unwrap();
}
