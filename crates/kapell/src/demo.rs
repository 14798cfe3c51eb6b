//! `kapell demo`: the product on a small company, with processes that die in the middle.
//!
//! Owns: what may be typed, the folder, and whether it went well. Never: acts on the company; only the roles that it starts
//! do, from the definitions in `examples/vendor-pricing`.
mod api;
mod children;
mod definitions;
mod questions;
mod screen;
mod story;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use screen::Screen;
use story::Ending;

/// What a shell sees when a demonstration was interrupted.
const INTERRUPTED: i32 = 130;

/// How to show it.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoSettings {
    /// Approve what a person is asked, without asking; for scripts.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print what happened in the run, entry by entry, with reasons.
    #[arg(long)]
    pub(crate) story: bool,
    /// Show it on a cluster that runs already, instead of a coordinator of its own; name its coordinators. They are
    /// left alone: only the worker is killed.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub(crate) cluster: Vec<String>,
    /// Keep everything in this folder, which must be new or empty.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

/// Where everything is while it runs.
enum Folder {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn new(keep: Option<&Path>) -> anyhow::Result<Folder> {
        let Some(wanted) = keep else {
            let made = tempfile::Builder::new().prefix("kapell-demo-").tempdir();
            return Ok(Folder::Temporary(made.context("no temporary folder can be made")?));
        };
        let shown = wanted.display();
        std::fs::create_dir_all(wanted).with_context(|| format!("{shown} cannot be made"))?;
        let mut inside = std::fs::read_dir(wanted).with_context(|| format!("{shown} cannot be read"))?;
        if inside.next().is_some() {
            bail!("{shown} is not empty; a demonstration begins on its first day, so give it a new folder");
        }
        Ok(Folder::Kept(std::path::absolute(wanted)?))
    }

    fn path(&self) -> &Path {
        match self {
            Folder::Temporary(folder) => folder.path(),
            Folder::Kept(path) => path,
        }
    }

    /// What went wrong must stay to be looked at.
    fn keep(self) -> PathBuf {
        match self {
            Folder::Temporary(folder) => folder.keep(),
            Folder::Kept(path) => path,
        }
    }
}

/// Shows it, and says whether everything that had to happen happened once.
pub(crate) async fn run(settings: &DemoSettings) -> anyhow::Result<()> {
    let screen = Screen::new();
    if !settings.yes && !screen.can_ask() {
        bail!(
            "a person has to approve something, and there is nobody at a terminal; pass --yes to approve it"
        );
    }
    let folder = Folder::new(settings.keep.as_deref())?;
    let outcome = tokio::select! {
        outcome = story::play(folder.path(), settings, &screen) => outcome,
        () = interrupted() => {
            // Dropping the story has killed the children. A question that waits at the terminal would hold an
            // ordinary return back.
            drop(folder);
            std::process::exit(INTERRUPTED);
        }
    };
    match outcome {
        Ok(ending) => conclude(ending, settings, folder, &screen),
        Err(error) => {
            let kept = folder.keep();
            Err(error
                .context(format!("the demonstration broke off; logs and data are in {}", kept.display())))
        }
    }
}

fn conclude(ending: Ending, settings: &DemoSettings, folder: Folder, screen: &Screen) -> anyhow::Result<()> {
    let Ending { table, run, story } = ending;
    screen.lines(&story);
    screen.lines(&table.lines());
    match settings.keep.as_deref() {
        Some(_) if !settings.cluster.is_empty() => {
            let address = &settings.cluster[0];
            screen.lines(&[format!("Look again: kapell run explain {run} --address {address}")]);
        }
        Some(kept) => {
            let data = kept.join("kapell");
            screen.lines(&[
                format!("Look again: kapell dev --data {}", data.display()),
                format!("and then:   kapell run explain {run}"),
            ]);
        }
        None if settings.story => {}
        None => screen.lines(&["What happened and why: kapell demo --story".to_owned()]),
    }
    match table.count_wrong() {
        0 => Ok(()),
        wrong => bail!("{wrong} rows are not ok; logs and data are in {}", folder.keep().display()),
    }
}

/// Waits for SIGTERM or SIGINT.
async fn interrupted() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
