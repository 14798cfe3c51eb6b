//! The contract of the journal port.
//!
//! A backend runs it with [`journal_contract!`](crate::journal_contract): one test per case and backend.
pub mod cases;
pub mod model;
mod sqlite;

use std::sync::{Arc, mpsc};

use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::executor::block_on;
use kapell_journal::{
    AcquireError, Acquired, AppendError, Batch, Journal, Placed, ReadError, Record, RunImage,
};
use kapell_model::{Epoch, RunId, Seq, ShardId};

pub use sqlite::SqliteJournal;

/// How the process that holds the journal ends before it is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// In order.
    Clean,
    /// In the worst way that the store can play: power loss, or as near as it gets.
    Crash {
        /// For those that draw what is lost.
        seed: u64,
    },
}

/// A place that keeps a journal over restarts.
pub trait Store {
    /// Opens what is there. Every journal that was opened before has been dropped.
    fn open(&mut self) -> Arc<dyn Journal>;
    /// What happens between two openings.
    fn stop(&mut self, how: Stop);
}

/// Histories that a backend is compared with the model on. One whose server is started again after each crash of a
/// history gets along with fewer.
pub const HISTORIES: u32 = 48;

/// A store and the journal that is open in it, with calls that wait for their answer.
pub struct Opened<'a> {
    store: &'a mut dyn Store,
    journal: Option<Arc<dyn Journal>>,
}

impl<'a> Opened<'a> {
    /// Opens the store.
    pub fn new(store: &'a mut dyn Store) -> Opened<'a> {
        let journal = Some(store.open());
        Opened { store, journal }
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &dyn Journal {
        &**self.journal.as_ref().expect("open")
    }

    /// Stops and opens again.
    pub fn reopen(&mut self, how: Stop) {
        self.journal = None;
        self.store.stop(how);
        self.journal = Some(self.store.open());
    }

    /// Acquires and waits.
    pub fn acquire(&self, shard: u16, epoch: u64) -> Result<Acquired, AcquireError> {
        block_on(self.journal().acquire(ShardId(shard), Epoch(epoch)))
    }

    /// Appends and waits until it is done.
    pub fn append(
        &self,
        shard: u16,
        epoch: u64,
        first: u64,
        records: Vec<Record>,
    ) -> Result<(), AppendError> {
        let (done, answer) = mpsc::channel();
        let batch = Batch { shard: ShardId(shard), epoch: Epoch(epoch), first: Seq(first), records };
        self.journal().append(batch, Box::new(move |outcome| done.send(outcome).expect("somebody waits")));
        answer.recv().expect("done is called once")
    }

    /// Everything after `after`.
    pub fn read(&self, shard: u16, after: u64) -> Result<Vec<Placed>, ReadError> {
        block_on(self.journal().read(ShardId(shard), Seq(after)).try_collect())
    }

    /// The last checkpoint.
    pub fn images(&self, shard: u16) -> Result<Vec<RunImage>, ReadError> {
        block_on(self.journal().images(ShardId(shard)).try_collect())
    }

    /// Writes a checkpoint and waits.
    pub fn checkpoint(
        &self,
        shard: u16,
        epoch: u64,
        through: u64,
        changed: Vec<RunImage>,
    ) -> Result<(), AppendError> {
        block_on(self.journal().checkpoint(ShardId(shard), Epoch(epoch), Seq(through), changed))
    }

    /// Trims and waits.
    pub fn trim(&self, shard: u16, epoch: u64, through: u64) -> Result<(), AppendError> {
        block_on(self.journal().trim(ShardId(shard), Epoch(epoch), Seq(through)))
    }

    /// History of one run.
    pub fn history(&self, run: RunId) -> Result<Vec<Placed>, ReadError> {
        block_on(self.journal().history(run))
    }
}

/// A run of `shard`.
#[must_use]
pub fn run(shard: u16, low: u128) -> RunId {
    RunId::new(ShardId(shard), low)
}

/// A record of run `low` of `shard`.
#[must_use]
pub fn record(shard: u16, low: u128, payload: &str) -> Record {
    Record { run: run(shard, low), payload: Bytes::copy_from_slice(payload.as_bytes()) }
}

/// An image of run `low` of `shard`.
#[must_use]
pub fn image(shard: u16, low: u128, state: Option<&str>) -> RunImage {
    RunImage { run: run(shard, low), state: state.map(|state| Bytes::copy_from_slice(state.as_bytes())) }
}

/// Makes one test of each case: `journal_contract!(name_of_the_backend, || Some(store))`; without a store, such as where
/// no server is installed, there is nothing to test.
#[macro_export]
macro_rules! journal_contract {
    ($backend:ident, $make:expr) => {
        $crate::journal_contract!($backend, $make, $crate::journal::HISTORIES);
    };
    ($backend:ident, $make:expr, $histories:expr) => {
        $crate::journal_contract!(@cases $backend, $make, $histories,
            a_new_shard_is_empty,
            records_are_read_back_in_order_and_from_anywhere,
            records_survive_a_stop_of_any_kind,
            a_stale_epoch_is_fenced_from_everything,
            an_earlier_epoch_cannot_acquire_and_the_same_one_can,
            a_shard_that_nobody_acquired_takes_nothing,
            a_wrong_place_is_refused_and_closes_the_shard,
            shards_are_apart,
            appends_under_way_are_done_in_order,
            history_of_a_run_is_complete_and_in_order,
            checkpoints_add_up_and_removed_runs_are_gone,
            a_checkpoint_covers_only_what_is_durable,
            a_trim_needs_a_checkpoint_and_numbers_go_on,
            what_is_read_in_parts_is_whole,
            payloads_of_any_size_survive,
            many_small_checkpoints_stay_readable,
        );
    };
    (@cases $backend:ident, $make:expr, $histories:expr, $($case:ident,)*) => {
        mod $backend {
            #[allow(unused_imports, reason = "the store may need nothing")]
            use super::*;
            $(#[test]
            fn $case() {
                if let Some(mut store) = ($make)() {
                    $crate::journal::cases::$case(&mut store);
                }
            })*

            #[test]
            fn it_answers_as_the_model_does() {
                $crate::journal::model::compare($histories, &mut || Some(Box::new(($make)()?)));
            }
        }
    };
}
