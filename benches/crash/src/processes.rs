//! The processes that are killed.
//!
//! Owns: how a role is started, killed and started again. Never: ends a process that it did not start.
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use kapell_runtime::Entropy;
use tokio::process::{Child, Command};

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Decides and writes the journal.
    Coordinator,
    /// Runs specialists.
    Worker,
    /// Calls outside systems.
    Connector,
}

impl Role {
    /// All of them, coordinator first.
    pub(crate) const ALL: [Role; 3] = [Role::Coordinator, Role::Worker, Role::Connector];

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Coordinator => "coordinator",
            Role::Worker => "worker",
            Role::Connector => "connector",
        }
    }
}

/// Where things are.
pub(crate) struct Site {
    /// The binary that plays every role.
    pub(crate) kapell: PathBuf,
    /// Data and logs.
    pub(crate) dir: PathBuf,
    /// `HOST:PORT` of the coordinator.
    pub(crate) address: String,
}

/// One process of each role.
pub(crate) struct Processes {
    site: Site,
    running: Vec<(Role, Child)>,
}

impl Processes {
    /// Starts all roles.
    pub(crate) fn start(site: Site) -> anyhow::Result<Processes> {
        let running = Role::ALL.map(|role| spawn(&site, role).map(|child| (role, child)));
        let running = running.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Processes { site, running })
    }

    /// Kills the process of a role without warning and starts it again at once. It must have been alive: one that
    /// ended by itself is a finding of its own.
    pub(crate) async fn kill_and_restart(&mut self, role: Role) -> anyhow::Result<()> {
        for (of, child) in &mut self.running {
            if *of != role {
                continue;
            }
            if let Some(status) = child.try_wait()? {
                bail!("the {} ended by itself ({status}); see its log", role.name());
            }
            child.kill().await?;
            *child = spawn(&self.site, role)?;
        }
        Ok(())
    }

    /// Roles that ended by themselves.
    pub(crate) fn died(&mut self) -> anyhow::Result<Vec<Role>> {
        let mut died = Vec::new();
        for (role, child) in &mut self.running {
            if child.try_wait()?.is_some() {
                died.push(*role);
            }
        }
        Ok(died)
    }
}

fn spawn(site: &Site, role: Role) -> anyhow::Result<Child> {
    let log = log_file(&site.dir, role)?;
    let mut command = Command::new(&site.kapell);
    command.arg(role.name());
    match role {
        Role::Coordinator => {
            command.arg("--data").arg(site.dir.join("data"));
            // Short, so that what a dead worker held is given away within a second or two of the matrix.
            command.args(["--listen", &site.address, "--heartbeat", "200ms", "--lease", "1s"]);
        }
        Role::Worker | Role::Connector => {
            command.args(["--coordinator", &site.address, "--name", role.name()]);
        }
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {}", site.kapell.display()))
}

fn log_file(dir: &Path, role: Role) -> anyhow::Result<File> {
    let path = dir.join(format!("{}.log", role.name()));
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A free port below those that the system gives to outgoing connections: one of these could take the port while the
/// coordinator is down.
pub(crate) fn free_address(entropy: &dyn Entropy) -> anyhow::Result<String> {
    for _ in 0..100 {
        let address = format!("127.0.0.1:{}", 20_000 + entropy.below(10_000));
        if TcpListener::bind(&address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port between 20000 and 30000")
}
