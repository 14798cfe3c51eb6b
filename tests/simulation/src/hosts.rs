//! The hosts: what each process runs in each of its lives.
//!
//! Owns: starting the real roles on simulated seams. Never: decides when a host dies.
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kapell_cluster::{NodeName, Solo};
use kapell_connector::{Connector, ConnectorOptions};
use kapell_coordinator::{Coordinator, CoordinatorOptions, Stores};
use kapell_journal_local::fault::FaultDisk;
use kapell_journal_local::{Driver, LocalJournal, Options};
use kapell_ledger::Ledger;
use kapell_ledger_sqlite::SqliteLedger;
use kapell_model::ShardCount;
use kapell_runtime::SeededEntropy;
use kapell_tests_simulation::shared::Stores as SharedStores;
use kapell_worker::{Worker, WorkerOptions};
use tokio::time::sleep;

use crate::bank::Bank;
use crate::client::Client;
use crate::company::{Happening, Thinker};
use crate::history::Recorded;
use crate::mix::Mix;
use crate::seams::{SlowLedger, WatchedDisk, runtime};
use crate::world::World;

/// All hosts of one coordinator, which is the only one with a disk.
const HOSTS_ALONE: &[&str] = &["coord", "w0", "w1", "conn", "client"];
/// All hosts of several coordinators.
const HOSTS_TOGETHER: &[&str] = &["c0", "c1", "c2", "w0", "w1", "conn", "client"];
/// How long the cluster waits for a node.
pub(crate) const NODE_LEASE: Duration = Duration::from_millis(1_200);

/// Where a coordinator listens.
pub(crate) fn address_of(coordinator: &str) -> String {
    format!("{coordinator}:7700")
}

/// What a host needs in each of its lives.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) seed: u64,
    pub(crate) world: World,
    /// Of the only coordinator.
    pub(crate) disk: FaultDisk,
    /// Of several.
    pub(crate) shared: SharedStores,
    /// Outlives crashes, as a file that was not lost does; it may be behind the journal, never ahead of it.
    pub(crate) ledger: LedgerFile,
    pub(crate) happenings: Arc<Vec<Happening>>,
    pub(crate) mix: Mix,
}

impl Site {
    /// All hosts, the coordinators first.
    pub(crate) fn hosts(&self) -> &'static [&'static str] {
        if self.mix.is_cluster() { HOSTS_TOGETHER } else { HOSTS_ALONE }
    }

    /// Those that are coordinators.
    pub(crate) fn coordinators(&self) -> &'static [&'static str] {
        &self.hosts()[..self.mix.coordinators]
    }

    fn addresses(&self) -> Vec<String> {
        self.coordinators().iter().map(|name| address_of(name)).collect()
    }
}

/// The place of the ledger.
#[derive(Clone)]
pub(crate) struct LedgerFile(Arc<Mutex<Arc<SqliteLedger>>>);

impl LedgerFile {
    pub(crate) fn new() -> anyhow::Result<LedgerFile> {
        Ok(LedgerFile(Arc::new(Mutex::new(Arc::new(SqliteLedger::in_memory()?)))))
    }

    fn open(&self, seed: u64, mix: Mix) -> Arc<dyn Ledger> {
        let file = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if mix.loses_ledger { Arc::new(SlowLedger { file, dice: SeededEntropy::new(seed) }) } else { file }
    }

    /// Deletes it: the next one that opens it finds it empty.
    pub(crate) fn lose(&self) -> anyhow::Result<()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(SqliteLedger::in_memory()?);
        Ok(())
    }
}

/// A coordinator, until it dies by itself or has left; then it waits for the simulation to restart it.
pub(crate) async fn coordinator(site: Site, name: &'static str) {
    site.world.log(name, "starts");
    if let Err(error) = coordinate(&site, name).await {
        site.world.log(name, &format!("is down: {error:#}"));
        site.world.lock().down.insert(name);
    }
    std::future::pending().await
}

