//! Shards that come and go with their tasks.
use super::*;

impl Desk {
    /// Nothing is here yet.
    fn empty() -> Desk {
        Desk { state: DispatchState::new(LEASE), ..Desk::new() }
    }

    fn own(&mut self, epoch: u64) {
        self.state.own(ShardClaim { shard: ShardId(0), epoch: Epoch(epoch) });
    }

    fn disown(&mut self) {
        self.state.disown(ShardId(0));
    }

    /// A worker that understands claims.
    fn follow(&mut self, name: &str, capacity: u32, holding: &[u32]) -> SessionId {
        let intro = WorkerIntro { claims: true, ..intro(name, 1, capacity, holding) };
        self.state.join(self.now, intro, &self.in_force)
    }

    fn holding(&mut self, session: SessionId, runs: &[u32]) {
        let keys: Vec<TaskKey> = runs.iter().map(|run| task(*run)).collect();
        self.state.holding(self.now, session, &[ShardId(0)], &keys);
    }

    fn forget(&mut self, runs: &[u32]) {
        for run in runs {
            self.state.forget(task(*run));
        }
        self.state.assign();
    }

    fn held(&self, session: SessionId) -> usize {
        self.state.sessions[&session].held.len()
    }
}

#[test]
fn a_shard_that_comes_is_claimed_from_every_worker_that_understands_it() {
    let mut desk = Desk::empty();
    desk.follow("new", 9, &[]);
    desk.join("old", 9, &[]);
    let away = desk.follow("away", 9, &[]);
    desk.state.left(desk.now, away);
    assert_eq!(desk.did(), ["claim [] from 1", "claim [] from 3"]);
    desk.own(6);
    assert_eq!(desk.did(), ["claim [0@6] from 1"]);
    desk.own(7);
    assert_eq!(desk.did(), ["claim [0@7] from 1"], "a shard that is loaded anew is claimed anew");
}

#[test]
fn a_worker_that_joins_later_hears_of_all_shards_before_anything_else() {
    let mut desk = Desk::new();
    desk.state.own(ShardClaim { shard: ShardId(3), epoch: Epoch(9) });
    desk.submit(1, "default");
    desk.follow("w", 9, &[2]);
    assert_eq!(desk.did(), ["claim [0@1, 3@9] from 1", "cancel 2 at 1", "assign 1 to 1"]);
    let worker = desk.follow("w", 9, &[1]);
    assert_eq!(desk.did(), ["claim [0@1, 3@9] from 2"], "also over its next connection");
    assert_eq!(desk.held(worker), 1);
}

