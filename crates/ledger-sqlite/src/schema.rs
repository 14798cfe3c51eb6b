//! The file: whose it is, which schema it has, and how a connection is set up.
//!
//! Owns: tables, indexes, the marks in the header. Never: changes a file that it did not make, or migrates (what is not
//! of this version is rebuilt from the journal).
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kapell_ledger::LedgerError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::trouble;

/// `KapL`, at a fixed place in the header of the file.
const APPLICATION_ID: i32 = 0x4B61_704C;
/// Raised with every change of [`TABLES`].
pub(crate) const SCHEMA_VERSION: i32 = 1;

/// `state` leads the ordered part of the list indexes: a list of all states is a merge of eight ordered walks, so that
/// one index serves lists with and without states. Namespaces come after key and entity, for lists over all tenants.
const TABLES: &str = "
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, run BLOB NOT NULL UNIQUE, namespace TEXT NOT NULL, workflow TEXT NOT NULL,
    version TEXT NOT NULL, key TEXT, state TEXT NOT NULL, accepted INTEGER NOT NULL, ended INTEGER,
    error_class TEXT, error_message TEXT, output TEXT, outcome TEXT, parent BLOB,
    entities TEXT, approvals INTEGER NOT NULL
) STRICT;
CREATE INDEX runs_by_state ON runs (state, accepted, run);
CREATE INDEX runs_by_namespace ON runs (namespace, state, accepted, run);
CREATE INDEX runs_by_workflow ON runs (workflow, namespace, state, accepted, run);
CREATE INDEX runs_by_key ON runs (key, namespace, accepted, run) WHERE key IS NOT NULL;
CREATE TABLE entities (
    entity TEXT NOT NULL, namespace TEXT NOT NULL, accepted INTEGER NOT NULL, run BLOB NOT NULL, id INTEGER NOT NULL,
    PRIMARY KEY (entity, namespace, accepted, run)
) STRICT, WITHOUT ROWID;
CREATE TABLE approvals (
    run BLOB NOT NULL, key TEXT NOT NULL, place INTEGER NOT NULL, namespace TEXT NOT NULL, accepted INTEGER NOT NULL,
    step TEXT NOT NULL, kind TEXT NOT NULL, ask TEXT NOT NULL, show TEXT NOT NULL, expires INTEGER,
    PRIMARY KEY (run, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX approvals_by_time ON approvals (accepted, run, key);
CREATE INDEX approvals_by_namespace ON approvals (namespace, accepted, run, key);
CREATE TABLE watermarks (shard INTEGER PRIMARY KEY, through INTEGER NOT NULL) STRICT;
";

/// How long a connection waits for another process that writes, such as a backup.
const BUSY_WAIT: Duration = Duration::from_secs(5);
const STATEMENTS_KEPT: usize = 64;
const WRITER_CACHE_KIB: i64 = 32 << 10;
const READER_CACHE_KIB: i64 = 8 << 10;
/// Twice the usual size: rows are appended, and larger pages are split and found less often.
const PAGE_BYTES: i64 = 8 << 10;
/// The log is moved into the file when it has this many pages (32 MiB): rarer is faster and takes more disk.
const CHECKPOINT_PAGES: i64 = 4 << 10;
/// Bytes of log file that are kept for reuse.
const LOG_KEPT_BYTES: i64 = 64 << 20;

/// The connection that writes. Makes the tables in a new file; refuses one that is not ours before it changes anything.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, LedgerError> {
    let opened = Connection::open_with_flags(path, flags() | OpenFlags::SQLITE_OPEN_CREATE);
    let mut conn = opened.map_err(|error| trouble::opening(path, &error))?;
    prepare(&mut conn, path)?;
    if conn.is_readonly("main").map_err(|error| trouble::opening(path, &error))? {
        let reason = format!("{} cannot be written; give this user the right to write it", path.display());
        return Err(LedgerError::Misplaced { reason });
    }
    let mode: String = conn
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(|error| trouble::opening(path, &error))?;
    if mode != "wal" {
        let reason =
            format!("the file system of {} cannot share memory; choose a local disk", path.display());
        return Err(LedgerError::Misplaced { reason });
    }
    tune(&conn, WRITER_CACHE_KIB).map_err(|error| trouble::opening(path, &error))?;
    Ok(conn)
}

/// The connection that reads what [`open_writer`] opened.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, LedgerError> {
    let open = || {
        let conn = Connection::open_with_flags(path, flags())?;
        tune(&conn, READER_CACHE_KIB)?;
        conn.pragma_update(None, "query_only", true)?;
        Ok(conn)
    };
    open().map_err(|error| trouble::opening(path, &error))
}

