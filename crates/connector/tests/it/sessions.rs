//! Sessions: what survives them, and what must not.
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kapell_connector::{Connector, ConnectorOptions, Outside};
use kapell_proto::v1;
use kapell_runtime::Runtime;
use serde_json::json;

use crate::coordinator::{Coordinator, Session};
use crate::limits::Held;
use crate::rig::{Outcome, Rig, call_order, call_ref, definitions};

const TOOLS: &str = r#"
- name: do
  effect: write
  timeout: 20s
  http: { method: POST, path: /do }
  reconcile: { tool: look, with: { how: at-once }, done: "result.made > 0" }
- name: look
  http: { method: GET, path: /look }
"#;

fn documents() -> Vec<String> {
    definitions("http", "http://127.0.0.1:1", "limits: { concurrency: 1 }", TOOLS)
}

async fn rig(outside: &Arc<Held>) -> Rig {
    Rig::with(documents(), Runtime::system(), Arc::clone(outside) as Arc<dyn Outside>, 10).await
}

fn how(no: u32, how: &str) -> v1::CallOrder {
    call_order(no, "do", &json!({ "how": how }))
}

fn look(no: u32) -> v1::CallOrder {
    v1::CallOrder { mode: v1::CallMode::Reconcile.into(), ..how(no, "wait") }
}

/// Ends the session from the coordinator's side and takes the next one that the connector opens.
async fn reopen(rig: &mut Rig, lease_ms: u64) {
    rig.session.close();
    rig.session = rig.coordinator.session().await;
    rig.session.welcome(documents(), lease_ms).await;
}

async fn made(outside: &Held, count: usize) {
    for _ in 0..400 {
        if outside.made.load(Ordering::SeqCst) == count {
            return;
        }
        // why: between two looks
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} calls were made, not {count}", outside.made.load(Ordering::SeqCst));
}

fn which(report: &v1::CallReport) -> v1::CallRef {
    match report.which.clone().unwrap() {
        v1::call_report::Which::Call(call) => call,
        v1::call_report::Which::Read(no) => panic!("read {no}"),
    }
}

#[tokio::test]
async fn hello_says_who_and_what_and_the_instance_stays() {
    let outside = Held::new();
    let mut rig = rig(&outside).await;
    let first = rig.session.hello.clone();
    assert_eq!((first.connector.as_str(), first.capacity, first.holding.len()), ("connector-1", 10, 0));
    assert_eq!(first.instance.len(), 16);
    assert_eq!(first.features, ["claims"]);
    reopen(&mut rig, 5_000).await;
    assert_eq!(rig.session.hello.instance, first.instance);
    let other = self::rig(&outside).await;
    assert_ne!(other.session.hello.instance, first.instance);
}

