use super::*;

use kapell_cluster::Member;

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn members(names: &[&str]) -> Members {
    let of = |name: &&str| (node(name), Member::new(node(name), format!("{name}:7700"), "1".to_owned()));
    names.iter().map(of).collect()
}

/// Members that all go.
fn leaving(names: &[&str]) -> Members {
    let mut all = members(names);
    all.values_mut().for_each(|member| member.leaving = true);
    all
}

fn owner(name: &str, epoch: u64) -> Owner {
    Owner { node: node(name), address: format!("{name}:7700"), epoch: Epoch(epoch) }
}

/// A node `a` among others, of a store of one shard that `a` is to own whenever it is a member.
struct Bench {
    placement: Placement,
    /// The shard that `a` is to own when `a` and `b` are there.
    mine: ShardId,
    /// The one that `b` is to own.
    theirs: ShardId,
}

impl Bench {
    fn new() -> Bench {
        let both = members(&["a", "b"]);
        let owned_by = |name: &str| {
            (0..64).map(ShardId).find(|shard| preferred(*shard, both.keys()) == Some(&node(name))).unwrap()
        };
        let (mine, theirs) = (owned_by("a"), owned_by("b"));
        Bench { placement: Placement::new(node("a"), ShardCount::new(64).unwrap()), mine, theirs }
    }

    /// What is wanted for one shard, and of the cluster.
    fn acts(&mut self, shard: ShardId) -> Vec<Act> {
        let of = |act: &Act| match act {
            Act::Acquire(of) | Act::AcquireLater(of) | Act::Disown(of) | Act::Route(of, _) => *of,
            Act::Load(of, _)
            | Act::LoadLater(of, _)
            | Act::HandOver(of, _)
            | Act::Drop(of, _)
            | Act::Release(of, _)
            | Act::AwaitServed(of) => *of,
            Act::Ping | Act::Retire => shard,
        };
        self.placement.acts().into_iter().filter(|act| of(act) == shard).collect()
    }

    fn holds(&self, shard: ShardId) -> bool {
        matches!(self.placement.stage(shard), Stage::Held(_))
    }

    fn owners(&mut self, owners: &[(ShardId, Owner)]) {
        self.placement.owners(owners.iter().cloned().collect());
    }

    /// `a` alone, with so many shards, all held under epoch 7.
    fn holding(shards: u16) -> Bench {
        let mut bench = Bench::new();
        bench.placement.joined(members(&["a"]), Owners::new());
        for shard in (0..shards).map(ShardId) {
            bench.placement.acquired(shard, Epoch(7));
            bench.placement.loaded(shard, Epoch(7));
        }
        bench.placement.acts();
        bench
    }

    /// `a` holds the shard that it is to own.
    fn held() -> Bench {
        let mut bench = Bench::new();
        bench.placement.joined(members(&["a", "b"]), Owners::new());
        let mine = bench.mine;
        assert_eq!(bench.acts(mine), [Act::Acquire(mine)]);
        bench.placement.acquired(mine, Epoch(7));
        assert_eq!(bench.acts(mine), [Act::Route(mine, Route::Here), Act::Load(mine, Epoch(7))]);
        bench.placement.loaded(mine, Epoch(7));
        assert_eq!(bench.acts(mine), []);
        bench
    }
}

/// Which shards are handed over now.
fn going(bench: &mut Bench) -> Vec<ShardId> {
    let of = |act| if let Act::HandOver(shard, _) = act { Some(shard) } else { None };
    bench.placement.acts().into_iter().filter_map(of).collect()
}

/// What is done when a shard's actor is gone and the shard is to go too: workers hear that it left before others can have
/// it.
fn freed(shard: ShardId) -> [Act; 3] {
    [Act::Disown(shard), Act::Route(shard, Route::Nowhere), Act::Release(shard, Epoch(7))]
}

/// The same when nobody else is there to own it: with the node the cluster loses everything that it holds.
fn left(shard: ShardId) -> [Act; 2] {
    [Act::Disown(shard), Act::Route(shard, Route::Nowhere)]
}

