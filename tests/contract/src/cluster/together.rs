//! What nodes are promised that are there at the same time.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kapell_cluster::{AcquireError, JoinError, Lost, Member, Members, Owner, Session, SessionError};
use kapell_model::{Epoch, Name, ShardId};
use tokio::time::{Instant, sleep};

use super::{Meeting, SOON, acquire, counter, join, member, release, shows, shows_nodes, shows_owner};

/// In the order of their names.
pub async fn nodes_see_each_other_come_and_go(meeting: &dyn Meeting) {
    let b = join(meeting, "b").await;
    let c = join(meeting, "c").await;
    let a = join(meeting, "a").await;
    for session in [&a, &b, &c] {
        shows_nodes(session, &["a", "b", "c"]).await;
    }
    b.leave().await.unwrap();
    shows_nodes(&a, &["a", "c"]).await;
    let b = join(meeting, "b").await;
    for session in [&a, &b, &c] {
        shows_nodes(session, &["a", "b", "c"]).await;
        assert_eq!(*session.lost().borrow(), None);
    }
    let shown = c.members().borrow().clone();
    assert_eq!(shown.values().next(), Some(&member("a")), "with all that it told about itself");
}

/// All at once, for many shards.
pub async fn one_of_many_wins_a_shard_and_the_others_learn_who(meeting: &dyn Meeting) {
    let names = ["a", "b", "c", "d"];
    let sessions = join_all(names.map(|name| join(meeting, name))).await;
    let mut epochs = BTreeSet::new();
    for shard in 0..20 {
        let raced = join_all(sessions.iter().map(|session| session.acquire(ShardId(shard)))).await;
        let won = raced.iter().zip(names).filter_map(|(raced, name)| Some((name, raced.as_ref().ok()?)));
        let won = won.collect::<Vec<_>>();
        let [(winner, epoch)] = won[..] else { panic!("shard {shard} was won by {won:?}") };
        let Member { node, address, .. } = member(winner);
        let owner = Owner { node, address, epoch: *epoch };
        for lost in raced.iter().filter_map(|raced| raced.as_ref().err()) {
            assert_eq!(*lost, AcquireError::HeldBy(owner.clone()));
        }
        assert!(epochs.insert(*epoch), "{epoch} was there before");
        for session in &sessions {
            shows_owner(session, shard, Some((winner, epoch.0))).await;
        }
    }
}

/// Who is there, and who comes later; a new process of the node is there to stay, whatever the former one says.
pub async fn all_hear_who_is_leaving(meeting: &dyn Meeting) {
    let (a, b) = (join(meeting, "a").await, join(meeting, "b").await);
    a.retire().await.unwrap();
    let late = join(meeting, "c").await;
    for session in [&a, &b, &late] {
        shows(&mut session.members(), |members| is_leaving(members, "a")).await;
        assert!(!is_leaving(&session.members().borrow(), "b"));
    }
    let next = join(meeting, "a").await;
    assert!(matches!(a.retire().await, Err(SessionError::Lost(Lost::Replaced { .. }))));
    for session in [&b, &late, &next] {
        shows(&mut session.members(), |members| !is_leaving(members, "a")).await;
    }
}

fn is_leaving(members: &Members, name: &str) -> bool {
    members.values().any(|member| member.node.as_str() == name && member.leaving)
}

/// Released by one, acquired by another who heard of it.
pub async fn a_shard_goes_round_under_rising_epochs(meeting: &dyn Meeting) {
    let sessions = [join(meeting, "a").await, join(meeting, "b").await];
    let mut last = 0;
    for turn in 0..6 {
        let (now, other) = (&sessions[turn % 2], &sessions[(turn + 1) % 2]);
        shows_owner(now, 1, None).await;
        let epoch = acquire(now, 1).await;
        assert!(epoch > last, "{epoch} after {last}");
        last = epoch;
        // Somebody else's shard stays somebody else's.
        release(other, 1, epoch).await;
        let held = other.acquire(ShardId(1)).await.unwrap_err();
        assert!(matches!(&held, AcquireError::HeldBy(owner) if owner.epoch == Epoch(epoch)), "{held}");
        release(now, 1, epoch).await;
    }
}

/// It may be another node with the same name by mistake.
pub async fn a_name_that_is_taken_elsewhere_is_refused(meeting: &dyn Meeting) {
    let first = join(meeting, "a").await;
    let epoch = acquire(&first, 1).await;
    let elsewhere = Member { address: "elsewhere:7700".to_owned(), ..member("a") };
    let refused = meeting.cluster().join(elsewhere, Epoch(0)).await.err().expect("a refusal");
    let Member { node: own, address: at, .. } = member("a");
    assert!(
        matches!(&refused, JoinError::NameTaken { node, address, .. } if *node == own && *address == at),
        "{refused}"
    );
    assert_eq!(*first.lost().borrow(), None);
    assert_eq!(acquire(&first, 1).await, epoch);
}

/// By those who were there and by those who come later.
pub async fn a_counter_is_seen_by_the_others(meeting: &dyn Meeting) {
    let name = Name::new("definitions").unwrap();
    let (a, b) = (join(meeting, "a").await, join(meeting, "b").await);
    let mut revisions = b.revisions();
    let mut last = counter(&b, &name);
    for _ in 0..3 {
        a.bump(&name).await.unwrap();
        shows(&mut revisions, |shown| shown.get(&name).is_some_and(|now| *now != last)).await;
        last = counter(&b, &name);
    }
    let late = join(meeting, "c").await;
    assert_eq!(counter(&late, &name), last);
}

/// And not before: a session that nobody keeps says that it is over while its shards are still its own.
pub async fn a_node_that_dies_is_given_up_after_its_session_was_over(meeting: &dyn Meeting) {
    let survivor = join(meeting, "b").await;
    let dying = join(meeting, "a").await;
    let epoch = acquire(&dying, 1).await;
    shows_nodes(&survivor, &["a", "b"]).await;
    let (died, valid_until) = (Instant::now(), dying.valid_until());
    drop(dying);
    let (next, acquired) = soon_acquired(&survivor, 1).await;
    assert!(next > epoch);
    assert!(acquired > valid_until, "given away {:?} too early", valid_until - acquired);
    let took = acquired - died;
    assert!(took < meeting.gives_up_within(), "{took:?}");
    shows_nodes(&survivor, &["b"]).await;
}

/// Asks until the shard is acquired; when it was.
pub async fn soon_acquired(session: &Arc<dyn Session>, shard: u16) -> (u64, Instant) {
    let asking = async {
        loop {
            match session.acquire(ShardId(shard)).await {
                Ok(epoch) => return (epoch.0, Instant::now()),
                Err(AcquireError::HeldBy(_) | AcquireError::Unavailable { .. }) => {}
                Err(AcquireError::Lost(lost)) => panic!("{lost}"),
            }
            // why: what is waited for is that somebody else's lease ends, to the millisecond
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON * 3, asking).await.expect("it is given up at some time")
}
