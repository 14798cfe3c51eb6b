//! etcd's members die; sessions and watches go on.
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kapell_cluster::{JoinError, Lost, Owners, Session};
use kapell_model::ShardId;
use kapell_tests_contract::cluster::{acquire, join, release, shows, shows_nodes, shows_owner};
use kapell_tests_servers::Etcd;
use tokio::time::{Instant, sleep};

use super::{Reached, TTL};

/// Everything that a watch on one shard shows: epochs, and 0 for nobody.
fn record(session: &Arc<dyn Session>) -> Arc<Mutex<Vec<u64>>> {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let (mut owners, writer) = (session.owners(), Arc::clone(&shown));
    let epoch = |owners: &Arc<Owners>| owners.get(&ShardId(1)).map_or(0, |owner| owner.epoch.0);
    #[expect(clippy::disallowed_methods, reason = "it ends with the session that it watches")]
    tokio::spawn(async move {
        while owners.changed().await.is_ok() {
            let now = epoch(&owners.borrow_and_update());
            writer.lock().unwrap().push(now);
        }
    });
    shown
}

/// Acquires and releases, each time when all have seen the change before. What all must have seen.
async fn turns(sessions: &[Arc<dyn Session>], from: usize, count: usize) -> Vec<u64> {
    let mut expected = Vec::new();
    for turn in from..from + count {
        let session = &sessions[turn % sessions.len()];
        let name = ["a", "b", "c"][turn % sessions.len()];
        let epoch = acquire_at_last(session).await;
        for watching in sessions {
            shows_owner(watching, 1, Some((name, epoch))).await;
        }
        release_at_last(session, epoch).await;
        for watching in sessions {
            shows_owner(watching, 1, None).await;
        }
        expected.extend([epoch, 0]);
    }
    expected
}

/// As an owner does: asks again what was not answered.
async fn acquire_at_last(session: &Arc<dyn Session>) -> u64 {
    for _ in 0..10 {
        if let Ok(epoch) = session.acquire(ShardId(1)).await {
            return epoch.0;
        }
    }
    acquire(session, 1).await
}

async fn release_at_last(session: &Arc<dyn Session>, epoch: u64) {
    for _ in 0..10 {
        if session.release(ShardId(1), kapell_model::Epoch(epoch)).await.is_ok() {
            return;
        }
    }
    release(session, 1, epoch).await;
}

/// Nobody misses a change of an owner, nobody sees one twice, nobody is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_watches_survive_the_death_of_the_leader() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    let reached = Reached::by(etcd.endpoints());
    let sessions = [join(&reached, "a").await, join(&reached, "b").await, join(&reached, "c").await];
    let shown = sessions.each_ref().map(record);
    let mut expected = turns(&sessions, 0, 3).await;
    etcd.kill(etcd.leader());
    let killed = Instant::now();
    expected.extend(turns(&sessions, 3, 1).await);
    println!("a shard changed hands and all saw it {:?} after the leader's death", killed.elapsed());
    expected.extend(turns(&sessions, 4, 4).await);
    // why: sessions must outlive their leases, not only the election
    sleep(TTL + TTL / 2).await;
    expected.extend(turns(&sessions, 8, 3).await);
    for (session, shown) in sessions.iter().zip(shown) {
        assert_eq!(*session.lost().borrow(), None);
        assert_eq!(*shown.lock().unwrap(), expected, "each change once and in order");
    }
    let epochs = expected.iter().filter(|epoch| **epoch > 0).collect::<Vec<_>>();
    assert!(epochs.is_sorted() && epochs.iter().collect::<BTreeSet<_>>().len() == epochs.len());
}

/// Connections to it stay open, and nothing comes from them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hangs_is_left() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    let leader = etcd.leader();
    // Every session begins at the one that will hang.
    let mut endpoints = etcd.endpoints();
    endpoints.swap(0, leader);
    let hanging = Reached::by(endpoints[..1].to_vec());
    let reached = Reached::by(endpoints);
    let sessions = [join(&reached, "a").await, join(&reached, "b").await, join(&reached, "c").await];
    let stuck = join(&hanging, "d").await;
    let shown = sessions.each_ref().map(record);
    let mut expected = turns(&sessions, 0, 1).await;
    etcd.freeze(leader);
    expected.extend(turns(&sessions, 1, 3).await);
    assert_eq!(shows(&mut stuck.lost(), Option::is_some).await, Some(Lost::Expired));
    // why: sessions must outlive their leases
    sleep(TTL).await;
    expected.extend(turns(&sessions, 4, 1).await);
    etcd.thaw(leader);
    expected.extend(turns(&sessions, 5, 3).await);
    for (session, shown) in sessions.iter().zip(shown) {
        assert_eq!(*session.lost().borrow(), None);
        assert_eq!(*shown.lock().unwrap(), expected, "each change once and in order");
    }
}

/// It could still say what it remembers. Nobody may act on that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_a_leader_is_no_cluster() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    let alone = Reached::by(etcd.endpoints()[..1].to_vec());
    let session = join(&alone, "a").await;
    etcd.kill(1);
    shows_nodes(&session, &["a"]).await;
    etcd.kill(2);
    let alone_since = Instant::now();
    assert_eq!(shows(&mut session.lost(), Option::is_some).await, Some(Lost::Expired));
    assert!(alone_since.elapsed() < TTL + Duration::from_secs(1), "{:?}", alone_since.elapsed());
    let refused = alone.try_join("a", 0).await.err().expect("nobody leads");
    assert!(matches!(refused, JoinError::Unavailable { .. }), "{refused}");
}