#[test]
fn a_node_asks_for_its_shards_and_follows_the_owners_of_the_others() {
    let mut bench = Bench::held();
    let theirs = bench.theirs;
    bench.owners(&[(theirs, owner("b", 3))]);
    assert_eq!(bench.acts(theirs), [Act::Route(theirs, Route::To(owner("b", 3)))]);
    bench.owners(&[(theirs, owner("b", 3))]);
    assert_eq!(bench.acts(theirs), [], "nothing has changed");
    bench.owners(&[(theirs, owner("c", 9))]);
    assert_eq!(bench.acts(theirs), [Act::Route(theirs, Route::To(owner("c", 9)))]);
    bench.owners(&[]);
    assert_eq!(bench.acts(theirs), [Act::Route(theirs, Route::Nowhere)], "requests wait for the next one");
}

#[test]
fn a_shard_that_another_node_has_is_asked_for_until_it_lets_go() {
    let mut bench = Bench::new();
    let mine = bench.mine;
    bench.placement.joined(members(&["a", "b"]), Owners::from([(mine, owner("b", 3))]));
    assert_eq!(bench.acts(mine), [Act::AcquireLater(mine), Act::Route(mine, Route::To(owner("b", 3)))]);
    bench.placement.again(mine);
    assert_eq!(bench.acts(mine), [Act::Acquire(mine)]);
    bench.placement.not_acquired(mine);
    bench.placement.members(members(&["b"]));
    bench.placement.again(mine);
    assert_eq!(bench.acts(mine), [Act::AcquireLater(mine)], "it is not wanted any more");
}

#[test]
fn a_shard_that_is_waited_for_is_asked_for_once_when_its_owner_lets_go() {
    let mut bench = Bench::new();
    let (mine, theirs) = (bench.mine, bench.theirs);
    bench.placement.joined(members(&["a", "b"]), Owners::from([(mine, owner("b", 3))]));
    bench.acts(mine);
    bench.owners(&[(mine, owner("b", 3)), (theirs, owner("b", 4))]);
    assert_eq!(bench.acts(mine), [], "it is not free yet");
    bench.owners(&[(theirs, owner("b", 4))]);
    assert_eq!(bench.acts(mine), [Act::Acquire(mine), Act::Route(mine, Route::Nowhere)]);
    bench.placement.again(mine);
    bench.owners(&[]);
    assert_eq!(bench.acts(mine), [], "the answer is on its way");
    bench.placement.leave();
    bench.placement.not_acquired(mine);
    assert_eq!(bench.acts(mine), [Act::Retire]);
    assert!(bench.placement.stage(mine) == Stage::Away);
}

#[test]
fn a_shard_that_may_be_ours_is_asked_for_until_the_cluster_answers_though_it_is_not_wanted_any_more() {
    let mut bench = Bench::new();
    let mine = bench.mine;
    bench.placement.joined(members(&["a", "b"]), Owners::new());
    assert_eq!(bench.acts(mine), [Act::Acquire(mine)]);
    bench.placement.members(members(&["b"]));
    bench.placement.maybe_acquired(mine);
    assert_eq!(bench.acts(mine), [Act::AcquireLater(mine)]);
    bench.placement.again(mine);
    assert_eq!(bench.acts(mine), [Act::Acquire(mine)]);
    bench.placement.acquired(mine, Epoch(7));
    assert_eq!(bench.acts(mine), [Act::Release(mine, Epoch(7))], "or nobody else would be given it");
}

#[test]
fn a_node_that_leaves_has_handed_over_every_shard() {
    let mut bench = Bench::held();
    let mine = bench.mine;
    bench.placement.leave();
    assert_eq!(bench.acts(mine), [Act::Retire]);
    bench.placement.answered();
    assert_eq!(bench.acts(mine), [], "nobody would want it yet");
    bench.placement.retired();
    assert_eq!(bench.acts(mine), [Act::HandOver(mine, Epoch(7))]);
    for other in (0..64).map(ShardId).filter(|other| *other != mine) {
        bench.placement.not_acquired(other);
    }
    assert!(!bench.placement.has_left());
    bench.placement.gone(mine, Epoch(6));
    assert_eq!(bench.acts(mine), [], "an older actor says nothing about this one");
    bench.placement.gone(mine, Epoch(7));
    assert_eq!(bench.acts(mine), freed(mine));
    bench.placement.released(mine);
    assert!(!bench.placement.has_left(), "requests wait here until it is served there");
    bench.placement.served(mine);
    assert!(bench.placement.has_left());
}

