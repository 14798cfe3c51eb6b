use kapell_kernel::{Attempt, CallNo};
use kapell_model::definition::EffectClass;
use kapell_model::plan::StepIndex;
use kapell_model::{RunId, ShardId, Timestamp};
use tokio::sync::mpsc;

use super::*;

const LEASE: Duration = Duration::from_secs(1);

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

fn join(desk: &mut CallState, now: Instant) {
    let (name, instance) = ("c".to_owned(), vec![1]);
    let intro = ConnectorIntro { name, instance, capacity: 1, holding: vec![], to: mpsc::channel(8).0 };
    desk.join(now, intro, &InForce::default());
}

#[test]
fn a_call_waits_for_a_connector_and_is_not_dropped() {
    let now = Instant::now();
    let mut desk = CallState::new(now, LEASE);
    desk.make(now, order(Origin::New), &InForce::default());
    assert!(desk.acts.is_empty(), "nobody is there to make it");
    join(&mut desk, now);
    assert!(matches!(desk.acts.as_slice(), [Act::Send(..)]), "{:?}", desk.acts);
}

#[test]
fn a_recovered_call_is_never_made_again_however_late_it_was_found() {
    let begun = Instant::now();
    let mut desk = CallState::new(begun, LEASE);
    let late = begun + LEASE * 5;
    desk.tick(late, &InForce::default());
    join(&mut desk, late);
    desk.make(late, order(Origin::Recovered), &InForce::default());
    assert!(desk.acts.is_empty(), "a connector may still hold it: {:?}", desk.acts);
    desk.tick(late + LEASE, &InForce::default());
    assert!(matches!(desk.acts.as_slice(), [Act::Finish(_, CallOutcome::Unknown { .. })]), "{:?}", desk.acts);
}
