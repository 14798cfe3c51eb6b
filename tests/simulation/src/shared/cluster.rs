//! The cluster as a node reaches it.
//!
//! Owns: until when a session is trusted, and what it shows. Never: trusts it for longer than the sending of an
//! answered sign of life allows.
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kapell_cluster::{
    AcquireError, Cluster, JoinError, Lost, Member, Members, Owners, Revisions, Session, SessionError,
};
use kapell_model::{Epoch, Name, ShardId};
use kapell_runtime::{Job, Jobs, OnDeath};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::locked;
use super::post::{Post, Store};
use super::registry::{Hear, Lease, Refusal, Registry, View};

const KEEP: Job = Job { name: "simulated session", on_panic: OnDeath::StopNode };
/// Signs of life in the time of one lease.
const SIGNS: u32 = 4;
const RETRY_AFTER: Duration = Duration::from_millis(200);
const NO_ANSWER: &str = "the cluster did not answer in time";

/// See the module. One for each life of a node.
#[derive(Clone)]
pub struct SharedCluster {
    post: Post,
    registry: Arc<Mutex<Registry>>,
    node: &'static str,
    jobs: Jobs,
    lease: Duration,
}

/// What a session shows, and until when it is trusted.
struct Shown {
    members: watch::Sender<Arc<Members>>,
    owners: watch::Sender<Arc<Owners>>,
    revisions: watch::Sender<Arc<Revisions>>,
    lost: watch::Sender<Option<Lost>>,
    /// The view shown last.
    no: Mutex<u64>,
    /// By the node's clock, which stands while the node does.
    valid_until: Mutex<Valid>,
}

/// Until when a session is trusted.
#[derive(Clone, Copy)]
struct Valid {
    until: Instant,
    /// How long the node had stood still when this was known.
    slept_ms: u64,
}

struct SharedSession {
    cluster: SharedCluster,
    lease: Lease,
    shown: Arc<Shown>,
    /// The session is kept for as long as somebody holds it.
    _held: oneshot::Sender<()>,
}

impl SharedCluster {
    pub(super) fn new(
        post: Post,
        registry: Arc<Mutex<Registry>>,
        node: &'static str,
        jobs: Jobs,
        lease: Duration,
    ) -> SharedCluster {
        SharedCluster { post, registry, node, jobs, lease }
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Registry) -> T + Send + 'static,
    ) -> Option<T> {
        let registry = Arc::clone(&self.registry);
        self.post.ask(self.node, Store::Cluster, move || work(&mut locked(&registry))).await
    }

    /// What a sign of life that was sent then is good for: the lease, less a tenth.
    fn valid_from(&self, sent: Instant, slept_ms: u64) -> Valid {
        Valid { until: sent + self.lease - self.lease / 10, slept_ms }
    }

    /// Until when it is trusted, by a clock that stood while the node did.
    fn until(&self, valid: Valid) -> Instant {
        valid.until + Duration::from_millis(self.post.slept_ms(self.node) - valid.slept_ms)
    }

    async fn try_join(&self, member: Member, floor: Epoch) -> Result<Arc<dyn Session>, JoinError> {
        let (sent, slept_ms) = (Instant::now(), self.post.slept_ms(self.node));
        let shown = Arc::new(Shown {
            members: watch::Sender::default(),
            owners: watch::Sender::default(),
            revisions: watch::Sender::default(),
            lost: watch::Sender::new(None),
            no: Mutex::new(0),
            valid_until: Mutex::new(self.valid_from(sent, slept_ms)),
        });
        let hear: Hear = Arc::new({
            let shown = Arc::downgrade(&shown);
            move |news| {
                if let Some(shown) = shown.upgrade() {
                    shown.hear(news);
                }
            }
        });
        let node = self.node;
        let answer = self.ask(move |registry| registry.join(node, member, floor, hear)).await;
        let reason = NO_ANSWER.to_owned();
        let (lease, view) =
            answer.unwrap_or(Err(JoinError::Unavailable { reason, retry_after: RETRY_AFTER }))?;
        shown.hear(Ok(view));
        let (held, dropped) = oneshot::channel();
        let keeping = (self.clone(), Arc::clone(&shown));
        self.jobs.spawn(KEEP, async move {
            let (cluster, shown) = keeping;
            tokio::select! {
                biased;
                _ = dropped => {}
                why = cluster.keep(lease, &shown) => shown.end(why),
            }
        });
        Ok(Arc::new(SharedSession { cluster: self.clone(), lease, shown, _held: held }))
    }

    /// Keeps a session until it is over; says why.
    async fn keep(&self, lease: Lease, shown: &Shown) -> Lost {
        loop {
            let (sent, slept_ms) = (Instant::now(), self.post.slept_ms(self.node));
            let answer = self.ask(move |registry| registry.keep(lease)).await;
            if Instant::now() >= self.until(*locked(&shown.valid_until)) {
                return Lost::Expired;
            }
            match answer {
                Some(Ok(view)) => {
                    *locked(&shown.valid_until) = self.valid_from(sent, slept_ms);
                    shown.hear(Ok(view));
                }
                Some(Err(lost)) => return lost,
                None => {}
            }
            // why: a sign of life is due at this time and not sooner
            sleep_until(sent + self.lease / SIGNS).await;
        }
    }
}

