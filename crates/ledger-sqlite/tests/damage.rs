//! Files that are damaged, foreign, or in the wrong place: typed answers that say what to do, and nothing is touched.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs;
use std::path::{Path, PathBuf};

use futures::executor::block_on;
use kapell_ledger::{Ledger as _, LedgerBatch, LedgerError, Part, RunQuery, RunRow, RunState};
use kapell_ledger_sqlite::{Mode, SqliteLedger};
use kapell_model::{Name, RunId, Seq, ShardId, Timestamp};
use rusqlite::Connection;
use tempfile::TempDir;

const PAGE_BYTES: usize = 8192;
const MODES: [Mode; 2] = [Mode::Thread, Mode::Inline];

fn refusal(path: &Path, mode: Mode) -> LedgerError {
    SqliteLedger::open(path, mode).err().expect("it is refused")
}

fn misplaced(path: &Path, hint: &str) {
    for mode in MODES {
        let error = refusal(path, mode);
        let text = error.to_string();
        assert!(matches!(error, LedgerError::Misplaced { .. }), "{error:?}");
        assert!(text.contains(&path.display().to_string()) && text.contains(hint), "{text}");
    }
}

fn unreadable(path: &Path, hint: &str) {
    for mode in MODES {
        let error = refusal(path, mode);
        let text = error.to_string();
        assert!(matches!(error, LedgerError::Unreadable { .. }), "{error:?}");
        assert!(text.contains("kapell ledger rebuild") && text.contains(hint), "{text}");
    }
}

fn row(low: u128) -> RunRow {
    RunRow {
        run: RunId::new(ShardId(0), low),
        namespace: Name::default_namespace(),
        workflow: Name::new("w").unwrap(),
        version: "v".repeat(64),
        key: None,
        state: RunState::Running,
        accepted: Timestamp(low as u64),
        ended: None,
        error: None,
        output: None,
        outcome: None,
        parent: None,
        entities: vec![],
        approvals: vec![],
    }
}

/// A ledger with some rows, closed in order.
fn made() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    let ledger = SqliteLedger::open(&path, Mode::Inline).unwrap();
    block_on(ledger.apply(LedgerBatch {
        shard: ShardId(0),
        through: Seq(1),
        runs: (0..500).map(row).collect(),
        part: Part::Last,
    }))
    .unwrap();
    drop(ledger);
    (dir, path)
}

