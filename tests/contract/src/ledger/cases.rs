//! What a backend of the ledger promises, case by case; paging has a file of its own.
use futures::executor::block_on;
use kapell_ledger::{
    ApprovalRow, LedgerBatch, LedgerError, OUTPUT_BYTES_MAX, Part, RunQuery, RunRow, RunState,
};
use kapell_model::{Json, RunId, Seq, ShardId, Timestamp};

use super::{LedgerStore, Opened, Stop, all_questions, everything, full_row, name, question, row};

/// Nothing is there, and that is an answer.
pub fn a_new_ledger_is_empty(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    assert_eq!(opened.watermark(0), 0);
    assert_eq!(opened.run(RunId::new(ShardId(0), 1)), None);
    assert_eq!(opened.list(&everything(10)), vec![]);
    assert_eq!(opened.questions(&all_questions(10)), vec![]);
}

/// Set or not, in one row and in lists.
pub fn every_field_comes_back(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let (bare, full) = (row(3, 1, 10), full_row(3, 2, 20));
    opened.apply(3, 1, vec![bare.clone(), full.clone()]);
    assert_eq!(opened.run(bare.run), Some(bare.clone()));
    assert_eq!(opened.run(full.run), Some(full.clone()));
    assert_eq!(opened.list(&everything(10)), [full.clone(), bare]);
    let asked = |at: usize| (full.clone(), full.approvals[at].clone());
    assert_eq!(opened.questions(&all_questions(10)), [asked(1), asked(0)], "by key within a run");
    for (low, state) in (10..).zip(RunState::ALL) {
        let stated = RunRow { state, ..row(3, low, 30) };
        opened.apply(3, low as u64, vec![stated.clone()]);
        assert_eq!(opened.run(stated.run), Some(stated));
    }
}

/// Exactly once: the second time may even bring other rows.
pub fn a_batch_that_was_applied_changes_nothing(store: &mut dyn LedgerStore) {
    let mut opened = Opened::new(store);
    let first = full_row(0, 1, 10);
    opened.apply(0, 7, vec![first.clone()]);
    for _ in 0..2 {
        opened.apply(0, 7, vec![first.clone()]);
        opened.apply(0, 7, vec![row(0, 1, 99), row(0, 2, 99)]);
        assert_eq!(opened.watermark(0), 7);
        assert_eq!(opened.list(&everything(10)), std::slice::from_ref(&first));
        assert_eq!(opened.questions(&all_questions(10)).len(), 2);
        opened.reopen(Stop::Crash);
    }
}

/// It comes from an owner that was slow to notice that it is none any more.
pub fn an_older_batch_changes_nothing(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let kept = row(0, 1, 10);
    opened.apply(0, 7, vec![kept.clone()]);
    opened.apply(0, 6, vec![RunRow { state: RunState::Queued, ..kept.clone() }, row(0, 2, 1)]);
    opened.apply(0, 0, vec![row(0, 3, 1)]);
    assert_eq!((opened.watermark(0), opened.list(&everything(10))), (7, vec![kept]));
}

/// One shard's progress is not another's.
pub fn shards_have_watermarks_of_their_own(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    for (shard, through) in [(0, 9), (1, 1), (u16::MAX, u64::from(u32::MAX) + 5)] {
        opened.apply(shard, through, vec![row(shard, 1, 10)]);
    }
    let marks = [0, 1, 2, u16::MAX].map(|shard| opened.watermark(shard));
    assert_eq!(marks, [9, 1, 0, u64::from(u32::MAX) + 5]);
    assert_eq!(opened.list(&everything(10)).len(), 3);
}

/// Entries that change no row are contained, too.
pub fn a_batch_without_rows_moves_the_watermark(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    opened.apply(0, 5, vec![]);
    opened.apply(0, 5, vec![row(0, 1, 1)]);
    assert_eq!((opened.watermark(0), opened.list(&everything(10))), (5, vec![]));
}

