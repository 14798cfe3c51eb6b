//! The contract of the ledger port.
//!
//! A backend runs it with [`ledger_contract!`](crate::ledger_contract): one test per case and backend.
pub mod cases;
pub mod model;
pub mod paging;

use std::sync::Arc;

use futures::executor::block_on;
use kapell_ledger::{
    ApprovalQuery, ApprovalRow, Cursor, Ledger, LedgerBatch, LedgerError, Page, Part, Rebuild, RunQuery,
    RunRow, RunState,
};
use kapell_model::{Json, Name, RunId, Seq, ShardId, Timestamp};

/// How the process that holds the ledger ends before it is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// In order.
    Clean,
    /// As near to being killed as the store can play.
    Crash,
}

/// A place that keeps a ledger over restarts.
pub trait LedgerStore {
    /// Opens it for the first time.
    fn open(&mut self) -> Arc<dyn Ledger>;
    /// Stops `open`, which nobody else holds, and opens again what is left. Whatever was answered is there.
    fn reopen(&mut self, open: Arc<dyn Ledger>, how: Stop) -> Arc<dyn Ledger>;
}

/// A store and the ledger that is open in it, with calls that wait for their answer.
pub struct Opened<'a> {
    store: &'a mut dyn LedgerStore,
    ledger: Option<Arc<dyn Ledger>>,
}

impl<'a> Opened<'a> {
    /// Opens the store.
    pub fn new(store: &'a mut dyn LedgerStore) -> Opened<'a> {
        let ledger = Some(store.open());
        Opened { store, ledger }
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        self.ledger.as_ref().expect("open")
    }

    /// Stops and opens again.
    pub fn reopen(&mut self, how: Stop) {
        let open = self.ledger.take().expect("open");
        self.ledger = Some(self.store.reopen(open, how));
    }

    /// Applies and waits.
    pub fn apply(&self, shard: u16, through: u64, runs: Vec<RunRow>) {
        let batch = LedgerBatch { shard: ShardId(shard), through: Seq(through), runs, part: Part::Last };
        assert_eq!(block_on(self.ledger().apply(batch)), Ok(()));
    }

    /// How far the shard is contained.
    #[must_use]
    pub fn watermark(&self, shard: u16) -> u64 {
        block_on(self.ledger().watermark(ShardId(shard))).expect("answers").0
    }

    /// One run.
    #[must_use]
    pub fn run(&self, run: RunId) -> Option<RunRow> {
        block_on(self.ledger().run(run)).expect("answers")
    }

    /// One page of runs.
    pub fn page(&self, query: RunQuery) -> Result<Page<RunRow>, LedgerError> {
        block_on(self.ledger().runs(query))
    }

    /// One page of questions.
    pub fn questions_page(&self, query: ApprovalQuery) -> Result<Page<(RunRow, ApprovalRow)>, LedgerError> {
        block_on(self.ledger().approvals(query))
    }

    /// All pages of runs, `limit` rows each.
    #[must_use]
    pub fn list(&self, query: &RunQuery) -> Vec<RunRow> {
        walk(|cursor| self.page(RunQuery { cursor, ..query.clone() }), query.limit)
    }

    /// All pages of questions, `limit` rows each.
    #[must_use]
    pub fn questions(&self, query: &ApprovalQuery) -> Vec<(RunRow, ApprovalRow)> {
        walk(|cursor| self.questions_page(ApprovalQuery { cursor, ..query.clone() }), query.limit)
    }

    /// Puts `runs` in the place of the shard's rows.
    pub fn replace(
        &self,
        shard: u16,
        (found, through): (u64, u64),
        runs: Vec<RunRow>,
    ) -> Result<(), LedgerError> {
        let (shard, found, through) = (ShardId(shard), Seq(found), Seq(through));
        block_on(self.ledger().replace(Rebuild { shard, found, through, runs }))
    }
}

/// Every page is full but the last, and the last is not empty unless it is the only one.
fn walk<T>(mut page: impl FnMut(Option<Cursor>) -> Result<Page<T>, LedgerError>, limit: usize) -> Vec<T> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let first = cursor.is_none();
        let found = page(cursor).expect("answers");
        assert!(found.rows.len() <= limit, "a page of {} rows, asked for {limit}", found.rows.len());
        assert!(first || !found.rows.is_empty(), "a page too many");
        assert!(found.next.is_none() || found.rows.len() == limit, "a page in the middle is not full");
        all.extend(found.rows);
        match found.next {
            Some(next) => cursor = Some(next),
            None => return all,
        }
    }
}

