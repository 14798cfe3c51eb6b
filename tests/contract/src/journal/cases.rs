//! What a backend of the journal promises, case by case.
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use kapell_journal::{AcquireError, Acquired, AppendError, Batch, ReadError, Record, RunImage};
use kapell_model::{Epoch, Seq, ShardId};

use super::{Opened, Stop, Store, image, record, run};

const STOPS: [Stop; 3] = [Stop::Clean, Stop::Crash { seed: 1 }, Stop::Crash { seed: 2 }];

fn texts(opened: &Opened<'_>, shard: u16, after: u64) -> Vec<(u64, String)> {
    let read = opened.read(shard, after).unwrap();
    read.iter()
        .map(|placed| (placed.seq.0, String::from_utf8(placed.record.payload.to_vec()).unwrap()))
        .collect()
}

/// Nothing is there, and that is an answer.
pub fn a_new_shard_is_empty(store: &mut dyn Store) {
    let opened = Opened::new(store);
    assert_eq!(futures::executor::block_on(opened.journal().epoch(ShardId(4))), Ok(Epoch(0)));
    assert_eq!(
        opened.acquire(4, 1),
        Ok(Acquired { last: Seq::ZERO, checkpointed: Seq::ZERO, trimmed: Seq::ZERO })
    );
    assert_eq!(opened.read(4, 0), Ok(vec![]));
    assert_eq!(opened.read(9, 0), Ok(vec![]), "a shard that nobody ever acquired");
    assert_eq!(opened.images(4), Ok(vec![]));
    assert_eq!(opened.history(run(4, 1)), Ok(vec![]));
}

/// Numbered from 1 without gaps, from any place on.
pub fn records_are_read_back_in_order_and_from_anywhere(store: &mut dyn Store) {
    let opened = Opened::new(store);
    opened.acquire(0, 1).unwrap();
    opened.append(0, 1, 1, vec![record(0, 1, "a"), record(0, 2, "b")]).unwrap();
    opened.append(0, 1, 3, vec![record(0, 1, "c")]).unwrap();
    let all = [(1, "a".to_owned()), (2, "b".to_owned()), (3, "c".to_owned())];
    for after in 0..=3 {
        assert_eq!(texts(&opened, 0, after as u64), all[after..], "after {after}");
    }
    assert_eq!(opened.read(0, 0).unwrap()[1].record.run, run(0, 2));
}

/// What was answered `Ok` is there, with its epoch.
pub fn records_survive_a_stop_of_any_kind(store: &mut dyn Store) {
    let mut opened = Opened::new(store);
    let mut expected = Vec::new();
    for (turn, stop) in STOPS.into_iter().enumerate() {
        let (epoch, next) = (turn as u64 + 1, expected.len() as u64 + 1);
        assert_eq!(opened.acquire(7, epoch).unwrap().last, Seq(next - 1));
        for place in next..next + 5 {
            opened.append(7, epoch, place, vec![record(7, u128::from(place), &format!("p{place}"))]).unwrap();
            expected.push((place, format!("p{place}")));
        }
        opened.reopen(stop);
        assert_eq!(futures::executor::block_on(opened.journal().epoch(ShardId(7))), Ok(Epoch(epoch)));
        assert_eq!(texts(&opened, 7, 0), expected, "{stop:?}");
    }
}

/// Only the epoch that acquired last can write; refusing it does not harm the owner.
pub fn a_stale_epoch_is_fenced_from_everything(store: &mut dyn Store) {
    let opened = Opened::new(store);
    opened.acquire(0, 5).unwrap();
    opened.append(0, 5, 1, vec![record(0, 1, "five")]).unwrap();
    opened.acquire(0, 8).unwrap();
    let fenced = Err(AppendError::Fenced { held_by: Epoch(8) });
    assert_eq!(opened.append(0, 5, 2, vec![record(0, 1, "stale")]), fenced);
    assert_eq!(opened.checkpoint(0, 5, 1, vec![image(0, 1, Some("stale"))]), fenced);
    assert_eq!(opened.trim(0, 5, 0), fenced);
    assert_eq!(opened.append(0, 9, 2, vec![record(0, 1, "never acquired")]), fenced);
    assert_eq!(opened.append(0, 8, 2, vec![record(0, 1, "eight")]), Ok(()));
    assert_eq!(texts(&opened, 0, 0), [(1, "five".to_owned()), (2, "eight".to_owned())]);
    assert_eq!(opened.images(0), Ok(vec![]));
}

