//! Pages: their order, their limits, and what a walk over all of them sees while rows come and change.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::executor::block_on;
use kapell_ledger::{
    ApprovalQuery, Cursor, LedgerBatch, LedgerError, PAGE_MAX, Part, RunQuery, RunRow, RunState,
};
use kapell_model::{RunId, Seq, ShardId};

use super::{LedgerStore, Opened, all_questions, everything, name, question, row};

/// By time of acceptance, newest first; runs of one moment have a fixed order, whatever the page size and filter.
pub fn newest_first_and_ties_are_broken(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let states = RunState::ALL;
    let rows: Vec<RunRow> = (0..60_u128)
        .map(|low| RunRow {
            state: states[low as usize % 8],
            key: Some("k".to_owned()),
            entities: vec!["e:1".to_owned()],
            ..row((low % 3) as u16, low, 10 + (low as u64 * 7) % 5)
        })
        .collect();
    opened.apply(0, 1, rows.clone());
    let mut expected = rows;
    expected.sort_by_key(|row| std::cmp::Reverse((row.accepted, row.run)));
    let shapes = [
        RunQuery::default(),
        RunQuery { namespace: Some(name("retail")), ..RunQuery::default() },
        RunQuery { workflow: Some(name("vendor-price-change")), ..RunQuery::default() },
        RunQuery {
            namespace: Some(name("retail")),
            workflow: Some(name("vendor-price-change")),
            ..RunQuery::default()
        },
        RunQuery { key: Some("k".to_owned()), ..RunQuery::default() },
        RunQuery { entity: Some("e:1".to_owned()), ..RunQuery::default() },
    ];
    for shape in shapes {
        for limit in [1, 7, 59, 60, 61] {
            assert_eq!(opened.list(&RunQuery { limit, ..shape.clone() }), expected, "{limit} of {shape:?}");
        }
        let some = RunQuery { limit: 4, states: vec![states[7], states[2]], ..shape };
        let wanted = expected.iter().filter(|row| some.states.contains(&row.state)).cloned();
        assert_eq!(opened.list(&some), wanted.collect::<Vec<_>>(), "{some:?}");
    }
}

/// A page has at least one row and at most the maximum; what is beyond counts as the limit.
pub fn limits_at_the_limit(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let asking = |low: usize| RunRow { approvals: vec![question("q")], ..row(0, low as u128, low as u64) };
    opened.apply(0, 1, (1..=PAGE_MAX).map(asking).collect());
    for (limit, rows) in
        [(0, 1), (1, 1), (PAGE_MAX - 1, PAGE_MAX - 1), (PAGE_MAX, PAGE_MAX), (usize::MAX, PAGE_MAX)]
    {
        let more = rows < PAGE_MAX;
        let page = opened.page(everything(limit)).unwrap();
        assert_eq!((page.rows.len(), page.next.is_some()), (rows, more), "limit {limit}");
        let page = opened.questions_page(all_questions(limit)).unwrap();
        assert_eq!((page.rows.len(), page.next.is_some()), (rows, more), "limit {limit}");
    }
    opened.apply(0, 2, vec![asking(PAGE_MAX + 1)]);
    assert!(opened.page(everything(PAGE_MAX)).unwrap().next.is_some(), "there is one more");
    assert!(opened.questions_page(all_questions(PAGE_MAX)).unwrap().next.is_some(), "there is one more");
    assert_eq!(opened.list(&everything(PAGE_MAX)).len(), PAGE_MAX + 1);
}

fn runs_of(rows: &[RunRow]) -> Vec<RunId> {
    rows.iter().map(|row| row.run).collect()
}

