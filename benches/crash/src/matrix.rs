//! The crash matrix: one coordinator, worker and connector are killed at random moments under load, while they act on
//! a business system that does everything twice that it is told twice.
//!
//! Owns: the order of kills. Never: judges them.
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::bail;
use kapell_runtime::{Entropy, SeededEntropy, SystemEntropy};
use tokio::time::{Instant, sleep};

use crate::load::Load;
use crate::process::Process;
use crate::report::Fault;
use crate::trial::{Given, System, pause};

/// Load without kills at the beginning, so that the first kill meets work.
const RAMP: Duration = Duration::from_millis(1_500);

/// One kill of so many waits first until so many runs have ended, at most so long.
const BREATH_EVERY: u64 = 3;
const BREATH_RUNS: u64 = 64;
const BREATH_PATIENCE: Duration = Duration::from_secs(4);

/// As on the command line.
const ROLES: [&str; 3] = ["coordinator", "worker", "connector"];

/// One process of each role.
pub(crate) struct Matrix {
    processes: [Process; 3],
    address: String,
    /// Of each role.
    kills: u32,
}

impl Matrix {
    /// Starts all roles.
    pub(crate) fn start(given: &Given, kills: u32) -> anyhow::Result<Matrix> {
        let address = free_address(&SystemEntropy)?;
        let role = |role: &'static str| {
            let (version, data, address) = (given.versions(), given.dir.join("data"), address.clone());
            Process::start(role, &given.dir, move || command(role, &version(), &data, &address))
        };
        let [coordinator, worker, connector] = ROLES.map(role);
        Ok(Matrix { processes: [coordinator?, worker?, connector?], address, kills })
    }
}

fn command(role: &str, kapell: &PathBuf, data: &PathBuf, address: &str) -> Command {
    let mut command = Command::new(kapell);
    command.arg(role);
    if role == "coordinator" {
        // Short, so that what a dead worker held is given away within a second or two of the matrix.
        command.args(["--listen", address, "--heartbeat", "200ms", "--lease", "1s"]).arg("--data").arg(data);
    } else {
        command.args(["--coordinator", address, "--name", role]);
    }
    command
}

impl System for Matrix {
    fn addresses(&self) -> String {
        self.address.clone()
    }

    /// Kills each role so many times, in random order.
    async fn suffer(&mut self, dice: &SeededEntropy, load: &Load) -> anyhow::Result<Vec<Fault>> {
        sleep(RAMP).await;
        let mut left = ROLES.map(|_| self.kills);
        let all = u64::from(self.kills) * left.len() as u64;
        let mut faults = Vec::new();
        for done in 0..all {
            // Kills in quick succession hit recovery itself; a breath now and then lets new work begin.
            if dice.below(BREATH_EVERY) == 0 {
                load.progress(BREATH_RUNS, BREATH_PATIENCE).await;
            }
            sleep(pause(dice)).await;
            let mut place = dice.below(all - done);
            for (role, kills) in left.iter_mut().enumerate() {
                if place < u64::from(*kills) {
                    *kills -= 1;
                    faults.push(Fault {
                        name: ROLES[role].to_owned(),
                        at: Instant::now(),
                        acceptance_max: None,
                    });
                    self.processes[role].kill_and_restart().await?;
                    break;
                }
                place -= u64::from(*kills);
            }
            if (done + 1) % 30 == 0 {
                eprintln!("{} of {all} kills, {} orders accepted", done + 1, load.accepted().len());
            }
        }
        Ok(faults)
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.processes.iter_mut()
    }
}

/// A free port below those that the system gives to outgoing connections: one of these could take the port while the
/// coordinator is down.
fn free_address(entropy: &dyn Entropy) -> anyhow::Result<String> {
    for _ in 0..100 {
        let address = format!("127.0.0.1:{}", 20_000 + entropy.below(10_000));
        if TcpListener::bind(&address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port between 20000 and 30000")
}
