use kapell_kernel::{Attempt, UnitId};
use kapell_model::plan::StepIndex;
use kapell_model::{Name, RunId, ShardId};
use tokio::sync::oneshot;

use super::*;
use crate::host::held::Counts;
use crate::limits::HOLDING_TASKS_MAX;

mod claims;

const ONE: SessionNo = SessionNo(0);
const TWO: SessionNo = SessionNo(1);

fn key(at: u32) -> TaskKey {
    let run = RunId::new(ShardId(0), u128::from(at));
    TaskKey { run, unit: UnitId::step(StepIndex(0)), attempt: Attempt(1) }
}

fn compiled(revision: u64, concurrency: u32) -> Arc<Compiled> {
    let name = |text| Name::new(text).unwrap();
    let skill = Skill {
        specialist: SpecialistName { namespace: name("retail"), name: name("clerk") },
        limits: SpecialistLimits { concurrency, restarts_per_minute: 1 },
        timeout: Duration::from_secs(7),
        how: How::Constant("null".into()),
    };
    let skills = BTreeMap::from([(Box::from("desk.nothing"), Arc::new(skill))]);
    Arc::new(Compiled::of(revision, BTreeMap::from([(Box::from("retail"), skills)])))
}

/// Two coordinators, connected, the first of which has sent definitions.
fn state(capacity: u32) -> State {
    let identity = Identity {
        worker: "w1".into(),
        instance: [7; 16],
        capacity,
        hosted: Hosted::Everything,
        skills: Vec::new(),
    };
    let mut state = State::new(identity, 2);
    state.connected(ONE);
    state.connected(TWO);
    state.definitions(ONE, compiled(5, 10), &mut Effects::default());
    state
}

fn say(state: &mut State, from: SessionNo, said: Said) -> Effects {
    let mut effects = Effects::default();
    state.inbound(from, said, Instant::now(), &mut effects);
    effects
}

fn assign(state: &mut State, from: SessionNo, at: u32) -> Effects {
    let assignment = Assignment {
        task: Some(key(at).to_proto()),
        namespace: "retail".into(),
        skill: "desk.nothing".into(),
        input: "{}".into(),
        ..Assignment::default()
    };
    say(state, from, Said::Assignment(assignment))
}

fn end(state: &mut State, at: u32, outcome: Outcome) -> Effects {
    let mut effects = Effects::default();
    state.ended(key(at), outcome, &mut effects);
    effects
}

fn error_of(effects: &Effects) -> ErrorClass {
    let [(_, WorkerMessage { kind: Some(Kind::Report(report)) })] = effects.send.as_slice() else {
        panic!("no single report in {effects:?}")
    };
    let Some(task_report::Result::Error(error)) = &report.result else { panic!("no error in {report:?}") };
    error_from(error.clone()).unwrap().class
}

#[test]
fn a_task_is_held_from_its_assignment_until_its_report_is_acknowledged() {
    let mut state = state(10);
    let effects = assign(&mut state, ONE, 1);
    assert_eq!(effects.run.len(), 1);
    let left = effects.run[0].1.deadline.duration_since(Instant::now());
    assert!(left > Duration::from_secs(6), "without a time of its own it has the skill's, not {left:?}");
    assert_eq!(state.held(), 1);
    say(&mut state, ONE, Said::ReportAck(key(1).to_proto()));
    assert_eq!(state.held(), 1, "an acknowledgement of what runs is not meant");
    assert_eq!(end(&mut state, 1, Ok("12345".into())).send.len(), 1);
    let counts = Counts { running: 0, unacknowledged: 1, unacknowledged_bytes: 5 };
    assert_eq!(state.tasks.counts(ONE), counts);
    assert!(end(&mut state, 1, Ok("late".into())).send.is_empty(), "a task ends once");
    assert_eq!(assign(&mut state, ONE, 1).send.len(), 1, "an ended one is reported again");
    say(&mut state, ONE, Said::ReportAck(key(1).to_proto()));
    assert_eq!((state.held(), state.tasks.counts(ONE)), (0, Counts::default()));
}

