//! The roles as processes of their own: this same executable, started, killed, started again.
//!
//! Owns: their command lines, their log files, their deaths. Never: outlived by them.
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use kapell_company::Credentials;
use tokio::process::{Child, Command};

/// The signal of `kill -9`.
const SIGKILL: i32 = 9;

/// Which role a child plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Coordinator,
    Worker,
    Connector,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Coordinator => "coordinator",
            Role::Worker => "worker",
            Role::Connector => "connector",
        }
    }
}

/// Where coordinators are.
#[derive(Clone, Debug)]
pub(super) enum Coordinators {
    /// The one that is started here, each time on the same address.
    Own(SocketAddr),
    /// A cluster that runs already.
    Running(Vec<String>),
}

impl Coordinators {
    /// Those that run already or, if none are named, one to be started here.
    pub(super) fn of(running: &[String]) -> anyhow::Result<Coordinators> {
        Ok(if running.is_empty() {
            Coordinators::Own(free_address()?)
        } else {
            Coordinators::Running(running.to_vec())
        })
    }

    /// `HOST:PORT` of each.
    pub(super) fn addresses(&self) -> Vec<String> {
        match self {
            Coordinators::Own(address) => vec![address.to_string()],
            Coordinators::Running(addresses) => addresses.clone(),
        }
    }
}

/// How to start any of them.
#[derive(Clone, Debug)]
pub(super) struct Troupe {
    executable: PathBuf,
    folder: PathBuf,
    coordinators: Coordinators,
    credentials: Credentials,
}

/// One running role. Dropping it kills it.
#[derive(Debug)]
pub(super) struct RoleProcess {
    role: Role,
    child: Child,
}

impl Troupe {
    pub(super) fn new(
        folder: &Path,
        coordinators: Coordinators,
        credentials: Credentials,
    ) -> anyhow::Result<Troupe> {
        let executable = std::env::current_exe().context("this executable cannot be found")?;
        Ok(Troupe { executable, folder: folder.to_owned(), coordinators, credentials })
    }

    /// Where to ask.
    pub(super) fn coordinators(&self) -> &Coordinators {
        &self.coordinators
    }

    /// The coordinator, unless others run it.
    pub(super) fn start_coordinator(&self) -> anyhow::Result<Option<RoleProcess>> {
        match self.coordinators {
            Coordinators::Own(_) => self.start(Role::Coordinator).map(Some),
            Coordinators::Running(_) => Ok(None),
        }
    }

    pub(super) fn start(&self, role: Role) -> anyhow::Result<RoleProcess> {
        let log = self.folder.join(format!("{}.log", role.name()));
        let out = OpenOptions::new().create(true).append(true).open(&log);
        let out = out.with_context(|| format!("{} cannot be written", log.display()))?;
        let errors = out.try_clone()?;
        let mut command = Command::new(&self.executable);
        command.arg(role.name()).args(self.arguments(role));
        command.env("NORTH_SHOP_TOKEN", &self.credentials.north_token);
        command.env("SOUTH_SHOP_KEY", &self.credentials.south_key);
        command.stdin(Stdio::null()).stdout(out).stderr(errors).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("the {} cannot be started", role.name()))?;
        Ok(RoleProcess { role, child })
    }

    fn arguments(&self, role: Role) -> Vec<String> {
        let address = self.coordinators.addresses().join(",");
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        match role {
            Role::Coordinator => {
                let data = self.folder.join("kapell").display().to_string();
                // A short lease, so that nobody has to wait long until a killed worker counts as gone.
                text(&["--data", &data, "--listen", &address, "--heartbeat", "200ms", "--lease", "1s"])
            }
            Role::Worker => text(&["--name", "demo-worker", "--coordinator", &address]),
            Role::Connector => text(&["--name", "demo-connector", "--coordinator", &address]),
        }
    }
}

impl RoleProcess {
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// An error when it has died by itself.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("the {} ended by itself ({status}); see {}.log", self.role.name(), self.role.name())
            }
        }
    }

    /// `kill -9`, and waits until it is gone. True when the signal is what ended it.
    pub(super) async fn kill(&mut self) -> anyhow::Result<bool> {
        self.child.start_kill()?;
        Ok(self.child.wait().await?.signal() == Some(SIGKILL))
    }
}

/// A port that nobody listens on now. The coordinator must come back on the same one.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no port is free")?;
    Ok(listener.local_addr()?)
}
