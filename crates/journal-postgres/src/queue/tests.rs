//! What waits for whom, what a failure closes, what is refused.
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use kapell_model::RunId;

use super::*;

const LIMITS: Limits = Limits {
    queue_bytes_max: 10_000,
    group_bytes_max: 4_000,
    group_records_max: 8,
    group_beside_min: 1,
    retry_after: Duration::from_millis(5),
};

/// The place of a batch, and its answer.
type Answered = (u64, Result<(), AppendError>);

/// Answers in the order in which they were given.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Answered>>>);

impl Told {
    fn all(&self) -> Vec<Answered> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Case {
    queue: Queue,
    told: Told,
}

impl Case {
    fn new(limits: Limits) -> Case {
        Case { queue: Queue::new(limits), told: Told::default() }
    }

    fn acquired(shards: &[u16]) -> Case {
        let case = Case::new(LIMITS);
        shards.iter().for_each(|shard| case.acquire(*shard, 1, 0));
        case
    }

    fn acquire(&self, shard: u16, generation: i64, durable: u64) {
        let hold =
            Hold { epoch: Epoch(1), generation, version: 1, durable: Seq(durable), checkpointed: Seq::ZERO };
        self.queue.install(ShardId(shard), hold);
    }

    fn append_as(&self, epoch: u64, shard: u16, first: u64, payloads: &[usize]) {
        let record = |bytes: &usize| Record {
            run: RunId::new(ShardId(shard), 1),
            payload: Bytes::from(vec![0; *bytes]),
        };
        let records = payloads.iter().map(record).collect();
        let batch = Batch { shard: ShardId(shard), epoch: Epoch(epoch), first: Seq(first), records };
        let told = self.told.clone();
        self.queue.append(batch, Box::new(move |outcome| told.0.lock().unwrap().push((first, outcome))));
    }

    fn append(&self, shard: u16, first: u64) {
        self.append_as(1, shard, first, &[10]);
    }

    fn next(&self) -> Option<Next> {
        self.queue.next().now_or_never().flatten()
    }

    fn group(&self) -> Vec<Part> {
        match self.next() {
            Some(Next::Group(parts)) => parts,
            other => panic!("{other:?}"),
        }
    }