#[test]
fn what_was_not_answered_is_said_again_in_order_after_the_hello() {
    let mut state = state(10);
    (1..=3).for_each(|at| drop(assign(&mut state, ONE, at)));
    drop(assign(&mut state, TWO, 4));
    end(&mut state, 1, Ok("1".into()));
    let (answer, mut result) = oneshot::channel();
    let mut effects = Effects::default();
    let request = ToolRequest { task: Some(key(2).to_proto()), no: 0, tool: "a/b".into(), args: "1".into() };
    state.call(request, key(2), answer, &mut effects);
    let (answer, mut kept) = oneshot::channel();
    let checkpoint = Checkpoint { task: Some(key(2).to_proto()), position: 0, data: "1".into() };
    state.checkpoint(checkpoint, key(2), answer, &mut effects);
    assert_eq!(effects.send.len(), 2);
    state.quarantined(SpecialistNo(0), "ill".into(), &mut effects);
    state.drain(&mut effects);
    state.disconnected(ONE);
    let said: Vec<Kind> = state.connected(ONE).into_iter().filter_map(|message| message.kind).collect();
    let [hello, quarantine, draining, report, checkpoint, tool] = said.as_slice() else { panic!("{said:?}") };
    let Kind::Hello(hello) = hello else { panic!("{hello:?}") };
    assert_eq!(hello.holding, [key(1).to_proto(), key(2).to_proto(), key(3).to_proto()]);
    assert_eq!(hello.features, [FEATURE]);
    assert!(
        matches!(quarantine, Kind::Quarantine(Quarantine { specialist, .. }) if specialist == "retail/clerk")
    );
    assert!(matches!(draining, Kind::Draining(_)));
    assert!(matches!(report, Kind::Report(_)) && matches!(checkpoint, Kind::Checkpoint(_)));
    assert!(matches!(tool, Kind::Tool(_)));

    say(
        &mut state,
        ONE,
        Said::CheckpointAck(kapell_proto::v1::CheckpointAck { task: Some(key(2).to_proto()), position: 0 }),
    );
    assert!(kept.try_recv().is_ok());
    let unknown = kapell_proto::v1::TaskError { class: 999, ..Default::default() };
    let sent = ToolResult {
        task: Some(key(2).to_proto()),
        no: 0,
        result: Some(tool_result::Result::Error(unknown)),
    };
    say(&mut state, ONE, Said::ToolResult(sent));
    assert_eq!(result.try_recv().unwrap().unwrap_err().class, ErrorClass::Permanent);
    assert_eq!(state.connected(ONE).len(), 4, "what is answered is not said again");
}

#[test]
fn what_is_not_taken_is_refused_by_type_and_not_held() {
    let mut state = state(1);
    let mut elsewhere =
        Assignment { task: Some(key(9).to_proto()), namespace: "other".into(), ..Assignment::default() };
    assert_eq!(
        error_of(&say(&mut state, ONE, Said::Assignment(elsewhere.clone()))),
        ErrorClass::NoSpecialist
    );
    elsewhere.task = None;
    assert!(say(&mut state, ONE, Said::Assignment(elsewhere)).send.is_empty(), "nobody can be answered");
    drop(assign(&mut state, ONE, 1));
    assert_eq!(error_of(&assign(&mut state, ONE, 2)), ErrorClass::Unavailable);
    assert_eq!(assign(&mut state, TWO, 3).run.len(), 1, "each coordinator has its own credit");
    let mut effects = Effects::default();
    state.quarantined(SpecialistNo(0), "ill".into(), &mut effects);
    assert_eq!(effects.send.len(), 2, "both coordinators are told");
    end(&mut state, 1, Ok("1".into()));
    assert_eq!(error_of(&assign(&mut state, ONE, 2)), ErrorClass::NoSpecialist);
    state.quarantined(SpecialistNo(0), String::new(), &mut Effects::default());
    state.drain(&mut Effects::default());
    assert_eq!(error_of(&assign(&mut state, ONE, 2)), ErrorClass::Unavailable);
    assert_eq!(state.held(), 2);
}