/// Between any two pages, newer, older and equally old runs appear and others change: none that stays is missed.
pub fn a_walk_is_complete_while_rows_come_in(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let old: Vec<RunRow> = (0..40_u128).map(|low| row(0, low * 2, 100 + low as u64 / 4)).collect();
    opened.apply(0, 1, old.clone());
    let (mut seen, mut cursor, mut turn) = (Vec::new(), None, 0_u64);
    loop {
        let page = opened.page(RunQuery { cursor, ..everything(3) }).unwrap();
        seen.extend(runs_of(&page.rows));
        turn += 1;
        // Fewer than a page, or the walk would never end.
        let added = (0..2_u64).map(|at| row(1, u128::from(turn * 2 + at), 95 + (turn * 7 + at * 11) % 20));
        // The content of rows changes, too; their place does not.
        let ended = old.iter().map(|row| RunRow { state: RunState::ALL[turn as usize % 8], ..row.clone() });
        opened.apply(1, turn, added.chain(ended).collect());
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let distinct: BTreeSet<RunId> = seen.iter().copied().collect();
    assert_eq!(distinct.len(), seen.len(), "a run was listed twice");
    let missed: Vec<RunId> = runs_of(&old).into_iter().filter(|run| !distinct.contains(run)).collect();
    assert_eq!(missed, [], "after {turn} pages");
}

/// The same with a writer that does not wait for the reader.
pub fn a_walk_is_complete_while_others_write(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let old: Vec<RunRow> = (0..300_u128).map(|low| row(0, low, 1_000 + low as u64 / 3)).collect();
    opened.apply(0, 1, old.clone());
    let (ledger, done) = (Arc::clone(opened.ledger()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut through = 0;
            // It ends, or it might outrun the walk for ever.
            while !done.load(Ordering::Relaxed) && through < 200 {
                through += 1;
                let runs = (0..20).map(|at| row(1, u128::from(through * 20 + at), 1_000 + at * 5)).collect();
                let batch = LedgerBatch { shard: ShardId(1), through: Seq(through), runs, part: Part::Last };
                assert_eq!(block_on(ledger.apply(batch)), Ok(()));
            }
        });
        for limit in [7, 50] {
            let found = opened.list(&RunQuery { limit, ..RunQuery::default() });
            let distinct: BTreeSet<RunId> = found.iter().map(|row| row.run).collect();
            assert_eq!(distinct.len(), found.len(), "a run was listed twice");
            assert!(old.iter().all(|row| distinct.contains(&row.run)), "a run was missed");
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Answered questions disappear between two pages, new ones appear: those that stay are listed exactly once.
pub fn a_walk_over_questions_misses_none_that_stays(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let stays = |low: u128| format!("m{low}");
    let asking = |low: u128, others: &[&str]| {
        let mut approvals: Vec<_> = others.iter().map(|key| question(key)).collect();
        approvals.insert(others.len() / 2, question(&stays(low)));
        RunRow { approvals, ..row(0, low, 50 + low as u64 / 3) }
    };
    opened.apply(0, 1, (0..30).map(|low| asking(low, &["a", "b", "y", "z"])).collect());
    for query in [
        all_questions(2),
        ApprovalQuery { namespace: Some(name("retail")), ..all_questions(2) },
        ApprovalQuery { run: Some(row(0, 4, 0).run), ..all_questions(2) },
    ] {
        let (mut seen, mut cursor) = (Vec::new(), None);
        let mut through = opened.watermark(0);
        loop {
            let page = opened.questions_page(ApprovalQuery { cursor, ..query.clone() }).unwrap();
            seen.extend(page.rows.iter().map(|(row, approval)| (row.run, approval.key.clone())));
            through += 1;
            let others: &[&str] = if through.is_multiple_of(2) { &["a", "c", "x"] } else { &["b", "z"] };
            opened.apply(0, through, (0..30).map(|low| asking(low, others)).collect());
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let distinct: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(distinct.len(), seen.len(), "a question was listed twice: {query:?}");
        for low in (0..30_u128).filter(|low| query.run.is_none() || *low == 4) {
            assert!(distinct.contains(&(row(0, low, 0).run, stays(low))), "missed {low}: {query:?}");
        }
    }
}

/// What no page gave is refused, and the ledger goes on.
pub fn a_wrong_cursor_is_refused(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let asking = |low: u128| RunRow { approvals: vec![question("a"), question("b")], ..row(0, low, 1) };
    opened.apply(0, 1, vec![asking(1), asking(2)]);
    let of_runs = opened.page(everything(1)).unwrap().next.expect("there is more");
    let of_questions = opened.questions_page(all_questions(1)).unwrap().next.expect("there is more");
    let cut = Cursor(of_runs.0.chars().take(of_runs.0.len() - 2).collect());
    for bad in ["", "1", "zz", "' OR 1=1", "éé", &cut.0, &of_questions.0, &format!("{}00", of_runs.0)] {
        let found = opened.page(RunQuery { cursor: Some(Cursor(bad.to_owned())), ..everything(1) });
        assert!(matches!(&found, Err(LedgerError::BadCursor(_))), "`{bad}`: {found:?}");
    }
    for bad in ["", "00", "x", &of_runs.0] {
        let found =
            opened.questions_page(ApprovalQuery { cursor: Some(Cursor(bad.to_owned())), ..all_questions(1) });
        assert!(matches!(&found, Err(LedgerError::BadCursor(_))), "`{bad}`: {found:?}");
    }
    let next = opened.page(RunQuery { cursor: Some(of_runs), ..everything(1) }).unwrap();
    assert_eq!((next.rows.len(), next.next), (1, None));
}