async fn coordinate(site: &Site, name: &'static str) -> anyhow::Result<()> {
    let runtime = runtime(site.seed, &site.world, name);
    let (stores, lease) = if site.mix.is_cluster() {
        let stores = Stores {
            journal: Arc::new(Recorded {
                journal: Arc::new(site.shared.journal(name)),
                world: site.world.clone(),
                node: name.bytes().last().map_or(0, u64::from),
            }),
            ledger: site.ledger.open(site.seed, site.mix),
            cluster: Arc::new(site.shared.cluster(name, runtime.jobs.clone())),
        };
        // Longer than a node's, so that tasks are not given up when their shard moves.
        (stores, 2 * NODE_LEASE)
    } else {
        let stores = Stores {
            journal: Arc::new(own_journal(site)?),
            ledger: site.ledger.open(site.seed, site.mix),
            cluster: Arc::new(Solo::new()),
        };
        (stores, Duration::from_millis(1_500))
    };
    let coordinator = Coordinator::start(options(site, name, lease)?, stores, runtime).await?;
    let why = tokio::select! {
        biased;
        why = coordinator.stopped() => why,
        () = told_to_leave(site, name) => {
            site.world.log(name, "leaves");
            let stopped = coordinator.stop().await;
            site.world.log(name, &format!("has left: {stopped:?}"));
            return Ok(());
        }
    };
    anyhow::bail!("job `{why}` died")
}

async fn told_to_leave(site: &Site, name: &'static str) {
    if !site.mix.is_cluster() {
        return std::future::pending().await;
    }
    while !site.world.lock().leaving.contains(name) {
        // why: virtual time, and its passing is part of what is simulated
        sleep(Duration::from_millis(10)).await;
    }
}

fn own_journal(site: &Site) -> anyhow::Result<LocalJournal> {
    let disk = WatchedDisk { disk: site.disk.clone(), world: site.world.clone() };
    // Trimming lets go of whole segments.
    let segment_bytes = if site.mix.trims() { 16 << 10 } else { 64 << 10 };
    let options = Options { segment_bytes, salt_seed: site.seed, ..Options::default() };
    Ok(LocalJournal::open(Arc::new(disk), options, Driver::Inline)?)
}

fn options(site: &Site, name: &'static str, lease: Duration) -> anyhow::Result<CoordinatorOptions> {
    let mut options = CoordinatorOptions {
        listen: "0.0.0.0:7700".to_owned(),
        node: NodeName::new(name)?,
        advertise: Some(address_of(name)),
        shards: ShardCount::new(4).unwrap_or_default(),
        heartbeat: Duration::from_millis(300),
        lease,
        ..CoordinatorOptions::default()
    };
    if let Some(keep) = site.mix.keep {
        options.checkpoint_entries = keep.entries;
        options.checkpoint_every = keep.every;
        options.history_entries = keep.history;
    }
    Ok(options)
}

/// A worker.
pub(crate) async fn worker(site: Site, name: &'static str) {
    site.world.log(name, "starts");
    let runtime = runtime(site.seed, &site.world, name);
    let options = WorkerOptions::new(name).with_agent("default/thinker.think", Thinker);
    let mut options = options.unwrap_or_else(|error| panic!("{error}"));
    options.coordinators = site.addresses();
    let _worker = match Worker::start(options, runtime.clone()).await {
        Ok(worker) => worker,
        Err(error) => panic!("a worker does not start: {error}"),
    };
    let why = runtime.jobs.stopped().await;
    panic!("worker {name} stopped by itself: {why}");
}

/// The connector.
pub(crate) async fn connector(site: Site) {
    site.world.log("conn", "starts");
    let runtime = runtime(site.seed, &site.world, "conn");
    let dice = SeededEntropy::new(site.seed ^ 0xba4c ^ (site.world.lock().boots << 20));
    let bank = Bank { world: site.world.clone(), dice };
    let coordinators = site.addresses();
    let options = ConnectorOptions { name: "conn".to_owned(), coordinators, capacity: 100 };
    let _connector = Connector::start(options, runtime.clone(), Arc::new(bank));
    let why = runtime.jobs.stopped().await;
    panic!("the connector stopped by itself: {why}");
}

/// The client.
pub(crate) async fn client(site: Site) {
    site.world.log("client", "starts");
    let runtime = runtime(site.seed, &site.world, "client");
    let addresses = site.addresses();
    let at = AtomicUsize::new(site.world.lock().boots as usize);
    let Site { world, happenings, mix, .. } = site;
    let client = Client { world, runtime, happenings, mix, addresses, at };
    Box::pin(client.run()).await;
}
