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
    assert!(matches!(held.take(first, call, "k"), Taken::Begin));
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
    assert!(matches!(held.take(session, call, "k"), Taken::Begin));
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
    assert!(matches!(held.take(session, call, "k"), Taken::Begin));
    let Taken::AwaitCall(ended) = held.take(session, look, "k") else { panic!("the call knows best") };
    assert!(held.call_known_by("k").is_some() && held.call_known_by("other").is_none());
    held.acknowledge(key(1));
    assert_eq!(held.len(), 2, "an acknowledgement of what has not ended means nothing");
    held.finish(call, done(3));
    assert_eq!(*ended.borrow(), Some(done(3)));
    held.finish(look, done(3));
    held.acknowledge(key(1));
    assert!(held.len() == 0 && held.call_known_by("k").is_none());

    let (call, look) = ((key(2), Mode::Call), (key(2), Mode::Reconcile));
    assert!(matches!(held.take(session, look, "k"), Taken::Begin));
    assert!(matches!(held.take(session, call, "k"), Taken::Settled), "a late order");
    held.finish(look, done(4));
    assert!(matches!(held.take(session, look, "k"), Taken::AwaitCall(_)), "a finished look is out of date");
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
                    Taken::Begin => {
                        *begun.entry(no).or_default() += 1;
                        under_way.push(call);
                    }
                    Taken::Settled => under_way.push(call),
                    Taken::UnderWay | Taken::Ended(_) | Taken::AwaitCall(_) => {}
                },
                2 => if let Taken::Begin | Taken::AwaitCall(_) = held.take(session, (key(no), Mode::Reconcile), "") {
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
