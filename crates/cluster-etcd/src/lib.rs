//! The cluster in etcd: nodes and shards under leases.
//!
//! Owns: a node's lease and how long it may be trusted, the keys of docs/adr/0008-cluster-in-etcd.md, and the way round
//! a member of etcd that is dead, isolated or slow. Never: stores anything but members, owners, counters and the base of
//! the epochs; decides who should own what.
mod calls;
mod endpoints;
mod follow;
mod join;
mod keys;
mod lease;
mod options;
mod record;
mod registration;
mod session;
mod trouble;
mod view;

use std::future::Future;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kapell_cluster::{Cluster, JoinError, Member, Session};
use kapell_model::Epoch;
use kapell_runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use endpoints::Endpoints;
use join::Joining;
use keys::Keys;
use session::EtcdSession;

pub use options::{
    BadOptions, CALL_TIMEOUT_MAX, ENDPOINTS_MAX, EtcdOptions, EtcdTls, EtcdUser, TTL_MAX, TTL_MIN,
};

/// Requests in a row that are needed to join.
const STEPS: u32 = 6;

/// A cluster whose nodes meet in etcd.
pub struct EtcdCluster {
    options: EtcdOptions,
    runtime: Runtime,
}

impl EtcdCluster {
    /// Proves the options. Nothing is connected to before somebody joins.
    pub fn new(options: EtcdOptions, runtime: Runtime) -> Result<EtcdCluster, BadOptions> {
        options.prove()?;
        Ok(EtcdCluster { options, runtime })
    }

    async fn join_now(&self, member: Member, floor: Epoch) -> Result<Arc<dyn Session>, JoinError> {
        let endpoints = Arc::new(Endpoints::new(&self.options, &*self.runtime.entropy));
        let until = Instant::now() + endpoints.call_timeout() * STEPS;
        let keys = Keys::new(&self.options.prefix, &self.options.cluster);
        let joining = Joining { endpoints, keys, member, ttl: self.options.ttl, until };
        let (registration, view) = joining.join(floor).await?;
        let (registration, alive) = (Arc::new(registration), watch::Sender::new(()));
        let kept = Arc::clone(&registration);
        let keep = async move { lease::keep(&kept).await };
        self.runtime.jobs.spawn(lease::KEEP, while_alive(alive.subscribe(), keep));
        let followed = Arc::clone(&registration);
        let follow = async move { follow::follow(&followed, view).await };
        self.runtime.jobs.spawn(follow::FOLLOW, while_alive(alive.subscribe(), follow));
        Ok(Arc::new(EtcdSession { registration, _alive: alive }))
    }
}

/// A session that is dropped is dead: nobody keeps its lease, and it ends as that of a killed process does.
async fn while_alive(mut alive: watch::Receiver<()>, job: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = alive.changed() => {}
        () = job => {}
    }
}

impl Cluster for EtcdCluster {
    fn join(&self, member: Member, floor: Epoch) -> BoxFuture<'_, Result<Arc<dyn Session>, JoinError>> {
        self.join_now(member, floor).boxed()
    }
}
