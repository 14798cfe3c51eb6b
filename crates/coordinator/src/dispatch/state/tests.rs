use kapell_kernel::{Attempt, UnitId};
use kapell_model::plan::StepIndex;
use kapell_model::{Epoch, Json, RunId, ShardId};
use serde_json::json;

use super::*;
use crate::dispatch::{OVERDUE_AFTER, RESTART, Stuck};
use crate::session::Outlet;

mod moves;

const LEASE: Duration = Duration::from_secs(1);
const A_MOMENT: Duration = Duration::from_millis(1);

fn task(run: u32) -> TaskKey {
    let run = RunId::new(ShardId(0), u128::from(run));
    TaskKey { run, unit: UnitId::step(StepIndex(0)), attempt: Attempt(1) }
}

fn order(run: u32, namespace: &str, origin: Origin) -> WorkOrder<Dispatch> {
    let key = task(run);
    let work = Dispatch {
        unit: key.unit,
        attempt: key.attempt,
        skill: "clerk.noop".into(),
        input: Json::null(),
        checkpoints: vec![],
        deadline: Timestamp(0),
    };
    WorkOrder { run: key.run, namespace: Name::new(namespace).unwrap(), work, origin }
}

fn intro(name: &str, instance: u8, capacity: u32, holding: &[u32]) -> WorkerIntro {
    WorkerIntro {
        name: name.to_owned(),
        instance: vec![instance],
        capacity,
        builtin: true,
        skills: vec![],
        holding: holding.iter().map(|run| task(*run)).collect(),
        claims: false,
        revision: 0,
        to: Outlet::new(8).0,
    }
}

struct Desk {
    state: DispatchState,
    now: Instant,
    in_force: Arc<InForce>,
}

impl Desk {
    /// The shard of all tasks is here.
    fn new() -> Desk {
        let mut state = DispatchState::new(LEASE);
        state.own(ShardClaim { shard: ShardId(0), epoch: Epoch(1) });
        Desk { state, now: Instant::now(), in_force: Arc::default() }
    }

    fn submit(&mut self, run: u32, namespace: &str) {
        self.state.submit(self.now, order(run, namespace, Origin::New), &self.in_force);
        self.state.assign();
    }

    fn recover(&mut self, run: u32) {
        self.state.submit(self.now, order(run, "default", Origin::Recovered), &self.in_force);
        self.state.assign();
    }

    fn join(&mut self, name: &str, capacity: u32, holding: &[u32]) -> SessionId {
        self.state.join(self.now, intro(name, 1, capacity, holding), &self.in_force)
    }

    fn pass(&mut self, span: Duration) {
        self.now += span;
        self.state.tick(self.now);
    }

    /// What the doctor hears of tasks 1 to 3, in short.
    fn stuck(&self) -> Vec<String> {
        let known = |run: &u32| self.state.tasks.contains_key(&task(*run));
        let keys: Vec<TaskKey> = (1..=3).filter(known).map(task).collect();
        let short = |stuck: Stuck<TaskKey>| format!("{}: {}", stuck.grip.as_str(), stuck.what);
        self.state.stuck(self.now, &keys).into_iter().map(short).collect()
    }

    /// What it wanted done since it was asked last, in short.
    fn did(&mut self) -> Vec<String> {
        let number = |key: &TaskKey| (1..100).find(|run| task(*run) == *key).unwrap();
        let short = |act: Act| match act {
            Act::Assign(session, assignment) => {
                let key = TaskKey::from_proto(assignment.task.as_ref()).unwrap();
                format!("assign {} to {}", number(&key), session.0)
            }
            Act::Settled(Settled { session, keys }) => {
                let keys: Vec<String> = keys.iter().map(|key| number(key).to_string()).collect();
                format!("settled {} at {}", keys.join(", "), session.0)
            }
            Act::Cancel(session, key) => format!("cancel {} at {}", number(&key), session.0),
            Act::Claim(session, claims) => {
                let claims: Vec<String> =
                    claims.iter().map(|claim| format!("{}@{}", claim.shard, claim.epoch)).collect();
                format!("claim [{}] from {}", claims.join(", "), session.0)
            }
            Act::Disown(session, shard) => format!("disown {shard} to {}", session.0),
            Act::Fail(key, error) => format!("fail {}: {}", number(&key), error.class),
        };
        std::mem::take(&mut self.state.acts).into_iter().map(short).collect()
    }
}

#[test]
fn the_backlog_counts_what_waits_and_what_a_worker_has_or_may_have() {
    let mut desk = Desk::new();
    desk.recover(9);
    desk.join("a", 1, &[]);
    (1..=3).for_each(|run| desk.submit(run, "shop"));
    let backlog = desk.state.backlog().into_iter().map(|part| (part.skill, part.queued, part.held));
    let wanted = [("default/clerk.noop".to_owned(), 0, 1), ("shop/clerk.noop".to_owned(), 2, 1)];
    assert_eq!(backlog.collect::<Vec<_>>(), wanted);
}

