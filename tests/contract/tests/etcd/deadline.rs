//! A session is over before anybody else can have its shards.
use std::time::Duration;

use kapell_cluster::{AcquireError, JoinError, Lost};
use kapell_model::ShardId;
use kapell_tests_contract::cluster::together::soon_acquired;
use kapell_tests_contract::cluster::{acquire, join, shows, shows_owner, soon};
use kapell_tests_servers::Etcd;
use tokio::time::{Instant, sleep, timeout};

use super::gate::Gate;
use super::{Reached, TTL, join_at_last};

/// The sharpest form: etcd lives, counts, and gives the shard away as soon as it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_is_over_before_its_shard_is_given_away() {
    let Some(etcd) = Etcd::start(1) else { return };
    let gate = Gate::before(&etcd.endpoints()[0]).await;
    let behind = join(&Reached::by(vec![gate.endpoint()]), "a").await;
    let beside = join(&Reached::by(etcd.endpoints()), "b").await;
    let epoch = acquire(&behind, 1).await;
    for round in 0..2 {
        // why: several signs of life pass, so that the end is counted from one of them and not from the beginning
        sleep(TTL).await;
        assert_eq!(*behind.lost().borrow(), None, "round {round}");
    }
    gate.shut();
    let shut = Instant::now();
    let mut lost = behind.lost();
    let over = async {
        assert_eq!(shows(&mut lost, Option::is_some).await, Some(Lost::Expired));
        Instant::now()
    };
    let (over, (next, acquired)) = tokio::join!(over, soon_acquired(&beside, 1));
    println!("over {:?}, acquired {:?} after the cut", over - shut, acquired - shut);
    assert!(next > epoch);
    assert!(over < acquired && behind.valid_until() < acquired, "two owners");
    assert!(over - shut <= TTL - TTL / 10, "counted from the sending: {:?}", over - shut);
    assert_eq!(behind.acquire(ShardId(1)).await, Err(AcquireError::Lost(Lost::Expired)));
    gate.open();
    // why: nothing may happen to a session that was lost, however well etcd is reached again
    sleep(TTL / 2).await;
    assert_eq!(behind.acquire(ShardId(2)).await, Err(AcquireError::Lost(Lost::Expired)));
    shows_owner(&beside, 1, Some(("b", next))).await;
}

/// With nobody to tell it, and nothing that would answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_that_is_down_for_longer_than_a_lease_ends_sessions_and_can_be_joined_again() {
    let Some(mut etcd) = Etcd::start(1) else { return };
    let reached = Reached::by(etcd.endpoints());
    let (session, other) = (join(&reached, "a").await, join(&reached, "b").await);
    let epoch = acquire(&session, 1).await;
    etcd.kill(0);
    let killed = Instant::now();
    let refused = session.acquire(ShardId(2)).await.unwrap_err();
    assert!(
        matches!(&refused, AcquireError::Unavailable { reason, .. } if reason.contains("127.0.0.1")),
        "{refused}"
    );
    for lost in [session.lost(), other.lost()] {
        assert_eq!(shows(&mut lost.clone(), Option::is_some).await, Some(Lost::Expired));
    }
    assert!(killed.elapsed() <= TTL - TTL / 10 + Duration::from_millis(200), "{:?}", killed.elapsed());
    let refused = soon(reached.try_join("a", 0)).await.err().expect("nobody is there");
    assert!(
        matches!(&refused, JoinError::Unavailable { reason, .. } if reason.contains("refused")),
        "{refused}"
    );
    etcd.start_again();
    let again = join_at_last(&reached, "a", epoch).await;
    let (later, _) = soon_acquired(&again, 1).await;
    assert!(later > epoch);
}

/// A pause that is shorter than the lease is nobody's business.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_silence_harms_nobody() {
    let Some(etcd) = Etcd::start(1) else { return };
    let gate = Gate::before(&etcd.endpoints()[0]).await;
    let session = join(&Reached::by(vec![gate.endpoint()]), "a").await;
    let epoch = acquire(&session, 1).await;
    for _ in 0..3 {
        gate.shut();
        let waiting = session.acquire(ShardId(1));
        // why: time is the point: half a lease of silence
        let (acquired, ()) = tokio::join!(waiting, async {
            // why: the time that passes is what the deadline is about
            sleep(TTL / 2).await;
            gate.open();
        });
        assert!(matches!(acquired, Ok(same) if same.0 == epoch), "{acquired:?}");
        // why: until a sign of life has passed again
        sleep(TTL / 3).await;
    }
    assert_eq!(*session.lost().borrow(), None);
    let watched = acquire(&session, 2).await;
    shows_owner(&session, 2, Some(("a", watched))).await;
}

/// Nobody is left to keep the lease, and nobody gives it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_without_leaving_is_as_good_as_dead() {
    let Some(etcd) = Etcd::start(1) else { return };
    let runtime = kapell_runtime::Runtime::system();
    let reached = Reached::by(etcd.endpoints());
    let cluster = kapell_cluster_etcd::EtcdCluster::new(reached.0.clone(), runtime.clone()).unwrap();
    let member = kapell_tests_contract::cluster::member("a");
    let session = kapell_cluster::Cluster::join(&cluster, member, kapell_model::Epoch(0)).await.unwrap();
    acquire(&session, 1).await;
    let other = join(&reached, "b").await;
    runtime.jobs.stop("shutdown");
    soon_acquired(&other, 1).await;
    assert!(session.valid_until() < Instant::now());
    // No job is left to say so; whoever asks is told.
    let asked = timeout(TTL, session.acquire(ShardId(1))).await.unwrap();
    assert_eq!(asked, Err(AcquireError::Lost(Lost::Expired)));
}
