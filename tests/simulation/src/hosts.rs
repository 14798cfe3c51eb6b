//! The hosts: what each process runs in each of its lives.
//!
//! Owns: starting the real roles on simulated seams. Never: decides when a host dies.
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
use kapell_worker::{Worker, WorkerOptions};

use crate::bank::Bank;
use crate::client::Client;
use crate::company::{Happening, Thinker};
use crate::mix::Mix;
use crate::seams::{SlowLedger, WatchedDisk, runtime};
use crate::world::World;

/// Where the coordinator listens.
pub(crate) const COORDINATOR: &str = "coord:7700";
/// All hosts; `coord` is the only one with a disk.
pub(crate) const HOSTS: [&str; 5] = ["coord", "w0", "w1", "conn", "client"];

/// What a host needs in each of its lives.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) seed: u64,
    pub(crate) world: World,
    pub(crate) disk: FaultDisk,
    /// Outlives crashes, as a file that was not lost does; it may be behind the journal, never ahead of it.
    pub(crate) ledger: LedgerFile,
    pub(crate) happenings: Arc<Vec<Happening>>,
    pub(crate) mix: Mix,
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

/// The coordinator, until it dies by itself; then it waits for the simulation to restart it.
pub(crate) async fn coordinator(site: Site) {
    site.world.log("coord", "starts");
    if let Err(error) = coordinate(&site).await {
        let text = format!("{error:#}");
        site.world.log("coord", &format!("is down: {text}"));
        site.world.lock().coordinator_down = Some(text);
    }
    std::future::pending().await
}

async fn coordinate(site: &Site) -> anyhow::Result<()> {
    let runtime = runtime(site.seed, &site.world, "coord");
    let disk = WatchedDisk { disk: site.disk.clone(), world: site.world.clone() };
    // Trimming lets go of whole segments.
    let segment_bytes = if site.mix.trims() { 16 << 10 } else { 64 << 10 };
    let options = Options { segment_bytes, salt_seed: site.seed, ..Options::default() };
    let journal = LocalJournal::open(Arc::new(disk), options, Driver::Inline)?;
    let mut options = CoordinatorOptions {
        listen: "0.0.0.0:7700".to_owned(),
        node: NodeName::new("coord")?,
        shards: ShardCount::new(4).unwrap_or_default(),
        heartbeat: Duration::from_millis(300),
        lease: Duration::from_millis(1_500),
        ..CoordinatorOptions::default()
    };
    if let Some(keep) = site.mix.keep {
        options.checkpoint_entries = keep.entries;
        options.checkpoint_every = keep.every;
        options.history_entries = keep.history;
    }
    let stores = Stores {
        journal: Arc::new(journal),
        ledger: site.ledger.open(site.seed, site.mix),
        cluster: Arc::new(Solo::new()),
    };
    let coordinator = Coordinator::start(options, stores, runtime).await?;
    let why = coordinator.stopped().await;
    anyhow::bail!("job `{why}` died")
}

/// A worker.
pub(crate) async fn worker(site: Site, name: &'static str) {
    site.world.log(name, "starts");
    let runtime = runtime(site.seed, &site.world, name);
    let options = WorkerOptions::new(name).with_agent("default/thinker.think", Thinker);
    let mut options = options.unwrap_or_else(|error| panic!("{error}"));
    options.coordinators = vec![COORDINATOR.to_owned()];
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
    let coordinators = vec![COORDINATOR.to_owned()];
    let options = ConnectorOptions { name: "conn".to_owned(), coordinators, capacity: 100 };
    let _connector = Connector::start(options, runtime.clone(), Arc::new(bank));
    let why = runtime.jobs.stopped().await;
    panic!("the connector stopped by itself: {why}");
}

/// The client.
pub(crate) async fn client(site: Site) {
    site.world.log("client", "starts");
    let runtime = runtime(site.seed, &site.world, "client");
    let client = Client { world: site.world, runtime, happenings: site.happenings, mix: site.mix };
    Box::pin(client.run()).await;
}