/// Epochs only grow, over restarts too.
pub fn an_earlier_epoch_cannot_acquire_and_the_same_one_can(store: &mut dyn Store) {
    let mut opened = Opened::new(store);
    opened.acquire(0, 5).unwrap();
    for stop in STOPS {
        let held_by = Epoch(5);
        assert_eq!(opened.acquire(0, 4), Err(AcquireError::Fenced { held_by }));
        assert!(opened.acquire(0, 5).is_ok());
        opened.reopen(stop);
    }
}

/// Nobody owns it, so nobody writes.
pub fn a_shard_that_nobody_acquired_takes_nothing(store: &mut dyn Store) {
    let opened = Opened::new(store);
    let fenced = Err(AppendError::Fenced { held_by: Epoch(0) });
    assert_eq!(opened.append(0, 1, 1, vec![record(0, 1, "a")]), fenced);
    assert_eq!(opened.read(0, 0), Ok(vec![]));
}

/// A gap or an overlap is a bug of the owner; it has to acquire again.
pub fn a_wrong_place_is_refused_and_closes_the_shard(store: &mut dyn Store) {
    let opened = Opened::new(store);
    for (epoch, wrong) in [(1, 3), (2, 1), (3, 0)] {
        let found = opened.acquire(0, epoch).unwrap();
        let next = found.last.next().0;
        opened.append(0, epoch, next, vec![record(0, 1, "right")]).unwrap();
        let (expected, got) = (Seq(next + 1), Seq(if wrong > 1 { next + wrong } else { wrong }));
        let refused = opened.append(0, epoch, got.0, vec![record(0, 1, "wrong")]);
        assert_eq!(refused, Err(AppendError::OutOfOrder { expected, got }));
        let closed = opened.append(0, epoch, expected.0, vec![record(0, 1, "closed")]);
        assert_eq!(closed, Err(AppendError::Poisoned));
    }
    assert_eq!(opened.acquire(0, 3).unwrap().last, Seq(3), "the same epoch may heal it");
    assert_eq!(opened.append(0, 3, 4, vec![record(0, 1, "right")]), Ok(()));
    assert_eq!(texts(&opened, 0, 0).len(), 4);
}

/// Trouble and numbers of one shard are not those of another.
pub fn shards_are_apart(store: &mut dyn Store) {
    let opened = Opened::new(store);
    for shard in [0, 1, u16::MAX] {
        opened.acquire(shard, 1).unwrap();
        opened.append(shard, 1, 1, vec![record(shard, 1, &format!("of {shard}"))]).unwrap();
    }
    assert!(opened.append(0, 1, 9, vec![record(0, 1, "gap")]).is_err());
    assert_eq!(opened.append(1, 1, 2, vec![record(1, 1, "fine")]), Ok(()));
    assert_eq!(texts(&opened, u16::MAX, 0), [(1, "of 65535".to_owned())]);
    assert_eq!(texts(&opened, 1, 1), [(2, "fine".to_owned())]);
}

/// Several appends may be under way; they are done in the order of the calls.
pub fn appends_under_way_are_done_in_order(store: &mut dyn Store) {
    let opened = Opened::new(store);
    opened.acquire(0, 1).unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (finished, all) = mpsc::channel();
    for place in 1..=200_u64 {
        let (order, finished) = (Arc::clone(&order), finished.clone());
        let records = vec![record(0, u128::from(place % 7), &format!("{place}"))];
        let batch = Batch { shard: ShardId(0), epoch: Epoch(1), first: Seq(place), records };
        opened.journal().append(
            batch,
            Box::new(move |outcome| {
                order.lock().unwrap().push((place, outcome));
                finished.send(()).unwrap();
            }),
        );
    }
    for _ in 0..200 {
        all.recv().unwrap();
    }
    let expected: Vec<_> = (1..=200).map(|place| (place, Ok(()))).collect();
    assert_eq!(*order.lock().unwrap(), expected);
    assert_eq!(texts(&opened, 0, 0).len(), 200);
}

