//! Coordinators that share shards.
//!
//! Owns: starting nodes over one etcd and one journal, each with a port and jobs of its own, and ending them as a
//! deployment or as a crash would. Never: stands in for etcd or for the wire. The journal is the local one, held by all
//! nodes of this process: what fences a stale owner is the same code.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod away;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kapell_client::{Client, v1};
use kapell_cluster::{Cluster as _, Member, NodeName, Session};
use kapell_cluster_etcd::{EtcdCluster, EtcdOptions};
use kapell_coordinator::{Coordinator, CoordinatorOptions, Stopped, Stores};
use kapell_event_source::EventSource;
use kapell_journal::Journal;
use kapell_journal_local::{Driver, LocalJournal, Options, RealDisk};
use kapell_ledger::Ledger;
use kapell_ledger_sqlite::SqliteLedger;
use kapell_model::{Epoch, Name, ShardCount, ShardId};
use kapell_runtime::{Clock, Runtime, SystemClock};
use kapell_tests_servers::Etcd;
use kapell_worker::{Worker, WorkerHandle, WorkerOptions};
use tokio::time::{Instant, sleep};

pub use away::Away;

/// Shards of the store: several for each of three nodes.
pub const SHARDS: u16 = 16;
/// Lease of a node.
pub const TTL: Duration = Duration::from_secs(2);
/// Time for anything that must come to pass.
const PATIENCE: Duration = Duration::from_secs(30);

/// What several nodes have in common.
pub struct Site {
    etcd: Etcd,
    stores: Stores,
    lease: Duration,
    _folder: tempfile::TempDir,
}

impl Site {
    /// An empty store; `None`: there is no etcd, and it need not be there.
    #[must_use]
    pub fn new() -> Option<Site> {
        let etcd = Etcd::start(1)?;
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(folder.path()).unwrap();
        let journal = LocalJournal::open(Arc::new(disk), Options::default(), Driver::Thread).unwrap();
        let stores = Stores {
            journal: Arc::new(journal),
            ledger: Arc::new(SqliteLedger::in_memory().unwrap()),
            cluster: cluster(&etcd, &Runtime::system()),
        };
        Some(Site { etcd, stores, lease: Duration::from_secs(1), _folder: folder })
    }

    /// After so much silence of a worker or connector its work is given to others; a second, unless this says so.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Site {
        Site { lease, ..self }
    }

    /// etcd answers nobody until it is let go on. Sessions do not outlive that for long.
    pub fn silence_etcd(&mut self) {
        self.etcd.freeze(0);
    }

    /// etcd answers again.
    pub fn wake_etcd(&mut self) {
        self.etcd.thaw(0);
    }

    /// What all nodes write.
    #[must_use]
    pub fn journal(&self) -> &dyn Journal {
        &*self.stores.journal
    }

    /// What all nodes tell of their runs.
    #[must_use]
    pub fn ledger(&self) -> &dyn Ledger {
        &*self.stores.ledger
    }

    /// A way to the journal for [`Site::node_at`].
    #[must_use]
    pub fn way_to_journal(&self) -> Arc<Away> {
        Arc::new(Away::new(Arc::clone(&self.stores.journal)))
    }

    /// A node that has joined, with the shards that it gets at first.
    pub async fn node(&self, name: &str) -> Node {
        self.node_by(name, Arc::new(SystemClock)).await
    }

    /// The same, on a machine with this clock. Leases do not go by it.
    pub async fn node_by(&self, name: &str, clock: Arc<dyn Clock>) -> Node {
        let runtime = Runtime { clock, ..Runtime::system() };
        self.start(name, "127.0.0.1:0", Arc::clone(&self.stores.journal), runtime).await
    }

    /// A node that listens there and has a way to the journal of its own.
    pub async fn node_at(&self, name: &str, address: &str, journal: Arc<Away>) -> Node {
        self.start(name, address, journal, Runtime::system()).await
    }

    /// A member that is nothing but its registration, until that is dropped and its lease has ended.
    pub async fn member(&self, name: &str, address: &str) -> Arc<dyn Session> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let member = Member::new(NodeName::new(name).unwrap(), address.to_owned(), version);
        cluster(&self.etcd, &Runtime::system()).join(member, Epoch(0)).await.unwrap()
    }

    async fn start(&self, name: &str, listen: &str, journal: Arc<dyn Journal>, runtime: Runtime) -> Node {
        let options = CoordinatorOptions {
            listen: listen.to_owned(),
            node: NodeName::new(name).unwrap(),
            shards: ShardCount::new(SHARDS).unwrap(),
            heartbeat: Duration::from_millis(200),
            lease: self.lease,
            ..CoordinatorOptions::default()
        };
        let stores = Stores { cluster: cluster(&self.etcd, &runtime), journal, ..self.stores.clone() };
        let coordinator = Coordinator::start(options, stores, runtime.clone()).await.unwrap();
        let address = coordinator.address().to_string();
        let client = Client::connect(&address).await.unwrap().with_deadline(PATIENCE);
        Node { name: name.to_owned(), address, client, coordinator, runtime }
    }
}

fn cluster(etcd: &Etcd, runtime: &Runtime) -> Arc<EtcdCluster> {
    let options = EtcdOptions::new(etcd.endpoints(), Name::new("tests").unwrap());
    Arc::new(EtcdCluster::new(EtcdOptions { ttl: TTL, ..options }, runtime.clone()).unwrap())
}