#[test]
fn too_many_unacknowledged_bytes_stop_new_tasks() {
    let mut state = state(10);
    drop(assign(&mut state, ONE, 1));
    end(&mut state, 1, Ok("x".repeat(UNACKNOWLEDGED_BYTES_MAX)));
    assert_eq!(error_of(&assign(&mut state, ONE, 2)), ErrorClass::Unavailable);
    say(&mut state, ONE, Said::ReportAck(key(1).to_proto()));
    assert_eq!(assign(&mut state, ONE, 2).run.len(), 1);
}

#[test]
fn a_lost_lease_stops_what_runs_for_that_coordinator_and_keeps_reports() {
    let mut state = state(10);
    (1..=2).for_each(|at| drop(assign(&mut state, ONE, at)));
    drop(assign(&mut state, TWO, 3));
    end(&mut state, 1, Ok("1".into()));
    let mut effects = Effects::default();
    state.lease_lost(ONE, &mut effects);
    assert_eq!(effects.stop, [(SpecialistNo(0), key(2))]);
    assert_eq!(state.held(), 2);
    assert!(end(&mut state, 2, Ok("late".into())).send.is_empty());
}

#[test]
fn a_canceled_task_is_forgotten_and_stopped_and_one_that_has_ended_waits_for_its_acknowledgement() {
    let mut state = state(10);
    (1..=2).for_each(|at| drop(assign(&mut state, ONE, at)));
    end(&mut state, 1, Ok("1".into()));
    assert_eq!(say(&mut state, ONE, Said::Cancel(key(2).to_proto())).stop, [(SpecialistNo(0), key(2))]);
    assert!(say(&mut state, ONE, Said::Cancel(key(1).to_proto())).stop.is_empty(), "it ended before");
    assert_eq!(state.held(), 1);
    say(&mut state, ONE, Said::ReportAck(key(1).to_proto()));
    assert_eq!(state.held(), 0);
}

#[test]
fn a_task_moves_to_the_coordinator_that_assigns_it_again() {
    let mut state = state(10);
    drop(assign(&mut state, ONE, 1));
    let (answer, _result) = oneshot::channel();
    let request = ToolRequest { task: Some(key(1).to_proto()), no: 0, tool: "a/b".into(), args: "1".into() };
    state.call(request, key(1), answer, &mut Effects::default());
    assert!(assign(&mut state, ONE, 1).send.is_empty(), "the same coordinator knows of the call");
    let effects = assign(&mut state, TWO, 1);
    assert!(effects.run.is_empty());
    assert!(matches!(effects.send.as_slice(), [(TWO, WorkerMessage { kind: Some(Kind::Tool(_)) })]));
    assert_eq!((state.tasks.counts(ONE).running, state.tasks.counts(TWO).running), (0, 1));
    let mut effects = Effects::default();
    state.lease_lost(ONE, &mut effects);
    assert!(effects.stop.is_empty());
    assert!(matches!(end(&mut state, 1, Ok("1".into())).send.as_slice(), [(TWO, _)]));
}

#[test]
fn the_newest_revision_of_the_connected_coordinators_holds() {
    let mut state = state(10);
    let tell = |state: &mut State, from, revision, concurrency| {
        let mut effects = Effects::default();
        state.definitions(from, compiled(revision, concurrency), &mut effects);
        effects.limit.into_iter().map(|(_, limits)| limits.concurrency).collect::<Vec<_>>()
    };
    assert_eq!(tell(&mut state, TWO, 6, 20), [20]);
    assert_eq!(tell(&mut state, ONE, 5, 10), [0_u32; 0], "an older one changes nothing");
    state.disconnected(TWO);
    assert_eq!(tell(&mut state, ONE, 5, 30), [30], "unless nobody knows a newer one any more");
}

#[test]
fn the_death_of_a_supervisor_is_answered_for() {
    let mut state = state(10);
    drop(assign(&mut state, ONE, 1));
    let mut effects = Effects::default();
    state.supervisor_died(SpecialistNo(0), "gone", &mut effects);
    assert_eq!(error_of(&effects), ErrorClass::Panicked);
    assert_eq!(assign(&mut state, ONE, 2).run.len(), 1);
}
