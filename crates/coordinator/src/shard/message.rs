//! What may be asked of a shard, and what leaves it.
use std::sync::{Arc, Weak};
use std::time::Duration;

use kapell_journal::AppendError;
use kapell_kernel::{
    ApprovalKey, Attempt, Call, CallNo, Command, Dispatch, Ending, ParentRef, Rejected, Run, UnitId,
};
use kapell_ledger::{LedgerBatch, Part};
use kapell_model::plan::CompiledWorkflow;
use kapell_model::{Epoch, Json, Name, RunId, Seq, ShardId, Timestamp};
use kapell_wire::DefinitionRecord;

use super::orders::Owed;
use crate::dispatch::Acknowledgement;

/// What the actor is told.
pub(crate) enum ShardMessage {
    /// There is something in the mailbox.
    Wake,
    /// A batch is on disk, or will never be.
    Durable {
        /// Which.
        batch: u64,
        /// How it went.
        result: Result<(), AppendError>,
    },
    /// A timer may be due.
    Tick,
    /// It is time to tell the ledger, and to checkpoint if enough has happened.
    Flush,
    /// The ledger has stored rows.
    Projected {
        /// With the last part: everything up to here.
        through: Seq,
        /// Which part they were.
        part: Part,
    },
    /// A checkpoint was stored, or not.
    Checkpointed {
        /// Up to here, if it was.
        through: Option<Seq>,
    },
    /// Another node is to own the shard: store a checkpoint if that saves it time, and end.
    HandOver,
    /// End as soon as what is under way is on disk, checkpoint or not.
    EndNow,
}

/// Called once the entries of the request are on disk, or dropped when they never will be.
pub(crate) type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// A run as its history tells it.
pub(crate) struct Past {
    /// The run.
    pub(crate) run: Box<Run>,
    /// Where its history begins.
    pub(crate) first: Seq,
}

/// A question of a run, and since when it is asked.
pub(crate) type AskedSince = (RunId, ApprovalKey, Timestamp);

/// Who waits for the end of a run.
pub(crate) struct EndWaiter {
    /// Whether nobody listens any more.
    pub(crate) is_gone: Box<dyn Fn() -> bool + Send>,
    /// Tells the end.
    pub(crate) tell: Reply<Option<kapell_proto::v1::Run>>,
}

/// Looks at a run (`None`: it is not here) and gives the answer to send once what it saw is on disk.
pub(crate) type Look = Box<dyn FnOnce(Option<&Run>) -> Reply<()> + Send>;

/// Held by whoever waits for an answer.
#[derive(Debug, Default)]
pub(crate) struct Asker;

/// What may be asked of a shard.
pub(crate) enum Request {
    /// Start runs, each once; answered together, refusals in order.
    Start(Vec<StartRun>, Reply<Vec<Result<Started, SubmitError>>>),
    /// Ask something of a run.
    Command(RunId, Box<Command>, Reply<Result<(), SubmitError>>),
    /// As `Command`, unless its asker has gone before it is taken out of the mailbox: people who gave up may have asked
    /// for the opposite since.
    Steer(Weak<Asker>, RunId, Box<Command>, Reply<Result<(), SubmitError>>),
    /// Ask several things of several runs; answered together, refusals in order.
    Commands(Vec<(RunId, Command)>, Reply<Vec<Result<(), SubmitError>>>),
    /// What a worker reports, of tasks of several runs; acknowledged together.
    Reports(Vec<(RunId, Command)>, Acknowledgement),
    /// Wake the steps and outcomes that wait for this event.
    Deliver(Arc<kapell_wire::cloud_event::Event>, Name, Reply<Delivered>),
    /// Read a run; sees what is decided, answers when that is on disk. Only where the shard is.
    Read(RunId, Look),
    /// The run as people see it; `None`: it is not here.
    View(RunId, Reply<Option<kapell_proto::v1::Run>>),
    /// Read a run now and after each change until it has ended.
    Watch(RunId, tokio::sync::mpsc::Sender<kapell_proto::v1::Run>, Reply<Result<(), SubmitError>>),
    /// Answer when the run has ended; `None`: it is not here (any more), or too many wait for it.
    AwaitEnd(RunId, EndWaiter),
    /// Since when people are asked about these runs, as far as it is known; a question that was answered is left out.
    Asked(Vec<RunId>, Reply<Vec<AskedSince>>),
    /// The state of the whole shard.
    Stats(Reply<Stats>),
    /// Check every run.
    Audit(Reply<Audit>),
    /// The schedules of a namespace whose ticks are decided here.
    Schedules(Name, Reply<Vec<kapell_proto::v1::Schedule>>),
    /// Change the definitions (control shard only).
    Define(Vec<DefinitionRecord>, Reply<()>),
    /// Bring back a run that has ended, from its history, for a command that may set it going again.
    Revive(Past, Box<Command>, Reply<Result<(), SubmitError>>),
    /// What was asked of another shard is known there: a child has begun (or had before), or it is ending.
    Confirmed(Owed),
}

impl Request {
    /// Whether anybody cares for it still.
    pub(crate) fn is_wanted(&self) -> bool {
        !matches!(self, Request::Steer(asker, ..) if asker.strong_count() == 0)
    }

    /// How much room it takes in front of a shard: so many runs may change by it.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Request::Start(group, _) => group.len(),
            Request::Commands(commands, _) | Request::Reports(commands, _) => commands.len(),
            Request::Command(..)
            | Request::Steer(..)
            | Request::Deliver(..)
            | Request::Read(..)
            | Request::View(..)
            | Request::Watch(..)
            | Request::AwaitEnd(..)
            | Request::Asked(..)
            | Request::Stats(_)
            | Request::Audit(_)
            | Request::Schedules(..)
            | Request::Define(..)
            | Request::Revive(..)
            | Request::Confirmed(_) => 1,
        }
    }
}

