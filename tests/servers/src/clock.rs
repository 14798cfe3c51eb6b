//! The clock of one process, which can step while it runs.
//!
//! Owns: the library that is loaded into the process, and the file that it reads. Never: touches a clock that does not
//! step (leases, time-outs), or the machine's.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The time of day of a process, as its environment.
#[derive(Clone, Debug)]
pub struct SteppedClock {
    library: PathBuf,
    file: PathBuf,
}

impl SteppedClock {
    /// A clock that is right, with its offset in `file`. `None`: the library is not there.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    #[must_use]
    pub fn right(file: &Path) -> Option<Self> {
        let clock = Self { library: installed()?, file: file.to_owned() };
        clock.step(0);
        Some(clock)
    }

    /// Gives the clock to a process that is to be started.
    pub fn give(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_CACHE_DURATION", "1");
    }

    /// Steps it to so many seconds before (negative) or after the machine's clock. The process sees it within a second.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    pub fn step(&self, seconds: i64) {
        // Never half of it: the process may read at any moment.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
    }
}

/// The one for programs with threads, of the machine or unpacked for this build.
fn installed() -> Option<PathBuf> {
    let roots = crate::unpacked().into_iter().chain([PathBuf::from("/")]);
    let folders = roots.flat_map(|root| std::fs::read_dir(root.join("usr/lib")).into_iter().flatten());
    let mut libraries =
        folders.filter_map(Result::ok).map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.exists())
}
