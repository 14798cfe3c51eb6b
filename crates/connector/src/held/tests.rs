use std::time::Duration;

use kapell_kernel::{Attempt, CallNo, UnitId};
use kapell_model::plan::StepIndex;
use kapell_model::{RunId, ShardId};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn key(no: u32) -> CallKey {
    CallKey {
        run: RunId::new(ShardId(0), 1),
        unit: UnitId::step(StepIndex(0)),
        no: CallNo(no),
        attempt: Attempt(1),
    }
}

fn done(n: u32) -> CallOutcome {
    CallOutcome::succeeded(json!(n))
}

#[tokio::test(start_paused = true)]
async fn a_repeated_order_is_answered_from_what_is_held() {
    let mut held = Held::default();
    let (first, holding) = held.open_session();
    assert!(holding.is_empty());
    let call = (key(1), Mode::Call);
    assert!(matches!(held.take(first, call, "k"), Taken::Begin(_)));
    assert!(matches!(held.take(first, call, "k"), Taken::UnderWay));
    let (second, holding) = held.open_session();
    assert_eq!(holding, [key(1)]);
    held.close_session(first);
    assert_eq!(held.finish(call, done(7)), [second], "whoever was told that it is held gets the report");
    assert!(matches!(held.take(second, call, "k"), Taken::Ended(outcome) if outcome == done(7)));
    held.acknowledge(key(1));
    assert_eq!(held.len(), 0);
    assert!(
        matches!(held.take(second, call, "k"), Taken::Settled),
        "it is not made again after it was settled"
    );
}