/// A name.
#[must_use]
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// A running run `low` of `shard` in namespace `retail`, accepted at `accepted`, with nothing else.
#[must_use]
pub fn row(shard: u16, low: u128, accepted: u64) -> RunRow {
    RunRow {
        run: RunId::new(ShardId(shard), low),
        namespace: name("retail"),
        workflow: name("vendor-price-change"),
        version: "ab".repeat(32),
        key: None,
        state: RunState::Running,
        accepted: Timestamp(accepted),
        ended: None,
        error: None,
        output: None,
        outcome: None,
        parent: None,
        entities: vec![],
        approvals: vec![],
    }
}

/// A row in which every field is set.
#[must_use]
pub fn full_row(shard: u16, low: u128, accepted: u64) -> RunRow {
    RunRow {
        key: Some("V-100 \"quoted\" 'twice' é\0".to_owned()),
        state: RunState::Failed,
        ended: Some(Timestamp(accepted + 5)),
        error: Some(("timeout".to_owned(), String::new())),
        output: Some(Json::parse(r#"{"price":1.10,"é":[null]}"#).expect("JSON")),
        outcome: Some("open".to_owned()),
        parent: Some(RunId::new(ShardId(u16::MAX), u128::MAX)),
        entities: vec!["vendor:V-100".to_owned(), "product:\"7\"".to_owned()],
        approvals: vec![question("b"), question("a")],
        ..row(shard, low, accepted)
    }
}

/// A question of that key.
#[must_use]
pub fn question(key: &str) -> ApprovalRow {
    ApprovalRow {
        key: key.to_owned(),
        step: "publish".to_owned(),
        kind: "agree".to_owned(),
        ask: format!("Publish {key}?"),
        show: Json::parse(r#"{"margin":0.12}"#).expect("JSON"),
        expires: Some(Timestamp(99)),
    }
}

/// No restriction, in pages of `limit`.
#[must_use]
pub fn everything(limit: usize) -> RunQuery {
    RunQuery { limit, ..RunQuery::default() }
}

/// No restriction, in pages of `limit`.
#[must_use]
pub fn all_questions(limit: usize) -> ApprovalQuery {
    ApprovalQuery { limit, ..ApprovalQuery::default() }
}

/// Makes one test of each case: `ledger_contract!(name_of_the_backend, || Some(store))`; without a store, such as where
/// no server is installed, there is nothing to test.
#[macro_export]
macro_rules! ledger_contract {
    ($backend:ident, $make:expr) => {
        $crate::ledger_contract!(@cases $backend, $make,
            cases::a_new_ledger_is_empty,
            cases::every_field_comes_back,
            cases::a_batch_that_was_applied_changes_nothing,
            cases::an_older_batch_changes_nothing,
            cases::shards_have_watermarks_of_their_own,
            cases::a_batch_without_rows_moves_the_watermark,
            cases::parts_move_the_watermark_when_the_last_is_there,
            cases::what_was_applied_survives_a_stop,
            cases::a_later_row_replaces_all_of_an_earlier_one,
            cases::questions_are_replaced,
            cases::every_filter_restricts,
            cases::filters_restrict_together,
            cases::large_outputs_may_be_left_out_and_small_ones_not,
            cases::rows_built_anew_take_the_place_of_all_that_a_shard_had,
            cases::rows_built_anew_are_refused_when_others_were_stored_meanwhile,
            paging::newest_first_and_ties_are_broken,
            paging::limits_at_the_limit,
            paging::a_walk_is_complete_while_rows_come_in,
            paging::a_walk_is_complete_while_others_write,
            paging::a_walk_over_questions_misses_none_that_stays,
            paging::a_wrong_cursor_is_refused,
        );
    };
    (@cases $backend:ident, $make:expr, $($module:ident :: $case:ident,)*) => {
        mod $backend {
            #[allow(unused_imports, reason = "the store may need nothing")]
            use super::*;
            $(#[test]
            fn $case() {
                if let Some(mut store) = ($make)() {
                    $crate::ledger::$module::$case(&mut store);
                }
            })*

            #[test]
            fn it_answers_as_the_model_does() {
                $crate::ledger::model::compare(&mut || Some(Box::new(($make)()?)));
            }
        }
    };
}
