//! A listing and changes, folded.
use kapell_cluster::Member;
use kapell_model::{Name, ShardId};

use super::*;

const OURS: i64 = 7;
const THEIRS: i64 = 8;

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn member(name: &str) -> Member {
    Member::new(node(name), format!("{name}:7700"), "1".to_owned())
}

/// A key with its value, for as long as a test.
struct Pair(String, Vec<u8>);

impl Pair {
    fn member(name: &str) -> Pair {
        Pair(keys().member(&node(name)), record::encode_member(&member(name)))
    }

    fn shard(number: u16, name: &str, base: u64) -> Pair {
        Pair(keys().shard(ShardId(number)), OwnerRecord::new(&member(name), base).encode())
    }

    fn at(&self, lease: i64, revision: i64) -> Stored<'_> {
        Stored { key: self.0.as_bytes(), value: &self.1, lease, created: revision, changed: revision }
    }
}

fn keys() -> Keys {
    Keys::new("/kapell", &Name::new("test").unwrap())
}

/// Node `a` under lease `OURS` beside `b`, which has shard 1, at revision 10.
fn listed() -> View {
    let (a, b, shard) = (Pair::member("a"), Pair::member("b"), Pair::shard(1, "b", 100));
    let mut view = View::new(keys(), node("a"), OURS);
    view.listed(10, [a.at(OURS, 3), b.at(THEIRS, 4), shard.at(THEIRS, 6)]).unwrap();
    view
}

fn owner_of(view: &View, shard: u16) -> Option<(String, u64)> {
    view.owners.get(&ShardId(shard)).map(|owner| (owner.node.to_string(), owner.epoch.0))
}

#[test]
fn an_epoch_is_the_base_of_its_time_with_the_revision_that_made_the_key() {
    let mut view = listed();
    assert_eq!(owner_of(&view, 1), Some(("b".to_owned(), 106)));
    let later = Pair::shard(2, "a", 5_000);
    view.apply(Change::Put(later.at(OURS, 11))).unwrap();
    assert_eq!(owner_of(&view, 2), Some(("a".to_owned(), 5_011)));
    assert_eq!(owner_of(&view, 1), Some(("b".to_owned(), 106)), "a base that is raised changes no epoch");
}

#[test]
fn changes_that_are_contained_already_are_left_alone() {
    let mut view = listed();
    let (old, new) = (Pair::shard(1, "a", 0), Pair::shard(1, "a", 100));
    view.apply(Change::Deleted(old.at(0, 9))).unwrap();
    assert_eq!(owner_of(&view, 1), Some(("b".to_owned(), 106)));
    // Two changes of one revision, as when a lease ends.
    view.apply(Change::Deleted(Pair::member("b").at(0, 12))).unwrap();
    view.apply(Change::Deleted(new.at(0, 12))).unwrap();
    view.reached(12);
    assert_eq!((owner_of(&view, 1), view.members.len(), view.revision()), (None, 1, 12));
    view.apply(Change::Put(new.at(OURS, 12))).unwrap();
    assert_eq!(owner_of(&view, 1), None);
}

#[test]
fn a_listing_replaces_everything_and_does_not_go_back() {
    let mut view = listed();
    let a = Pair::member("a");
    view.listed(20, [a.at(OURS, 3)]).unwrap();
    assert_eq!((view.members.len(), view.owners.len(), view.revision()), (1, 0, 20));
    assert_eq!(view.listed(19, [a.at(OURS, 3)]), Err(Lost::Removed));
}

#[test]
fn a_node_notices_that_its_record_is_not_its_own() {
    let own = Pair::member("a");
    let replaced = Lost::Replaced { address: "a:7700".to_owned() };
    assert_eq!(listed().apply(Change::Deleted(own.at(0, 11))), Err(Lost::Removed));
    assert_eq!(listed().apply(Change::Put(own.at(THEIRS, 11))), Err(replaced.clone()));
    assert_eq!(listed().apply(Change::Put(own.at(OURS, 11))), Ok(()));
    assert_eq!(listed().listed(11, [Pair::member("b").at(THEIRS, 4)]), Err(Lost::Removed));
    assert_eq!(listed().listed(11, [own.at(THEIRS, 11)]), Err(replaced));
}

#[test]
fn counters_and_the_base_are_seen_and_what_is_foreign_is_not() {
    let mut view = listed();
    let name = Name::new("definitions").unwrap();
    let counter = Pair(keys().revision(&name), b"a".to_vec());
    view.apply(Change::Put(counter.at(0, 11))).unwrap();
    assert_eq!(view.revisions, Revisions::from([(name, 11)]));
    view.apply(Change::Put(Pair(keys().base(), b"900".to_vec()).at(0, 12))).unwrap();
    assert_eq!((view.base, view.base.epoch(30)), (Base { value: 900, changed: 12 }, Epoch(930)));
    view.apply(Change::Put(Pair("/kapell/test/later/1".to_owned(), b"?".to_vec()).at(0, 13))).unwrap();
    view.apply(Change::Deleted(counter.at(0, 14))).unwrap();
    assert_eq!(view.revisions, Revisions::new());
}

#[test]
fn what_cannot_be_read_is_left_out() {
    let mut view = listed();
    let (shard, other) =
        (Pair(Pair::shard(1, "b", 0).0, b"?".to_vec()), Pair(Pair::member("b").0, b"?".to_vec()));
    view.apply(Change::Put(shard.at(0, 11))).unwrap();
    view.apply(Change::Put(other.at(0, 12))).unwrap();
    view.apply(Change::Put(Pair(keys().base(), b"?".to_vec()).at(0, 13))).unwrap();
    assert_eq!((owner_of(&view, 1), view.members.len(), view.base), (None, 1, Base::default()));
}
