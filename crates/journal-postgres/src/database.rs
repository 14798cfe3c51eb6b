//! One database of the store, and what this node knows of it.
//!
//! Owns: its target, its identity, which segment takes entries. Never: holds a connection.
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use kapell_postgres::Target;
use kapell_runtime::Jobs;
use tokio::sync::Notify;

use crate::link::Open;
use crate::options::Options;
use crate::trouble::Trouble;
use crate::value::OwnerId;

/// See the module.
pub(crate) struct Database {
    pub(crate) target: Target,
    /// As whom this journal has shards.
    pub(crate) owner: OwnerId,
    pub(crate) jobs: Jobs,
    pub(crate) options: Options,
    /// Id of the store; set when the journal is opened.
    pub(crate) store: OnceLock<[u8; 16]>,
    segment: AtomicI32,
    /// Since the size of the segment was looked at.
    written: AtomicU64,
    /// Something was trimmed since the last sweep.
    trimmed: AtomicBool,
    /// There is something to do about segments.
    pub(crate) chores: Notify,
}

/// More than a statement may take, so that the server's word for it comes first.
const GRACE: Duration = Duration::from_secs(5);
/// How many times the size of a segment is looked at while it fills.
const LOOKS: u64 = 16;

impl Database {
    pub(crate) fn new(target: Target, owner: OwnerId, jobs: Jobs, options: Options) -> Database {
        Database {
            target,
            owner,
            jobs,
            options,
            store: OnceLock::new(),
            segment: AtomicI32::new(0),
            written: AtomicU64::new(0),
            trimmed: AtomicBool::new(false),
            chores: Notify::new(),
        }
    }

    /// How long an answer is waited for.
    pub(crate) fn patience(&self) -> Duration {
        self.options.answer_within + GRACE
    }

    /// The segment that takes entries.
    pub(crate) fn segment(&self) -> i32 {
        self.segment.load(Ordering::Acquire)
    }

    /// Goes on in this segment, unless a later one is known.
    pub(crate) fn advance(&self, segment: i32) {
        self.segment.fetch_max(segment, Ordering::AcqRel);
    }

    /// Asks which segment takes entries; another node may have made a new one.
    pub(crate) async fn follow(&self, open: &Open) -> Result<(), Trouble> {
        let sql = "SELECT max(segment) FROM kapell_journal.segments";
        let rows = open.client.query_typed(sql, &[]).await?;
        match rows.first().map(|row| row.try_get::<_, Option<i32>>(0)).transpose()?.flatten() {
            Some(segment) => {
                self.advance(segment);
                Ok(())
            }
            None => Err(Trouble::Unfit("kapell_journal.segments is empty".to_owned())),
        }
    }

    /// Remembers that so much was written, and has the segment looked at now and then.
    pub(crate) fn wrote(&self, bytes: u64) {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes >= self.options.segment_bytes / LOOKS {
            self.written.store(0, Ordering::Relaxed);
            self.chores.notify_one();
        }
    }

    /// Has a sweep made.
    pub(crate) fn trimmed(&self) {
        self.trimmed.store(true, Ordering::Release);
        self.chores.notify_one();
    }

    /// Whether something was trimmed since this was asked.
    pub(crate) fn take_trimmed(&self) -> bool {
        self.trimmed.swap(false, Ordering::AcqRel)
    }
}
