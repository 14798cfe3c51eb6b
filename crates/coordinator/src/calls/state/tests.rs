use kapell_kernel::{Attempt, CallNo};
use kapell_model::definition::EffectClass;
use kapell_model::plan::StepIndex;
use kapell_model::{Epoch, RunId, ShardId, Timestamp};

use super::*;
use crate::dispatch::{Grip, OVERDUE_AFTER};
use crate::session::Outlet;

mod moves;

const LEASE: Duration = Duration::from_secs(1);
/// Of every tool.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The shard of all calls is here.
fn desk() -> CallState {
    let mut desk = CallState::new(LEASE);
    desk.own(ShardClaim { shard: ShardId(0), epoch: Epoch(1) });
    desk
}

/// A bank whose postings can be found out about, may be repeated, or neither.
fn bank() -> Arc<InForce> {
    let tool = |name: &str, more: serde_json::Value| {
        let mut tool = serde_json::json!({
            "name": name, "effect": "write", "timeout": "500ms", "http": { "method": "POST", "path": "/postings" }
        });
        tool.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tool
    };
    let found = serde_json::json!({ "reconcile": { "tool": "look", "done": "result.count > 0" } });
    let tools = [
        tool("look", serde_json::json!({ "effect": "read" })),
        tool("post", found),
        tool("natural", serde_json::json!({ "idempotency": "natural" })),
        tool("blind", serde_json::json!({})),
    ];
    InForce::of(&[
        serde_json::json!({
            "apiVersion": "kapell.dev/v1", "kind": "Connector", "metadata": { "name": "bank" },
            "spec": { "protocol": "http", "tools": tools },
        }),
        serde_json::json!({
            "apiVersion": "kapell.dev/v1", "kind": "Connection", "metadata": { "name": "bank" },
            "spec": { "connector": "bank", "endpoint": "http://bank.example" },
        }),
    ])
}

fn order(origin: Origin) -> WorkOrder<(UnitId, Call)> {
    let call = Call {
        no: CallNo(0),
        tool: "bank/post".parse().unwrap(),
        args: Json::null(),
        effect: EffectClass::Write,
        attempt: Attempt(1),
        intended: Timestamp(0),
        state: kapell_kernel::CallState::Intended,
    };
    let run = RunId::new(ShardId(0), 7);
    WorkOrder { run, namespace: Name::default_namespace(), work: (UnitId::step(StepIndex(0)), call), origin }
}

fn order_of(tool: &str) -> WorkOrder<(UnitId, Call)> {
    let mut order = order(Origin::New);
    order.work.1.tool = tool.parse().unwrap();
    order
}

fn key() -> CallKey {
    let run = RunId::new(ShardId(0), 7);
    CallKey { run, unit: UnitId::step(StepIndex(0)), no: CallNo(0), attempt: Attempt(1) }
}

fn join(desk: &mut CallState, now: Instant) {
    join_as(desk, now, 1, vec![]);
}

/// The connector, as this process of it and with these calls; it has room for one more.
fn join_as(desk: &mut CallState, now: Instant, instance: u8, holding: Vec<CallKey>) -> SessionId {
    let (name, instance) = ("c".to_owned(), vec![instance]);
    let capacity = 1 + holding.len() as u32;
    let intro = ConnectorIntro {
        name,
        instance,
        capacity,
        holding,
        claims: false,
        revision: 0,
        to: Outlet::new(8).0,
    };
    desk.join(now, intro, &InForce::default())
}

fn acts(desk: &mut CallState) -> Vec<Act> {
    std::mem::take(&mut desk.acts)
}

/// The number of the read that was sent, which must be all that was done.
fn read_sent(desk: &mut CallState) -> u64 {
    let acts = acts(desk);
    let [Act::Send(_, order)] = acts.as_slice() else { panic!("one read was to be sent: {acts:?}") };
    assert_eq!(order.mode(), v1::CallMode::Reconcile);
    let Some(v1::call_order::Which::Read(id)) = order.which else { panic!("no read: {order:?}") };
    id
}