#[test]
fn a_worker_gets_no_more_tasks_than_it_has_room_for() {
    let mut desk = Desk::new();
    let worker = desk.join("w", 2, &[]);
    (1..=3).for_each(|run| desk.submit(run, "default"));
    assert_eq!(desk.did(), ["assign 1 to 1", "assign 2 to 1"]);
    assert_eq!(desk.state.status(desk.now).queued, 1);
    desk.state.finished(worker, &[task(2)]);
    assert_eq!(desk.did(), ["assign 3 to 1"]);
}

#[test]
fn a_burst_goes_to_those_with_the_most_room_and_stops_where_none_is_left() {
    let mut desk = Desk::new();
    let (small, large) = (desk.join("small", 1, &[]), desk.join("large", 3, &[]));
    (1..=6).for_each(|run| {
        desk.state.submit(desk.now, order(run, "default", Origin::New), &desk.in_force);
    });
    desk.state.assign();
    let at = |session: SessionId| desk.state.sessions[&session].held.len();
    assert_eq!((at(small), at(large)), (1, 3));
    assert_eq!(desk.state.status(desk.now).queued, 2);
}

#[test]
fn a_namespace_with_many_tasks_does_not_take_all_the_room() {
    let mut desk = Desk::new();
    (1..=10).for_each(|run| desk.submit(run, "loud"));
    desk.submit(11, "quiet");
    desk.join("w", 2, &[]);
    assert_eq!(desk.did(), ["assign 1 to 1", "assign 11 to 1"]);
}

#[test]
fn a_task_that_is_driven_already_is_not_given_out_twice() {
    let mut desk = Desk::new();
    desk.join("w", 9, &[]);
    desk.submit(1, "default");
    desk.submit(1, "default");
    desk.recover(1);
    assert_eq!(desk.did(), ["assign 1 to 1"]);
}

#[test]
fn a_worker_that_is_silent_for_a_lease_loses_its_tasks_and_one_that_is_heard_does_not() {
    let mut desk = Desk::new();
    let worker = desk.join("w", 9, &[]);
    desk.submit(1, "default");
    assert_eq!(desk.did(), ["assign 1 to 1"]);
    desk.pass(LEASE - A_MOMENT);
    desk.state.heard(desk.now, worker);
    desk.pass(LEASE - A_MOMENT);
    assert_eq!(desk.did(), [""; 0], "it was heard in between");
    desk.pass(A_MOMENT);
    assert_eq!(desk.did(), ["fail 1: worker_lost"]);
    assert!(!desk.state.tasks.contains_key(&task(1)), "its run makes another attempt");
}

#[test]
fn a_recovered_task_waits_for_the_worker_that_holds_it() {
    let mut desk = Desk::new();
    desk.recover(1);
    desk.join("idle", 9, &[]);
    assert_eq!(desk.did(), [""; 0], "another worker may be at work on it");
    let holder = desk.join("busy", 9, &[1]);
    assert_eq!(desk.state.holder(&task(1)), Some(holder));
    for _ in 0..3 {
        desk.pass(LEASE / 2);
        [SessionId(1), holder].into_iter().for_each(|worker| desk.state.heard(desk.now, worker));
    }
    assert_eq!(desk.did(), [""; 0], "and it stays with it");
}

#[test]
fn a_recovered_task_that_no_worker_holds_is_given_up_after_a_whole_lease() {
    let mut desk = Desk::new();
    // Recovery took long: the lease counts from when the task was found.
    desk.pass(LEASE * 5);
    desk.recover(1);
    desk.join("idle", 9, &[]);
    desk.pass(LEASE - A_MOMENT);
    assert_eq!(desk.did(), [""; 0]);
    desk.pass(A_MOMENT);
    assert_eq!(desk.did(), ["fail 1: worker_lost"]);
}

#[test]
fn a_worker_that_comes_back_keeps_what_it_holds_and_gets_what_it_never_got() {
    let mut desk = Desk::new();
    let first = desk.join("w", 9, &[]);
    (1..=2).for_each(|run| desk.submit(run, "default"));
    desk.state.left(desk.now, first);
    desk.submit(3, "default");
    assert_eq!(desk.did(), ["assign 1 to 1", "assign 2 to 1"], "nothing goes to a closed connection");
    let second = desk.join("w", 9, &[1]);
    let mut did = desk.did();
    did.sort();
    assert_eq!(did, ["assign 2 to 2", "assign 3 to 2"]);
    assert_eq!(desk.state.holder(&task(1)), Some(second));
}