    fn finish(&self, parts: Vec<Part>, outcome: &Result<(), AppendError>) {
        self.queue.finish(parts.into_iter().map(|part| (part, outcome.clone())).collect());
    }
}

fn places(parts: &[Part]) -> Vec<(u16, Vec<u64>)> {
    let firsts = |part: &Part| part.appends.iter().map(|append| append.first.0).collect();
    parts.iter().map(|part| (part.shard.0, firsts(part))).collect()
}

fn unavailable() -> Result<(), AppendError> {
    Err(AppendError::Unavailable { reason: "gone".to_owned(), retry_after: Duration::ZERO })
}

#[test]
fn what_waits_goes_together_and_a_shard_is_in_one_group_at_a_time() {
    let case = Case::acquired(&[1, 2, 3]);
    case.append(1, 1);
    case.append(2, 1);
    case.append(1, 2);
    let first = case.group();
    assert_eq!(places(&first), [(1, vec![1, 2]), (2, vec![1])]);
    case.append(1, 3);
    case.append(3, 1);
    let second = case.group();
    assert_eq!(places(&second), [(3, vec![1])], "shard 1 is under way");
    assert!(case.next().is_none());
    case.finish(second, &Ok(()));
    assert!(case.next().is_none());
    case.finish(first, &Ok(()));
    let third = case.group();
    assert_eq!(places(&third), [(1, vec![3])]);
    assert_eq!(case.told.all(), [(1, Ok(())), (1, Ok(())), (2, Ok(())), (1, Ok(()))]);
}

#[test]
fn a_group_has_a_size_and_nothing_is_left_behind() {
    let case = Case::acquired(&[1, 2]);
    case.append_as(1, 1, 1, &[10; 5]);
    case.append_as(1, 1, 6, &[10; 5]);
    case.append_as(1, 1, 11, &[10; 5]);
    case.append_as(1, 2, 1, &[3_000]);
    let first = case.group();
    assert_eq!(places(&first), [(1, vec![1, 6])], "eight records close it");
    let second = case.group();
    assert_eq!(places(&second), [(2, vec![1])]);
    case.finish(first, &Ok(()));
    assert_eq!(places(&case.group()), [(1, vec![11])]);
}

#[test]
fn a_failed_group_closes_its_shards_until_they_are_acquired_again_and_no_others() {
    let case = Case::acquired(&[1, 2]);
    case.append(1, 1);
    let group = case.group();
    case.append(1, 2);
    case.append(2, 1);
    case.finish(group, &unavailable());
    assert_eq!(case.told.all(), [(1, unavailable()), (2, Err(AppendError::Poisoned))]);
    case.append(1, 3);
    assert_eq!(case.told.all(), [(3, Err(AppendError::Poisoned))]);
    let other = case.group();
    assert_eq!(places(&other), [(2, vec![1])]);
    case.acquire(1, 2, 1);
    case.append(1, 2);
    assert_eq!(places(&case.group()), [(1, vec![2])]);
}

#[test]
fn what_becomes_of_a_group_says_nothing_about_an_owner_who_came_after() {
    for outcome in [Ok(()), unavailable(), Err(AppendError::Fenced { held_by: Epoch(9) })] {
        let case = Case::acquired(&[1]);
        case.append(1, 1);
        let old = case.group();
        case.append(1, 2);
        case.acquire(1, 2, 1);
        assert_eq!(case.told.all(), [(2, Err(AppendError::Poisoned))], "it waited for the owner before");
        case.append(1, 2);
        assert!(case.next().is_none(), "the old group is still under way");
        case.finish(old, &outcome);
        assert_eq!(case.told.all(), [(1, outcome)]);
        assert_eq!(case.queue.durable(ShardId(1)), Seq(1), "as the acquisition found it");
        let new = case.group();
        assert_eq!((places(&new), new[0].hold.generation), (vec![(1, vec![2])], 2));
    }
}

#[test]
fn a_shard_that_is_acquired_while_something_waits_is_not_taken_twice() {
    let case = Case::acquired(&[1]);
    case.append(1, 1);
    case.acquire(1, 2, 0);
    case.append(1, 1);
    let first = case.group();
    case.append(1, 2);
    assert!(case.next().is_none(), "the first group is under way");
    case.finish(first, &Ok(()));
    assert_eq!(places(&case.group()), [(1, vec![2])]);
}

#[test]
fn a_fenced_owner_is_a_stranger_from_then_on() {
    let case = Case::acquired(&[1]);
    case.append(1, 1);
    let group = case.group();
    case.append(1, 2);
    let fenced = Err(AppendError::Fenced { held_by: Epoch(4) });
    case.finish(group, &fenced);
    assert_eq!(case.told.all(), [(1, fenced.clone()), (2, fenced)]);
    case.append(1, 3);
    match case.next() {
        Some(Next::Strangers(strangers)) => assert_eq!(strangers[0].epoch, Epoch(1)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wrong_place_is_answered_in_its_turn_and_closes_the_shard() {
    let case = Case::acquired(&[1]);
    case.append(1, 1);
    let group = case.group();
    case.append(1, 2);
    case.append(1, 4);
    case.append(1, 3);
    assert_eq!(case.told.all(), [(3, Err(AppendError::Poisoned))], "what follows a refusal need not wait");
    case.finish(group, &Ok(()));
    let second = case.group();
    assert_eq!(places(&second), [(1, vec![2])], "what came before it is still good");
    assert_eq!(case.told.all(), [(1, Ok(()))]);
    case.finish(second, &Ok(()));
    assert!(case.next().is_none());
    let refused = Err(AppendError::OutOfOrder { expected: Seq(3), got: Seq(4) });
    assert_eq!(case.told.all(), [(2, Ok(())), (4, refused)]);
}

#[test]
fn a_full_queue_refuses_and_closes_the_shard_but_keeps_what_it_has() {
    let case = Case::acquired(&[1, 2]);
    case.append_as(1, 1, 1, &[9_000]);
    case.append_as(1, 2, 1, &[2_000]);
    let told = case.told.all();
    assert!(
        matches!(&told[..], [(1, Err(AppendError::Unavailable { reason, .. }))] if reason.contains("full"))
    );
    case.append(2, 2);
    assert_eq!(case.told.all(), [(2, Err(AppendError::Poisoned))]);
    let group = case.group();
    assert_eq!(places(&group), [(1, vec![1])]);
    case.finish(group, &Ok(()));
    case.acquire(2, 2, 0);
    case.append_as(1, 2, 1, &[20_000]);
    assert_eq!(places(&case.group()), [(2, vec![1])], "one alone may be larger than the queue");
}

#[test]
fn a_batch_that_no_statement_could_carry_is_refused() {
    let case = Case::new(Limits { queue_bytes_max: usize::MAX, ..LIMITS });
    case.acquire(1, 1, 0);
    case.append_as(1, 1, 1, &[BATCH_BYTES_MAX]);
    let told = case.told.all();
    assert!(
        matches!(&told[..], [(1, Err(AppendError::Unavailable { reason, .. }))] if reason.contains("bytes"))
    );
    case.acquire(1, 2, 0);
    case.append_as(1, 1, 1, &[BATCH_BYTES_MAX - RECORD_BYTES - BATCH_BYTES]);
    assert_eq!(places(&case.group()), [(1, vec![1])], "at the limit");
}

#[test]
fn strangers_have_a_limit() {
    let case = Case::new(LIMITS);
    for place in 1..=STRANGERS_MAX as u64 {
        case.append(7, place);
    }
    assert_eq!(case.told.all(), []);
    case.append(7, 9_999);
    assert!(matches!(&case.told.all()[..], [(9_999, Err(AppendError::Unavailable { .. }))]));
}

#[test]
fn everything_is_answered_when_nobody_writes_any_more() {
    let case = Case::acquired(&[1]);
    case.append(1, 1);
    let group = case.group();
    case.append(1, 2);
    case.append(5, 3);
    case.queue.abandon();
    assert_eq!(case.told.all().len(), 2);
    case.append(1, 4);
    drop(group);
    let told = case.told.all();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|(_, outcome)| outcome.is_err()));
}

#[test]
fn what_was_queued_before_the_end_is_still_done() {
    let case = Case::acquired(&[1]);
    case.append(1, 1);
    case.queue.close();
    let group = case.group();
    case.finish(group, &Ok(()));
    assert_eq!(case.told.all(), [(1, Ok(()))]);
    assert!(matches!(case.queue.next().now_or_never(), Some(None)), "and then the writers end");
}

#[tokio::test(start_paused = true)]
async fn a_group_goes_beside_another_when_enough_waits_for_it() {
    let case = Case::new(Limits { group_beside_min: 3, ..LIMITS });
    (0..5).for_each(|shard| case.acquire(shard, 1, 0));
    case.append(0, 1);
    let first = case.group();
    case.append(1, 1);
    case.append(2, 1);
    // The shard is under way: what it has more cannot go.
    case.append(0, 2);
    assert!(case.next().is_none(), "two wait");
    case.append(3, 1);
    let second = case.group();
    assert_eq!(second.len(), 3);
    case.append(4, 1);
    assert!(case.next().is_none());
    case.finish(first, &Ok(()));
    assert!(case.next().is_none(), "the second is still under way");
    case.finish(second, &Ok(()));
    assert_eq!(case.group().len(), 2, "nothing is under way: whatever waits goes");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_hangs_holds_up_nothing_but_its_own_shards() {
    let case = Case::new(Limits { group_beside_min: 3, ..LIMITS });
    (0..3).for_each(|shard| case.acquire(shard, 1, 0));
    case.append(0, 1);
    let _hangs = case.group();
    for shard in 1..3 {
        let (begun, mut idle) = (Instant::now(), Box::pin(case.queue.next()));
        assert!(futures::poll!(&mut idle).is_pending(), "nothing waits yet");
        case.append(0, u64::from(shard) + 1);
        case.append(shard, 1);
        let Some(Next::Group(parts)) = idle.await else { panic!("it waits") };
        assert_eq!(parts.iter().map(|part| part.shard).collect::<Vec<_>>(), [ShardId(shard)]);
        assert_eq!(begun.elapsed(), HELD_BACK_MAX);
    }
}
