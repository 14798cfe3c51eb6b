//! Several coordinators over a real etcd and PostgreSQL, started as the documents say.
use std::io::{BufRead as _, BufReader, Lines};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use kapell_tests_servers::Postgres;
use serde_json::Value;
use tempfile::TempDir;

use crate::node::{Node, Said, kapell_in, pause};
use crate::{DEFINITIONS, eventually};

const NODES: u16 = 3;
/// Coordinators, both ports of etcd, PostgreSQL.
const PORTS: u16 = NODES + 3;
/// Where such rows of ports begin, below the ports that the kernel gives to clients.
const FIRST_PORT: u16 = 20_000;
const ROWS: u16 = 1_500;

/// The script of `deploy/`, and all that it has started. Interrupted at the end.
struct Cluster {
    script: Child,
    /// What it says has somewhere to go.
    _said: Lines<BufReader<ChildStdout>>,
    folder: TempDir,
    addresses: Vec<String>,
}

impl Cluster {
    /// `None`: there is no etcd or PostgreSQL, and they need not be there.
    fn start() -> Option<Cluster> {
        let folder = TempDir::new().unwrap();
        let port = free_ports();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/local-cluster.sh");
        let mut script = Command::new(script)
            .args(["--nodes", &NODES.to_string(), "--port", &port.to_string(), "--data"])
            .arg(folder.path().join("cluster"))
            .env("KAPELL", env!("CARGO_BIN_EXE_kapell"))
            .env("CARGO_TARGET_DIR", target())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(script.stdout.take().unwrap()).lines();
        let is_ready = said.next().is_some_and(|line| line.unwrap().contains("The cluster is ready"));
        if is_ready {
            let addresses = (port..port + NODES).map(|port| format!("127.0.0.1:{port}")).collect();
            return Some(Cluster { script, _said: said, folder, addresses });
        }
        let why = String::from_utf8(script.wait_with_output().unwrap().stderr).unwrap();
        assert!(why.contains("is not here"), "{why}");
        kapell_tests_servers::missing("etcd or PostgreSQL");
        None
    }

    fn kapell(&self, at: usize, arguments: &[&str]) -> Said {
        kapell_in(self.folder.path(), &self.addresses[at], arguments)
    }

    /// How many members one of them knows, and whether every shard has an owner among them.
    fn members(&self, at: usize) -> (usize, bool) {
        let said = self.kapell(at, &["cluster", "status", "-o", "json"]);
        assert!(!said.stdout.is_empty(), "node {at}: {}", said.stderr);
        let status: Value = serde_json::from_str(&said.stdout).unwrap();
        let members = status["members"].as_array().unwrap();
        let is_owned = |shard: &Value| members.iter().any(|member| member["node"] == shard["node"]);
        let shards = status["shards"].as_array().unwrap();
        assert_eq!(shards.len(), 64, "as many as a shared store gets");
        (members.len(), shards.iter().all(is_owned))
    }

    fn demo(&self, coordinators: &[String]) -> String {
        let said = self.kapell(0, &["demo", "--yes", "--cluster", &coordinators.join(",")]);
        assert_eq!(said.exit, 0, "{}{}", said.stdout, said.stderr);
        said.stdout
    }

    fn pid(&self, name: &str) -> String {
        let file = self.folder.path().join("cluster").join(format!("{name}.pid"));
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }

    /// As Ctrl-C does.
    fn interrupt(&mut self) {
        assert!(signal("-INT", &self.script.id().to_string()));
        assert!(self.script.wait().unwrap().success());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It ends what it has started, also when the test has failed.
        signal("-INT", &self.script.id().to_string());
        drop(self.script.wait());
    }
}

fn signal(which: &str, pid: &str) -> bool {
    Command::new("kill").args([which, pid]).stderr(Stdio::null()).status().unwrap().success()
}

/// Where this test was built.
fn target() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_kapell")).ancestors().nth(2).unwrap()
}

/// The first of some ports in a row on which nobody listens.
fn free_ports() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    // Tests of one machine begin to look at different places.
    let begin = (std::process::id() % 1_000) as u16;
    let mut rows = (begin..ROWS).chain(0..begin).map(|row| FIRST_PORT + row * PORTS);
    rows.find(|first| (*first..*first + PORTS).all(is_free)).unwrap()
}

#[test]
fn a_cluster_is_one_command_and_goes_on_without_one_of_its_coordinators() {
    let Some(mut cluster) = Cluster::start() else { return };
    let all = cluster.addresses.clone();
    for at in 0..all.len() {
        assert_eq!(cluster.members(at), (3, true), "node {at}");
    }
    let told = cluster.demo(&all);
    assert!(told.contains("the cluster at"), "{told}");

    let killed = cluster.pid("coordinator-2");
    assert!(signal("-KILL", &killed));
    for _ in 0..300 {
        if cluster.members(0) == (2, true) {
            break;
        }
        pause(Duration::from_millis(100));
    }
    assert_eq!(cluster.members(0), (2, true), "its shards were taken over");
    cluster.demo(&[all[0].clone(), all[2].clone()]);
    let found = cluster.kapell(2, &["doctor", "-o", "json"]);
    assert_eq!(found.exit, 0, "{}{}", found.stdout, found.stderr);

    let pids = ["etcd", "postgres", "coordinator-1", "coordinator-3"].map(|name| cluster.pid(name));
    cluster.interrupt();
    for pid in pids {
        assert!(!signal("-0", &pid), "nothing is left behind");
    }
}

#[test]
fn one_coordinator_keeps_everything_in_postgresql_over_a_crash() {
    let Some(server) = Postgres::start() else { return };
    let mut node = Node::start_with(&["--postgres", &server.url()]);
    node.write("definitions.yaml", DEFINITIONS);
    node.json(&["apply", "-f", "definitions.yaml"]);
    let input = r#"{"name":"Ada","number":3}"#;
    let before = node.json(&["run", "start", "greet", "--input", input, "--wait"]);
    node.crash_and_restart();
    node.json(&["run", "start", "greet", "--input", input, "--wait"]);
    let runs = eventually(|| {
        let listed = node.json(&["run", "list"]);
        (listed["ledgerBehind"] == 0).then(|| listed["runs"].as_array().unwrap().clone())
    });
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert!(runs.iter().any(|run| run["id"] == before["id"]), "{before} {runs:?}");
    assert!(!node.folder.path().join("data").exists(), "nothing is kept beside it");
}

#[test]
fn a_coordinator_that_cannot_share_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let shared =
        ["coordinator", "--etcd", "127.0.0.1:1", "--postgres", "postgres://kapell@127.0.0.1:1/kapell"];
    let wrong: [(&[&str], i32, &str); 5] = [
        (&["coordinator", "--etcd", "127.0.0.1:1"], 2, "--postgres"),
        (&["coordinator", "--ledger", "postgres://127.0.0.1:1/kapell"], 2, "--postgres"),
        (&[&shared[..], &["--listen", "0.0.0.0:0"]].concat(), 1, "--advertise HOST:PORT"),
        (&[&shared[..], &["--node", "Not A Name"]].concat(), 1, "--node Not A Name"),
        (&shared, 1, "127.0.0.1:1/kapell"),
    ];
    for (arguments, exit, says) in wrong {
        let said = kapell_in(folder.path(), "127.0.0.1:1", arguments);
        assert_eq!(said.exit, exit, "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(says), "{arguments:?}: {}", said.stderr);
    }
}
