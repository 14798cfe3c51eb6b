//! PostgreSQL: a private server, started for the test.
use std::time::Duration;

use kapell_proto::v1::ErrorClass;
use kapell_tests_servers::{Durability, Postgres, Setup};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{Outcome, Rig, definitions};

/// A server with a table, or a word that there is none.
async fn start() -> Option<Postgres> {
    let server = Setup::default().durability(Durability::Unsynced).start()?;
    client(&server).await.batch_execute(SCHEMA).await.unwrap();
    Some(server)
}

async fn client(server: &Postgres) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn rig_on(server: &Postgres, port: u16, password: &str) -> Rig {
    let endpoint = format!("postgres://127.0.0.1:{port}/postgres");
    let secret = server.folder().join(format!("secret-{password}"));
    std::fs::write(&secret, password).unwrap();
    let credential = format!(
        "credential: {{ basic: {{ user: kapell, password: {{ file: \"{}\" }} }} }}",
        secret.display()
    );
    Rig::start(definitions("sql", &endpoint, &credential, TOOLS)).await
}

const TOOLS: &str = r#"
- name: keep
  effect: write
  timeout: 2s
  idempotency: { key: { carrier: k } }
  sql:
    statement: "INSERT INTO notes (key, text, price) VALUES (:k, :text, :price) RETURNING id, text, price, at IS NOT NULL AS dated;"
    parameters: { text: "${args.text}", price: "${args.price}" }
  reconcile:
    tool: by-key
    with: { key: "${call.key}" }
    done: "size(result.rows) == 1"
    result: { rows: "${result.rows}" }
- name: by-key
  sql: { statement: "SELECT id, text FROM notes WHERE key = :key -- the call's", parameters: { key: "${args.key}" } }
- name: reprice
  effect: write
  idempotency: natural
  sql: { statement: "UPDATE notes SET price = :price WHERE text = :text", parameters: { price: "${args.price}", text: "${args.text}" }, mode: affected }
- name: find
  sql: { statement: "SELECT key, text FROM notes WHERE text = :text", parameters: { text: "${args.text}" } }
- name: types
  sql:
    statement: "SELECT :a::int8 AS a, :b::bool AS b, :c::numeric AS c, :d::jsonb AS d, :e::timestamptz AT TIME ZONE 'UTC' AS e, :f::text AS f, :g::uuid AS g, ARRAY[1,2] AS h"
    parameters: { a: 9007199254740993, b: true, c: "12.30", d: { x: [1] }, e: "2026-01-02T03:04:05Z", f: null, g: "6b1a3c1e-0000-4000-8000-000000000001" }
- name: count
  sql: { statement: "SELECT count(*) AS n FROM notes" }
- name: sneaky
  sql: { statement: "DELETE FROM notes RETURNING id" }
- name: two
  effect: write
  sql: { statement: "DELETE FROM notes; DELETE FROM notes", mode: affected }
- name: sleepy
  effect: write
  timeout: 300ms
  sql: { statement: "INSERT INTO notes (text) SELECT 'late' FROM pg_sleep(5)", mode: affected }
- name: deferred
  effect: write
  sql: { statement: "INSERT INTO notes (text, parent) VALUES ('orphan', 99999)", mode: affected }
"#;

const SCHEMA: &str =
    "CREATE TABLE notes (id serial PRIMARY KEY, key text UNIQUE, text text, price numeric(10,2),
    at timestamptz DEFAULT now(), parent int REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED)";