/// Rows of a part are there; the watermark moves with the last part.
pub fn parts_move_the_watermark_when_the_last_is_there(store: &mut dyn LedgerStore) {
    let mut opened = Opened::new(store);
    let part = |runs: Vec<RunRow>, part| LedgerBatch { shard: ShardId(1), through: Seq(9), runs, part };
    let (first, last) = (row(1, 1, 10), row(1, 2, 20));
    let apply = |opened: &Opened<'_>, batch| assert_eq!(block_on(opened.ledger().apply(batch)), Ok(()));
    apply(&opened, part(vec![first.clone()], Part::More));
    assert_eq!((opened.watermark(1), opened.run(first.run)), (0, Some(first.clone())));
    // All parts come again after a crash.
    opened.reopen(Stop::Crash);
    apply(&opened, part(vec![first.clone()], Part::More));
    apply(&opened, part(vec![last.clone()], Part::Last));
    assert_eq!((opened.watermark(1), opened.run(last.run)), (9, Some(last)));
    let late = RunRow { key: Some("late".to_owned()), ..first.clone() };
    apply(&opened, part(vec![late], Part::More));
    assert_eq!(opened.run(first.run), Some(first), "a part of what is contained changes nothing");
}

/// Rows and watermark are there together after any stop, and work goes on from there.
pub fn what_was_applied_survives_a_stop(store: &mut dyn LedgerStore) {
    let mut opened = Opened::new(store);
    let mut expected = Vec::new();
    for (turn, stop) in [Stop::Clean, Stop::Crash, Stop::Crash, Stop::Clean].into_iter().enumerate() {
        let through = turn as u64 + 1;
        let added = full_row(0, through.into(), through);
        opened.apply(0, through, vec![added.clone()]);
        expected.insert(0, added);
        opened.reopen(stop);
        assert_eq!(
            (opened.watermark(0), opened.list(&everything(2))),
            (through, expected.clone()),
            "{stop:?}"
        );
    }
}

fn found_by(opened: &Opened<'_>, query: RunQuery) -> Vec<RunRow> {
    opened.list(&RunQuery { limit: 10, ..query })
}

/// What the earlier row had and the later has not is gone, from every list.
pub fn a_later_row_replaces_all_of_an_earlier_one(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let before = full_row(0, 1, 10);
    let after = RunRow {
        namespace: name("wholesale"),
        workflow: name("other"),
        version: "cd".repeat(32),
        state: RunState::Completed,
        entities: vec!["vendor:V-200".to_owned()],
        ..row(0, 1, 20)
    };
    let by_entity = |entity: &str| RunQuery { entity: Some(entity.to_owned()), ..RunQuery::default() };
    let queries = |row: &RunRow| {
        vec![
            RunQuery { namespace: Some(row.namespace.clone()), ..RunQuery::default() },
            RunQuery { workflow: Some(row.workflow.clone()), ..RunQuery::default() },
            RunQuery { states: vec![row.state], ..RunQuery::default() },
            RunQuery {
                accepted_from: Some(row.accepted),
                accepted_to: Some(Timestamp(row.accepted.0 + 1)),
                ..RunQuery::default()
            },
            by_entity(&row.entities[0]),
        ]
    };
    for (turn, (is, was)) in [(&before, &after), (&after, &before), (&before, &after)].into_iter().enumerate()
    {
        opened.apply(0, turn as u64 + 1, vec![is.clone()]);
        assert_eq!(opened.run(is.run), Some(is.clone()));
        for (now, then) in queries(is).into_iter().zip(queries(was)) {
            assert_eq!(found_by(&opened, now.clone()), std::slice::from_ref(is), "turn {turn}: {now:?}");
            assert_eq!(found_by(&opened, then.clone()), [], "turn {turn}: {then:?}");
        }
        let keyed = RunQuery { key: before.key.clone(), ..RunQuery::default() };
        assert_eq!(found_by(&opened, keyed).len(), usize::from(is.key.is_some()), "turn {turn}");
    }
    // The namespace alone decides where an unchanged entity is listed.
    let moved = RunRow { namespace: name("third"), ..before.clone() };
    opened.apply(0, 9, vec![moved.clone()]);
    let listed =
        |namespace: &str| RunQuery { namespace: Some(name(namespace)), ..by_entity(&before.entities[1]) };
    assert_eq!(found_by(&opened, listed("third")), [moved]);
    assert_eq!(found_by(&opened, listed("retail")), []);
}