#[tokio::test]
async fn a_repeated_order_is_not_made_twice() {
    let outside = Held::new();
    let mut rig = rig(&outside).await;
    for _ in 0..3 {
        rig.session.order(how(1, "wait")).await;
    }
    made(&outside, 1).await;
    outside.may_end.add_permits(3);
    let report = rig.session.report().await;
    assert_eq!(Outcome::of(&report), Outcome::Output(json!({ "made": 1 })));
    rig.session.order(how(1, "wait")).await;
    assert_eq!(rig.session.report().await, report, "answered from the kept report");
    rig.session.ack(call_ref(1)).await;
    rig.holding(0).await;
    rig.session.order(how(1, "wait")).await;
    let late = Outcome::of(&rig.session.report().await).unknown();
    assert!(late.contains("not made again"), "{late}");
    assert_eq!(outside.made.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_held_outlives_the_session_and_is_sent_until_it_is_acknowledged() {
    let outside = Held::new();
    let mut rig = rig(&outside).await;
    rig.session.order(how(1, "wait")).await;
    made(&outside, 1).await;
    reopen(&mut rig, 5_000).await;
    assert_eq!(rig.session.hello.holding, [call_ref(1)], "under way");
    outside.may_end.add_permits(1);
    let report = rig.session.report().await;
    assert_eq!(which(&report), call_ref(1));
    for _ in 0..2 {
        reopen(&mut rig, 5_000).await;
        assert_eq!(rig.session.hello.holding, [call_ref(1)], "ended, and not acknowledged");
        assert_eq!(rig.session.report().await, report);
    }
    rig.session.ack(call_ref(1)).await;
    rig.holding(0).await;
    reopen(&mut rig, 5_000).await;
    assert!(rig.session.hello.holding.is_empty());
    assert!(rig.session.is_silent_for(Duration::from_millis(300)).await);
    assert_eq!(outside.made.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_unacknowledged_report_is_sent_again_on_the_same_session() {
    let outside = Held::new();
    let mut rig = rig(&outside).await;
    reopen(&mut rig, 400).await;
    rig.session.order(how(1, "at-once")).await;
    let report = rig.session.report().await;
    assert_eq!(rig.session.report().await, report);
    rig.session.ack(call_ref(1)).await;
    rig.holding(0).await;
}

#[tokio::test]
async fn a_read_is_reported_once_and_only_to_the_session_that_asked() {
    let outside = Held::new();
    let mut rig = rig(&outside).await;
    let mut order = call_order(0, "look", &json!({ "how": "wait" }));
    order.which = Some(v1::call_order::Which::Read(9));
    rig.session.order(order.clone()).await;
    made(&outside, 1).await;
    assert_eq!(rig.connector.holding(), 0);
    reopen(&mut rig, 5_000).await;
    outside.may_end.add_permits(1);
    assert!(rig.session.is_silent_for(Duration::from_millis(300)).await);
    outside.may_end.add_permits(1);
    rig.session.order(order).await;
    assert_eq!(rig.session.report().await.which, Some(v1::call_report::Which::Read(9)));
}

#[tokio::test]
async fn a_lost_session_begins_nothing_more_and_finishes_what_it_began() {
    let outside = Held::new();
    let mut rig = rig(&outside).await;
    rig.session.order(how(1, "wait")).await;
    rig.session.order(how(2, "wait")).await;
    made(&outside, 1).await;
    rig.holding(2).await;
    reopen(&mut rig, 5_000).await;
    assert_eq!(rig.session.hello.holding, [call_ref(1), call_ref(2)]);
    outside.may_end.add_permits(5);
    let (one, two) = (rig.session.report().await, rig.session.report().await);
    assert_eq!(which(&one), call_ref(1));
    assert_eq!(Outcome::of(&one), Outcome::Output(json!({ "made": 1 })));
    let message = Outcome::of(&two).error(v1::ErrorClass::Unavailable);
    assert!(message.contains("session with the coordinator is over"), "{message}");
    assert_eq!(outside.made.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_coordinator_that_stops_answering_is_left_and_its_calls_do_not_begin() {
    let outside = Held::new();
    let mut rig = rig(&outside).await;
    reopen(&mut rig, 500).await;
    rig.session.order(how(1, "wait")).await;
    rig.session.order(how(2, "wait")).await;
    made(&outside, 1).await;
    // why: longer than a lease; time is the point
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(rig.connector.sessions(), 1, "answered heartbeats keep the lease");
    rig.session.alive.store(false, Ordering::SeqCst);
    let silent = std::mem::replace(&mut rig.session, rig.coordinator.session().await);
    outside.may_end.add_permits(5);
    rig.session.welcome(documents(), 5_000).await;
    let (one, two) = (rig.session.report().await, rig.session.report().await);
    Outcome::of(&one).output();
    Outcome::of(&two).error(v1::ErrorClass::Unavailable);
    assert_eq!(outside.made.load(Ordering::SeqCst), 1);
    drop(silent);
}

#[tokio::test]
async fn a_lost_call_that_is_under_way_here_is_known_when_it_ends() {
    let outside = Held::new();
    let mut rig = rig(&outside).await;
    rig.session.order(how(1, "wait")).await;
    made(&outside, 1).await;
    rig.session.order(look(1)).await;
    assert!(rig.session.is_silent_for(Duration::from_millis(200)).await, "it waits for the call itself");
    outside.may_end.add_permits(1);
    let ended =
        [rig.session.report().await, rig.session.report().await].map(|report| Outcome::of(&report).output());
    assert!(ended.contains(&json!({ "made": 1 })), "{ended:?}");
    assert!(ended.contains(&json!({ "took_effect": true, "result": { "made": 1 } })), "{ended:?}");
    rig.session.ack(call_ref(1)).await;
    rig.holding(0).await;
    assert_eq!(outside.made.load(Ordering::SeqCst), 1, "nothing was read");

    // One that this process never made is looked for, and not made by a late order.
    rig.session.order(look(2)).await;
    assert_eq!(Outcome::of(&rig.session.report().await).output()["took_effect"], true);
    rig.session.order(how(2, "at-once")).await;
    Outcome::of(&rig.session.report().await).unknown();
    assert_eq!(outside.made.load(Ordering::SeqCst), 2, "one read");
}

#[tokio::test]
async fn a_look_that_is_ordered_as_a_read_waits_for_the_call_too() {
    let outside = Held::new();
    let mut rig = rig(&outside).await;
    rig.session.order(how(1, "wait")).await;
    made(&outside, 1).await;
    let which = Some(v1::call_order::Which::Read(5));
    rig.session.order(v1::CallOrder { which: which.clone(), ..look(1) }).await;
    assert!(rig.session.is_silent_for(Duration::from_millis(200)).await);
    outside.may_end.add_permits(1);
    let ended = [rig.session.report().await, rig.session.report().await];
    let read = ended.iter().find(|report| report.which == Some(v1::call_report::Which::Read(5))).unwrap();
    assert_eq!(Outcome::of(read).output(), json!({ "took_effect": true, "result": { "made": 1 } }));
    rig.session.ack(call_ref(1)).await;
    rig.holding(0).await;
    rig.session.order(v1::CallOrder { which, ..look(1) }).await;
    assert_eq!(
        Outcome::of(&rig.session.report().await).output()["result"],
        json!({ "made": 2 }),
        "it was read"
    );
}

#[tokio::test]
async fn another_coordinator_that_takes_over_gets_the_report_too() {
    let outside = Held::new();
    let (runtime, connector, _coordinators, [mut first, mut second]) = two(&outside).await;
    first.order(how(1, "wait")).await;
    made(&outside, 1).await;
    second.order(how(1, "wait")).await;
    // why: an order that changes nothing shows nothing
    tokio::time::sleep(Duration::from_millis(100)).await;
    outside.may_end.add_permits(1);
    let reports = [first.report().await, second.report().await];
    assert_eq!(reports[0], reports[1]);
    second.ack(call_ref(1)).await;
    while connector.holding() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(outside.made.load(Ordering::SeqCst), 1);
    runtime.jobs.stop("shutdown");
}

/// The shard of all calls of these tests.
const SHARD: u32 = 0x0707;

/// A connector with two coordinators, and its sessions with them.
async fn two(
    outside: &Arc<Held>,
) -> (Runtime, kapell_connector::ConnectorHandle, [Coordinator; 2], [Session; 2]) {
    let (mut a, mut b) = (Coordinator::start().await, Coordinator::start().await);
    let runtime = Runtime::system();
    let options = ConnectorOptions {
        name: "connector-1".to_owned(),
        coordinators: vec![a.address.clone(), b.address.clone()],
        capacity: 4,
    };
    let connector = Connector::start(options, runtime.clone(), Arc::clone(outside) as Arc<dyn Outside>);
    let (first, second) = (a.session().await, b.session().await);
    first.welcome(documents(), 5_000).await;
    second.welcome(documents(), 5_000).await;
    (runtime, connector, [a, b], [first, second])
}

fn under(epoch: u64, order: v1::CallOrder) -> v1::CallOrder {
    v1::CallOrder { epoch, ..order }
}

#[tokio::test]
async fn a_call_follows_its_shard_to_the_coordinator_that_claims_it() {
    let outside = Held::new();
    let (runtime, connector, [mut a, _b], [mut first, mut second]) = two(&outside).await;
    first.claim(SHARD, 5).await;
    assert_eq!(first.holding().await, v1::HoldingCalls { shards: vec![SHARD], calls: vec![] });
    first.order(under(5, how(3, "at-once"))).await;
    assert_eq!(which(&first.report().await), call_ref(3));
    first.order(under(5, how(1, "wait"))).await;
    made(&outside, 2).await;
    first.order(under(5, how(2, "wait"))).await;
    while connector.holding() < 3 {
        tokio::task::yield_now().await;
    }

    second.claim(SHARD, 6).await;
    let all = vec![call_ref(1), call_ref(2), call_ref(3)];
    assert_eq!(second.holding().await, v1::HoldingCalls { shards: vec![SHARD], calls: all.clone() });
    assert_eq!(which(&second.report().await), call_ref(3), "what has ended is reported again");
    // The first does not know yet: what it orders now, the second may have ordered elsewhere.
    first.order(under(5, how(4, "at-once"))).await;
    assert!(first.is_silent_for(Duration::from_millis(100)).await);
    // It dies; the call that waits for its turn is not its own any more.
    first.close();
    drop(a.session().await);
    outside.may_end.add_permits(2);
    let reports = [second.report().await, second.report().await];
    assert_eq!(reports.each_ref().map(which), [call_ref(1), call_ref(2)]);
    assert_eq!(
        reports.map(|report| Outcome::of(&report).output()),
        [json!({ "made": 2 }), json!({ "made": 3 })]
    );
    for call in all {
        second.ack(call).await;
    }
    while connector.holding() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(outside.made.load(Ordering::SeqCst), 3);
    runtime.jobs.stop("shutdown");
}

#[tokio::test]
async fn a_claim_is_answered_unless_another_holds_and_says_nothing_twice() {
    let outside = Held::new();
    let (runtime, _connector, _coordinators, [mut first, mut second]) = two(&outside).await;
    second.claim(SHARD, 6).await;
    second.holding().await;
    second.order(under(6, how(1, "at-once"))).await;
    second.report().await;
    second.claim(SHARD, 6).await;
    assert_eq!(second.holding().await.calls, [call_ref(1)]);
    assert!(second.is_silent_for(Duration::from_millis(100)).await, "it was told of the report");
    first.claim(SHARD, 5).await;
    first.claim(70_000, 9).await;
    first.claim(1, 1).await;
    assert_eq!(first.holding().await.shards, [1], "neither a stale claim nor nonsense is answered");
    first.claim(SHARD, 7).await;
    assert_eq!(first.holding().await.calls, [call_ref(1)]);
    assert_eq!(which(&first.report().await), call_ref(1));
    runtime.jobs.stop("shutdown");
}

#[tokio::test]
async fn a_call_that_waits_while_its_coordinator_is_away_is_made_when_that_claims_it_again() {
    let outside = Held::new();
    let mut rig = rig(&outside).await;
    rig.session.claim(SHARD, 5).await;
    rig.session.order(under(5, how(1, "wait"))).await;
    made(&outside, 1).await;
    rig.session.order(under(5, how(2, "wait"))).await;
    rig.holding(2).await;
    reopen(&mut rig, 5_000).await;
    rig.session.claim(SHARD, 5).await;
    assert_eq!(rig.session.holding().await.calls.len(), 2);
    outside.may_end.add_permits(2);
    for _ in 0..2 {
        Outcome::of(&rig.session.report().await).output();
    }
    assert_eq!(outside.made.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn nonsense_is_answered_where_it_can_be_and_ends_nothing() {
    let outside = Held::new();
    let mut rig = rig(&outside).await;
    let good = how(1, "at-once");
    rig.session.order(v1::CallOrder { which: None, ..good.clone() }).await;
    let short = v1::CallRef { run: vec![1, 2], ..call_ref(1) };
    let which = Some(v1::call_order::Which::Call(short.clone()));
    rig.session.order(v1::CallOrder { which, ..good.clone() }).await;
    rig.session.order(v1::CallOrder { mode: 77, ..good.clone() }).await;
    rig.session.ack(short).await;
    for (no, bad) in [
        v1::CallOrder { namespace: "No Name".to_owned(), ..good.clone() },
        v1::CallOrder { tool: "no-tool".to_owned(), ..good.clone() },
        v1::CallOrder { args: "{".to_owned(), ..good.clone() },
    ]
    .into_iter()
    .enumerate()
    {
        let which = how(10 + u32::try_from(no).unwrap(), "").which;
        rig.session.order(v1::CallOrder { which, ..bad }).await;
        Outcome::of(&rig.session.report().await).error(v1::ErrorClass::BadRequest);
    }
    rig.session.order(good).await;
    Outcome::of(&rig.session.report().await).output();
    assert_eq!(outside.made.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn definitions_that_cannot_be_used_end_the_session() {
    let outside = Held::new();
    let mut rig = rig(&outside).await;
    let documents = vec!["{\"kind\": \"Mystery\"}".to_owned()];
    let definitions = v1::Definitions { revision: 2, documents };
    rig.session.say(v1::call_message::Kind::Definitions(definitions)).await;
    rig.session = rig.coordinator.session().await;
    rig.session.welcome(self::documents(), 5_000).await;
    rig.session.order(how(1, "at-once")).await;
    Outcome::of(&rig.session.report().await).output();
}
