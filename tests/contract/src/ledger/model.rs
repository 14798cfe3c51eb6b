//! Random batches and queries against a model in memory: whatever is done, every backend answers as the model does.
use std::cmp::Reverse;
use std::collections::BTreeMap;

use kapell_ledger::{ApprovalQuery, ApprovalRow, RunQuery, RunRow, RunState};
use kapell_model::{Json, RunId, ShardId, Timestamp};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};

use super::{LedgerStore, Opened, Stop, all_questions, everything, name, question, row};

const SHARDS: u16 = 2;
const NAMES: [&str; 2] = ["a", "b"];
const KEYS: [&str; 3] = ["", "k", "k2"];
const TIMES: u64 = 5;

#[derive(Clone, Debug)]
enum Step {
    /// `ahead` of zero is the same batch number again; less is an older one.
    Apply {
        shard: u16,
        ahead: i64,
        rows: Vec<RunRow>,
    },
    /// The same with all rows of the shard. `behind` more than zero: the watermark was looked at too early.
    Replace {
        shard: u16,
        behind: u64,
        ahead: i64,
        rows: Vec<RunRow>,
    },
    List(RunQuery),
    Questions(ApprovalQuery),
    Stop(Stop),
}

fn run(shard: u16) -> impl Strategy<Value = RunId> {
    (0..8_u128).prop_map(move |low| RunId::new(ShardId(shard), low))
}

fn text(from: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(from).prop_map(str::to_owned)
}

fn a_row(shard: u16) -> impl Strategy<Value = RunRow> {
    let identity = (run(shard), select(&NAMES[..]), select(&NAMES[..]), option::of(text(&KEYS)), 0..TIMES);
    let entities = subsequence(vec!["e:1", "e:2", "e:3"], 0..=2).prop_shuffle();
    let asked = subsequence(vec!["p", "q", "r"], 0..=3).prop_shuffle();
    let content = (select(&RunState::ALL[..]), option::of(0..9_u64), entities, asked, any::<u8>());
    (identity, content).prop_map(
        |((run, namespace, workflow, key, accepted), (state, ended, entities, asked, mark))| RunRow {
            run,
            namespace: name(namespace),
            workflow: name(workflow),
            key,
            state,
            accepted: Timestamp(accepted),
            ended: ended.map(Timestamp),
            error: (mark % 3 == 0).then(|| ("class".to_owned(), format!("error {mark}"))),
            output: (mark % 2 == 0).then(|| Json::parse(&format!("[{mark}]")).expect("JSON")),
            outcome: (mark % 5 == 0).then(|| "success".to_owned()),
            parent: (mark % 7 == 0).then(|| RunId::new(ShardId(9), mark.into())),
            entities: entities.into_iter().map(str::to_owned).collect(),
            approvals: asked
                .into_iter()
                .map(|key| ApprovalRow { kind: format!("{mark}"), ..question(key) })
                .collect(),
            ..row(0, 0, 0)
        },
    )
}

fn list() -> impl Strategy<Value = RunQuery> {
    let who = (option::of(select(&NAMES[..])), option::of(select(&NAMES[..])));
    let what = (option::weighted(0.3, text(&KEYS)), option::weighted(0.3, text(&["e:1", "e:2"])));
    let when = (option::weighted(0.3, 0..TIMES), option::weighted(0.3, 0..=TIMES));
    let states = subsequence(RunState::ALL.to_vec(), 0..=8);
    (who, what, when, states, 1..6_usize).prop_map(
        |((namespace, workflow), (key, entity), (from, to), states, limit)| RunQuery {
            namespace: namespace.map(name),
            workflow: workflow.map(name),
            states,
            key,
            entity,
            accepted_from: from.map(Timestamp),
            accepted_to: to.map(Timestamp),
            cursor: None,
            limit,
        },
    )
}

fn questions() -> impl Strategy<Value = ApprovalQuery> {
    let run = option::weighted(0.3, run(0));
    (option::of(select(&NAMES[..])), run, 1..6_usize).prop_map(|(namespace, run, limit)| ApprovalQuery {
        namespace: namespace.map(name),
        run,
        cursor: None,
        limit,
    })
}

fn rows(shard: u16) -> impl Strategy<Value = Vec<RunRow>> {
    let rows = proptest::collection::vec(a_row(shard), 0..8).prop_map(|rows| {
        // Each run at most once.
        let by_run: BTreeMap<RunId, RunRow> = rows.into_iter().map(|row| (row.run, row)).collect();
        by_run.into_values().collect::<Vec<_>>()
    });
    rows.prop_shuffle()
}

fn batch() -> impl Strategy<Value = Step> {
    (0..SHARDS).prop_flat_map(|shard| {
        let ahead = prop_oneof![8 => 1..3_i64, 1 => Just(0), 1 => -2..0_i64];
        (rows(shard), ahead).prop_map(move |(rows, ahead)| Step::Apply { shard, ahead, rows })
    })
}