#[test]
fn the_last_node_hands_everything_over_at_once_and_releases_nothing() {
    let mut bench = Bench::holding(64);
    bench.placement.members(leaving(&["a", "b"]));
    bench.placement.leave();
    bench.placement.retired();
    assert_eq!(going(&mut bench).len(), 64);
    let mine = bench.mine;
    bench.placement.gone(mine, Epoch(7));
    assert_eq!(bench.acts(mine), left(mine));
    bench.owners(&[(mine, owner("a", 7))]);
    assert_eq!(bench.acts(mine), [], "the node has yet to leave");
    assert_eq!(bench.placement.stage(mine), Stage::Away);
}

#[test]
fn a_few_shards_are_handed_over_at_once_and_each_that_arrives_makes_room_for_the_next() {
    let mut bench = Bench::holding(64);
    bench.placement.members(members(&["a", "b"]));
    bench.placement.answered();
    let first = going(&mut bench);
    assert_eq!(first.len(), HAND_OVERS);
    bench.placement.gone(first[0], Epoch(7));
    assert_eq!(going(&mut bench), [], "the cluster has not said that it knows");
    bench.placement.released(first[0]);
    assert_eq!(bench.acts(first[0]), [Act::AwaitServed(first[0])]);
    bench.placement.released(first[0]);
    bench.placement.answered();
    assert_eq!(going(&mut bench), [], "the next owner has not loaded it");
    bench.placement.served(first[0]);
    let next = going(&mut bench);
    assert!(next.len() == 1 && !first.contains(&next[0]));
    bench.placement.died(first[1], Epoch(7), Death::Failed);
    bench.placement.released(first[1]);
    bench.placement.served(first[1]);
    assert_eq!(going(&mut bench).len(), 1);
    bench.placement.gone(first[2], Epoch(7));
    bench.placement.members(members(&["a"]));
    bench.placement.released(first[2]);
    assert_eq!(bench.acts(first[2]).last(), Some(&Act::Acquire(first[2])), "nobody else is to serve it");
}

#[test]
fn a_node_that_comes_is_given_a_few_shards_at_once_by_all_others_together() {
    let mut bench = Bench::holding(64);
    bench.placement.members(members(&["a", "b", "c"]));
    bench.placement.answered();
    let of = |name: &str, shards: &[ShardId]| {
        let all = members(&["a", "b", "c"]);
        shards.iter().filter(|shard| preferred(**shard, all.keys()) == Some(&node(name))).count()
    };
    let first = going(&mut bench);
    assert_eq!((of("b", &first), of("c", &first)), (2, 2), "another node may give as many");
    let to_b = *first.iter().find(|shard| of("b", &[**shard]) == 1).unwrap();
    bench.placement.gone(to_b, Epoch(7));
    bench.placement.released(to_b);
    assert_eq!(going(&mut bench), [], "it is still on its way");
    bench.placement.served(to_b);
    let next = going(&mut bench);
    assert_eq!((next.len(), of("b", &next)), (1, 1));
}

#[test]
fn when_a_shard_does_not_arrive_the_next_waits_for_a_sign_of_life() {
    let mut bench = Bench::holding(64);
    bench.placement.members(members(&["a", "b"]));
    bench.placement.answered();
    let first = going(&mut bench);
    for shard in &first[..2] {
        bench.placement.gone(*shard, Epoch(7));
        bench.placement.released(*shard);
    }
    bench.placement.acts();
    bench.placement.overdue(first[0]);
    bench.placement.overdue(first[1]);
    assert_eq!(bench.placement.acts(), [Act::Ping], "the cluster may be silent, and is asked once");
    bench.placement.served(first[0]);
    assert_eq!(bench.placement.acts(), [], "that comes too late to say anything");
    bench.placement.answered();
    assert_eq!(going(&mut bench).len(), 2);
}

#[test]
fn a_node_that_leaves_while_shards_move_goes_on_when_the_others_know() {
    let mut bench = Bench::holding(64);
    bench.placement.members(members(&["a", "b"]));
    bench.placement.answered();
    let first = going(&mut bench);
    bench.placement.leave();
    bench.placement.gone(first[0], Epoch(7));
    bench.placement.released(first[0]);
    bench.placement.served(first[0]);
    bench.placement.answered();
    assert_eq!(going(&mut bench), [], "more of them nobody would want yet");
    bench.placement.retired();
    assert_eq!(going(&mut bench).len(), 1);
    bench.placement.members(leaving(&["a", "b"]));
    bench.placement.gone(first[1], Epoch(7));
    assert_eq!(going(&mut bench).len(), 64 - HAND_OVERS - 1, "nobody is there any more to whom they go");
}

