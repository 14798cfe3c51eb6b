//! The cluster in etcd, when etcd or the way to it fails.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod deadline;
mod gate;
mod leader;
mod secure;
mod set_back;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use kapell_cluster::{Cluster, JoinError, Session};
use kapell_cluster_etcd::{EtcdCluster, EtcdOptions};
use kapell_model::{Epoch, Name};
use kapell_runtime::Runtime;
use kapell_tests_contract::cluster::{Meeting, member};

/// The lease of most sessions here. With a margin of a tenth.
const TTL: Duration = Duration::from_secs(3);

/// A cluster that is reached by some endpoints.
struct Reached(EtcdOptions);

impl Reached {
    fn by(endpoints: Vec<String>) -> Reached {
        let options = EtcdOptions::new(endpoints, Name::new("test").unwrap());
        Reached(EtcdOptions { ttl: TTL, ..options })
    }

    /// With another lease.
    fn lease(self, ttl: Duration) -> Reached {
        Reached(EtcdOptions { ttl, ..self.0 })
    }

    async fn try_join(&self, name: &str, floor: u64) -> Result<Arc<dyn Session>, JoinError> {
        self.cluster().join(member(name), Epoch(floor)).await
    }
}

impl Meeting for Reached {
    fn cluster(&self) -> Arc<dyn Cluster> {
        Arc::new(EtcdCluster::new(self.0.clone(), Runtime::system()).unwrap())
    }

    fn gives_up_within(&self) -> Duration {
        self.0.ttl + Duration::from_secs(2)
    }
}

/// Joins until it works: etcd was just started, or the name is still taken.
async fn join_at_last(reached: &Reached, name: &str, floor: u64) -> Arc<dyn Session> {
    let joining = async {
        loop {
            match reached.try_join(name, floor).await {
                Ok(session) => return session,
                Err(JoinError::Unavailable { .. }) => {}
                Err(error @ (JoinError::NameTaken { .. } | JoinError::Refused { .. })) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), joining).await.expect("it comes back")
}
