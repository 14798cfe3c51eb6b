//! SQLite: the company's ERP, and files of the tests' own.
use std::time::Duration;

use kapell_company::{Company, CompanyOptions};
use kapell_proto::v1::ErrorClass;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::json;

use crate::rig::{Outcome, Rig, definitions};

const ERP: &str = r#"
- name: flag
  effect: write
  sql:
    statement: "UPDATE purchase_orders SET flagged = 1, flag_reason = :reason WHERE id = :id"
    parameters: { reason: "${args.reason}", id: "${args.id}" }
    mode: affected
  reconcile: { tool: order, with: { id: "${args.id}" }, done: "result.rows[0].flagged == 1" }
- name: order
  sql: { statement: "SELECT id, flagged, flag_reason FROM purchase_orders WHERE id = :id", parameters: { id: "${args.id}" } }
- name: orders
  sql: { statement: "SELECT id FROM purchase_orders WHERE status = 'open' ORDER BY id" }
- name: sneaky
  sql: { statement: "UPDATE purchase_orders SET flagged = 1" }
- name: two
  effect: write
  sql: { statement: "UPDATE products SET name = 'x'; DELETE FROM products" }
- name: breaks-a-rule
  effect: write
  sql: { statement: "UPDATE products SET cost_cents = -1", mode: affected }
"#;

async fn erp() -> (Rig, Company, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let company = Company::start(dir.path(), CompanyOptions::default()).await.unwrap();
    let endpoint = format!("sqlite:{}", company.addresses().erp.display());
    (Rig::start(definitions("sql", &endpoint, "", ERP)).await, company, dir)
}

#[tokio::test]
async fn orders_are_read_and_flagged_in_the_erp() {
    let (mut rig, company, _dir) = erp().await;
    let orders = rig.read("orders", json!({})).await.output();
    let id = orders["rows"][0]["id"].as_str().unwrap().to_owned();
    let args = json!({ "id": id, "reason": "margin below 12 %" });
    assert_eq!(rig.reconcile("flag", args.clone()).await, Outcome::Output(json!({ "took_effect": false })));
    assert_eq!(rig.call("flag", args.clone()).await, Outcome::Output(json!({ "affected": 1 })));
    let order = json!({ "rows": [{ "id": id, "flagged": 1, "flag_reason": "margin below 12 %" }] });
    assert_eq!(rig.read("order", json!({ "id": id })).await, Outcome::Output(order.clone()));
    let found = rig.reconcile("flag", args).await;
    assert_eq!(found, Outcome::Output(json!({ "took_effect": true, "result": order })));
    assert!(company.erp().path().exists());
}

#[tokio::test]
async fn a_read_cannot_write_and_a_statement_is_one() {
    let (mut rig, _company, _dir) = erp().await;
    let message = rig.read("sneaky", json!({})).await.error(ErrorClass::BadRequest);
    assert!(message.contains("readonly"), "{message}");
    let message = rig.call("two", json!({})).await.error(ErrorClass::BadRequest);
    assert!(message.contains("Multiple statements"), "{message}");
    let message = rig.call("breaks-a-rule", json!({})).await.error(ErrorClass::BadRequest);
    assert!(message.contains("CHECK"), "{message}");
}

#[tokio::test]
async fn no_database_is_made_where_none_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("no.sqlite");
    let mut rig = Rig::start(definitions("sql", &format!("sqlite:{}", path.display()), "", ERP)).await;
    rig.read("orders", json!({})).await.error(ErrorClass::Unavailable);
    assert!(!path.exists());
}

const NOTES: &str = r#"
- name: keep
  effect: write
  idempotency: { key: { carrier: k } }
  timeout: 1s
  sql:
    statement: "INSERT INTO notes (key, text, n) VALUES (:k, :text, :n) RETURNING id, text, n"
    parameters: { text: "${args.text}", n: "${args.n}" }
- name: find
  sql: { statement: "SELECT key, text FROM notes WHERE text = :text", parameters: { text: "${args.text}" } }
- name: count
  sql: { statement: "SELECT count(*) AS n FROM notes" }
- name: endless
  timeout: 300ms
  sql: { statement: "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT count(*) FROM t" }
- name: endless-write
  effect: write
  timeout: 300ms
  sql: { statement: "INSERT INTO notes (n) WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT count(*) FROM t" }
