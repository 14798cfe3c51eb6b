//! The ledger port: the queryable read model of runs and open questions, rebuilt from the journal at any time.
//!
//! Owns: what a backend promises. Never: is asked for anything that must be fresh (a live run is read from its shard).
//!
//! The promises, held by one contract suite against every backend:
//! - `apply` stores all rows of a batch and its watermark in one transaction, or nothing.
//! - A batch whose watermark is not beyond the stored one changes nothing: applying twice is applying once.
//! - `replace` puts a shard's new rows in the place of all its old ones in one transaction, or leaves the old ones.
//! - Lists are paged by cursor; a row that does not change is returned exactly once by a walk over all pages.
pub mod cursor;

use std::time::Duration;

use futures::future::BoxFuture;
use kapell_model::{Json, Name, RunId, Seq, ShardId, Timestamp};

/// What the ledger knows of one run. A later row replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// The run.
    pub run: RunId,
    /// Tenant.
    pub namespace: Name,
    /// Workflow.
    pub workflow: Name,
    /// Digest of the definition that it is pinned to, as hex.
    pub version: String,
    /// Runs of one key are handled in order.
    pub key: Option<String>,
    /// Where it is.
    pub state: RunState,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Why it failed: class and message.
    pub error: Option<(String, String)>,
    /// Output, once completed; backends may leave out what is larger than [`OUTPUT_BYTES_MAX`].
    pub output: Option<Json>,
    /// `success`, `failure`, `unknown` or `open`; `None`: the workflow declares no outcome.
    pub outcome: Option<String>,
    /// The run that started it.
    pub parent: Option<RunId>,
    /// What it is about, such as `vendor:V-100`.
    pub entities: Vec<String>,
    /// Questions that wait for a person; replaces all earlier ones of the run.
    pub approvals: Vec<ApprovalRow>,
}

/// Where a run is, as far as lists tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunState {
    /// Behind an earlier run of its key.
    Queued,
    /// Steps are worked on.
    Running,
    /// Only timers, events or people are waited for.
    Waiting,
    /// A person paused it.
    Paused,
    /// Ending without completing.
    WindingUp,
    /// Every step is over.
    Completed,
    /// A step failed for good.
    Failed,
    /// Somebody canceled it.
    Canceled,
}

impl RunState {
    /// Every state.
    pub const ALL: [RunState; 8] = [
        RunState::Queued,
        RunState::Running,
        RunState::Waiting,
        RunState::Paused,
        RunState::WindingUp,
        RunState::Completed,
        RunState::Failed,
        RunState::Canceled,
    ];

    /// As it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Queued => "queued",
            RunState::Running => "running",
            RunState::Waiting => "waiting",
            RunState::Paused => "paused",
            RunState::WindingUp => "winding_up",
            RunState::Completed => "completed",
            RunState::Failed => "failed",
            RunState::Canceled => "canceled",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn named(text: &str) -> Option<RunState> {
        RunState::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// One question that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRow {
    /// Names it within its run; opaque here.
    pub key: String,
    /// The step's id.
    pub step: String,
    /// `step`, `agree`, `suggestion` or `call_outcome`.
    pub kind: String,
    /// In words.
    pub ask: String,
    /// What to see beside it.
    pub show: Json,
    /// When silence becomes an answer.
    pub expires: Option<Timestamp>,
}

/// Rows of one shard and how far into its journal they reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerBatch {
    /// The shard.
    pub shard: ShardId,
    /// All entries up to here are contained, in this part and those before it.
    pub through: Seq,
    /// Each run at most once.
    pub runs: Vec<RunRow>,
    /// Which part of what `through` contains.
    pub part: Part,
}

impl LedgerBatch {
    /// Without the outputs that a backend may leave out: they stay in the journal.
    #[must_use]
    pub fn slim(mut self) -> LedgerBatch {
        slim(&mut self.runs);
        self
    }
}

fn slim(runs: &mut [RunRow]) {
    for run in runs {
        run.output.take_if(|output| output.bytes_len() > OUTPUT_BYTES_MAX);
    }
}

/// All rows of one shard, folded anew from its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// The shard.
    pub shard: ShardId,
    /// The watermark before the journal was read. Another one means that somebody stored rows meanwhile.
    pub found: Seq,
    /// All entries up to here are contained. May be less than `found`, where the journal was restored.
    pub through: Seq,
    /// Each run at most once.
    pub runs: Vec<RunRow>,
}

