//! Processes under measurement, and what the system says about them.
//!
//! Owns: starting, killing and ending them, their folders and ports, their memory. Never: leaves one behind.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;

/// One process; ended when dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Starts it in sight of nobody: what it says goes to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let shown = process::shown(command);
        let log = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn().with_context(|| format!("cannot start `{shown}`"))?))
    }

    /// SIGKILL, and wait until it is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// SIGTERM, and wait until it has ended.
    pub(crate) fn end(&mut self) -> Result<()> {
        process::output(Command::new("kill").args(["-TERM", &self.0.id().to_string()]))?;
        self.0.wait()?;
        Ok(())
    }

    /// Proportional share of memory, in MiB.
    pub(crate) fn memory_mib(&self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0.id()))?;
        let line = text.lines().find(|line| line.starts_with("Pss:")).context("no Pss in smaps_rollup")?;
        let kib: f64 = line.split_whitespace().nth(1).context("an empty Pss")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// As [`processor_secs`].
    pub(crate) fn processor_secs(&self) -> Result<f64> {
        processor_secs(self.0.id())
    }
}

/// Processor time that a process and all its children have used, those that have ended too; in seconds.
pub(crate) fn processor_secs(process: u32) -> Result<f64> {
    let own = secs_of(&std::fs::read_to_string(format!("/proc/{process}/stat"))?)?;
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"))?;
    // One that ends meanwhile counts for its parent the next time.
    Ok(children.split_whitespace().filter_map(|child| processor_secs(child.parse().ok()?).ok()).sum::<f64>()
        + own)
}

/// Of a line of `/proc/PID/stat`, with those children that have ended.
fn secs_of(stat: &str) -> Result<f64> {
    // What Linux counts in, on every platform.
    const TICKS_PER_SEC: f64 = 100.0;
    // The name before it may have spaces and brackets. utime, stime, cutime and cstime are the fields 14 to 17.
    let (_, fields) = stat.rsplit_once(')').context("a process without a name")?;
    let ticks = fields.split_whitespace().skip(11).take(4).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SEC)
}

/// Bytes that have gone through the loopback interface: all that processes on this machine have told each other.
pub(crate) fn loopback_bytes() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/net/dev")?;
    let loopback = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let received = loopback.and_then(|line| line.split_whitespace().next());
    Ok(received.context("no loopback interface")?.parse()?)
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already, which is as good.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An empty folder for one workload, on the disk that Cargo builds to: never in memory.
pub(crate) fn fresh_folder(target: &Path, name: &str) -> Result<PathBuf> {
    let folder = target.join("bench").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// One free port.
pub(crate) fn free_address() -> Result<String> {
    free_addresses(1)?.pop().context("one port was asked for")
}

/// Free ports below those that the system gives to outgoing connections: one of these could take a port while its
/// owner is down.
pub(crate) fn free_addresses(count: usize) -> Result<Vec<String>> {
    // Two benchmarks at once begin their search at different places.
    let first = 20_000 + std::process::id() % 5_000;
    let all = (first..30_000).map(|port| format!("127.0.0.1:{port}"));
    let free: Vec<String> = all.filter(|address| TcpListener::bind(address).is_ok()).take(count).collect();
    if free.len() < count {
        bail!("no free port below 30000");
    }
    Ok(free)
}

/// As [`free_addresses`], with ports one after the other.
pub(crate) fn free_addresses_in_a_row(count: usize) -> Result<Vec<String>> {
    let first = 20_000 + std::process::id() as usize % 5_000;
    let row = |begin: usize| (begin..begin + count).map(|port| format!("127.0.0.1:{port}"));
    let mut rows = (first..30_000 - count).step_by(count);
    let found = rows.find(|begin| row(*begin).all(|address| TcpListener::bind(address).is_ok()));
    Ok(row(found.context("no free ports in a row below 30000")?).collect())
}

/// The one line of JSON that a load generator prints.
pub(crate) fn answer(command: &mut Command) -> Result<Value> {
    let text = process::output(command)?;
    let line = text.lines().last().context("the load generator printed nothing")?;
    serde_json::from_str(line).with_context(|| format!("the load generator printed {line}"))
}

/// A number of such a line.
pub(crate) fn number(answer: &Value, field: &str) -> Result<f64> {
    answer[field].as_f64().with_context(|| format!("no {field} in {answer}"))
}

/// Size in MiB.
pub(crate) fn size_mib(file: &Path) -> Result<f64> {
    #[expect(clippy::cast_precision_loss, reason = "no file has 2^52 bytes")]
    Ok(std::fs::metadata(file)?.len() as f64 / 1024.0 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_whatever_the_process_is_called() {
        let stat = "7 (a) 1 (b) S 1 7 7 0 -1 4194560 1 2 3 4 100 20 3000 400 20 0 1 0 9 9 9";
        assert!((secs_of(stat).unwrap() - 35.2).abs() < 1e-9);
        assert!(secs_of("7 nothing").is_err());
        assert!(processor_secs(std::process::id()).is_ok() && loopback_bytes().is_ok());
    }
}