#[test]
fn a_shard_that_another_node_is_to_own_is_handed_over_before_it_is_released() {
    let mut bench = Bench::held();
    let mine = bench.mine;
    bench.placement.members(members(&["b"]));
    bench.placement.answered();
    assert_eq!(bench.acts(mine), [Act::Ping, Act::HandOver(mine, Epoch(7))]);
    bench.placement.gone(mine, Epoch(7));
    assert_eq!(bench.acts(mine), freed(mine));
    bench.placement.released(mine);
    assert_eq!(bench.acts(mine), [Act::AwaitServed(mine)]);
}

#[test]
fn a_shard_stays_until_the_cluster_has_answered_and_for_good_if_it_is_wanted_again_by_then() {
    let mut bench = Bench::held();
    let mine = bench.mine;
    bench.placement.members(members(&["b"]));
    assert_eq!(bench.acts(mine), [Act::Ping]);
    bench.placement.members(members(&["b", "c"]));
    assert_eq!(bench.acts(mine), [], "the cluster is asked once");
    bench.placement.members(members(&["a", "b"]));
    bench.placement.answered();
    assert_eq!(bench.acts(mine), []);
    assert!(bench.holds(mine));
    bench.placement.members(members(&["b"]));
    bench.placement.answered();
    assert_eq!(bench.acts(mine), [Act::Ping, Act::HandOver(mine, Epoch(7))]);
    bench.placement.answered();
    assert_eq!(bench.acts(mine), [], "it is told once");
}

#[test]
fn a_node_that_leaves_releases_what_another_is_to_own_already() {
    let mut bench = Bench::held();
    let mine = bench.mine;
    bench.placement.members(members(&["b"]));
    bench.placement.leave();
    bench.placement.retired();
    bench.placement.gone(mine, Epoch(7));
    assert_eq!(bench.acts(mine)[3..], freed(mine));
}

#[test]
fn a_shard_that_dies_while_the_cluster_is_asked_is_given_up() {
    let mut bench = Bench::held();
    let mine = bench.mine;
    bench.placement.leave();
    assert_eq!(bench.acts(mine), [Act::Retire]);
    bench.placement.died(mine, Epoch(7), Death::Failed);
    assert_eq!(bench.acts(mine), freed(mine));
    bench.placement.retired();
    assert_eq!(bench.acts(mine), []);
}

#[test]
fn each_session_is_asked_for_a_sign_of_life_of_its_own() {
    let mut bench = Bench::held();
    let mine = bench.mine;
    bench.placement.members(members(&["b"]));
    bench.placement.lost();
    bench.placement.gone(mine, Epoch(7));
    bench.placement.joined(members(&["a", "b"]), Owners::new());
    bench.placement.acquired(mine, Epoch(9));
    bench.placement.loaded(mine, Epoch(9));
    bench.placement.acts();
    bench.placement.members(members(&["b"]));
    assert_eq!(bench.acts(mine), [Act::Ping], "an answer of the session before may never come");
}

#[test]
fn a_shard_that_dies_is_loaded_again_under_its_epoch_and_one_that_is_fenced_is_given_up() {
    let mut bench = Bench::held();
    let mine = bench.mine;
    bench.placement.died(mine, Epoch(7), Death::Failed);
    assert_eq!(bench.acts(mine), [Act::LoadLater(mine, Epoch(7))]);
    bench.placement.load_again(mine, Epoch(7));
    assert_eq!(bench.acts(mine), [Act::Load(mine, Epoch(7))]);
    bench.placement.died(mine, Epoch(7), Death::Fenced);
    assert_eq!(bench.acts(mine), freed(mine));
    bench.placement.released(mine);
    assert_eq!(bench.acts(mine), [Act::Acquire(mine)], "by preference it is still ours");
}

#[test]
fn a_shard_that_cannot_be_loaded_does_not_keep_the_node_from_leaving() {
    let mut bench = Bench::new();
    let mine = bench.mine;
    bench.placement.joined(members(&["a"]), Owners::new());
    bench.placement.acquired(mine, Epoch(7));
    bench.placement.leave();
    bench.placement.acts();
    bench.placement.died(mine, Epoch(7), Death::Failed);
    assert_eq!(bench.acts(mine), left(mine));
}