#[tokio::test(start_paused = true)]
async fn a_report_is_due_until_it_is_acknowledged() {
    let mut held = Held::default();
    let (session, _) = held.open_session();
    let call = (key(1), Mode::Call);
    assert!(matches!(held.take(session, call, "k"), Taken::Begin(_)));
    assert!(held.due(session, Instant::now()).is_empty(), "it is still under way");
    held.finish(call, done(1));
    assert_eq!(held.due(session, Instant::now()), [(call, done(1))]);
    held.sent(session, call, Instant::now());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(held.due(session, Instant::now() - Duration::from_secs(2)).is_empty());
    assert_eq!(held.due(session, Instant::now()).len(), 1);
    held.acknowledge(key(1));
    assert!(held.due(session, Instant::now()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_call_that_is_under_way_here_is_awaited_and_never_made_after_it_was_looked_for() {
    let mut held = Held::default();
    let (session, _) = held.open_session();
    let (call, look) = ((key(1), Mode::Call), (key(1), Mode::Reconcile));
    assert!(matches!(held.take(session, call, "k"), Taken::Begin(_)));
    let Taken::AwaitCall(ended, _) = held.take(session, look, "k") else { panic!("the call knows best") };
    assert!(held.call_known_by("k").is_some() && held.call_known_by("other").is_none());
    held.acknowledge(key(1));
    assert_eq!(held.len(), 2, "an acknowledgement of what has not ended means nothing");
    held.finish(call, done(3));
    assert_eq!(*ended.borrow(), Some(done(3)));
    held.finish(look, done(3));
    held.acknowledge(key(1));
    assert!(held.len() == 0 && held.call_known_by("k").is_none());

    let (call, look) = ((key(2), Mode::Call), (key(2), Mode::Reconcile));
    assert!(matches!(held.take(session, look, "k"), Taken::Begin(_)));
    assert!(matches!(held.take(session, call, "k"), Taken::Settled), "a late order");
    held.finish(look, done(4));
    assert!(matches!(held.take(session, look, "k"), Taken::AwaitCall(..)), "a finished look is out of date");
}

#[tokio::test(start_paused = true)]
async fn what_is_held_follows_the_claims_of_its_shard() {
    const A: CoordinatorNo = CoordinatorNo(0);
    const B: CoordinatorNo = CoordinatorNo(1);
    let claim = |epoch| [ShardClaim { shard: ShardId(0), epoch: Epoch(epoch) }];
    let lease = || Lease::until(Instant::now() + Duration::from_secs(1));
    let mut held = Held::default();
    let ((first, _), (second, _)) = (held.open_session(), held.open_session());
    held.welcomed(first, lease());
    held.welcomed(second, lease());
    assert_eq!(held.claim(A, first, &claim(5)), Brought { shards: vec![ShardId(0)], ..Brought::default() });
    let [ended, waits] = [1, 2].map(|no| (key(no), Mode::Call));
    assert!(matches!(held.take(first, ended, "1"), Taken::Begin(_)));
    let Taken::Begin(tenure) = held.take(first, waits, "2") else { panic!("it is new") };
    assert_eq!(held.finish(ended, done(1)), [first]);

    let brought = held.claim(B, second, &claim(6));
    assert_eq!((brought.calls, brought.reports), (vec![key(1), key(2)], vec![(ended, done(1))]));
    assert!(held.is_stale(&key(3), Epoch(5)) && !held.is_stale(&key(3), Epoch(6)));
    assert_eq!(held.claim(A, first, &claim(5)), Brought::default(), "it has lost the shard");
    held.sent(second, ended, Instant::now());
    assert!(held.claim(B, second, &claim(6)).reports.is_empty(), "it was told");
    assert_eq!(held.claim(B, second, &claim(7)).reports.len(), 1, "it may have lost what it was told");
    assert!(held.due(first, Instant::now()).is_empty(), "nobody else is");
    held.close_session(first);
    assert!(tenure.is_held(), "the call is the claimer's");
    assert_eq!(held.finish(waits, done(2)), [second]);

    held.sent(second, waits, Instant::now());

    held.close_session(second);
    let [first, second] = [held.open_session().0, held.open_session().0];
    held.welcomed(first, lease());
    held.welcomed(second, lease());
    held.sent(second, ended, Instant::now());
    let brought = held.claim(B, second, &claim(8));
    assert_eq!(brought.reports, [(waits, done(2))], "what was sent since the hello was heard");
    held.close_session(second);
    let second = held.open_session().0;
    held.welcomed(second, lease());
    assert_eq!(held.claim(A, first, &claim(1)), Brought::default());
    held.claim(B, second, &[]);
    assert_eq!(held.claim(A, first, &claim(1)).calls.len(), 2, "a store may begin anew");
    held.forget_claims(A);
    assert_eq!(held.claim(B, second, &claim(0)).calls.len(), 2);
}

proptest! {
    /// Whatever comes in whatever order, a call is begun at most once.
    #[test]
    fn a_call_is_begun_at_most_once(steps in prop::collection::vec((0_u8..6, 0_u32..3), 1..60)) {
        let mut held = Held::default();
        let (mut session, _) = held.open_session();
        let (mut begun, mut under_way) = (BTreeMap::<u32, u32>::new(), Vec::new());
        for (step, no) in steps {
            let call = (key(no), Mode::Call);
            match step {
                0 | 1 => match held.take(session, call, "k") {
                    Taken::Begin(_) => {
                        *begun.entry(no).or_default() += 1;
                        under_way.push(call);
                    }
                    Taken::Settled => under_way.push(call),
                    Taken::UnderWay | Taken::Ended(_) | Taken::AwaitCall(..) => {}
                },
                2 => if let Taken::Begin(_) | Taken::AwaitCall(..) = held.take(session, (key(no), Mode::Reconcile), "") {
                    under_way.push((key(no), Mode::Reconcile));
                },
                3 => if let Some(ended) = under_way.pop() {
                    held.finish(ended, done(0));
                },
                4 => held.acknowledge(key(no)),
                _ => {
                    held.close_session(session);
                    session = held.open_session().0;
                }
            }
        }
        prop_assert!(begun.values().all(|count| *count == 1), "{begun:?}");
    }
}
