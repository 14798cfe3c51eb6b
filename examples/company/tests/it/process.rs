//! The company as a process of its own.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

use kapell_company::{Reality, Sku};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{answer, client};

struct Running {
    child: Child,
    addresses: Value,
}

fn run(dir: &Path, arguments: &[&str]) -> Running {
    let mut child = Command::new(env!("CARGO_BIN_EXE_company"))
        .arg("--dir")
        .arg(dir)
        .args(["--until", "stdin-end"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    Running { child, addresses: serde_json::from_str(&line).unwrap() }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already in most tests; this is for those that fail.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn a_killed_company_keeps_what_it_answered() {
    let dir = tempfile::tempdir().unwrap();
    let http = client();
    let mut first = run(dir.path(), &[]);
    let url = first.addresses["shop_north"].as_str().unwrap().to_owned();
    let write = http.put(format!("{url}/products/LMP-1001/price")).bearer_auth("north-demo-token");
    assert_eq!(answer(write.json(&json!({ "price": "21.50" }))).await.0, StatusCode::OK);
    let post = http.post(format!("{}/entries", first.addresses["postings"].as_str().unwrap()));
    assert_eq!(answer(post.json(&json!({ "ref": "inv-1", "amount": 1 }))).await.0, StatusCode::CREATED);
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let reality = Reality::read(dir.path()).unwrap();
    assert_eq!(reality.north.write_count(&Sku::from("LMP-1001")), 1);
    assert_eq!(reality.posting_count("inv-1"), 1);

    let port = url.rsplit(':').next().unwrap();
    let second = run(dir.path(), &["--north-port", port]);
    assert_eq!(second.addresses["shop_north"], url.as_str());
    let read = client().get(format!("{url}/products/LMP-1001")).bearer_auth("north-demo-token");
    assert_eq!(answer(read).await.1["price"], "21.50");
}

#[test]
fn it_ends_with_its_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = run(dir.path(), &[]);
    drop(running.child.stdin.take());
    assert!(running.child.wait().unwrap().success());
}

#[test]
fn it_says_why_it_cannot_start() {
    let dir = tempfile::tempdir().unwrap();
    let _first = run(dir.path(), &[]);
    let mut second = Command::new(env!("CARGO_BIN_EXE_company"))
        .arg("--dir")
        .arg(dir.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    second.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(!second.wait().unwrap().success());
    assert!(text.starts_with("company: another company runs in "), "{text}");
}