#[test]
fn a_text_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.txt");
    let text = "not a database, but somebody's notes\n".repeat(100);
    fs::write(&path, &text).unwrap();
    misplaced(&path, "name another file");
    assert!(matches!(SqliteLedger::remove(&path), Err(LedgerError::Misplaced { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was put beside it");
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for (name, sql) in [
        (
            "tables.sqlite",
            "CREATE TABLE runs (id INTEGER PRIMARY KEY, mine TEXT); INSERT INTO runs VALUES (1, 'x')",
        ),
        ("marked.sqlite", "PRAGMA application_id = 42"),
        ("versioned.sqlite", "PRAGMA user_version = 1"),
    ] {
        let path = dir.path().join(name);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let before = fs::read(&path).unwrap();
        misplaced(&path, "belongs to another program");
        assert!(matches!(SqliteLedger::remove(&path), Err(LedgerError::Misplaced { .. })), "{name}");
        assert!(fs::read(&path).unwrap() == before, "{name} was changed");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing was put beside them");
}

#[test]
fn another_schema_is_unreadable_and_can_be_rebuilt() {
    for (sql, hint) in [
        ("PRAGMA user_version = 2", "has schema 2, this program knows 1"),
        ("PRAGMA user_version = 0", "has schema 0"),
        ("DROP INDEX runs_by_key", "tables"),
        ("ALTER TABLE runs ADD COLUMN extra TEXT", "tables"),
        ("CREATE TABLE more (id INTEGER)", "tables"),
    ] {
        let (_dir, path) = made();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        unreadable(&path, hint);
        SqliteLedger::remove(&path).unwrap();
        let anew = SqliteLedger::open(&path, Mode::Thread).unwrap();
        assert_eq!(block_on(anew.watermark(ShardId(0))), Ok(Seq::ZERO), "{sql}");
    }
}

/// Bytes are overwritten from behind the header on: at opening or at the first use, but never a wrong row.
#[test]
fn damage_is_noticed_and_never_panics() {
    let (_dir, path) = made();
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole[16..18], (PAGE_BYTES as u16).to_be_bytes());
    let expected = {
        let ledger = SqliteLedger::open(&path, Mode::Inline).unwrap();
        block_on(ledger.runs(RunQuery { limit: 1_000, ..RunQuery::default() })).unwrap()
    };
    let mut noticed = 0;
    for page in 0..whole.len() / PAGE_BYTES {
        let mut damaged = whole.clone();
        let start = if page == 0 { 100 } else { page * PAGE_BYTES };
        damaged[start..(page + 1) * PAGE_BYTES].fill(0x5a);
        fs::write(&path, &damaged).unwrap();
        let outcome = SqliteLedger::open(&path, Mode::Thread)
            .and_then(|ledger| block_on(ledger.runs(RunQuery { limit: 1_000, ..RunQuery::default() })));
        match outcome {
            // A page that this query does not need.
            Ok(found) => assert_eq!(found, expected, "page {page}"),
            Err(LedgerError::Unreadable { .. }) => noticed += 1,
            Err(other) => panic!("page {page}: {other:?}"),
        }
    }
    assert!(noticed >= 5, "{noticed} of {} pages", whole.len() / PAGE_BYTES);
}

#[test]
fn a_row_that_makes_no_sense_is_unreadable() {
    for sql in [
        "UPDATE runs SET state = 'unheard' WHERE id = 3",
        "UPDATE runs SET namespace = 'No Name' WHERE id = 3",
        "UPDATE runs SET output = '{' WHERE id = 3",
        "UPDATE runs SET entities = '[1]' WHERE id = 3",
        "UPDATE runs SET ended = -1 WHERE id = 3",
        "UPDATE runs SET error_class = 'half' WHERE id = 3",
        "UPDATE runs SET parent = x'00' WHERE id = 3",
        "UPDATE runs SET run = x'0102' WHERE id = 3",
    ] {
        let (_dir, path) = made();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let ledger = SqliteLedger::open(&path, Mode::Thread).unwrap();
        // Whatever the state is called now, the key-less walk of one state may not see it: ask for the row itself.
        let found = block_on(ledger.run(RunId::new(ShardId(0), 2)));
        let listed = block_on(ledger.runs(RunQuery { limit: 1_000, ..RunQuery::default() }));
        let noticed = [found.err(), listed.err()].into_iter().flatten().collect::<Vec<_>>();
        assert!(!noticed.is_empty(), "{sql}");
        assert!(
            noticed.iter().all(|error| matches!(error, LedgerError::Unreadable { .. })),
            "{sql}: {noticed:?}"
        );
    }
}

#[test]
fn a_place_that_cannot_be_written_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    misplaced(&dir.path().join("missing").join("ledger.sqlite"), "its directory exists");
    misplaced(dir.path(), "may write both");
    // Nobody can create a file there, not even the superuser, who passes every other check of rights.
    misplaced(Path::new("/proc/ledger.sqlite"), "may write both");
}

#[cfg(unix)]
#[test]
fn a_read_only_directory_is_named_with_what_to_do() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, path) = made();
    let allow = |mode: u32| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    let ignored_by_the_superuser = fs::write(dir.path().join("probe"), "").is_ok();
    if !ignored_by_the_superuser {
        misplaced(&dir.path().join("new.sqlite"), "may write both");
        misplaced(&path, "may write both");
    }
    allow(0o755);
    assert!(SqliteLedger::open(&path, Mode::Thread).is_ok());
}

#[test]
fn removing_what_is_not_there_is_fine() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(SqliteLedger::remove(&dir.path().join("none")), Ok(()));
    let empty = dir.path().join("empty");
    fs::write(&empty, "").unwrap();
    assert_eq!(SqliteLedger::remove(&empty), Ok(()));
}