/// A call that was sent to a connector which then fell silent; its run asks to find out. Gives the silent session.
fn lost(desk: &mut CallState, now: Instant, in_force: &InForce) -> (SessionId, Instant) {
    desk.make(now, order(Origin::New), in_force);
    let session = join_as(desk, now, 1, vec![]);
    let late = now + LEASE;
    desk.tick(late, in_force);
    let told = acts(desk);
    assert!(
        matches!(told.as_slice(), [Act::Send(..), Act::Finish(_, CallOutcome::Unknown { .. })]),
        "{told:?}"
    );
    desk.find_out(late, order(Origin::New), in_force);
    assert!(acts(desk).is_empty(), "what was sent may still take effect");
    (session, late)
}

#[test]
fn a_call_waits_for_a_connector_and_is_not_dropped() {
    let now = Instant::now();
    let mut desk = desk();
    desk.make(now, order(Origin::New), &InForce::default());
    assert!(desk.acts.is_empty(), "nobody is there to make it");
    join(&mut desk, now);
    assert!(matches!(desk.acts.as_slice(), [Act::Send(..)]), "{:?}", desk.acts);
}

#[test]
fn a_recovered_call_is_never_made_again_however_late_it_was_found() {
    let begun = Instant::now();
    let mut desk = desk();
    let late = begun + LEASE * 5;
    desk.tick(late, &InForce::default());
    join(&mut desk, late);
    desk.make(late, order(Origin::Recovered), &InForce::default());
    assert!(desk.acts.is_empty(), "a connector may still hold it: {:?}", desk.acts);
    desk.tick(late + LEASE, &InForce::default());
    assert!(matches!(desk.acts.as_slice(), [Act::Finish(_, CallOutcome::Unknown { .. })]), "{:?}", desk.acts);
}

