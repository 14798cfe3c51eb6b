//! One process of the system under test.
//!
//! Owns: starting, killing, stopping and starting it again. Never: ends a process that it did not start.
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Time that a process gets to end in order.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// A process that can be started any number of times.
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    make: Box<dyn Fn() -> std::process::Command>,
    /// `None` while it is down.
    child: Option<Child>,
}

impl Process {
    /// Starts it; its log is `NAME.log` in `dir`.
    pub(crate) fn start(
        name: &str,
        dir: &Path,
        make: impl Fn() -> std::process::Command + 'static,
    ) -> anyhow::Result<Process> {
        let log = dir.join(format!("{name}.log"));
        let mut process = Process { name: name.to_owned(), log, make: Box::new(make), child: None };
        process.start_again()?;
        Ok(process)
    }

    /// Starts it where it is down.
    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = Command::from((self.make)());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().with_context(|| format!("cannot start {}", self.name))?);
        Ok(())
    }

    /// Without warning. It must have been alive: one that ended by itself is a finding of its own.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.alive()?.kill().await?;
        self.child = None;
        Ok(())
    }

    /// Kills it and starts it at once.
    pub(crate) async fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        self.kill().await?;
        self.start_again()
    }

    /// Lets it end in order, and waits for it.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        self.send(Signal::TERM)?;
        let name = self.name.clone();
        let ended = timeout(END_PATIENCE, self.alive()?.wait()).await;
        let status = ended.with_context(|| format!("{name} does not end when it is told to"))??;
        if !status.success() {
            bail!("{name} ended with {status} when it was told to end; see its log");
        }
        self.child = None;
        Ok(())
    }

    /// It stands still; its connections stay open and silent.
    pub(crate) fn freeze(&mut self) -> anyhow::Result<()> {
        self.send(Signal::STOP)
    }

    /// It goes on as if no time had passed.
    pub(crate) fn thaw(&mut self) -> anyhow::Result<()> {
        self.send(Signal::CONT)
    }

    /// Its name, if it ended without being told to.
    pub(crate) fn died(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.status()?.map(|_| self.name.clone()))
    }

    /// How many lines of its log say so.
    pub(crate) fn logged(&self, text: &str) -> anyhow::Result<usize> {
        let log = std::fs::read_to_string(&self.log)?;
        Ok(log.lines().filter(|line| line.contains(text)).count())
    }

    fn status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.as_mut().map(Child::try_wait).transpose()?.flatten())
    }

    fn alive(&mut self) -> anyhow::Result<&mut Child> {
        if let Some(status) = self.status()? {
            bail!("{} ended by itself ({status}); see its log", self.name);
        }
        self.child.as_mut().with_context(|| format!("{} is down", self.name))
    }

    fn send(&mut self, signal: Signal) -> anyhow::Result<()> {
        let id = self.alive()?.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        Ok(kill_process(id.context("the process is gone")?, signal)?)
    }
}
