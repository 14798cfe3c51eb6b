//! The server starts, keeps what it has committed over every kind of end, and is gone with its value.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use kapell_tests_servers::{Postgres, Setup};
use tokio_postgres::{Client, NoTls};

async fn client(server: &Postgres) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "the connection of a test")]
    tokio::spawn(connection);
    client
}

async fn count(server: &Postgres) -> i64 {
    client(server).await.query_one("SELECT count(*) FROM kept", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn what_was_committed_is_there_after_each_kind_of_end() {
    let Some(mut server) = Postgres::start() else { return };
    client(&server)
        .await
        .batch_execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
        .await
        .unwrap();
    let url = server.url();
    server.restart();
    assert_eq!(count(&server).await, 1);
    client(&server).await.batch_execute("INSERT INTO kept VALUES (2)").await.unwrap();
    server.stop_immediately();
    assert!(tokio_postgres::connect(&url, NoTls).await.is_err(), "it is stopped");
    server.start_again();
    assert_eq!(count(&server).await, 2);
    let watched = client(&server).await;
    watched.batch_execute("INSERT INTO kept VALUES (3)").await.unwrap();
    server.kill();
    assert!(watched.batch_execute("SELECT 1").await.is_err(), "no process of it is left");
    server.start_again();
    assert_eq!(count(&server).await, 3);
    assert_eq!(server.url(), url);
}

#[tokio::test]
async fn settings_reach_the_server_and_servers_do_not_meet() {
    let Some(one) = Setup::default().setting("max_connections", "7").start() else { return };
    let Some(other) = Postgres::start() else { return };
    assert_ne!(one.port(), other.port());
    let shown = client(&one).await.query_one("SHOW max_connections", &[]).await.unwrap();
    assert_eq!(shown.get::<_, &str>(0), "7");
    let shown = client(&other).await.query_one("SHOW fsync", &[]).await.unwrap();
    assert_eq!(shown.get::<_, &str>(0), "on", "durability is the default");
}

#[tokio::test]
async fn a_server_is_gone_with_its_value() {
    let Some(server) = Postgres::start() else { return };
    let (url, folder) = (server.url(), server.folder().to_owned());
    drop(server);
    assert!(tokio_postgres::connect(&url, NoTls).await.is_err());
    assert!(!folder.exists());
}
