//! The ledger contract against SQLite: with its threads and inline, on files, and in memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kapell_ledger::Ledger;
use kapell_ledger_sqlite::{Mode, SqliteLedger};
use kapell_tests_contract::ledger::{LedgerStore, Stop};
use kapell_tests_contract::ledger_contract;
use tempfile::TempDir;

struct Files {
    dir: TempDir,
    mode: Mode,
    lives: u32,
}

impl Files {
    fn new(mode: Mode) -> Files {
        Files { dir: tempfile::tempdir().unwrap(), mode, lives: 0 }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(format!("ledger-{}.sqlite", self.lives))
    }
}

impl LedgerStore for Files {
    fn open(&mut self) -> Arc<dyn Ledger> {
        Arc::new(SqliteLedger::open(&self.path(), self.mode).unwrap())
    }

    /// A crash is played by going on from a copy of what is in the files while the ledger is still open: what a killed
    /// process leaves. The shared memory file is not copied, as it would not survive a restart of the machine.
    fn reopen(&mut self, open: Arc<dyn Ledger>, how: Stop) -> Arc<dyn Ledger> {
        match how {
            Stop::Clean => {}
            Stop::Crash => {
                let left = self.path();
                self.lives += 1;
                let named = |path: &Path, part: &str| PathBuf::from(format!("{}{part}", path.display()));
                std::fs::copy(&left, self.path()).unwrap();
                match std::fs::copy(named(&left, "-wal"), named(&self.path(), "-wal")) {
                    Ok(_) => {}
                    // Nothing was written since it was opened, so there is no log yet.
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
                }
            }
        }
        drop(open);
        self.open()
    }
}

/// Nothing to stop: it lives as long as whoever simulates.
struct Memory;

impl LedgerStore for Memory {
    fn open(&mut self) -> Arc<dyn Ledger> {
        Arc::new(SqliteLedger::in_memory().unwrap())
    }

    fn reopen(&mut self, open: Arc<dyn Ledger>, _how: Stop) -> Arc<dyn Ledger> {
        open
    }
}

ledger_contract!(sqlite_with_threads, || Some(Files::new(Mode::Thread)));
ledger_contract!(sqlite_inline, || Some(Files::new(Mode::Inline)));
ledger_contract!(sqlite_in_memory, || Some(Memory));
