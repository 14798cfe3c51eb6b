//! etcd forgets. Epochs do not fall.
use kapell_cluster::{AcquireError, Lost};
use kapell_model::ShardId;
use kapell_tests_contract::cluster::{acquire, join, join_above, member, release, shows, shows_nodes};
use kapell_tests_servers::Etcd;

use super::{Reached, join_at_last};

/// The first to join an empty etcd brings the floor, and others go on from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_rise_over_an_etcd_that_was_wiped() {
    let Some(mut etcd) = Etcd::start(1) else { return };
    let reached = Reached::by(etcd.endpoints());
    let session = join_above(&reached, "a", 70_000).await;
    let mut last = acquire(&session, 1).await;
    for _ in 0..20 {
        release(&session, 1, last).await;
        last = acquire(&session, 1).await;
    }
    etcd.kill(0);
    etcd.wipe();
    etcd.start_again();
    let lost = shows(&mut session.lost(), Option::is_some).await.unwrap();
    assert!(matches!(lost, Lost::Removed | Lost::Expired), "{lost}");
    assert_eq!(session.acquire(ShardId(2)).await, Err(AcquireError::Lost(lost)));
    // Two at once: one of them makes the base.
    let joining = (join_at_last(&reached, "a", last), join_at_last(&reached, "b", last - 1));
    let (a, b) = tokio::join!(joining.0, joining.1);
    for (session, shard) in [(&a, 1), (&b, 2), (&a, 3)] {
        let epoch = acquire(session, shard).await;
        assert!(epoch > last, "{epoch} after {last}");
        last = epoch;
    }
}

/// A copy of its data from yesterday knows neither the epochs of today nor that they were handed out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_rise_over_an_etcd_that_was_set_back_to_an_older_copy() {
    let Some(mut etcd) = Etcd::start(1) else { return };
    let reached = Reached::by(etcd.endpoints());
    let session = join_above(&reached, "a", 500).await;
    let early = acquire(&session, 9).await;
    etcd.kill(0);
    let copy = etcd.backup();
    etcd.start_again();
    let session = join_at_last(&reached, "a", early).await;
    let mut last = early;
    for _ in 0..50 {
        let epoch = acquire(&session, 1).await;
        assert!(epoch > last, "{epoch} after {last}");
        last = epoch;
        release(&session, 1, last).await;
    }
    drop(session);
    etcd.kill(0);
    etcd.restore(&copy);
    etcd.start_again();
    let (a, mut rising) = (join_at_last(&reached, "a", last).await, last);
    shows_nodes(&a, &["a"]).await;
    let late = join(&reached, "b").await;
    for (session, shard) in [(&a, 1), (&late, 2), (&a, 9)] {
        let epoch = acquire(session, shard).await;
        assert!(epoch > rising, "{epoch} after {rising}");
        rising = epoch;
    }
}

/// By a person who thinks that the node is dead, or tidies up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_record_is_deleted_is_over() {
    let Some(etcd) = Etcd::start(1) else { return };
    let reached = Reached::by(etcd.endpoints());
    let (a, b) = (join(&reached, "a").await, join(&reached, "b").await);
    let mut client = etcd_client::Client::connect(etcd.endpoints(), None).await.unwrap();
    client.delete("/kapell/test/members/a", None).await.unwrap();
    assert_eq!(shows(&mut a.lost(), Option::is_some).await, Some(Lost::Removed));
    assert_eq!(a.acquire(ShardId(1)).await, Err(AcquireError::Lost(Lost::Removed)));
    shows_nodes(&b, &["b"]).await;
    // The lease alone would have been enough to acquire something; the record is what counts.
    let value = format!(r#"{{"node":"b","address":"{}","version":"x"}}"#, member("b").address);
    client.put("/kapell/test/members/b", value, None).await.unwrap();
    assert!(matches!(shows(&mut b.lost(), Option::is_some).await, Some(Lost::Replaced { .. })));
}