/// One coordinator.
pub struct Node {
    /// What it is called.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Asks it.
    pub client: Client,
    coordinator: Coordinator,
    runtime: Runtime,
}

impl Node {
    /// Hands its shards over and ends.
    pub async fn leave(self) -> Stopped {
        self.coordinator.stop().await
    }

    /// Falls silent at once, as a machine that hangs does: nothing is handed over, the lease is not renewed, and its
    /// shards' actors are still there with the journal in their hands. Dropping the answer ends them.
    pub fn hang(self) -> Coordinator {
        self.runtime.jobs.stop("hangs");
        self.coordinator
    }

    /// Takes events of the default namespace from there.
    pub fn follow(&self, source: Arc<dyn EventSource>) {
        self.coordinator.follow(source, Name::default_namespace());
    }

    /// How many shards each node owns, as this one knows it, once these are the members that stay and every shard is
    /// where it is to be. Each has some.
    pub async fn owners(&self, nodes: &[&Node]) -> Vec<usize> {
        let since = Instant::now();
        loop {
            let known = self.client.admin().cluster().await.unwrap();
            let of = |node: &&Node| known.shards.iter().filter(|shard| shard.node == node.name).count();
            let counts: Vec<usize> = nodes.iter().map(of).collect();
            let is_at_rest = known.shards.iter().all(|shard| shard.node == shard.preferred);
            let stay = known.members.iter().filter(|member| !member.leaving);
            let are_members = stay.count() == nodes.len();
            let have_all = counts.iter().sum::<usize>() == usize::from(SHARDS) && !counts.contains(&0);
            if is_at_rest && are_members && have_all {
                return counts;
            }
            assert!(since.elapsed() < PATIENCE, "{known:?}");
            // why: nothing tells that etcd's news has arrived
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The shards that a node owns, as this one knows it.
    pub async fn shards_of(&self, node: &Node) -> BTreeSet<ShardId> {
        let known = self.client.admin().cluster().await.unwrap();
        let of = known.shards.iter().filter(|shard| shard.node == node.name);
        of.map(|shard| ShardId(u16::try_from(shard.shard).unwrap())).collect()
    }

    /// Applies definitions here; answers what it is warned of.
    pub async fn apply(&self, text: &str) -> Vec<v1::Diagnostic> {
        let file = v1::SourceFile { name: "all.yaml".to_owned(), text: text.to_owned() };
        let request = v1::ApplyRequest { files: vec![file], dry_run: false };
        let answer = self.client.resources().apply(request).await.unwrap();
        assert!(answer.errors.is_empty(), "{:?}", answer.errors);
        answer.warnings
    }

    /// Waits until this node knows a revision of the definitions.
    pub async fn knows(&self, revision: u64) {
        let since = Instant::now();
        while self.client.admin().status().await.unwrap().revision < revision {
            assert!(since.elapsed() < PATIENCE, "the definitions do not come");
            // why: nothing tells that etcd's news has arrived
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a run here, once for each key; its shard follows from the key.
    pub async fn start(&self, workflow: &str, key: u32) -> String {
        self.start_again(workflow, key, 0).await
    }

    /// Starts another run of the key here.
    pub async fn start_again(&self, workflow: &str, key: u32, no: u32) -> String {
        let request = v1::StartRunRequest {
            workflow: workflow.to_owned(),
            input: format!("{{\"key\":\"k{key}\"}}"),
            request_id: format!("{workflow}-{key}-{no}"),
            ..v1::StartRunRequest::default()
        };
        self.client.runs().start(request).await.unwrap().run
    }

    /// The state of a run, asked here.
    pub async fn state(&self, run: &str) -> v1::RunState {
        self.client.runs().get(run).await.unwrap().state()
    }

    /// Waits until a run is in a state, asked here.
    pub async fn reaches(&self, run: &str, state: v1::RunState) {
        let since = Instant::now();
        loop {
            let now = self.client.runs().get(run).await;
            if now.as_ref().is_ok_and(|now| now.state() == state) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{run} does not become {state:?}: {now:?}");
            // why: what is waited for happens at another node
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the ledger has been told everything.
    pub async fn ledger_is_told(&self) {
        let since = Instant::now();
        let request = v1::ListRunsRequest { limit: 1, ..v1::ListRunsRequest::default() };
        while self.client.runs().list(request.clone()).await.unwrap().behind > 0 {
            assert!(since.elapsed() < PATIENCE, "the ledger stays behind");
            // why: nothing tells that the ledger has caught up
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the doctor finds nothing in the whole cluster.
    pub async fn is_well(&self) {
        let since = Instant::now();
        loop {
            let found = self.client.admin().doctor().await.unwrap().findings;
            if found.is_empty() {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{found:?}");
        }
    }
}

/// The shard of the runs with a key.
#[must_use]
pub fn shard_of(key: u32) -> ShardId {
    ShardCount::new(SHARDS).unwrap().of_key(&Name::default_namespace(), &format!("k{key}"))
}

/// A worker of several nodes.
pub async fn worker(nodes: &[&Node]) -> WorkerHandle {
    worker_with(WorkerOptions::new("worker"), nodes).await
}

/// A worker of several nodes with agents of its own.
pub async fn worker_with(mut options: WorkerOptions, nodes: &[&Node]) -> WorkerHandle {
    options.coordinators = nodes.iter().map(|node| node.address.clone()).collect();
    Worker::start(options, Runtime::system()).await.unwrap()
}