/// A run to start.
#[derive(Clone, Debug)]
pub(crate) struct StartRun {
    /// Its id; the same id starts it once.
    pub(crate) run: RunId,
    /// What it follows.
    pub(crate) workflow: Arc<CompiledWorkflow>,
    /// Runs of one key are handled in order.
    pub(crate) key: Option<Arc<str>>,
    /// The CloudEvent.
    pub(crate) event: Json,
    /// Who started it, for a subworkflow.
    pub(crate) parent: Option<ParentRef>,
    /// How many runs are above it.
    pub(crate) nesting: u32,
}

/// A run was started, now or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    /// Which.
    pub(crate) run: RunId,
    /// It was there already.
    pub(crate) duplicate: bool,
}

/// How many waiting steps and outcomes an event reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// So many.
    pub(crate) count: u32,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubmitError {
    /// The shard has no room; nothing was done.
    #[error("the shard is busy")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// Too many runs wait behind the key.
    #[error("{waiting} runs wait behind key `{key}` already")]
    KeyQueueFull {
        /// The key.
        key: String,
        /// How many.
        waiting: usize,
    },
    /// No run of this id is known.
    #[error("there is no run {0}; its journal may have been trimmed (see `kapell run list`)")]
    NotFound(RunId),
    /// Too many ask the same of it.
    #[error("{most} {what} already")]
    TooMany {
        /// What.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// The run refused.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Whether it was done is not known: the journal failed under it, or the shard did not answer in time. The same
    /// request again is safe.
    #[error("the journal failed while this was being stored, or it took too long; send it again")]
    Unavailable,
}

impl SubmitError {
    /// When trying again makes sense; `None`: it never does.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            SubmitError::Busy { retry_after } => Some(*retry_after),
            SubmitError::KeyQueueFull { .. } | SubmitError::TooMany { .. } => Some(Duration::from_secs(1)),
            SubmitError::Unavailable => Some(Duration::from_millis(200)),
            SubmitError::NotFound(_) | SubmitError::Rejected(_) => None,
        }
    }
}

/// What leaves a shard once its entries are on disk.
pub(crate) enum Output {
    /// An answer.
    Reply(Box<dyn FnOnce() + Send>),
    /// What a worker is owed for its reports.
    Settled(Acknowledgement),
    /// A task for a worker.
    Dispatch(WorkOrder<Dispatch>),
    /// A task that is no longer wanted.
    Cancel(RunId, UnitId, Attempt),
    /// A tool call to make.
    Call(WorkOrder<(UnitId, Call)>),
    /// A tool call to find out about.
    Reconcile(WorkOrder<(UnitId, Call)>),
    /// How far a tool call is, for the worker whose task (of this attempt) waits for it.
    CallNews(RunId, UnitId, Attempt, Box<Call>),
    /// A tool call is over; nobody needs to make it or find out any more.
    CallOver(RunId, UnitId, CallNo, Attempt),
    /// A child to start in the shard that its id names.
    StartChild(ParentRef, Box<StartRun>),
    /// A child to cancel in the shard that its id names, and how it is started if it is not there.
    CancelChild(ParentRef, RunId, Box<Command>, Option<Box<StartRun>>),
    /// A parent to be told how its child ended.
    TellParent(RunId, ParentRef, Box<Ending>),
    /// A run as it is now, for somebody who watches.
    Notify(tokio::sync::mpsc::Sender<kapell_proto::v1::Run>, Box<kapell_proto::v1::Run>),
    /// Context to gather.
    Gather(RunId),
    /// Definitions that are in force from now on.
    Defined(Vec<DefinitionRecord>),
    /// Rows for the ledger.
    Project(LedgerBatch),
    /// The shard is here, under this epoch: all that was found in its journal has left before.
    Loaded(ShardId, Epoch),
}

/// What an audit of a shard found, and what others must be asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit {
    /// Runs looked at.
    pub(crate) runs: u64,
    /// Orders looked at.
    pub(crate) orders: u64,
    /// Runs that break a promise.
    pub(crate) broken: Vec<(RunId, String)>,
    /// Orders that nobody drives.
    pub(crate) undriven: Vec<(RunId, String)>,
    /// Tasks that the dispatcher must know.
    pub(crate) tasks: Vec<(RunId, UnitId, Attempt)>,
    /// Calls that the call desk must know.
    pub(crate) calls: Vec<(RunId, UnitId, CallNo, Attempt)>,
}

/// Work for the outside, with what it needs to know of the run.
#[derive(Clone, Debug)]
pub(crate) struct WorkOrder<T> {
    /// The run.
    pub(crate) run: RunId,
    /// Tenant.
    pub(crate) namespace: Name,
    /// What to do.
    pub(crate) work: T,
    /// The order was found in the journal at start: somebody may hold it already.
    pub(crate) origin: Origin,
}

/// Where an order comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was just made.
    New,
    /// It was found in the journal: somebody may hold it already.
    Recovered,
}

/// How much a shard has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Who owns it.
    pub(crate) epoch: u64,
    /// Last entry.
    pub(crate) last: u64,
    /// Runs that are not over.
    pub(crate) live: u64,
    /// Entries that the ledger has not seen.
    pub(crate) behind: u64,
    /// What the checkpoint on disk covers; `None`: that is changing, or not known for sure.
    pub(crate) checkpointed: Option<Seq>,
    /// Open questions.
    pub(crate) approvals: u64,
}
