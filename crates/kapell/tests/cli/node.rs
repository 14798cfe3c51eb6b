//! A real `kapell dev` process and the commands that are sent to it.
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// All roles in one process, on a free port and a folder of their own; killed at the end.
pub(crate) struct Node {
    child: Child,
    arguments: Vec<String>,
    pub(crate) address: String,
    pub(crate) folder: TempDir,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Node {
    pub(crate) fn start() -> Node {
        Node::start_with(&[])
    }

    /// With more arguments, each time that it is started.
    pub(crate) fn start_with(arguments: &[&str]) -> Node {
        let folder = TempDir::new().unwrap();
        let address = free_address();
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let child = dev(folder.path(), &address, &arguments);
        let node = Node { child, arguments, address, folder };
        node.wait_until_ready();
        node
    }

    /// kill -9, and the same again on the same data.
    pub(crate) fn crash_and_restart(&mut self) {
        self.crash();
        self.restart();
    }

    /// kill -9.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same again on the same data.
    pub(crate) fn restart(&mut self) {
        self.child = dev(self.folder.path(), &self.address, &self.arguments);
    }

    /// Ready is when a worker has come; until then `run start` would only queue.
    fn wait_until_ready(&self) {
        for _ in 0..600 {
            let said = self.kapell(&["status", "-o", "json"]);
            let workers =
                serde_json::from_str::<Value>(&said.stdout).ok().map(|status| status["workers"].clone());
            if workers.is_some_and(|workers| workers.as_array().is_some_and(|workers| !workers.is_empty())) {
                return;
            }
            pause(Duration::from_millis(100));
        }
        panic!("the node did not become ready; its log:\n{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn kapell(&self, arguments: &[&str]) -> Said {
        kapell_in(self.folder.path(), &self.address, arguments)
    }

    /// A command that must succeed, and its answer.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let said = self.kapell(&[arguments, &["-o", "json"]].concat());
        assert_eq!(said.exit, 0, "{arguments:?}: {}{}\n{}", said.stdout, said.stderr, self.log());
        serde_json::from_str(&said.stdout).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn dev(folder: &Path, address: &str, more: &[String]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    bare(folder)
        .args(["dev", "--listen", address, "--log", "info", "--data"])
        .arg(folder.join("data"))
        .args(more)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The binary without the environment of whoever runs the tests.
fn bare(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kapell"));
    command.env_clear().env("USER", "tester").env("COLUMNS", "100").current_dir(folder).stdin(Stdio::null());
    command
}

pub(crate) fn kapell_in(folder: &Path, address: &str, arguments: &[&str]) -> Said {
    let Output { status, stdout, stderr } =
        bare(folder).env("KAPELL_ADDRESS", address).args(arguments).output().unwrap();
    Said {
        exit: status.code().unwrap(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test waits for another process and has no runtime of its own"
)]
pub(crate) fn pause(time: Duration) {
    // why: another process is polled, and it cannot tell when it is ready
    std::thread::sleep(time);
}
