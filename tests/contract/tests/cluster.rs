//! The cluster contract against a process by itself and against etcd.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::sync::Arc;
use std::time::Duration;

use kapell_cluster::{Cluster, Solo};
use kapell_cluster_etcd::{EtcdCluster, EtcdOptions};
use kapell_model::Name;
use kapell_runtime::Runtime;
use kapell_tests_contract::cluster::Meeting;
use kapell_tests_contract::cluster_contract;
use kapell_tests_servers::Etcd;

struct Alone(Arc<Solo>);

impl Meeting for Alone {
    fn cluster(&self) -> Arc<dyn Cluster> {
        Arc::clone(&self.0) as Arc<dyn Cluster>
    }

    fn gives_up_within(&self) -> Duration {
        Duration::ZERO
    }
}

struct InEtcd(Etcd);

impl InEtcd {
    fn start() -> Option<InEtcd> {
        Etcd::start(1).map(InEtcd)
    }
}

impl Meeting for InEtcd {
    fn cluster(&self) -> Arc<dyn Cluster> {
        let ttl = Duration::from_secs(3);
        let options = EtcdOptions::new(self.0.endpoints(), Name::new("test").unwrap());
        Arc::new(EtcdCluster::new(EtcdOptions { ttl, ..options }, Runtime::system()).unwrap())
    }

    fn gives_up_within(&self) -> Duration {
        // Three seconds of lease, of which none is gone; etcd looks for leases that ended twice a second, and then writes.
        Duration::from_secs(5)
    }
}

cluster_contract!(solo, || Some(Alone(Arc::new(Solo::new()))));
cluster_contract!(etcd, together, InEtcd::start);
