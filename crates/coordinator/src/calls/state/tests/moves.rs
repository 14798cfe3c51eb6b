//! Shards that come and go with their calls.
use super::*;

fn claim(epoch: u64) -> ShardClaim {
    ShardClaim { shard: ShardId(0), epoch: Epoch(epoch) }
}

/// A connector that understands claims, with room for one call.
fn follow(desk: &mut CallState, now: Instant) -> SessionId {
    let (name, instance) = ("new".to_owned(), vec![1]);
    let to = Outlet::new(8).0;
    let intro =
        ConnectorIntro { name, instance, capacity: 1, holding: vec![], claims: true, revision: 0, to };
    desk.join(now, intro, &InForce::default())
}

fn of(run: u128) -> WorkOrder<(UnitId, Call)> {
    WorkOrder { run: RunId::new(ShardId(0), run), ..order(Origin::New) }
}

/// What was claimed from whom, when nothing else was done.
fn claimed(desk: &mut CallState) -> Vec<(u64, Vec<u64>)> {
    let of = |act| {
        let Act::Claim(session, claims) = act else { panic!("{act:?}") };
        (session.0, claims.iter().map(|claim| claim.epoch.0).collect())
    };
    acts(desk).into_iter().map(of).collect()
}

#[test]
fn shards_are_claimed_from_connectors_that_are_there_and_that_come_later() {
    let now = Instant::now();
    let mut desk = CallState::new(LEASE);
    let first = follow(&mut desk, now);
    join(&mut desk, now);
    assert_eq!(claimed(&mut desk), [(first.0, vec![])], "an old one would not understand");
    desk.own(claim(6));
    assert_eq!(claimed(&mut desk), [(first.0, vec![6])]);
    let second = follow(&mut desk, now);
    assert_eq!(claimed(&mut desk), [(second.0, vec![6])]);
    desk.left(now, second);
    desk.own(claim(7));
    assert_eq!(claimed(&mut desk), [], "it hears all when it is back");
}

#[test]
fn a_connector_that_answers_a_claim_keeps_its_call() {
    let now = Instant::now();
    let mut desk = CallState::new(LEASE);
    let session = follow(&mut desk, now);
    desk.make(now, order(Origin::Recovered), &InForce::default());
    desk.own(claim(6));
    acts(&mut desk);
    let shards = [key().run.shard()];
    desk.holding(now, SessionId(9), &shards, &[key()]);
    desk.holding(now, session, &shards, &[key(), CallKey { no: CallNo(9), ..key() }]);
    desk.heard(now + LEASE, session);
    desk.tick(now + LEASE, &InForce::default());
    assert!(desk.acts.is_empty(), "neither made again nor given up: {:?}", desk.acts);
    desk.tick(now + LEASE * 2, &InForce::default());
    assert!(matches!(acts(&mut desk).as_slice(), [Act::Finish(_, CallOutcome::Unknown { .. })]));
}

#[test]
fn a_call_that_no_connector_holds_is_found_out_about_when_all_have_answered() {
    let now = Instant::now();
    let mut desk = CallState::new(LEASE);
    let session = follow(&mut desk, now);
    let now = now + LEASE;
    desk.heard(now, session);
    desk.make(now, order(Origin::Recovered), &InForce::default());
    desk.own(claim(6));
    acts(&mut desk);
    desk.holding(now, session, &[key().run.shard()], &[]);
    assert!(matches!(acts(&mut desk).as_slice(), [Act::Finish(_, CallOutcome::Unknown { .. })]));
}

#[test]
fn an_order_says_under_which_epoch() {
    let now = Instant::now();
    let mut desk = CallState::new(LEASE);
    desk.own(claim(6));
    join(&mut desk, now);
    desk.make(now, order(Origin::New), &InForce::default());
    let acts = acts(&mut desk);
    let [Act::Send(_, sent)] = acts.as_slice() else { panic!("{acts:?}") };
    assert_eq!(sent.epoch, 6);
}

#[test]
fn a_shard_that_leaves_takes_its_calls_along_and_frees_their_room() {
    let (now, in_force) = (Instant::now(), InForce::default());
    let mut desk = CallState::new(LEASE);
    desk.own(claim(6));
    follow(&mut desk, now);
    acts(&mut desk);
    (1..=2).for_each(|run| desk.make(now, of(run), &in_force));
    assert_eq!(acts(&mut desk).len(), 1, "the second waits");
    desk.disown(ShardId(0));
    desk.own(ShardClaim { shard: ShardId(1), epoch: Epoch(3) });
    acts(&mut desk);
    let other = WorkOrder { run: RunId::new(ShardId(1), 1), ..of(1) };
    desk.make(now, other, &in_force);
    let sent = acts(&mut desk);
    let [Act::Send(_, sent)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(sent.epoch, 3, "it is the other shard's");
    assert!(desk.calls.len() == 1 && desk.queue.is_empty());
    desk.make(now, of(3), &in_force);
    desk.find_out(now, of(4), &in_force);
    desk.over(key());
    assert!(desk.acts.is_empty() && desk.calls.len() == 1, "what comes late is not driven here");
    desk.make(now, order(Origin::Recovered), &in_force);
    desk.own(claim(7));
    desk.tick(now + LEASE, &in_force);
    let told = acts(&mut desk);
    assert!(told.iter().any(|act| matches!(act, Act::Finish(found, _) if *found == key())), "{told:?}");
}

#[test]
fn the_end_of_a_call_whose_shard_left_is_told_to_nobody_here() {
    let (now, in_force) = (Instant::now(), bank());
    let mut desk = desk();
    let old = join_as(&mut desk, now, 1, vec![]);
    desk.make(now, order(Origin::New), &in_force);
    acts(&mut desk);
    desk.disown(ShardId(0));
    assert_eq!(desk.sessions[&old].held.len(), 1, "a connector from before claims is at work on it still");
    desk.tick(now + LEASE, &in_force);
    assert!(desk.acts.is_empty(), "{:?}", desk.acts);

    let mut desk = super::desk();
    let (_, late) = lost(&mut desk, now, &in_force);
    let settled = late + TIMEOUT * 2;
    let session = join_as(&mut desk, settled, 2, vec![]);
    desk.tick(settled, &in_force);
    let read = read_sent(&mut desk);
    desk.disown(ShardId(0));
    desk.read_done(settled, session, read, Ok(Json::parse(r#"{"took_effect":false}"#).unwrap()));
    assert!(desk.acts.is_empty(), "its next owner finds out for itself: {:?}", desk.acts);
    assert!(desk.sessions[&session].held.is_empty());
}