/// Those of the last row are the questions of the run: none twice, none left over, in the row's order.
pub fn questions_are_replaced(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let asked = |keys: &[&str]| keys.iter().map(|key| question(key)).collect::<Vec<ApprovalRow>>();
    let other = RunRow { approvals: asked(&["a"]), ..row(0, 2, 5) };
    opened.apply(0, 1, vec![other.clone()]);
    let turns: [&[&str]; 7] = [&["b", "a"], &["b", "a"], &["c", "a"], &[], &["a"], &["a", "b"], &[]];
    for (through, keys) in (2..).zip(turns) {
        let asking = RunRow { approvals: asked(keys), ..row(0, 1, 10) };
        opened.apply(0, through, vec![asking.clone()]);
        assert_eq!(opened.run(asking.run), Some(asking.clone()), "{keys:?}");
        let mut expected = vec![(other.clone(), question("a"))];
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        expected.extend(sorted.iter().map(|key| (asking.clone(), question(key))));
        assert_eq!(opened.questions(&all_questions(10)), expected, "{keys:?}");
    }
    let changed = ApprovalRow { ask: "Really?".to_owned(), expires: None, ..question("a") };
    let asking = RunRow { approvals: vec![changed.clone()], ..row(0, 1, 10) };
    opened.apply(0, 20, vec![asking.clone()]);
    assert_eq!(opened.questions(&all_questions(10))[1], (asking, changed));
}

/// One filter at a time: what fits is there, what does not is not.
pub fn every_filter_restricts(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let rows = [
        RunRow { namespace: name("a"), key: Some("k1".to_owned()), ..row(0, 1, 10) },
        RunRow { workflow: name("w"), entities: vec!["e:1".to_owned(), "e:2".to_owned()], ..row(0, 2, 20) },
        RunRow { state: RunState::Queued, entities: vec!["e:2".to_owned()], ..row(0, 3, 30) },
        RunRow { state: RunState::Failed, key: Some(String::new()), ..row(0, 4, 40) },
    ];
    opened.apply(0, 1, rows.to_vec());
    let check = |query: RunQuery, expected: &[u128]| {
        let found: Vec<RunRow> = found_by(&opened, query.clone());
        let wanted: Vec<RunRow> = expected.iter().map(|low| rows[*low as usize - 1].clone()).collect();
        assert_eq!(found, wanted, "{query:?}");
    };
    let all = RunQuery::default;
    check(RunQuery { namespace: Some(name("a")), ..all() }, &[1]);
    check(RunQuery { namespace: Some(name("b")), ..all() }, &[]);
    check(RunQuery { workflow: Some(name("w")), ..all() }, &[2]);
    check(RunQuery { states: vec![RunState::Queued], ..all() }, &[3]);
    check(RunQuery { states: vec![RunState::Failed, RunState::Queued, RunState::Failed], ..all() }, &[4, 3]);
    check(RunQuery { states: RunState::ALL.to_vec(), ..all() }, &[4, 3, 2, 1]);
    check(RunQuery { key: Some("k1".to_owned()), ..all() }, &[1]);
    check(RunQuery { key: Some(String::new()), ..all() }, &[4]);
    check(RunQuery { entity: Some("e:2".to_owned()), ..all() }, &[3, 2]);
    check(RunQuery { entity: Some("e:".to_owned()), ..all() }, &[]);
    check(RunQuery { entity: Some("e:%".to_owned()), ..all() }, &[]);
    check(RunQuery { accepted_from: Some(Timestamp(30)), ..all() }, &[4, 3]);
    check(RunQuery { accepted_to: Some(Timestamp(30)), ..all() }, &[2, 1]);
    check(RunQuery { accepted_from: Some(Timestamp(20)), accepted_to: Some(Timestamp(21)), ..all() }, &[2]);
    check(RunQuery { accepted_from: Some(Timestamp(21)), accepted_to: Some(Timestamp(20)), ..all() }, &[]);
}

/// All filters restrict at once.
pub fn filters_restrict_together(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let wanted = RunRow { key: Some("k".to_owned()), entities: vec!["e:1".to_owned()], ..row(0, 1, 10) };
    let near = [
        RunRow { run: RunId::new(ShardId(0), 2), namespace: name("other"), ..wanted.clone() },
        RunRow { run: RunId::new(ShardId(0), 3), workflow: name("other"), ..wanted.clone() },
        RunRow { run: RunId::new(ShardId(0), 4), state: RunState::Paused, ..wanted.clone() },
        RunRow { run: RunId::new(ShardId(0), 5), key: None, ..wanted.clone() },
        RunRow { run: RunId::new(ShardId(0), 6), entities: vec!["e:2".to_owned()], ..wanted.clone() },
        RunRow { run: RunId::new(ShardId(0), 7), accepted: Timestamp(9), ..wanted.clone() },
        RunRow { run: RunId::new(ShardId(0), 8), accepted: Timestamp(11), ..wanted.clone() },
    ];
    let mut rows = near.to_vec();
    rows.push(wanted.clone());
    opened.apply(0, 1, rows);
    let query = RunQuery {
        namespace: Some(wanted.namespace.clone()),
        workflow: Some(wanted.workflow.clone()),
        states: vec![RunState::Running, RunState::Waiting],
        key: wanted.key.clone(),
        entity: Some("e:1".to_owned()),
        accepted_from: Some(Timestamp(10)),
        accepted_to: Some(Timestamp(11)),
        cursor: None,
        limit: 1,
    };
    assert_eq!(opened.list(&query), [wanted]);
}