fn rebuild() -> impl Strategy<Value = Step> {
    (0..SHARDS).prop_flat_map(|shard| {
        let behind = prop_oneof![3 => Just(0), 1 => 1..3_u64];
        (rows(shard), behind, -3..4_i64).prop_map(move |(rows, behind, ahead)| Step::Replace {
            shard,
            behind,
            ahead,
            rows,
        })
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => batch(),
        12 => list().prop_map(Step::List),
        4 => questions().prop_map(Step::Questions),
        2 => rebuild(),
        1 => select(vec![Stop::Clean, Stop::Crash]).prop_map(Step::Stop),
    ]
}

#[derive(Default)]
struct Model {
    runs: BTreeMap<RunId, RunRow>,
    marks: BTreeMap<u16, u64>,
}

impl Model {
    fn mark(&self, shard: u16) -> u64 {
        self.marks.get(&shard).copied().unwrap_or(0)
    }

    fn apply(&mut self, shard: u16, through: u64, rows: &[RunRow]) {
        if through > self.mark(shard) {
            self.marks.insert(shard, through);
            self.runs.extend(rows.iter().map(|row| (row.run, row.clone())));
        }
    }

    fn replace(&mut self, shard: u16, through: u64, rows: &[RunRow]) {
        self.marks.insert(shard, through);
        self.runs.retain(|run, _| run.shard() != ShardId(shard));
        self.runs.extend(rows.iter().map(|row| (row.run, row.clone())));
    }

    fn list(&self, query: &RunQuery) -> Vec<RunRow> {
        let fits = |row: &&RunRow| {
            query.namespace.as_ref().is_none_or(|wanted| *wanted == row.namespace)
                && query.workflow.as_ref().is_none_or(|wanted| *wanted == row.workflow)
                && (query.states.is_empty() || query.states.contains(&row.state))
                && query.key.as_ref().is_none_or(|wanted| row.key.as_ref() == Some(wanted))
                && query.entity.as_ref().is_none_or(|wanted| row.entities.contains(wanted))
                && query.accepted_from.is_none_or(|from| row.accepted >= from)
                && query.accepted_to.is_none_or(|to| row.accepted < to)
        };
        let mut found: Vec<RunRow> = self.runs.values().filter(fits).cloned().collect();
        found.sort_by_key(|row| Reverse((row.accepted, row.run)));
        found
    }

    fn questions(&self, query: &ApprovalQuery) -> Vec<(RunRow, ApprovalRow)> {
        let fits = |row: &&RunRow| {
            query.namespace.as_ref().is_none_or(|wanted| *wanted == row.namespace)
                && query.run.is_none_or(|wanted| wanted == row.run)
        };
        let asked = self.runs.values().filter(fits);
        let mut found: Vec<_> = asked
            .flat_map(|row| row.approvals.iter().map(|approval| (row.clone(), approval.clone())))
            .collect();
        found.sort_by_key(|(row, approval)| (row.accepted, row.run, approval.key.clone()));
        found
    }
}

/// Runs the comparison on fresh stores. Panics with the shortest list of steps that shows a difference.
pub fn compare(make: &mut dyn FnMut() -> Option<Box<dyn LedgerStore>>) {
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let make = std::cell::RefCell::new(make);
    let steps = proptest::collection::vec(step(), 1..40);
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        if let Some(mut store) = (make.borrow_mut())() {
            compare_one(&mut *store, &steps);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

fn compare_one(store: &mut dyn LedgerStore, steps: &[Step]) {
    let (mut opened, mut model) = (Opened::new(store), Model::default());
    for step in steps {
        match step {
            Step::Apply { shard, ahead, rows } => {
                let through = model.mark(*shard).saturating_add_signed(*ahead);
                opened.apply(*shard, through, rows.clone());
                model.apply(*shard, through, rows);
            }
            Step::List(query) => assert_eq!(opened.list(query), model.list(query), "{query:?}"),
            Step::Questions(query) => {
                assert_eq!(opened.questions(query), model.questions(query), "{query:?}")
            }
            Step::Replace { shard, behind, ahead, rows } => {
                let mark = model.mark(*shard);
                let (found, through) = (mark.saturating_sub(*behind), mark.saturating_add_signed(*ahead));
                let stored = opened.replace(*shard, (found, through), rows.clone());
                assert_eq!(stored.is_ok(), found == mark, "{stored:?}");
                if found == mark {
                    model.replace(*shard, through, rows);
                }
            }
            Step::Stop(how) => opened.reopen(*how),
        }
    }
    assert_eq!(opened.list(&everything(3)), model.list(&everything(3)));
    assert_eq!(opened.questions(&all_questions(3)), model.questions(&all_questions(3)));
    for shard in 0..SHARDS {
        assert_eq!(opened.watermark(shard), model.mark(shard), "shard {shard}");
    }
    for row in model.runs.values() {
        assert_eq!(opened.run(row.run).as_ref(), Some(row));
    }
}