#[test]
fn a_lost_session_ends_every_shard_and_the_next_one_waits_until_its_actor_is_gone() {
    let mut bench = Bench::held();
    let mine = bench.mine;
    bench.placement.lost();
    assert_eq!(bench.acts(mine), [Act::Drop(mine, Epoch(7)), Act::Route(mine, Route::Nowhere)]);
    bench.placement.joined(members(&["a"]), Owners::new());
    assert_eq!(bench.acts(mine), [], "two actors of one shard would share its mailbox");
    bench.placement.gone(mine, Epoch(7));
    assert_eq!(bench.acts(mine), [Act::Disown(mine), Act::Acquire(mine)]);
}

#[test]
fn a_shard_that_was_lost_while_it_was_loading_is_ended_when_it_has_loaded() {
    let mut bench = Bench::new();
    let mine = bench.mine;
    bench.placement.joined(members(&["a"]), Owners::new());
    bench.placement.acquired(mine, Epoch(7));
    bench.placement.lost();
    bench.placement.joined(members(&["a"]), Owners::new());
    bench.placement.acts();
    bench.placement.loaded(mine, Epoch(7));
    assert_eq!(bench.acts(mine), [Act::Drop(mine, Epoch(7))]);
    bench.placement.gone(mine, Epoch(7));
    assert_eq!(bench.acts(mine), [Act::Disown(mine), Act::Acquire(mine)]);
    bench.placement.acquired(mine, Epoch(9));
    assert_eq!(bench.acts(mine), [Act::Route(mine, Route::Here), Act::Load(mine, Epoch(9))]);
}

#[test]
fn a_shard_that_comes_when_the_node_leaves_is_given_up_at_once() {
    let mut bench = Bench::new();
    let mine = bench.mine;
    bench.placement.joined(members(&["a"]), Owners::new());
    bench.placement.leave();
    bench.placement.acts();
    bench.placement.acquired(mine, Epoch(7));
    assert_eq!(bench.acts(mine), []);
    assert!(!bench.holds(mine));
}

#[test]
fn an_answer_of_a_session_that_was_lost_is_nothing() {
    let mut bench = Bench::new();
    let mine = bench.mine;
    bench.placement.joined(members(&["a"]), Owners::new());
    bench.placement.lost();
    bench.placement.acts();
    bench.placement.acquired(mine, Epoch(7));
    assert_eq!(bench.acts(mine), []);
    assert!(bench.placement.has_left());
}

#[test]
fn few_shards_move_when_a_node_comes_and_all_of_them_to_it() {
    let of = |names: &[&str]| -> Vec<NodeName> {
        let members = members(names);
        (0..1_024).map(|shard| preferred(ShardId(shard), members.keys()).unwrap().clone()).collect()
    };
    let (three, four) = (of(&["n-0", "n-1", "n-2"]), of(&["n-0", "n-1", "n-2", "n-3"]));
    let moved: Vec<&NodeName> =
        three.iter().zip(&four).filter(|(before, after)| before != after).map(|(_, after)| after).collect();
    assert!(moved.iter().all(|to| to.as_str() == "n-3"), "none moves between those that stay");
    assert!((205..=307).contains(&moved.len()), "about a quarter moves: {}", moved.len());
    for name in ["n-0", "n-1", "n-2", "n-3"] {
        let owned = four.iter().filter(|owner| owner.as_str() == name).count();
        assert!((205..=307).contains(&owned), "{name} owns {owned} of 1,024");
    }
}

#[test]
fn a_shard_that_comes_though_nobody_asked_for_it_any_more_is_released_once() {
    let mut bench = Bench::held();
    let mine = bench.mine;
    bench.placement.members(members(&["b"]));
    bench.placement.answered();
    bench.placement.gone(mine, Epoch(7));
    bench.placement.released(mine);
    bench.acts(mine);
    bench.owners(&[(mine, owner("a", 7))]);
    assert_eq!(bench.acts(mine), [], "the cluster has not said yet that it is free");
    bench.owners(&[(mine, owner("a", 9))]);
    assert_eq!(bench.acts(mine), [Act::Release(mine, Epoch(9))]);
    bench.placement.released(mine);
    assert_eq!(bench.acts(mine), [Act::AwaitServed(mine)]);
    bench.owners(&[(mine, owner("b", 10))]);
    assert_eq!(bench.acts(mine), [Act::Route(mine, Route::To(owner("b", 10)))]);
}
