//! PostgreSQL.
//!
//! Owns: one database cluster and its postmaster. Never: shares either with another test.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::network::Host;
use crate::process;

/// Role and password of [`Postgres::url`].
const USER: &str = "kapell";
const PASSWORD: &str = "hush";
/// Another server may take the port between the look and the start.
const ATTEMPTS: u32 = 5;

/// Whether a commit is on disk when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `fsync=on`, as the product wants it.
    Synced,
    /// `fsync=off`: for tests that are about something else.
    Unsynced,
}

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    durability: Durability,
    settings: Vec<(String, String)>,
    tls: Option<(String, String)>,
    host: Host,
}

impl Default for Setup {
    fn default() -> Self {
        Self { durability: Durability::Synced, settings: Vec::new(), tls: None, host: Host::here() }
    }
}

impl Setup {
    /// Whether a commit is on disk when it is answered; by default it is.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// A line of `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Speaks TLS with this certificate and private key, both in PEM.
    #[must_use]
    pub fn tls(mut self, certificate: &str, key: &str) -> Self {
        self.tls = Some((certificate.to_owned(), key.to_owned()));
        self
    }

    /// Runs on this host; by default here.
    #[must_use]
    pub fn host(mut self, host: &Host) -> Self {
        self.host = host.clone();
        self
    }

    /// Starts a server, or says why the test is skipped.
    ///
    /// # Panics
    ///
    /// When there is a server program and it does not start; see also [`missing`](crate::missing).
    #[must_use]
    pub fn start(mut self) -> Option<Postgres> {
        let Some(bin) = installed() else {
            crate::missing("PostgreSQL");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("kapell-postgres-").tempdir_in("/tmp").unwrap();
        process::hand_over(dir.path());
        init(&bin, dir.path(), &self.host);
        self.write_tls(dir.path());
        let mut server = Postgres { bin, port: 0, setup: self, child: None, dir };
        for attempt in 0..ATTEMPTS {
            server.port = process::free_port(attempt);
            if server.run() {
                return Some(server);
            }
        }
        panic!("PostgreSQL does not start: {}", server.log());
    }

    fn write_tls(&mut self, dir: &Path) {
        let Some((certificate, key)) = self.tls.take() else { return };
        self.settings.push(("ssl".to_owned(), "on".to_owned()));
        for (setting, text) in [("ssl_cert_file", certificate), ("ssl_key_file", key)] {
            let file = dir.join(setting);
            std::fs::write(&file, text).unwrap();
            // A server takes no key that others may read.
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            process::hand_over(&file);
            self.settings.push((setting.to_owned(), file.display().to_string()));
        }
    }
}

/// A running server. It and its data are gone when the value is dropped.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    port: u16,
    setup: Setup,
    /// `None` while it is stopped.
    child: Option<Child>,
    dir: TempDir,
}

impl Postgres {
    /// A server that keeps what it has committed; see [`Setup::start`].
    #[must_use]
    pub fn start() -> Option<Self> {
        Setup::default().start()
    }

    /// Where it listens, on its host; the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `postgres://user:password@address:port/postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The same for another database of the server, which must have been created.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@{}:{}/{database}", self.setup.host.address(), self.port)
    }

    /// Where a test may put files that the server reads.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// The end of what it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4_096)..]).into_owned()
    }

    /// Stops it in order (open transactions are rolled back, everything is flushed) and starts it again.
    pub fn restart(&mut self) {
        self.end(Signal::INT);
        self.start_again();
    }

    /// Stops it without flushing anything; the next start recovers.
    pub fn stop_immediately(&mut self) {
        self.end(Signal::QUIT);
    }

    /// SIGKILL to all its processes.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            process::kill_with_children(&mut child);
        }
    }

    /// Starts it on the data that it left.
    ///
    /// # Panics
    ///
    /// When it runs, or does not start.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "the server runs");
        assert!(self.run(), "PostgreSQL does not start again: {}", self.log());
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Whether it started and takes connections.
    fn run(&mut self) -> bool {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let lock = self.data().join("postmaster.pid");
        let fsync = match self.setup.durability {
            Durability::Synced => "fsync=on",
            Durability::Unsynced => "fsync=off",
        };
        let mut command = command(&self.setup.host, &self.bin, "postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        command.args(["-c", &format!("listen_addresses={}", self.setup.host.address()), "-c", fsync]);
        command.args(["-c", &format!("unix_socket_directories={}", self.dir.path().display())]);
        // A client that a test leaves in the middle of connecting would hold up the server's end for a minute.
        command.args(["-c", "authentication_timeout=5s"]);
        for (name, value) in &self.setup.settings {
            command.args(["-c", &format!("{name}={value}")]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        // A killed server leaves the file behind: it must be of this process.
        let pid = child.id().to_string();
        let ready = || {
            let lines = std::fs::read_to_string(&lock).unwrap_or_default();
            let mut lines = lines.lines();
            lines.next() == Some(pid.as_str()) && lines.next_back().is_some_and(|line| line.trim() == "ready")
        };
        if process::wait_until(&mut child, ready) {
            self.child = Some(child);
            return true;
        }
        process::kill_with_children(&mut child);
        false
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            process::end(&mut child, signal);
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
    }
}

/// The newest server: unpacked for this build, or installed where Debian puts it or on the path.
fn installed() -> Option<PathBuf> {
    let debian = |root: &Path| {
        let versions = std::fs::read_dir(root.join("usr/lib/postgresql")).into_iter().flatten();
        let mut versions = versions.filter_map(Result::ok).map(|version| version.path()).collect::<Vec<_>>();
        versions.sort_by_key(|version| version.file_name()?.to_str()?.parse::<u32>().ok());
        versions.into_iter().rev().map(|version| version.join("bin")).collect::<Vec<_>>()
    };
    let mut found = debian(Path::new("/"));
    found.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    found.extend(crate::unpacked().iter().flat_map(|root| debian(root)));
    found.into_iter().find(|bin| bin.join("postgres").exists() && bin.join("initdb").exists())
}

/// A program of the server, with the libraries that were unpacked beside it.
fn command(host: &Host, bin: &Path, program: &str) -> std::process::Command {
    let mut command = process::unprivileged(host, &bin.join(program));
    if let Some(root) = crate::unpacked().filter(|root| bin.starts_with(root)) {
        let libraries = std::fs::read_dir(root.join("usr/lib")).into_iter().flatten().filter_map(Result::ok);
        let folders = libraries.map(|entry| entry.path()).filter(|path| path.is_dir());
        command.env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap());
    }
    command
}

fn init(bin: &Path, dir: &Path, host: &Host) {
    let password = dir.join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    process::hand_over(&password);
    let mut initdb = command(&Host::here(), bin, "initdb");
    initdb.args(["-U", USER, "-A", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale=C"]);
    initdb.arg(format!("--pwfile={}", password.display())).arg("-D").arg(dir.join("data"));
    let made = initdb.stdin(Stdio::null()).output().unwrap();
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    if *host != Host::here() {
        let mut access = File::options().append(true).open(dir.join("data/pg_hba.conf")).unwrap();
        writeln!(access, "host all all all scram-sha-256").unwrap();
    }
}
