//! The hosts: what each process runs in each of its lives.
//!
//! Owns: starting the real roles on simulated seams. Never: decides when a host dies.
use std::sync::Arc;
use std::time::Duration;

use kapell_connector::{Connector, ConnectorOptions};
use kapell_coordinator::{Coordinator, CoordinatorOptions};
use kapell_journal_local::fault::FaultDisk;
use kapell_journal_local::{Driver, LocalJournal, Options};
use kapell_ledger_sqlite::SqliteLedger;
use kapell_model::ShardCount;
use kapell_runtime::SeededEntropy;
use kapell_worker::{Worker, WorkerOptions};

use crate::bank::Bank;
use crate::client::Client;
use crate::company::{Happening, Thinker};
use crate::seams::{WatchedDisk, runtime};
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
    pub(crate) ledger: Arc<SqliteLedger>,
    pub(crate) happenings: Arc<Vec<Happening>>,
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
    let runtime = runtime(site.seed, &site.world);
    let disk = WatchedDisk { disk: site.disk.clone(), world: site.world.clone() };
    let options = Options { segment_bytes: 64 << 10, salt_seed: site.seed, ..Options::default() };
    let journal = LocalJournal::open(Arc::new(disk), options, Driver::Inline)?;
    let options = CoordinatorOptions {
        listen: "0.0.0.0:7700".to_owned(),
        node: "coord".to_owned(),
        shards: ShardCount::new(4).unwrap_or_default(),
        heartbeat: Duration::from_millis(300),
        lease: Duration::from_millis(1_500),
        ..CoordinatorOptions::default()
    };
    let coordinator = Coordinator::start(options, Arc::new(journal), site.ledger.clone(), runtime).await?;
    let why = coordinator.stopped().await;
    anyhow::bail!("job `{why}` died")
}

/// A worker.
pub(crate) async fn worker(site: Site, name: &'static str) {
    site.world.log(name, "starts");
    let runtime = runtime(site.seed, &site.world);
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
    let runtime = runtime(site.seed, &site.world);
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
    let runtime = runtime(site.seed, &site.world);
    Client { world: site.world, runtime, happenings: site.happenings }.run().await;
}