#[test]
fn what_is_handed_out_says_under_which_epoch() {
    let mut desk = Desk::new();
    desk.follow("w", 9, &[]);
    let epochs = |desk: &mut Desk, run| {
        desk.submit(run, "default");
        let acts = std::mem::take(&mut desk.state.acts);
        let of = |act| if let Act::Assign(_, assignment) = act { Some(assignment.epoch) } else { None };
        acts.into_iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(epochs(&mut desk, 1), [1]);
    desk.own(7);
    assert_eq!(epochs(&mut desk, 2), [7]);
}

#[test]
fn a_worker_that_answers_a_claim_keeps_what_it_holds_and_nothing_is_given_out_again() {
    let mut desk = Desk::empty();
    let (holder, idle) = (desk.follow("holder", 9, &[]), desk.follow("idle", 9, &[]));
    (1..=3).for_each(|run| desk.recover(run));
    desk.own(6);
    desk.did();
    desk.holding(holder, &[1, 2]);
    desk.holding(idle, &[]);
    assert_eq!(desk.did(), [""; 0], "a worker that has not come back yet may hold the third");
    assert_eq!(desk.state.holder(&task(1)), Some(holder));
    desk.pass(LEASE - A_MOMENT);
    [holder, idle].into_iter().for_each(|worker| desk.state.heard(desk.now, worker));
    assert_eq!(desk.did(), [""; 0]);
    desk.pass(A_MOMENT);
    assert_eq!(desk.did(), ["fail 3: worker_lost"]);
    desk.state.finished(holder, &[task(1)]);
    assert_eq!(desk.held(holder), 1);
}

#[test]
fn what_nobody_holds_is_given_up_when_everybody_who_can_come_has_answered() {
    let mut desk = Desk::empty();
    let (holder, away) = (desk.follow("holder", 9, &[]), desk.follow("away", 9, &[]));
    let stays = |desk: &mut Desk| {
        [holder, away].into_iter().for_each(|worker| desk.state.heard(desk.now, worker));
        desk.pass(LEASE - A_MOMENT);
    };
    stays(&mut desk);
    stays(&mut desk);
    desk.state.heard(desk.now, holder);
    desk.state.left(desk.now, away);
    desk.recover(1);
    desk.recover(2);
    desk.pass(A_MOMENT);
    assert_eq!(desk.did(), ["claim [] from 1", "claim [] from 2"], "nobody was asked yet");
    desk.own(6);
    desk.holding(holder, &[1]);
    assert_eq!(desk.did(), ["claim [0@6] from 1"], "the other may be back within its lease");
    desk.own(7);
    let back = desk.follow("away", 9, &[]);
    desk.holding(back, &[]);
    assert_eq!(desk.did(), ["claim [0@7] from 1", "claim [0@7] from 3"], "an earlier answer does not count");
    desk.holding(holder, &[1]);
    assert_eq!(desk.did(), ["fail 2: worker_lost"]);
    assert_eq!(desk.state.holder(&task(1)), Some(holder));
}

#[test]
fn an_answer_names_what_is_not_wanted_any_more_and_what_another_has() {
    let mut desk = Desk::new();
    let first = desk.follow("first", 9, &[]);
    let second = desk.follow("second", 9, &[]);
    desk.recover(1);
    desk.holding(first, &[1]);
    desk.did();
    desk.holding(second, &[1, 2]);
    assert_eq!(desk.did(), ["cancel 1 at 2", "cancel 2 at 2"]);
    desk.disown();
    desk.did();
    desk.holding(second, &[1, 2]);
    assert_eq!(desk.did(), [""; 0], "what it holds of a shard that left is its next owner's");
    desk.holding(SessionId(9), &[1]);
    assert_eq!(desk.did(), [""; 0], "a session that is gone holds nothing");
}

#[test]
fn a_worker_that_comes_with_tasks_of_a_shard_that_is_not_here_is_left_alone() {
    let mut desk = Desk::empty();
    let worker = desk.follow("w", 9, &[1]);
    assert_eq!(desk.did(), ["claim [] from 1"], "its owner knows whether they are wanted");
    desk.recover(1);
    desk.own(6);
    desk.holding(worker, &[1]);
    assert_eq!((desk.did(), desk.held(worker)), (vec!["claim [0@6] from 1".to_owned()], 1));
}

#[test]
fn a_shard_that_leaves_takes_its_tasks_along_without_a_word_and_frees_their_room() {
    let mut desk = Desk::new();
    let worker = desk.follow("w", 2, &[]);
    (1..=3).for_each(|run| desk.submit(run, "default"));
    desk.recover(4);
    let other = RunId::new(ShardId(1), 1);
    let order = WorkOrder { run: other, ..order(9, "default", Origin::New) };
    desk.state.own(ShardClaim { shard: ShardId(1), epoch: Epoch(1) });
    desk.state.submit(desk.now, order, &desk.in_force);
    desk.did();
    desk.disown();
    let acts = std::mem::take(&mut desk.state.acts);
    let [Act::Disown(SessionId(1), ShardId(0)), Act::Assign(SessionId(1), next)] = acts.as_slice() else {
        panic!("{acts:?}")
    };
    assert_eq!(TaskKey::from_proto(next.task.as_ref()).unwrap().run, other, "the room is free for others");
    assert_eq!((desk.held(worker), desk.state.tasks.len()), (1, 1));
    assert_eq!(desk.state.status(desk.now).queued, 0);
    desk.pass(LEASE - A_MOMENT);
    desk.state.heard(desk.now, worker);
    desk.pass(A_MOMENT);
    assert_eq!(desk.did(), [""; 0], "nothing of it is in limbo here any more");
}

#[test]
fn a_shard_that_left_is_not_driven_here_by_what_comes_late() {
    let mut desk = Desk::new();
    let worker = desk.follow("w", 9, &[]);
    desk.submit(1, "default");
    desk.disown();
    desk.did();
    desk.submit(2, "default");
    desk.state.cancel(task(1));
    desk.state.finished(worker, &[task(1)]);
    assert_eq!((desk.did(), desk.state.holder(&task(1))), (vec![], None));
    // It comes back: what was found comes first.
    desk.recover(3);
    desk.own(2);
    desk.holding(worker, &[3]);
    assert_eq!(desk.did(), ["claim [0@2] from 1"]);
    desk.submit(4, "default");
    assert_eq!(desk.did(), ["assign 4 to 1"]);
}

#[test]
fn a_worker_from_before_claims_keeps_its_rooms_until_it_has_reported() {
    let mut desk = Desk::new();
    let worker = desk.join("old", 1, &[]);
    desk.submit(1, "default");
    desk.disown();
    assert_eq!(desk.did(), ["assign 1 to 1"], "it would refuse more");
    assert_eq!(desk.held(worker), 1);
    desk.state.finished(worker, &[task(1)]);
    assert_eq!(desk.held(worker), 0);

    let mut desk = Desk::new();
    desk.join("old", 1, &[]);
    desk.submit(1, "default");
    desk.disown();
    desk.did();
    desk.pass(LEASE);
    assert_eq!(desk.did(), [""; 0], "its end is not told to a run that is somebody else's");
}

#[test]
fn a_task_whose_report_came_by_another_way_is_forgotten_wherever_it_is() {
    let mut desk = Desk::new();
    let worker = desk.follow("w", 1, &[]);
    (1..=2).for_each(|run| desk.submit(run, "default"));
    desk.recover(3);
    desk.did();
    desk.forget(&[1, 3, 9]);
    assert_eq!(desk.did(), ["assign 2 to 1"], "nobody is told to stop, and the room is free");
    desk.submit(4, "default");
    desk.forget(&[4]);
    assert_eq!((desk.held(worker), desk.state.status(desk.now).queued), (1, 0));
    desk.pass(LEASE - A_MOMENT);
    desk.state.heard(desk.now, worker);
    desk.pass(A_MOMENT);
    assert_eq!(desk.did(), [""; 0], "nor is it missed");
}
