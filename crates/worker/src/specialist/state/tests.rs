use std::sync::Arc;

use kapell_kernel::{Attempt, UnitId};
use kapell_model::plan::StepIndex;
use kapell_model::{Name, RunId, ShardId};

use super::*;
use crate::definitions::{How, Skill, SpecialistName};

const COOL_DOWN: Duration = Duration::from_secs(30);

fn limits(concurrency: u32, restarts_per_minute: u32) -> SpecialistLimits {
    SpecialistLimits { concurrency, restarts_per_minute }
}

fn key(at: u32) -> TaskKey {
    let run = RunId::new(ShardId(0), u128::from(at));
    TaskKey { run, unit: UnitId::step(StepIndex(0)), attempt: Attempt(1) }
}

fn task_until(at: u32, deadline: Instant) -> Task {
    let name = || Name::new("x").unwrap();
    let skill = Skill {
        specialist: SpecialistName { namespace: name(), name: name() },
        limits: limits(1, 1),
        timeout: Duration::from_secs(1),
        how: How::Constant("null".into()),
    };
    Task {
        key: key(at),
        skill: Arc::new(skill),
        input: "null".into(),
        checkpoints: Vec::new(),
        deadline,
        traceparent: String::new(),
    }
}

fn task(at: u32) -> Task {
    task_until(at, Instant::now() + Duration::from_secs(60))
}

/// Submits a task that must get an actor of its own.
fn start(state: &mut State, slot: u64, task: Task) {
    let Turn::Start(task) = state.submit(task) else { panic!("it needs an actor") };
    state.started(SlotNo(slot), &task);
}

#[test]
fn as_many_run_as_the_limit_says_and_the_rest_wait_in_order() {
    let mut state = State::new(limits(2, 10), COOL_DOWN);
    start(&mut state, 1, task(1));
    start(&mut state, 2, task(2));
    for at in 3..6 {
        assert!(matches!(state.submit(task(at)), Turn::Wait));
    }
    assert!(state.next().is_none());
    let Next::Give(SlotNo(1), next) = state.freed(SlotNo(1), key(1)) else { panic!("the next task") };
    assert_eq!(next.key, key(3));
    state.set_limits(limits(3, 10));
    let Some(Turn::Start(next)) = state.next() else { panic!("a raised limit makes room") };
    assert_eq!(next.key, key(4));
    state.started(SlotNo(3), &next);
    assert!(state.next().is_none());
}

#[test]
fn an_actor_is_kept_for_the_next_task_up_to_a_number() {
    let most = IDLE_ACTORS_MAX as u32 + 1;
    let mut state = State::new(limits(most, 10), COOL_DOWN);
    for at in 0..most {
        start(&mut state, at.into(), task(at));
    }
    for at in 0..most - 1 {
        assert!(matches!(state.freed(SlotNo(at.into()), key(at)), Next::Keep));
    }
    let last = SlotNo((most - 1).into());
    assert!(matches!(state.freed(last, key(most - 1)), Next::Retire(slot) if slot == last));
    assert!(!state.needs_watch());
    assert!(matches!(state.submit(task(500)), Turn::Give(_, _)), "no new actor is started");
    assert!(state.needs_watch());
}

#[test]
fn a_full_queue_refuses_by_type() {
    let mut state = State::new(limits(1, 10), COOL_DOWN);
    start(&mut state, 1, task(0));
    for at in 0..QUEUE_TASKS_MAX as u32 {
        assert!(matches!(state.submit(task(at + 1)), Turn::Wait));
    }
    let Turn::Refuse(refused, error) = state.submit(task(77_777)) else { panic!("it is full") };
    assert_eq!((refused, error.class), (key(77_777), ErrorClass::Unavailable));
}

#[test]
fn a_stopped_task_frees_its_place_and_its_actor_is_not_used_again() {
    let mut state = State::new(limits(1, 10), COOL_DOWN);
    start(&mut state, 1, task(1));
    assert!(matches!(state.submit(task(2)), Turn::Wait));
    assert!(matches!(state.submit(task(3)), Turn::Wait));
    assert_eq!(state.stop_task(key(2)), None, "it only waited");
    assert_eq!(state.stop_task(key(1)), Some(SlotNo(1)));
    let Some(Turn::Start(next)) = state.next() else { panic!("there is room") };
    assert_eq!(next.key, key(3));
    state.started(SlotNo(2), &next);
    assert!(matches!(state.freed(SlotNo(1), key(1)), Next::Retire(SlotNo(1))), "it ended just before");
    assert_eq!(state.gone(SlotNo(1)), None, "nobody is told of a task that was stopped on purpose");
    assert_eq!(state.gone(SlotNo(2)), Some(key(3)));
}

#[test]
fn deaths_are_counted_within_a_minute_and_too_many_end_in_quarantine() {
    let mut state = State::new(limits(1, 2), COOL_DOWN);
    let start_of_test = Instant::now();
    let at = |secs| start_of_test + Duration::from_secs(secs);
    assert_eq!(state.died(at(0), "a"), AfterDeath::GoOn);
    assert_eq!(state.died(at(30), "b"), AfterDeath::GoOn);
    assert_eq!(state.died(at(60), "c"), AfterDeath::GoOn, "the first is forgotten");
    start(&mut state, 1, task(1));
    assert!(matches!(state.submit(task(2)), Turn::Wait));
    let AfterDeath::Quarantine(reason) = state.died(at(61), "it broke") else { panic!("three in a minute") };
    assert!(reason.contains("it broke") && reason.contains("3 times"), "{reason}");
    let refused = state.refuse_waiting();
    assert_eq!((refused.len(), refused[0].0, refused[0].1.class), (1, key(2), ErrorClass::NoSpecialist));
    assert!(matches!(state.submit(task(3)), Turn::Refuse(_, error) if error.message.contains(&reason)));
    assert_eq!(state.died(at(62), "one that was under way"), AfterDeath::GoOn);
    assert!(!state.recovers(at(90)));
    assert!(state.recovers(at(91)));
    assert!(!state.recovers(at(92)), "once");
    assert!(matches!(state.submit(task(3)), Turn::Wait));
}

#[test]
fn what_outlives_its_deadline_is_given_up() {
    let mut state = State::new(limits(1, 2), COOL_DOWN);
    let now = Instant::now();
    start(&mut state, 1, task_until(1, now));
    assert!(matches!(state.submit(task_until(2, now)), Turn::Wait));
    assert!(matches!(state.submit(task(3)), Turn::Wait));
    assert!(state.overdue(now + OVERDUE_GRACE).is_empty());
    assert_eq!(state.overdue(now + OVERDUE_GRACE * 2), [(SlotNo(1), key(1))]);
    assert_eq!(state.expired(now), [key(2)]);
    let Some(Turn::Start(next)) = state.next() else { panic!("the place is free") };
    assert_eq!(next.key, key(3));
}
