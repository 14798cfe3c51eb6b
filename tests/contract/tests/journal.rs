//! The journal contract against the local journal, on real files and on the disk that fails, and the reference.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::sync::Arc;

use kapell_journal::Journal;
use kapell_journal_local::fault::{Crash, FaultDisk};
use kapell_journal_local::{Driver, LocalJournal, Options, RealDisk};
use kapell_tests_contract::journal::{SqliteJournal, Stop, Store};
use kapell_tests_contract::journal_contract;
use tempfile::TempDir;

/// Small segments, so that every case meets many of them.
fn small() -> Options {
    Options { segment_bytes: 16 << 10, checkpoint_files_max: 4, salt_seed: 1, ..Options::default() }
}

struct Real {
    dir: TempDir,
}

impl Store for Real {
    fn open(&mut self) -> Arc<dyn Journal> {
        let disk = RealDisk::open(&self.dir.path().join("journal")).unwrap();
        Arc::new(LocalJournal::open(Arc::new(disk), small(), Driver::Thread).unwrap())
    }
    fn stop(&mut self, _how: Stop) {
        // The kernel keeps what was written; losing it is what the other disk is for.
    }
}

struct Failing {
    disk: FaultDisk,
}

impl Store for Failing {
    fn open(&mut self) -> Arc<dyn Journal> {
        Arc::new(LocalJournal::open(Arc::new(self.disk.clone()), small(), Driver::Inline).unwrap())
    }
    fn stop(&mut self, how: Stop) {
        match how {
            Stop::Clean => {}
            Stop::Crash { seed } => self.disk.crash(Crash::Random { seed }),
        }
    }
}

struct Sqlite {
    dir: TempDir,
}

impl Store for Sqlite {
    fn open(&mut self) -> Arc<dyn Journal> {
        Arc::new(SqliteJournal::open(&self.dir.path().join("journal.sqlite")).unwrap())
    }
    fn stop(&mut self, _how: Stop) {
        // SQLite answers for its own crash safety.
    }
}

journal_contract!(local_on_files, || Some(Real { dir: tempfile::tempdir().unwrap() }));
journal_contract!(local_inline_on_a_failing_disk, || Some(Failing { disk: FaultDisk::new() }));
journal_contract!(sqlite_reference, || Some(Sqlite { dir: tempfile::tempdir().unwrap() }));
