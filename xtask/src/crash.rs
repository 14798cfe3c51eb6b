//! The crash matrix: kill -9 of every role at random moments, judged by the books of the business.
//!
//! Owns: building what takes part and starting it. Never: judges (`kapell-crash` does).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::report::{Format, Verdict};
use crate::workspace::{Profile, Workspace};

/// Kill every role again and again under load and judge by the books of the business
///
/// Starts a coordinator, a worker and a connector, keeps orders in flight against a business system that does
/// everything twice that it is told twice, and kills each role with SIGKILL at random moments. Holds when no accepted
/// order is lost, done twice, stuck or failed, and `doctor` finds nothing. The seed decides who is killed when and is
/// printed. Logs, and the stories of runs that went wrong, stay in target/crash/matrix.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kills of each role
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// Repeat the kills of an earlier matrix
    #[arg(long)]
    seed: Option<u64>,
    /// Another version of `kapell`: each role is of that and of this one in turn
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
}

impl Args {
    /// A matrix small enough to run with the tests.
    pub(crate) fn small() -> Self {
        Self { kills: 3, seed: None, beside: None }
    }

    /// A matrix that can be repeated.
    pub(crate) fn of(kills: u32, seed: u64) -> Self {
        Self { kills, seed: Some(seed), beside: None }
    }

    pub(crate) fn run(&self, workspace: &Workspace) -> Result<Verdict> {
        self.run_as(workspace, Profile::Release)
    }

    /// As a stage of the tests.
    pub(crate) fn run_as_built(&self, workspace: &Workspace) -> Result<Verdict> {
        self.run_as(workspace, as_built(workspace))
    }

    fn run_as(&self, workspace: &Workspace, profile: Profile) -> Result<Verdict> {
        let mut crash = trial(workspace, profile, None, &["matrix", "--kills", &self.kills.to_string()])?;
        if let Some(seed) = self.seed {
            crash.args(["--seed", &seed.to_string()]);
        }
        beside(&mut crash, self.beside.as_deref())?;
        // Its lines are the answer already, so they stay on standard output in both forms.
        process::watched(&mut crash, Format::Table)
    }
}

/// Has processes of another version take part.
pub(crate) fn beside(trial: &mut Command, other: Option<&Path>) -> Result<()> {
    if let Some(other) = other {
        let other = other.canonicalize().with_context(|| format!("there is no {}", other.display()))?;
        trial.arg("--beside").arg(other);
    }
    Ok(())
}

/// The release build where there is one already: it is brought up to date in little time then.
pub(crate) fn as_built(workspace: &Workspace) -> Profile {
    let is_built = workspace.program(Profile::Release, "kapell").exists();
    if is_built { Profile::Release } else { Profile::Dev }
}

/// `kapell-crash` with these arguments and with all that takes part, built; logs go below the target directory, in a
/// folder with the name of the trial. `within` is a command that runs the rest of its line.
pub(crate) fn trial(
    workspace: &Workspace,
    profile: Profile,
    within: Option<&[&str]>,
    arguments: &[&str],
) -> Result<Command> {
    match workspace.build(profile, &["kapell", "kapell-crash", "kapell-company"])? {
        Verdict::Holds => {}
        Verdict::Broken => bail!("what takes part does not build"),
    }
    let dir = workspace.target().join("crash").join(arguments.first().copied().unwrap_or_default());
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let program = workspace.program(profile, "kapell-crash");
    let mut crash = match within {
        Some([first, rest @ ..]) => {
            let mut outer = Command::new(first);
            outer.args(rest).arg(program);
            outer
        }
        Some([]) | None => Command::new(program),
    };
    crash.args(arguments).arg("--dir").arg(&dir);
    crash.arg("--kapell").arg(workspace.program(profile, "kapell"));
    crash.arg("--company").arg(workspace.program(profile, "company"));
    if workspace.format() == Format::JsonLines {
        crash.arg("--json");
    }
    Ok(crash)
}
