//! etcd's members die; sessions and watches go on.
use std::sync::Arc;
use std::time::Duration;

use kapell_cluster::{AcquireError, JoinError, Lost, Owners, Session, SessionError};
use kapell_model::ShardId;
use kapell_tests_contract::cluster::{acquire, join, release, shows, shows_nodes};
use kapell_tests_servers::Etcd;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Reached, TTL, join_at_last};

/// Longer than it takes to notice that a member hangs and to elect another leader, on a machine that has much else to
/// do.
const LEASE: Duration = Duration::from_secs(6);

/// An owner by name and epoch, or nobody.
type Shown = Option<(String, u64)>;

/// Everything that a watch on one shard shows.
fn record(session: &Arc<dyn Session>) -> watch::Receiver<Vec<Shown>> {
    let (writer, shown) = watch::channel(Vec::new());
    let mut owners = session.owners();
    let owner_of = |owners: &Arc<Owners>| {
        owners.get(&ShardId(1)).map(|owner| (owner.node.as_str().to_owned(), owner.epoch.0))
    };
    #[expect(clippy::disallowed_methods, reason = "it ends with the session that it watches")]
    tokio::spawn(async move {
        while owners.changed().await.is_ok() {
            let now = owner_of(&owners.borrow_and_update());
            writer.send_modify(|shown| shown.push(now));
        }
    });
    shown
}

/// Three sessions, what their watches have shown, and what they should have.
struct Watched {
    sessions: [Arc<dyn Session>; 3],
    shown: [watch::Receiver<Vec<Shown>>; 3],
    expected: Vec<Shown>,
}

impl Watched {
    async fn join(reached: &Reached) -> Watched {
        let sessions = [join(reached, "a").await, join(reached, "b").await, join(reached, "c").await];
        Watched { shown: sessions.each_ref().map(record), sessions, expected: Vec::new() }
    }

    /// One after the other acquires and releases, each time when all have seen the change before.
    async fn turns(&mut self, count: usize) {
        for _ in 0..count {
            let turn = self.expected.len() / 2 % self.sessions.len();
            let (session, name) = (self.sessions[turn].clone(), ["a", "b", "c"][turn]);
            let epoch = acquire_at_last(&session).await;
            self.all_see(Some((name.to_owned(), epoch))).await;
            release_at_last(&session, epoch).await;
            self.all_see(None).await;
        }
    }

    async fn all_see(&mut self, owner: Shown) {
        self.expected.push(owner);
        for shown in &mut self.shown {
            shows(shown, |shown| shown.len() >= self.expected.len()).await;
        }
    }

    /// Nobody missed a change of an owner, nobody saw one twice, nobody is lost.
    fn check(&self) {
        for (session, shown) in self.sessions.iter().zip(&self.shown) {
            assert_eq!(*session.lost().borrow(), None);
            assert_eq!(*shown.borrow(), self.expected, "each change once and in order");
        }
        let epochs = self.expected.iter().flatten().map(|(_, epoch)| *epoch).collect::<Vec<_>>();
        assert!(epochs.is_sorted_by(|before, after| before < after), "{epochs:?}");
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_watches_survive_the_death_of_the_leader() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    let reached = Reached::by(etcd.endpoints()).lease(LEASE);
    let mut all = Watched::join(&reached).await;
    all.turns(3).await;
    etcd.kill(etcd.leader());
    let killed = Instant::now();
    all.turns(1).await;
    println!("a shard changed hands and all saw it {:?} after the leader's death", killed.elapsed());
    all.turns(4).await;
    // why: sessions must outlive their leases, not only the election
    sleep(LEASE + LEASE / 2).await;
    all.turns(3).await;
    all.check();
}

/// Connections to it stay open, and nothing comes from them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hangs_is_left() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    let leader = etcd.leader();
    // The first is the one that will hang.
    let mut endpoints = etcd.endpoints();
    endpoints.swap(0, leader);
    let hanging = Reached::by(endpoints[..1].to_vec());
    let reached = Reached::by(endpoints).lease(LEASE);
    let mut all = Watched::join(&reached).await;
    let stuck = join(&hanging, "d").await;
    all.turns(1).await;
    etcd.freeze(leader);
    all.turns(3).await;
    assert_eq!(shows(&mut stuck.lost(), Option::is_some).await, Some(Lost::Expired));
    // why: sessions must outlive their leases
    sleep(LEASE).await;
    all.turns(1).await;
    all.check();
    etcd.thaw(leader);
    let last = all.expected.iter().flatten().last().map_or(0, |(_, epoch)| *epoch);
    sees_what_the_thawed_leader_does(&reached, all.sessions, last).await;
}

/// In etcd of before 2024 a leader that was away may end leases that its successor kept. Then the session is over, and says
/// so; its node joins again.
async fn sees_what_the_thawed_leader_does(reached: &Reached, sessions: [Arc<dyn Session>; 3], mut last: u64) {
    for (mut session, name) in sessions.into_iter().zip(["a", "b", "c"]) {
        let epoch = loop {
            match session.acquire(ShardId(1)).await {
                Ok(epoch) => break epoch.0,
                Err(AcquireError::Lost(lost)) => {
                    assert_eq!(lost, Lost::Removed);
                    session = join_at_last(reached, name, last).await;
                }
                Err(AcquireError::HeldBy(_) | AcquireError::Unavailable { .. }) => {}
            }
        };
        assert!(epoch > last, "{epoch} after {last}");
        last = epoch;
        session.leave().await.unwrap();
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
    let silent = session.ping().await.expect_err("nobody leads");
    assert!(
        matches!(silent, SessionError::Unavailable { .. } | SessionError::Lost(Lost::Expired)),
        "{silent}"
    );
    assert_eq!(shows(&mut session.lost(), Option::is_some).await, Some(Lost::Expired));
    assert!(alone_since.elapsed() < TTL + Duration::from_secs(1), "{:?}", alone_since.elapsed());
    let refused = alone.try_join("a", 0).await.err().expect("nobody leads");
    assert!(matches!(refused, JoinError::Unavailable { .. }), "{refused}");
}
