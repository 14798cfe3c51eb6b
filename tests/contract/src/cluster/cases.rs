//! What a node is promised that meets nobody, or only its former self.
use std::collections::BTreeSet;
use std::sync::Arc;

use kapell_cluster::{AcquireError, Lost, SessionError};
use kapell_model::{Epoch, Name, ShardId};
use tokio::time::Instant;

use super::{
    Meeting, acquire, counter, join, join_above, member, release, shows, shows_nodes, shows_owner, soon,
};

/// It is a member from the beginning, and owns nothing.
pub async fn a_node_sees_itself(meeting: &dyn Meeting) {
    let session = join(meeting, "a").await;
    let members = session.members().borrow().clone();
    assert_eq!(members.values().collect::<Vec<_>>(), [&member("a")]);
    assert!(session.owners().borrow().is_empty());
    assert_eq!(*session.lost().borrow(), None);
    assert!(session.valid_until() > Instant::now());
}

/// Whatever is acquired, released, left and joined again.
pub async fn epochs_rise_above_the_floor_and_over_sessions(meeting: &dyn Meeting) {
    let mut last = 1_000;
    let session = join_above(meeting, "a", last).await;
    let mut rises = |epoch: u64| {
        assert!(epoch > last, "{epoch} after {last}");
        last = epoch;
    };
    for shard in [0, 1, u16::MAX, 0, 0, 1] {
        let epoch = acquire(&session, shard).await;
        rises(epoch);
        release(&session, shard, epoch).await;
    }
    session.leave().await.unwrap();
    for floor in [0, 50, 2_000_000, 7] {
        let session = join_above(meeting, "a", floor).await;
        let epoch = acquire(&session, 3).await;
        assert!(epoch > floor, "{epoch} above {floor}");
        rises(epoch);
        rises(acquire(&session, 4).await);
        session.leave().await.unwrap();
    }
}

/// Whoever did not hear the answer asks again.
pub async fn a_shard_that_is_acquired_again_has_the_same_epoch(meeting: &dyn Meeting) {
    let session = join(meeting, "a").await;
    let epoch = acquire(&session, 7).await;
    assert_ne!(acquire(&session, 8).await, epoch);
    for _ in 0..3 {
        assert_eq!(acquire(&session, 7).await, epoch);
    }
}

/// With its address and its epoch.
pub async fn an_owner_is_shown_until_it_releases(meeting: &dyn Meeting) {
    let session = join(meeting, "a").await;
    let (one, two) = (acquire(&session, 1).await, acquire(&session, 2).await);
    shows_owner(&session, 1, Some(("a", one))).await;
    shows_owner(&session, 2, Some(("a", two))).await;
    release(&session, 1, one).await;
    shows_owner(&session, 1, None).await;
    shows_owner(&session, 2, Some(("a", two))).await;
}

/// Neither one from before nor one that never was.
pub async fn a_release_under_another_epoch_changes_nothing(meeting: &dyn Meeting) {
    let session = join(meeting, "a").await;
    let old = acquire(&session, 1).await;
    release(&session, 1, old).await;
    let new = acquire(&session, 1).await;
    for wrong in [old, new + 1, 0] {
        release(&session, 1, wrong).await;
    }
    assert_eq!(acquire(&session, 1).await, new);
    release(&session, 9, new).await;
    release(&session, 1, new).await;
    release(&session, 1, new).await;
    assert!(acquire(&session, 1).await > new);
}

/// And no other one does.
pub async fn a_counter_changes_with_every_bump(meeting: &dyn Meeting) {
    let session = join(meeting, "a").await;
    let [counted, other] = ["definitions", "connections"].map(|name| Name::new(name).unwrap());
    session.bump(&other).await.unwrap();
    let mut revisions = session.revisions();
    shows(&mut revisions, |revisions| revisions.contains_key(&other)).await;
    let mut seen = BTreeSet::from([counter(&session, &counted)]);
    let before = counter(&session, &other);
    for _ in 0..3 {
        session.bump(&counted).await.unwrap();
        let value = |revisions: &Arc<kapell_cluster::Revisions>| revisions.get(&counted).copied();
        let shown = shows(&mut revisions, |shown| value(shown).is_some_and(|now| !seen.contains(&now))).await;
        seen.extend(value(&shown));
    }
    assert_eq!((seen.len(), counter(&session, &other)), (4, before));
    session.leave().await.unwrap();
    let session = join(meeting, "a").await;
    assert!(seen.contains(&counter(&session, &counted)), "counters outlive sessions");
}

/// At once, for whoever comes next.
pub async fn who_leaves_gives_up_everything_and_takes_nothing_on(meeting: &dyn Meeting) {
    let session = join(meeting, "a").await;
    let epoch = acquire(&session, 1).await;
    let mut lost = session.lost();
    assert_eq!(session.ping().await, Ok(()));
    soon(session.leave()).await.unwrap();
    assert_eq!(shows(&mut lost, Option::is_some).await, Some(Lost::Left));
    assert_eq!(session.acquire(ShardId(1)).await, Err(AcquireError::Lost(Lost::Left)));
    assert_eq!(session.acquire(ShardId(2)).await, Err(AcquireError::Lost(Lost::Left)));
    assert_eq!(session.release(ShardId(1), Epoch(epoch)).await, Err(SessionError::Lost(Lost::Left)));
    assert_eq!(session.bump(&Name::new("x").unwrap()).await, Err(SessionError::Lost(Lost::Left)));
    assert_eq!(session.ping().await, Err(SessionError::Lost(Lost::Left)));
    assert_eq!(session.retire().await, Err(SessionError::Lost(Lost::Left)));
    assert_eq!(session.leave().await, Ok(()), "leaving twice is leaving");
    let next = join(meeting, "b").await;
    shows_nodes(&next, &["b"]).await;
    assert!(acquire(&next, 1).await > epoch);
}

/// Once and once more; the session is as good as before.
pub async fn who_retires_keeps_what_it_has_until_it_lets_go(meeting: &dyn Meeting) {
    let session = join(meeting, "a").await;
    let epoch = acquire(&session, 1).await;
    for _ in 0..2 {
        assert_eq!(session.retire().await, Ok(()));
    }
    shows(&mut session.members(), |members| members.values().all(|member| member.leaving)).await;
    shows_owner(&session, 1, Some(("a", epoch))).await;
    assert_eq!(acquire(&session, 1).await, epoch);
    release(&session, 1, epoch).await;
    shows_owner(&session, 1, None).await;
    assert_eq!(session.ping().await, Ok(()));
    assert_eq!(session.leave().await, Ok(()));
}

/// Nobody waits for the lease of a process that is known to be gone.
pub async fn a_process_that_starts_again_takes_its_own_place(meeting: &dyn Meeting) {
    let former = join(meeting, "a").await;
    let epoch = acquire(&former, 1).await;
    let next = join(meeting, "a").await;
    let replaced = Lost::Replaced { address: member("a").address };
    assert_eq!(shows(&mut former.lost(), Option::is_some).await, Some(replaced.clone()));
    assert_eq!(former.acquire(ShardId(1)).await, Err(AcquireError::Lost(replaced.clone())));
    assert_eq!(former.ping().await, Err(SessionError::Lost(replaced)));
    assert!(acquire(&next, 1).await > epoch, "the shard is not held by the dead");
    shows_nodes(&next, &["a"]).await;
    drop(former);
    let again = acquire(&next, 2).await;
    shows_owner(&next, 2, Some(("a", again))).await;
    assert_eq!(*next.lost().borrow(), None);
}
