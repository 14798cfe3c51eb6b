//! A watch that was away comes to what is there now.
use std::sync::Arc;
use std::time::Duration;

use kapell_cluster::Session;
use kapell_model::Name;
use kapell_tests_contract::cluster::{acquire, counter, join, release, shows, shows_nodes, shows_owner};
use kapell_tests_servers::Etcd;

use super::Reached;
use super::gate::Gate;

/// Changes that nobody behind the gate can see. The last epoch of shard 1.
async fn change(etcd: &Reached, session: &Arc<dyn Session>, counted: &Name) -> u64 {
    let mut last = acquire(session, 1).await;
    for _ in 0..10 {
        release(session, 1, last).await;
        last = acquire(session, 1).await;
    }
    session.bump(counted).await.unwrap();
    join(etcd, "c").await.leave().await.unwrap();
    last
}

/// What was thrown away is listed again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_that_was_compacted_under_a_paused_watch_is_listed_again() {
    let Some(etcd) = Etcd::start(1) else { return };
    let gate = Gate::before(&etcd.endpoints()[0]).await;
    let (beside, counted) = (Reached::by(etcd.endpoints()), Name::new("definitions").unwrap());
    let behind = join(&Reached::by(vec![gate.endpoint()]), "a").await;
    let writer = join(&beside, "b").await;
    let leaving = join(&beside, "d").await;
    let gone = acquire(&leaving, 2).await;
    shows_owner(&behind, 2, Some(("d", gone))).await;
    let (mut owners, before) = (behind.owners(), counter(&behind, &counted));
    gate.shut();
    let last = change(&beside, &writer, &counted).await;
    leaving.leave().await.unwrap();
    let mut client = etcd_client::Client::connect(etcd.endpoints(), None).await.unwrap();
    let now = client.get("now", None).await.unwrap().header().unwrap().revision();
    client.compact(now, None).await.unwrap();
    owners.mark_unchanged();
    gate.cut();
    gate.open();
    shows_owner(&behind, 1, Some(("b", last))).await;
    shows_owner(&behind, 2, None).await;
    shows_nodes(&behind, &["a", "b"]).await;
    shows(&mut behind.revisions(), |shown| shown.get(&counted).is_some_and(|now| *now != before)).await;
    assert_eq!(*behind.lost().borrow(), None);
    // And goes on from there.
    release(&writer, 1, last).await;
    shows_owner(&behind, 1, None).await;
    let own = acquire(&behind, 1).await;
    assert!(own > last);
    shows_owner(&writer, 1, Some(("a", own))).await;
}

/// What is still there is seen in order, the ends of leases included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_was_cut_goes_on_where_it_was() {
    let Some(etcd) = Etcd::start(1) else { return };
    let gate = Gate::before(&etcd.endpoints()[0]).await;
    let (beside, counted) = (Reached::by(etcd.endpoints()), Name::new("definitions").unwrap());
    let behind = join(&Reached::by(vec![gate.endpoint()]), "a").await;
    let writer = join(&beside, "b").await;
    for _ in 0..5 {
        gate.shut();
        let last = change(&beside, &writer, &counted).await;
        gate.cut();
        gate.open();
        shows_owner(&behind, 1, Some(("b", last))).await;
        shows_nodes(&behind, &["a", "b"]).await;
        release(&writer, 1, last).await;
        shows_owner(&behind, 1, None).await;
    }
    assert_eq!(*behind.lost().borrow(), None);
}

/// Whichever it is: the lease, which would notice the silence, is kept alive only every fifteen seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_silent_hides_nothing_that_another_tells() {
    let Some(etcd) = Etcd::start(1) else { return };
    let gates = [Gate::before(&etcd.endpoints()[0]).await, Gate::before(&etcd.endpoints()[0]).await];
    let reached = Reached::by(gates.each_ref().map(Gate::endpoint).to_vec());
    let behind = join(&reached.lease(Duration::from_secs(60)), "a").await;
    let writer = join(&Reached::by(etcd.endpoints()), "b").await;
    shows_nodes(&behind, &["a", "b"]).await;
    for gate in &gates {
        gate.shut();
        let epoch = acquire(&writer, 1).await;
        shows_owner(&behind, 1, Some(("b", epoch))).await;
        release(&writer, 1, epoch).await;
        shows_owner(&behind, 1, None).await;
        gate.open();
    }
    assert_eq!(*behind.lost().borrow(), None);
}