/// At the limit it is kept; beyond, it is all or nothing.
pub fn large_outputs_may_be_left_out_and_small_ones_not(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    for (through, more) in [(1, 0), (2, 1), (3, 1 << 20)] {
        let output = Some(Json::string(&"x".repeat(OUTPUT_BYTES_MAX - 2 + more)));
        let given = RunRow { output, ..row(0, 1, 1) };
        opened.apply(0, through, vec![given.clone()]);
        let found = opened.run(given.run).expect("it is there");
        let left_out = more > 0 && found.output.is_none();
        assert!(found == given || (left_out && found == RunRow { output: None, ..given }), "{more} beyond");
    }
}

/// Also where the journal says less than the rows did; other shards keep what they have.
pub fn rows_built_anew_take_the_place_of_all_that_a_shard_had(store: &mut dyn LedgerStore) {
    let mut opened = Opened::new(store);
    let other = full_row(1, 1, 10);
    opened.apply(1, 5, vec![other.clone()]);
    for (turn, stop) in (0..).zip([Stop::Clean, Stop::Crash]) {
        let found = opened.watermark(0);
        opened.apply(0, found + 5, vec![full_row(0, 1, 10), full_row(0, 2, 10), full_row(0, u128::MAX, 10)]);
        let changed = RunRow { entities: vec!["e:1".to_owned()], ..full_row(0, 1, 20 + turn) };
        let new = vec![changed.clone(), row(0, 3, 5)];
        assert_eq!(opened.replace(0, (found + 5, 3), new.clone()), Ok(()));
        opened.reopen(stop);
        assert_eq!([0, 1].map(|shard| opened.watermark(shard)), [3, 5], "turn {turn}");
        assert_eq!(opened.list(&everything(10)), [changed.clone(), other.clone(), new[1].clone()]);
        let asked = opened.questions(&all_questions(10));
        assert_eq!(asked.iter().filter(|(row, _)| *row == other).count(), other.approvals.len());
        assert_eq!(asked.len(), other.approvals.len() + changed.approvals.len(), "of nobody else");
        let about = |entity: &str| RunQuery { entity: Some(entity.to_owned()), ..everything(10) };
        assert_eq!(opened.list(&about("vendor:V-100")), std::slice::from_ref(&other));
        assert_eq!(opened.list(&about("e:1")), [changed]);
        assert_eq!(opened.run(RunId::new(ShardId(0), 2)), None);
    }
    opened.apply(0, 4, vec![row(0, 9, 1)]);
    assert_eq!((opened.watermark(0), opened.run(row(0, 9, 1).run)), (4, Some(row(0, 9, 1))));
    assert_eq!(opened.replace(0, (4, 0), vec![]), Ok(()));
    assert_eq!((opened.watermark(0), opened.list(&everything(10))), (0, vec![other]));
}

/// Whoever folded the journal did not see what they are about.
pub fn rows_built_anew_are_refused_when_others_were_stored_meanwhile(store: &mut dyn LedgerStore) {
    let opened = Opened::new(store);
    let kept = full_row(0, 1, 10);
    opened.apply(0, 7, vec![kept.clone()]);
    for found in [0, 6, 8] {
        let refused = opened.replace(0, (found, 9), vec![row(0, 2, 1)]);
        let Err(LedgerError::Unavailable { reason, retry_after }) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("fold it again") && !retry_after.is_zero(), "{reason}");
    }
    assert_eq!((opened.watermark(0), opened.list(&everything(10))), (7, vec![kept]));
    assert_eq!(opened.questions(&all_questions(10)).len(), 2);
    assert_eq!(opened.replace(1, (0, 4), vec![row(1, 1, 1)]), Ok(()), "nothing was stored of this one");
    assert_eq!(opened.watermark(1), 4);
}