impl Rebuild {
    /// As [`LedgerBatch::slim`].
    #[must_use]
    pub fn slim(mut self) -> Rebuild {
        slim(&mut self.runs);
        self
    }
}

/// What has changed a lot is told in parts, so that nobody has to hold it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// More follows: the watermark stays, and after a crash all parts come again.
    More,
    /// This is all, or the last of it: the watermark moves.
    Last,
}

/// Which runs to list; empty fields do not restrict. Newest accepted first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Tenant.
    pub namespace: Option<Name>,
    /// Workflow.
    pub workflow: Option<Name>,
    /// Any of these.
    pub states: Vec<RunState>,
    /// Key, exactly.
    pub key: Option<String>,
    /// Entity, exactly.
    pub entity: Option<String>,
    /// Accepted at or after.
    pub accepted_from: Option<Timestamp>,
    /// Accepted before.
    pub accepted_to: Option<Timestamp>,
    /// From an earlier page.
    pub cursor: Option<Cursor>,
    /// At least 1, at most [`PAGE_MAX`].
    pub limit: usize,
}

/// Most rows of a page.
pub const PAGE_MAX: usize = 1_000;

/// Bytes of an output that every backend keeps; it may leave out a larger one.
pub const OUTPUT_BYTES_MAX: usize = 4 << 10;

/// How many rows a page has when `limit` are asked for: what is out of range counts as the nearest that is in it.
#[must_use]
pub fn page_rows(limit: usize) -> usize {
    limit.clamp(1, PAGE_MAX)
}

/// Where the next page begins. Opaque to callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub String);

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In order.
    pub rows: Vec<T>,
    /// `None`: that was all.
    pub next: Option<Cursor>,
}

/// Which questions to list. Oldest run first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApprovalQuery {
    /// Tenant.
    pub namespace: Option<Name>,
    /// Run.
    pub run: Option<RunId>,
    /// From an earlier page.
    pub cursor: Option<Cursor>,
    /// At least 1, at most [`PAGE_MAX`].
    pub limit: usize,
}

/// Why the ledger did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Not now.
    #[error("ledger cannot be used now: {reason}")]
    Unavailable {
        /// What the store said.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// It cannot be kept where the settings say; the file found there, if any, was not touched.
    #[error("ledger cannot be kept there: {reason}")]
    Misplaced {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The cursor is not from this ledger.
    #[error("`{0}` is no cursor; take `next_cursor` of the page before as it is")]
    BadCursor(String),
    /// The stored schema is newer than this program, or damaged: rebuild it.
    #[error("ledger cannot be read: {reason}; run `kapell ledger rebuild`")]
    Unreadable {
        /// What is wrong.
        reason: String,
    },
}

/// The queryable read model.
pub trait Ledger: Send + Sync + 'static {
    /// How far the shard's entries are contained; [`Seq::ZERO`] at first. Whoever asks tells everything after it.
    fn watermark(&self, shard: ShardId) -> BoxFuture<'_, Result<Seq, LedgerError>>;

    /// The same for who only looks. Differs where a backend holds news back that would hide a gap.
    fn contained(&self, shard: ShardId) -> BoxFuture<'_, Result<Seq, LedgerError>> {
        self.watermark(shard)
    }

    /// Stores rows and watermark together.
    fn apply(&self, batch: LedgerBatch) -> BoxFuture<'_, Result<(), LedgerError>>;

    /// Runs, newest accepted first.
    fn runs(&self, query: RunQuery) -> BoxFuture<'_, Result<Page<RunRow>, LedgerError>>;

    /// One run.
    fn run(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunRow>, LedgerError>>;

    /// Open questions with the run that each is about.
    fn approvals(
        &self,
        query: ApprovalQuery,
    ) -> BoxFuture<'_, Result<Page<(RunRow, ApprovalRow)>, LedgerError>>;

    /// Puts rows and watermark in the place of all that is stored of the shard. `Unavailable`, and nothing has changed,
    /// if somebody stored rows of the shard since `found`: the journal is to be folded again.
    fn replace(&self, rebuild: Rebuild) -> BoxFuture<'_, Result<(), LedgerError>>;
}