#[tokio::test]
async fn statements_types_and_errors() {
    let Some(mut server) = start().await else { return };
    let mut rig = rig_on(&server, server.port(), "hush").await;
    let kept = rig.call("keep", json!({ "text": "a", "price": 12.5 })).await.output();
    assert_eq!(kept, json!({ "rows": [{ "id": 1, "text": "a", "price": 12.50, "dated": true }] }));
    let args = json!({ "text": "a", "price": 12.5 });
    let found = rig.reconcile("keep", args).await.output();
    assert_eq!(found, json!({ "took_effect": true, "result": { "rows": [{ "id": 1, "text": "a" }] } }));
    assert_eq!(
        rig.call("reprice", json!({ "text": "a", "price": "9.90" })).await.output(),
        json!({ "affected": 1 })
    );
    let types = rig.read("types", json!({})).await.output();
    let wanted = json!({
        "a": 9_007_199_254_740_993_i64, "b": true, "c": 12.30, "d": { "x": [1] }, "e": "2026-01-02T03:04:05",
        "f": null, "g": "6b1a3c1e-0000-4000-8000-000000000001", "h": [1, 2]
    });
    assert_eq!(types["rows"][0], wanted);
    rig.read("sneaky", json!({})).await.error(ErrorClass::BadRequest);
    rig.call("two", json!({})).await.error(ErrorClass::BadRequest);
    let message =
        rig.call("reprice", json!({ "text": "a", "price": "x" })).await.error(ErrorClass::BadRequest);
    assert!(message.contains("22P02"), "{message}");
    let message = rig.call("deferred", json!({})).await.error(ErrorClass::BadRequest);
    assert!(message.contains("23503"), "the commit was refused, for certain: {message}");
    let message = rig.call("sleepy", json!({})).await.error(ErrorClass::Unavailable);
    assert!(!message.is_empty());
    assert_eq!(rig.read("count", json!({})).await.output()["rows"][0]["n"], 1);
    let mut stranger = rig_on(&server, server.port(), "wrong").await;
    stranger.read("count", json!({})).await.error(ErrorClass::Auth);
    a_value_stays_in_its_parameter(&mut rig).await;
    server.stop_immediately();
    rig.call("keep", json!({ "text": "b", "price": 1 })).await.error(ErrorClass::Unavailable);
}

fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "'",
        "\"",
        ";",
        "--",
        "/*",
        "*/",
        "\\",
        ":text",
        ":k",
        "$1",
        "$$",
        "%",
        "NULL",
        "'); DROP TABLE notes; --",
        "' OR '1'='1",
        "x",
        "ä",
        "\n",
        ")",
    ]);
    // PostgreSQL's text cannot hold the character zero.
    let any = any::<String>().prop_map(|text| text.replace('\0', ""));
    prop_oneof![prop::collection::vec(pieces, 1..6).prop_map(|parts| parts.concat()), any]
}

async fn a_value_stays_in_its_parameter(rig: &mut Rig) {
    let mut runner = proptest::test_runner::TestRunner::default();
    for count in 2..=40 {
        let text = hostile().new_tree(&mut runner).unwrap().current();
        let kept = rig.call("keep", json!({ "text": text, "price": 1 })).await.output();
        assert_eq!(kept["rows"][0]["text"], json!(text));
        let found = rig.read("find", json!({ "text": text })).await.output();
        assert!(found["rows"].as_array().unwrap().iter().all(|row| row["text"] == json!(text)), "{text:?}");
        assert_eq!(rig.read("count", json!({})).await.output()["rows"][0]["n"], count);
    }
}

/// Passes bytes on to the server, and cuts the client off at its `COMMIT`.
async fn cut_at_commit(server: u16, passes_it_on: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut behind = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            tokio::spawn(async move {
                let (mut up, mut down) = ([0; 8_192], [0; 8_192]);
                loop {
                    tokio::select! {
                        read = client.read(&mut up) => {
                            let read = read.unwrap_or(0);
                            let commits = up[..read].windows(6).any(|window| window == b"COMMIT");
                            if read == 0 || (commits && !passes_it_on) {
                                return;
                            }
                            behind.write_all(&up[..read]).await.unwrap();
                            if commits {
                                // The server does it; its answer stays here.
                                let _answer = behind.read(&mut down).await;
                                return;
                            }
                        }
                        read = behind.read(&mut down) => match read.unwrap_or(0) {
                            0 => return,
                            read => client.write_all(&down[..read]).await.unwrap(),
                        }
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_commit_that_is_not_answered_is_unknown_and_the_key_finds_it() {
    let Some(server) = start().await else { return };
    for (passes_it_on, text) in [(true, "done"), (false, "never")] {
        let mut through = rig_on(&server, cut_at_commit(server.port(), passes_it_on).await, "hush").await;
        let why = through.call("keep", json!({ "text": text, "price": 1 })).await.unknown();
        assert!(why.contains("commit"), "{why}");
        // The server ends the transaction of a client that is gone a moment later.
        // why: when a server notices that a client is gone is seen nowhere
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut direct = rig_on(&server, server.port(), "hush").await;
        let found = direct.read("find", json!({ "text": text })).await.output();
        assert_eq!(found["rows"].as_array().unwrap().len(), usize::from(passes_it_on));
        let args = json!({ "text": text, "price": 1 });
        let looked = direct.reconcile("keep", args).await;
        match passes_it_on {
            true => assert_eq!(looked.output()["took_effect"], true),
            false => assert_eq!(looked, Outcome::Output(json!({ "took_effect": false }))),
        }
        client(&server).await.batch_execute("DELETE FROM notes").await.unwrap();
    }
}