/// Read by index, over restarts, also where a batch holds many runs.
pub fn history_of_a_run_is_complete_and_in_order(store: &mut dyn Store) {
    let mut opened = Opened::new(store);
    let mut next = 1;
    for (turn, stop) in STOPS.into_iter().enumerate() {
        let epoch = turn as u64 + 1;
        opened.acquire(2, epoch).unwrap();
        for _ in 0..10 {
            let records = (0..7).map(|low| record(2, low % 3, &format!("{}", next + low as u64))).collect();
            opened.append(2, epoch, next, records).unwrap();
            next += 7;
        }
        opened.reopen(stop);
        for low in 0..3 {
            let all = opened.read(2, 0).unwrap();
            let expected: Vec<_> =
                all.into_iter().filter(|placed| placed.record.run == run(2, low)).collect();
            assert!(!expected.is_empty());
            assert_eq!(opened.history(run(2, low)).unwrap(), expected);
        }
    }
}

/// The last image of a run counts; `None` removes it; each run once and in order.
pub fn checkpoints_add_up_and_removed_runs_are_gone(store: &mut dyn Store) {
    let mut opened = Opened::new(store);
    opened.acquire(0, 1).unwrap();
    let records = (0..10).map(|low| record(0, low, "x")).collect();
    opened.append(0, 1, 1, records).unwrap();
    let changed = vec![image(0, 3, Some("three")), image(0, 1, Some("one")), image(0, 2, Some(""))];
    opened.checkpoint(0, 1, 4, changed).unwrap();
    let changed = vec![image(0, 2, None), image(0, 1, Some("one, later")), image(0, 0, Some("zero"))];
    opened.checkpoint(0, 1, 8, changed).unwrap();
    opened.checkpoint(0, 1, 8, vec![]).unwrap();
    let expected =
        vec![image(0, 0, Some("zero")), image(0, 1, Some("one, later")), image(0, 3, Some("three"))];
    assert_eq!(opened.images(0).unwrap(), expected);
    for stop in STOPS {
        opened.reopen(stop);
        assert_eq!(opened.images(0).unwrap(), expected, "{stop:?}");
        let found = opened.acquire(0, 1).unwrap();
        assert_eq!(found, Acquired { last: Seq(10), checkpointed: Seq(8), trimmed: Seq::ZERO });
        assert_eq!(texts(&opened, 0, found.checkpointed.0).len(), 2);
    }
    opened.checkpoint(0, 1, 10, (0..10).map(|low| image(0, low, None)).collect()).unwrap();
    assert_eq!(opened.images(0), Ok(vec![]));
}

/// Neither the future nor the past.
pub fn a_checkpoint_covers_only_what_is_durable(store: &mut dyn Store) {
    let opened = Opened::new(store);
    opened.acquire(0, 1).unwrap();
    opened.append(0, 1, 1, vec![record(0, 1, "a"), record(0, 1, "b")]).unwrap();
    let refused = |expected, got| Err(AppendError::OutOfOrder { expected: Seq(expected), got: Seq(got) });
    assert_eq!(opened.checkpoint(0, 1, 3, vec![image(0, 1, Some("future"))]), refused(2, 3));
    opened.checkpoint(0, 1, 2, vec![image(0, 1, Some("now"))]).unwrap();
    assert_eq!(opened.checkpoint(0, 1, 1, vec![image(0, 1, Some("past"))]), refused(2, 1));
    assert_eq!(opened.images(0), Ok(vec![image(0, 1, Some("now"))]));
    assert_eq!(opened.append(0, 1, 3, vec![record(0, 1, "c")]), Ok(()), "the shard stays open");
}