/// One connection to a database that ends with it.
pub(crate) fn open_in_memory() -> Result<Connection, LedgerError> {
    let place = Path::new(":memory:");
    let mut conn = Connection::open_in_memory().map_err(|error| trouble::opening(place, &error))?;
    prepare(&mut conn, place)?;
    tune(&conn, WRITER_CACHE_KIB).map_err(|error| trouble::opening(place, &error))?;
    Ok(conn)
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn tune(conn: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    conn.busy_timeout(BUSY_WAIT)?;
    // A commit may be lost with the power but never torn, and what is lost is applied again from the journal.
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    conn.pragma_update(None, "cache_size", -cache_kib)?;
    conn.pragma_update(None, "journal_size_limit", LOG_KEPT_BYTES)?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
}

struct Marks {
    application_id: i32,
    version: i32,
    schema: Vec<String>,
}

impl Marks {
    fn read(conn: &Connection) -> rusqlite::Result<Marks> {
        let mut list = conn.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")?;
        Ok(Marks {
            application_id: conn.query_row("PRAGMA application_id", [], |row| row.get(0))?,
            version: conn.query_row("PRAGMA user_version", [], |row| row.get(0))?,
            schema: list.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?,
        })
    }

    fn is_empty(&self) -> bool {
        self.application_id == 0 && self.version == 0 && self.schema.is_empty()
    }

    fn judge(&self, path: &Path) -> Result<(), LedgerError> {
        let place = path.display();
        if self.application_id != APPLICATION_ID {
            let reason =
                format!("{place} belongs to another program and is left alone; {}", trouble::ELSEWHERE);
            return Err(LedgerError::Misplaced { reason });
        }
        if self.version != SCHEMA_VERSION {
            let found = self.version;
            let reason = format!("{place} has schema {found}, this program knows {SCHEMA_VERSION}");
            return Err(LedgerError::Unreadable { reason });
        }
        let expected = TABLES.split(';').map(str::trim).filter(|text| !text.is_empty());
        if !expected.eq(self.schema.iter().map(|text| text.trim())) {
            let reason = format!("the tables of {place} are not those of schema {SCHEMA_VERSION}");
            return Err(LedgerError::Unreadable { reason });
        }
        Ok(())
    }
}

/// Makes the tables before the log is switched on, so that the marks are in the header of the file itself.
fn prepare(conn: &mut Connection, path: &Path) -> Result<(), LedgerError> {
    let failed = |error: rusqlite::Error| trouble::opening(path, &error);
    conn.busy_timeout(BUSY_WAIT).map_err(failed)?;
    let mut marks = Marks::read(conn).map_err(failed)?;
    if marks.is_empty() {
        let create = |conn: &mut Connection| {
            conn.pragma_update(None, "page_size", PAGE_BYTES)?;
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // Another process may have been here between the look and the lock.
            if Marks::read(&tx)?.is_empty() {
                tx.execute_batch(TABLES)?;
                tx.pragma_update(None, "application_id", APPLICATION_ID)?;
                tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            }
            tx.commit()?;
            Marks::read(conn)
        };
        marks = create(conn).map_err(failed)?;
    }
    marks.judge(path)
}

const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const APPLICATION_ID_AT: usize = 68;

/// Deletes a ledger that nobody has open. A file that does not bear our mark is left alone.
pub(crate) fn remove(path: &Path) -> Result<(), LedgerError> {
    let failed = |error: std::io::Error| {
        let reason = format!("{}: {error}; let this user read and delete it", path.display());
        LedgerError::Misplaced { reason }
    };
    match File::open(path) {
        Ok(file) => {
            let mut header = Vec::with_capacity(HEADER_BYTES);
            file.take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(failed)?;
            let id = header.get(APPLICATION_ID_AT..APPLICATION_ID_AT + 4);
            let ours = header.starts_with(MAGIC) && id == Some(APPLICATION_ID.to_be_bytes().as_slice());
            if !ours && !header.is_empty() {
                let reason = format!(
                    "{} does not look like a ledger and is left alone; {}",
                    path.display(),
                    trouble::ELSEWHERE
                );
                return Err(LedgerError::Misplaced { reason });
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // The file first: SQLite ignores a log that has no file.
    for part in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")] {
        match std::fs::remove_file(part) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