#[test]
fn a_late_report_of_a_call_does_not_stop_the_finding_out() {
    let (now, in_force) = (Instant::now(), bank());
    let mut desk = desk();
    let (session, late) = lost(&mut desk, now, &in_force);
    desk.made(late, session, key());
    let settled = late + TIMEOUT * 2;
    let other = join_as(&mut desk, settled, 2, vec![]);
    desk.tick(settled, &in_force);
    let first = read_sent(&mut desk);
    desk.made(settled, session, key());
    let error = TaskError::new(ErrorClass::Unavailable, "the bank is closed");
    desk.read_done(settled, other, first, Err(error));
    desk.made(settled, session, key());
    let again = settled + FIND_OUT_AGAIN;
    desk.heard(again, other);
    desk.tick(again, &in_force);
    let second = read_sent(&mut desk);
    desk.read_done(again, other, second, Ok(Json::parse(r#"{"took_effect":true,"result":7}"#).unwrap()));
    let told = acts(&mut desk);
    assert!(
        matches!(told.as_slice(), [Act::Settle(_, CallVerdict::TookEffect(seven))] if seven.as_str() == "7"),
        "{told:?}"
    );
}

#[test]
fn nothing_is_asked_before_what_was_sent_has_had_its_time() {
    let (now, in_force) = (Instant::now(), bank());
    let mut desk = desk();
    let (_, late) = lost(&mut desk, now, &in_force);
    let other = join_as(&mut desk, late, 2, vec![]);
    desk.tick(late + TIMEOUT * 2 - Duration::from_millis(1), &in_force);
    assert!(desk.acts.is_empty(), "{:?}", desk.acts);
    desk.heard(late + TIMEOUT * 2, other);
    desk.tick(late + TIMEOUT * 2, &in_force);
    read_sent(&mut desk);
}

#[test]
fn a_tool_says_how_a_lost_answer_is_cleared_up() {
    let (now, in_force) = (Instant::now(), bank());
    let mut desk = desk();
    desk.find_out(now, order_of("bank/natural"), &in_force);
    desk.find_out(now, order_of("bank/blind"), &in_force);
    desk.find_out(now, order_of("bank/gone"), &in_force);
    let verdicts: Vec<CallVerdict> = acts(&mut desk)
        .into_iter()
        .map(|act| if let Act::Settle(_, verdict) = act { verdict } else { panic!("{act:?}") })
        .collect();
    let [CallVerdict::SafeToRepeat, CallVerdict::CannotTell { .. }, CallVerdict::CannotTell { .. }] =
        verdicts.as_slice()
    else {
        panic!("{verdicts:?}")
    };
}

#[test]
fn a_call_whose_run_was_told_is_not_made_again_when_its_shard_is_loaded_anew() {
    let now = Instant::now();
    let mut desk = desk();
    desk.make(now, order(Origin::New), &InForce::default());
    let session = join_as(&mut desk, now, 1, vec![]);
    desk.made(now, session, key());
    acts(&mut desk);
    desk.make(now, order(Origin::Recovered), &InForce::default());
    desk.make(now, order(Origin::New), &InForce::default());
    desk.heard(now + LEASE, session);
    desk.tick(now + LEASE, &InForce::default());
    assert!(desk.acts.is_empty(), "its answer is on its way: {:?}", desk.acts);
}

#[test]
fn a_connector_takes_no_more_than_it_has_room_for() {
    let now = Instant::now();
    let mut desk = desk();
    let mut second = order(Origin::New);
    second.run = RunId::new(ShardId(0), 8);
    desk.make(now, order(Origin::New), &InForce::default());
    desk.make(now, second, &InForce::default());
    let session = join_as(&mut desk, now, 1, vec![]);
    assert_eq!(acts(&mut desk).len(), 1);
    desk.made(now, session, key());
    desk.tick(now, &InForce::default());
    assert_eq!(acts(&mut desk).len(), 1, "the second follows when the first has ended");
}

#[test]
fn a_connector_that_comes_back_keeps_what_it_holds_and_gets_what_it_never_got() {
    let now = Instant::now();
    let mut desk = desk();
    desk.make(now, order(Origin::New), &InForce::default());
    let first = join_as(&mut desk, now, 1, vec![]);
    desk.left(now, first);
    acts(&mut desk);
    let second = join_as(&mut desk, now, 1, vec![key()]);
    assert!(acts(&mut desk).is_empty(), "it is at work on it");
    desk.left(now, second);
    join_as(&mut desk, now, 1, vec![]);
    assert!(matches!(acts(&mut desk).as_slice(), [Act::Send(..)]), "it never arrived");
}

#[test]
fn a_recovered_call_that_a_connector_holds_is_left_to_it() {
    let now = Instant::now();
    let mut desk = desk();
    desk.make(now, order(Origin::Recovered), &InForce::default());
    let session = join_as(&mut desk, now, 1, vec![key()]);
    desk.heard(now + LEASE, session);
    desk.tick(now + LEASE, &InForce::default());
    assert!(desk.acts.is_empty(), "neither made again nor given up: {:?}", desk.acts);
}

#[test]
fn a_read_that_nobody_answers_ends_in_time() {
    let (now, in_force) = (Instant::now(), bank());
    let mut desk = desk();
    let task = kapell_wire::task::TaskKey { run: key().run, unit: key().unit, attempt: Attempt(1) };
    let read = Read {
        task,
        no: CallNo(0),
        namespace: Name::default_namespace(),
        tool: "bank/look".parse().unwrap(),
        args: Json::null(),
        timeout: TIMEOUT,
    };
    desk.read(now, read, &in_force);
    desk.tick(now + TIMEOUT, &in_force);
    assert!(desk.acts.is_empty());
    desk.tick(now + TIMEOUT * 2, &in_force);
    let told = acts(&mut desk);
    assert!(
        matches!(told.as_slice(), [Act::ReadDone(_, Err(error))] if error.class == ErrorClass::Unavailable),
        "{told:?}"
    );
    join(&mut desk, now + TIMEOUT * 2);
    assert!(desk.acts.is_empty(), "nobody waits for it any more: {:?}", desk.acts);
}

#[test]
fn reads_that_tasks_wait_for_have_a_limit() {
    let (now, in_force) = (Instant::now(), bank());
    let mut desk = desk();
    let task = kapell_wire::task::TaskKey { run: key().run, unit: key().unit, attempt: Attempt(1) };
    let read = |no: usize| Read {
        task,
        no: CallNo(no as u32),
        namespace: Name::default_namespace(),
        tool: "bank/look".parse().unwrap(),
        args: Json::null(),
        timeout: TIMEOUT,
    };
    for no in 0..READS_MAX {
        desk.read(now, read(no), &in_force);
    }
    assert!(desk.acts.is_empty());
    desk.read(now, read(READS_MAX), &in_force);
    let told = acts(&mut desk);
    assert!(
        matches!(told.as_slice(), [Act::ReadDone(read, Err(error))]
            if read.no == CallNo(READS_MAX as u32) && error.class == ErrorClass::RateLimited),
        "{told:?}"
    );
}

/// What the doctor hears of the call, in short.
fn stuck(desk: &CallState, now: Instant) -> String {
    let stuck = desk.stuck(now, &[key()]);
    stuck.into_iter().map(|stuck| format!("{}: {}", stuck.grip.as_str(), stuck.what)).collect()
}

#[test]
fn the_doctor_hears_of_calls_that_cannot_move() {
    let (now, in_force) = (Instant::now(), bank());
    let mut desk = desk();
    assert_eq!(desk.stuck(now, &[key()])[0].grip, Grip::Unknown);
    desk.make(now, order(Origin::New), &in_force);
    assert_eq!(stuck(&desk, now), "");
    let queue = std::mem::take(&mut desk.queue);
    assert!(stuck(&desk, now).contains("in no queue"));
    desk.queue = queue;
    let late = now + OVERDUE_AFTER;
    assert_eq!(stuck(&desk, late - Duration::from_millis(1)), "");
    assert!(stuck(&desk, late).starts_with("overdue") && stuck(&desk, late).contains("no connector"));

    let session = join_as(&mut desk, now, 1, vec![]);
    assert_eq!(stuck(&desk, late), "", "it is being made, however long that takes");
    let gone = desk.sessions.remove(&session).unwrap();
    assert!(stuck(&desk, now).contains("session of its connector is gone"));
    desk.sessions.insert(session, gone);
    desk.made(now, session, key());
    assert_eq!(stuck(&desk, late - Duration::from_millis(1)), "", "its run may be about to answer");
    assert!(stuck(&desk, late).contains("does not answer"));
}

#[test]
fn the_doctor_hears_of_a_finding_out_that_nobody_does() {
    let (now, in_force) = (Instant::now(), bank());
    let mut desk = desk();
    let (_, late) = lost(&mut desk, now, &in_force);
    let settled = late + TIMEOUT * 2;
    assert_eq!(stuck(&desk, settled), "");
    assert!(stuck(&desk, settled + OVERDUE_AFTER).contains("its time to take effect has passed"));
    join_as(&mut desk, settled, 2, vec![]);
    desk.tick(settled, &in_force);
    assert_eq!(stuck(&desk, settled), "", "a read is under way");
    desk.reads.clear();
    assert!(stuck(&desk, settled).contains("nobody is finding out"));
}

#[test]
fn the_doctor_hears_of_a_recovered_call_that_nobody_waits_for() {
    let now = Instant::now();
    let mut desk = desk();
    desk.make(now, order(Origin::Recovered), &InForce::default());
    assert_eq!(stuck(&desk, now), "");
    desk.shards = Shards::new(LEASE);
    assert!(stuck(&desk, now).contains("nobody waits for that connector"));
}
