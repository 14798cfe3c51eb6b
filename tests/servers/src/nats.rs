//! NATS with JetStream.
//!
//! Owns: one server on loopback, its data, and whether it runs. Never: talks NATS's protocol; it asks for health over
//! plain HTTP.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::process;

/// Others may take the ports between the look and the start.
const ATTEMPTS: u32 = 5;

/// A server. It and its data are gone when the value is dropped.
#[derive(Debug)]
pub struct Nats {
    program: PathBuf,
    /// For clients, and for health.
    ports: [u16; 2],
    /// `None` while it is stopped.
    child: Option<Child>,
    dir: TempDir,
}

impl Nats {
    /// One that runs; or says why the test is skipped.
    ///
    /// # Panics
    ///
    /// When the program is there and does not start; see also [`missing`](crate::missing).
    #[must_use]
    pub fn start() -> Option<Self> {
        let Some(program) = crate::program("nats-server") else {
            crate::missing("nats-server");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("kapell-nats-").tempdir_in("/tmp").unwrap();
        let mut nats = Self { program, ports: [0; 2], child: None, dir };
        for attempt in 0..ATTEMPTS {
            nats.ports = [2 * attempt, 2 * attempt + 1].map(process::free_port);
            if nats.ports[0] != nats.ports[1] && nats.run() {
                return Some(nats);
            }
            nats.kill();
        }
        panic!("NATS does not start: {}", nats.log());
    }

    /// For clients; the same over restarts.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.ports[0])
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            process::kill_with_children(&mut child);
        }
    }

    /// Starts it on the data that it left, and waits until it is healthy.
    ///
    /// # Panics
    ///
    /// When it runs, or does not start.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        assert!(self.run(), "NATS does not start again: {}", self.log());
    }

    fn run(&mut self) -> bool {
        let [client, health] = self.ports.map(|port| port.to_string());
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.args(["--addr", "127.0.0.1", "--port", &client, "--http_port", &health, "--jetstream"]);
        command.arg("--store_dir").arg(self.dir.path().join("data"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = self.child.insert(command.spawn().unwrap());
        let at = ([127, 0, 0, 1], self.ports[1]).into();
        process::wait_until(child, || process::ask(at, "/healthz").contains(r#""status":"ok""#))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}