/// What is trimmed may stay, but what is read is right, and numbers never start again.
pub fn a_trim_needs_a_checkpoint_and_numbers_go_on(store: &mut dyn Store) {
    let mut opened = Opened::new(store);
    opened.acquire(0, 1).unwrap();
    for place in 1..=40 {
        opened.append(0, 1, place, vec![record(0, 1, &format!("{place}-{}", "x".repeat(2000)))]).unwrap();
    }
    let refused = Err(AppendError::OutOfOrder { expected: Seq(0), got: Seq(1) });
    assert_eq!(opened.trim(0, 1, 1), refused);
    opened.checkpoint(0, 1, 40, vec![image(0, 1, Some("forty"))]).unwrap();
    opened.trim(0, 1, 35).unwrap();
    for stop in STOPS {
        match opened.read(0, 0) {
            Ok(all) => assert_eq!(all.len(), 40),
            Err(ReadError::Trimmed { through }) => assert!(through > Seq::ZERO && through <= Seq(35)),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(opened.read(0, 35).unwrap().len(), 5);
        assert_eq!(opened.images(0).unwrap().len(), 1);
        opened.reopen(stop);
    }
    let found = opened.acquire(0, 2).unwrap();
    assert_eq!((found.last, found.checkpointed), (Seq(40), Seq(40)));
    assert!(found.trimmed <= Seq(35), "{found:?}");
    assert_eq!(opened.read(0, found.trimmed.0).unwrap().len(), 40 - found.trimmed.0 as usize);
    if found.trimmed > Seq::ZERO {
        assert_eq!(opened.read(0, 0), Err(ReadError::Trimmed { through: found.trimmed }));
    }
    opened.trim(0, 2, 40).unwrap();
    opened.append(0, 2, 41, vec![record(0, 1, "41")]).unwrap();
    opened.reopen(Stop::Crash { seed: 3 });
    assert_eq!(texts(&opened, 0, 40), [(41, "41".to_owned())]);
    let history = opened.history(run(0, 1)).unwrap();
    assert_eq!(history.last().unwrap().seq, Seq(41));
}

/// Nothing, and much more than a segment or page.
pub fn payloads_of_any_size_survive(store: &mut dyn Store) {
    let mut opened = Opened::new(store);
    opened.acquire(0, 1).unwrap();
    let sizes = [0, 1, 511, 512, 4095, 4096, 4097, 1 << 20];
    for (place, size) in sizes.into_iter().enumerate() {
        let payload = Bytes::from(vec![place as u8; size]);
        opened.append(0, 1, place as u64 + 1, vec![Record { run: run(0, 1), payload }]).unwrap();
    }
    opened.reopen(Stop::Crash { seed: 4 });
    let read = opened.read(0, 0).unwrap();
    for (place, size) in sizes.into_iter().enumerate() {
        assert_eq!(read[place].record.payload, vec![place as u8; size]);
    }
}

/// Incremental checkpoints do not pile up or lose anything.
pub fn many_small_checkpoints_stay_readable(store: &mut dyn Store) {
    let mut opened = Opened::new(store);
    opened.acquire(0, 1).unwrap();
    for round in 1..=50_u64 {
        opened.append(0, 1, round, vec![record(0, u128::from(round % 10), "x")]).unwrap();
        let state = format!("round {round}");
        let gone = round % 10 == 7;
        let changed = vec![image(0, u128::from(round % 10), (!gone).then_some(state.as_str()))];
        opened.checkpoint(0, 1, round, changed).unwrap();
    }
    opened.reopen(Stop::Crash { seed: 5 });
    let images = opened.images(0).unwrap();
    assert_eq!(images.len(), 9, "run 7 is gone");
    assert_eq!(images[0], image(0, 0, Some("round 50")));
    assert_eq!(images[8], image(0, 9, Some("round 49")));
}

/// More of them, and more bytes, than a backend hands out at once; some of nothing, and one that fills what is read at once.
pub fn what_is_read_in_parts_is_whole(store: &mut dyn Store) {
    let mut opened = Opened::new(store);
    opened.acquire(0, 1).unwrap();
    let small = |low: u128| record(0, low, if low.is_multiple_of(3) { "" } else { "small" });
    let mut records: Vec<Record> = (0..5_000).map(small).collect();
    for (at, mib) in [(10, 1), (11, 5), (12, 1), (4_000, 2), (4_001, 2), (4_002, 1), (4_999, 3)] {
        records[at].payload = Bytes::from(vec![mib as u8; mib << 20]);
    }
    let mut next = 1;
    for some in records.chunks(500) {
        opened.append(0, 1, next, some.to_vec()).unwrap();
        next += some.len() as u64;
    }
    let state = |record: &Record| RunImage { run: record.run, state: Some(record.payload.clone()) };
    let mut images: Vec<RunImage> = records.iter().map(state).collect();
    opened.checkpoint(0, 1, 5_000, images.clone()).unwrap();
    opened.reopen(Stop::Crash { seed: 6 });
    images.sort_by_key(|image| image.run);
    assert!(opened.images(0).unwrap() == images, "images are as they were stored");
    for after in [0, 11, 3_999] {
        let read = opened.read(0, after as u64).unwrap();
        assert!(read.iter().map(|placed| &placed.record).eq(&records[after..]), "after {after}");
    }
}