#[test]
fn another_process_in_a_workers_place_loses_its_tasks_at_once() {
    let mut desk = Desk::new();
    desk.join("w", 9, &[]);
    desk.submit(1, "default");
    desk.did();
    desk.state.join(desk.now, intro("w", 2, 9, &[]), &desk.in_force);
    assert_eq!(desk.did(), ["fail 1: worker_lost"]);
}

#[test]
fn a_task_that_another_worker_holds_is_stopped_where_it_is_not_wanted() {
    let mut desk = Desk::new();
    let holder = desk.join("first", 9, &[]);
    desk.submit(1, "default");
    let other = desk.join("second", 9, &[1, 2]);
    assert_eq!(desk.did(), ["assign 1 to 1", "cancel 1 at 2", "cancel 2 at 2"]);
    desk.state.finished(other, &[task(1)]);
    assert_eq!(desk.state.holder(&task(1)), Some(holder), "a report of the other does not free it");
}

#[test]
fn a_canceled_task_is_taken_from_its_queue_or_its_worker() {
    let mut desk = Desk::new();
    desk.join("w", 1, &[]);
    (1..=2).for_each(|run| desk.submit(run, "default"));
    desk.did();
    desk.state.cancel(task(2));
    assert_eq!((desk.state.status(desk.now).queued, desk.did().len()), (0, 0));
    desk.submit(3, "default");
    desk.state.cancel(task(1));
    desk.state.assign();
    assert_eq!(desk.did(), ["cancel 1 at 1", "assign 3 to 1"]);
}

#[test]
fn a_draining_worker_gets_nothing_new() {
    let mut desk = Desk::new();
    let worker = desk.join("w", 9, &[]);
    desk.state.draining(worker);
    desk.submit(1, "default");
    assert_eq!(desk.did(), [""; 0]);
}

#[test]
fn a_remote_skill_goes_to_those_who_offer_it() {
    let document = json!({
        "apiVersion": "kapell.dev/v1", "kind": "Specialist", "metadata": { "name": "clerk" },
        "spec": { "skills": [{ "name": "clerk.noop", "remote": {} }] },
    });
    let mut desk = Desk { in_force: InForce::of(&[document]), ..Desk::new() };
    desk.join("builtin", 9, &[]);
    desk.submit(1, "default");
    assert_eq!(desk.did(), [""; 0]);
    let agents = WorkerIntro { skills: vec!["default/clerk.noop".to_owned()], ..intro("agents", 1, 9, &[]) };
    desk.state.join(desk.now, agents, &desk.in_force);
    assert_eq!(desk.did(), ["assign 1 to 2"]);
}

#[test]
fn the_doctor_hears_of_tasks_that_cannot_move() {
    let mut desk = Desk::new();
    let worker = desk.join("w", 1, &[]);
    (1..=2).for_each(|run| desk.submit(run, "default"));
    desk.recover(3);
    assert_eq!(desk.stuck(), [""; 0], "one is held, one waits, one may be held");

    let heard = |desk: &Desk, what: &str| {
        let stuck = desk.stuck();
        assert!(stuck.len() == 1 && stuck[0].starts_with("stuck: ") && stuck[0].contains(what), "{stuck:?}");
    };
    let held = std::mem::take(&mut desk.state.sessions.get_mut(&worker).unwrap().held);
    heard(&desk, "does not count it");
    desk.state.sessions.get_mut(&worker).unwrap().held = held;
    let session = desk.state.sessions.remove(&worker).unwrap();
    heard(&desk, "session of its worker is gone");
    desk.state.sessions.insert(worker, session);
    let shards = std::mem::replace(&mut desk.state.shards, Shards::new(LEASE));
    heard(&desk, "nobody waits for that worker");
    desk.state.shards = shards;
    desk.state.queues.clear();
    heard(&desk, "in no queue");

    let unknown = desk.state.stuck(desk.now, &[task(9)]);
    assert_eq!((unknown[0].grip, unknown[0].todo), (crate::dispatch::Grip::Unknown, RESTART));
}

#[test]
fn the_doctor_hears_of_tasks_that_no_worker_can_do() {
    let mut desk = Desk::new();
    desk.submit(1, "default");
    desk.now += OVERDUE_AFTER - A_MOMENT;
    assert_eq!(desk.stuck(), [""; 0], "a worker may be about to come");
    desk.now += A_MOMENT;
    let stuck = desk.state.stuck(desk.now, &[task(1)]);
    assert_eq!(stuck[0].grip.as_str(), "overdue");
    assert!(stuck[0].what.contains("clerk.noop") && stuck[0].todo.contains("start a worker"), "{stuck:?}");
    let worker = desk.join("w", 0, &[]);
    assert_eq!(desk.stuck(), [""; 0], "it has no room now, and may have later");
    desk.state.draining(worker);
    assert_eq!(desk.stuck().len(), 1);
}