impl Shown {
    fn hear(&self, news: Result<View, Lost>) {
        match news {
            Ok(view) => self.show(view),
            Err(lost) => self.end(lost),
        }
    }

    fn show(&self, view: View) {
        let mut no = locked(&self.no);
        if view.no <= *no || self.lost.borrow().is_some() {
            return;
        }
        *no = view.no;
        replace(&self.members, view.members);
        replace(&self.owners, view.owners);
        replace(&self.revisions, view.revisions);
    }

    /// The first reason stays.
    fn end(&self, why: Lost) {
        self.lost.send_if_modified(|lost| {
            let is_first = lost.is_none();
            if is_first {
                *lost = Some(why);
            }
            is_first
        });
    }

    fn live(&self) -> Result<(), Lost> {
        self.lost.borrow().clone().map_or(Ok(()), Err)
    }
}

/// Wakes nobody without a change.
fn replace<T: PartialEq>(shown: &watch::Sender<Arc<T>>, now: Arc<T>) {
    shown.send_if_modified(|before| {
        let is_other = *before != now;
        *before = now;
        is_other
    });
}

impl SharedSession {
    /// Asks while the session lives; it is over when the cluster says so.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Registry, Lease) -> Result<T, Lost> + Send + 'static,
    ) -> Result<T, SessionError> {
        self.shown.live()?;
        let lease = self.lease;
        let Some(answer) = self.cluster.ask(move |registry| work(registry, lease)).await else {
            return Err(SessionError::Unavailable { reason: NO_ANSWER.to_owned(), retry_after: RETRY_AFTER });
        };
        if let Err(lost) = &answer {
            self.shown.end(lost.clone());
        }
        self.shown.live()?;
        Ok(answer?)
    }

    async fn try_acquire(&self, shard: ShardId) -> Result<Epoch, AcquireError> {
        let (registry, lease) = (Arc::clone(&self.cluster.registry), self.lease);
        let stray = move || drop(locked(&registry).acquire(lease, shard));
        self.cluster.post.stray(self.cluster.node, Store::Cluster, Box::new(stray));
        let answer = self.ask(move |registry, lease| match registry.acquire(lease, shard) {
            Ok(epoch) => Ok(Ok(epoch)),
            Err(Refusal::HeldBy(owner)) => Ok(Err(owner)),
            Err(Refusal::Lost(lost)) => Err(lost),
        });
        match answer.await {
            Ok(answer) => answer.map_err(AcquireError::HeldBy),
            Err(SessionError::Lost(lost)) => Err(AcquireError::Lost(lost)),
            Err(SessionError::Unavailable { reason, retry_after }) => {
                Err(AcquireError::Unavailable { reason, retry_after })
            }
        }
    }
}

impl Cluster for SharedCluster {
    fn join(&self, member: Member, floor: Epoch) -> BoxFuture<'_, Result<Arc<dyn Session>, JoinError>> {
        self.try_join(member, floor).boxed()
    }
}

impl Session for SharedSession {
    fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.shown.members.subscribe()
    }

    fn owners(&self) -> watch::Receiver<Arc<Owners>> {
        self.shown.owners.subscribe()
    }

    fn revisions(&self) -> watch::Receiver<Arc<Revisions>> {
        self.shown.revisions.subscribe()
    }

    fn lost(&self) -> watch::Receiver<Option<Lost>> {
        self.shown.lost.subscribe()
    }

    fn valid_until(&self) -> Instant {
        self.cluster.until(*locked(&self.shown.valid_until))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        self.ask(|registry, lease| registry.keep(lease).map(drop)).boxed()
    }

    fn retire(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        self.ask(|registry, lease| registry.retire(lease)).boxed()
    }

    fn acquire(&self, shard: ShardId) -> BoxFuture<'_, Result<Epoch, AcquireError>> {
        self.try_acquire(shard).boxed()
    }

    fn release(&self, shard: ShardId, epoch: Epoch) -> BoxFuture<'_, Result<(), SessionError>> {
        self.ask(move |registry, lease| registry.release(lease, shard, epoch)).boxed()
    }

    fn bump(&self, name: &Name) -> BoxFuture<'_, Result<(), SessionError>> {
        let name = name.clone();
        self.ask(move |registry, lease| registry.bump(lease, name)).boxed()
    }

    fn leave(&self) -> BoxFuture<'_, Result<(), SessionError>> {
        self.shown.end(Lost::Left);
        let (lease, cluster) = (self.lease, &self.cluster);
        async move {
            let answer = cluster.ask(move |registry| registry.leave(lease)).await;
            let reason = NO_ANSWER.to_owned();
            answer.ok_or(SessionError::Unavailable { reason, retry_after: RETRY_AFTER })
        }
        .boxed()
    }
}