- name: types
  sql: { statement: "SELECT :a AS a, :b AS b, :c AS c, :d AS d, :e AS e, x'00ff' AS f", parameters: { a: null, b: true, c: 1.5, d: { x: [1] }, e: 9007199254740993 } }
- name: too-much
  sql: { statement: "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t LIMIT 100000) SELECT 'some text to make it long' AS t, x FROM t" }
"#;

async fn notes() -> (Rig, std::path::PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.sqlite");
    let made = rusqlite::Connection::open(&path).unwrap();
    made.execute_batch("CREATE TABLE notes (id INTEGER PRIMARY KEY, key TEXT UNIQUE, text TEXT, n)").unwrap();
    let rig = Rig::start(definitions("sql", &format!("sqlite:{}", path.display()), "", NOTES)).await;
    (rig, path, dir)
}

#[tokio::test]
async fn the_key_is_a_parameter_and_values_keep_their_types() {
    let (mut rig, path, _dir) = notes().await;
    let kept = rig.call("keep", json!({ "text": "a", "n": 7 })).await.output();
    assert_eq!(kept, json!({ "rows": [{ "id": 1, "text": "a", "n": 7 }] }));
    let found = rig.read("find", json!({ "text": "a" })).await.output();
    assert_eq!(found["rows"][0]["key"], "run/step/1");
    let types = rig.read("types", json!({})).await.output();
    let wanted = json!({ "a": null, "b": 1, "c": 1.5, "d": "{\"x\":[1]}", "e": 9_007_199_254_740_993_i64, "f": "AP8=" });
    assert_eq!(types["rows"][0], wanted);
    let message = rig.read("too-much", json!({})).await.error(ErrorClass::BadRequest);
    assert!(message.contains("1048576"), "{message}");

    // Another writer holds the file for longer than we wait.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let message = rig.call("keep", json!({ "text": "b", "n": 1 })).await.error(ErrorClass::Unavailable);
    assert!(message.contains("locked"), "{message}");
    other.execute_batch("ROLLBACK").unwrap();
    rig.call("keep", json!({ "text": "b", "n": 1 })).await.output();
    assert_eq!(rig.read("count", json!({})).await.output()["rows"][0]["n"], 2);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_interrupted_and_leaves_nothing() {
    let (mut rig, path, _dir) = notes().await;
    rig.read("endless", json!({})).await.error(ErrorClass::Unavailable);
    let message = rig.call("endless-write", json!({})).await.error(ErrorClass::Unavailable);
    assert!(message.contains("nothing was sent"), "before the commit it is certain: {message}");
    // It stopped: another writer gets the file.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.busy_timeout(Duration::from_secs(3)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
    assert_eq!(rig.read("count", json!({})).await.output()["rows"][0]["n"], 0);
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
        "?",
        "?1",
        "@a",
        "%",
        "_",
        "\0",
        "NULL",
        "'); DROP TABLE notes; --",
        "' OR '1'='1",
        "x",
        "ä",
        "\n",
    ]);
    prop_oneof![prop::collection::vec(pieces, 1..6).prop_map(|parts| parts.concat()), any::<String>()]
}

/// Values are bound, whatever they hold: each comes back as it went in, and nothing else changes.
#[tokio::test]
async fn a_value_stays_in_its_parameter() {
    let (mut rig, _path, _dir) = notes().await;
    let mut runner = proptest::test_runner::TestRunner::default();
    let known = ["7", "1e3", " 5 ", "\0", "a\0b", "'"].map(str::to_owned);
    let drawn = (0..60).map(|_| hostile().new_tree(&mut runner).unwrap().current());
    for (count, text) in (1..).zip(known.into_iter().chain(drawn)) {
        let kept = rig.call("keep", json!({ "text": text, "n": text })).await.output();
        assert_eq!(
            (&kept["rows"][0]["text"], &kept["rows"][0]["n"]),
            (&json!(text), &json!(text)),
            "{text:?}"
        );
        let found = rig.read("find", json!({ "text": text })).await.output();
        assert!(found["rows"].as_array().unwrap().iter().all(|row| row["text"] == json!(text)), "{text:?}");
        assert_eq!(rig.read("count", json!({})).await.output()["rows"][0]["n"], count);
    }
}
