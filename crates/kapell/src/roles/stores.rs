//! What a coordinator stores in.
//!
//! Owns: the choice of backends; the only place that names one. Never: starts a role.
use std::sync::Arc;

use anyhow::Context as _;
use kapell_cluster::{Cluster, Solo};
use kapell_cluster_etcd::EtcdCluster;
use kapell_coordinator::Stores;
use kapell_journal_local::{Driver, LocalJournal, RealDisk};
use kapell_journal_postgres::PostgresJournal;
use kapell_ledger_postgres::PostgresLedger;
use kapell_ledger_sqlite::{Mode, SqliteLedger};
use kapell_model::ShardCount;
use kapell_runtime::Runtime;

use crate::settings::{CoordinatorSettings, shards_of};

/// Opens them, and says how many shards the store has.
pub(super) async fn open(
    settings: &CoordinatorSettings,
    runtime: &Runtime,
) -> anyhow::Result<(Stores, ShardCount)> {
    match settings.shared.postgres.first() {
        None => embedded(settings, runtime),
        Some(first) => shared(settings, first, runtime).await,
    }
}

fn embedded(settings: &CoordinatorSettings, runtime: &Runtime) -> anyhow::Result<(Stores, ShardCount)> {
    let data = settings.data.display();
    std::fs::create_dir_all(settings.journal_dir())
        .with_context(|| format!("the data folder {data} cannot be made"))?;
    tracing::info!(%data, "journal and ledger are in a folder");
    let disk = RealDisk::open(&settings.journal_dir())?;
    let shards = shards_of(&settings.shards_file(), settings.shards)?;
    let salt_seed = runtime.entropy.next_u128() as u64;
    let options = kapell_journal_local::Options { salt_seed, ..kapell_journal_local::Options::default() };
    let journal = LocalJournal::open(Arc::new(disk), options, Driver::Thread)?;
    let ledger = SqliteLedger::open(&settings.ledger_file(), Mode::Thread)?;
    let shards = ShardCount::new(shards).context("a store needs at least one shard")?;
    let stores =
        Stores { journal: Arc::new(journal), ledger: Arc::new(ledger), cluster: Arc::new(Solo::new()) };
    Ok((stores, shards))
}

async fn shared(
    settings: &CoordinatorSettings,
    first: &str,
    runtime: &Runtime,
) -> anyhow::Result<(Stores, ShardCount)> {
    let shared = &settings.shared;
    let mut options = kapell_journal_postgres::Options::default();
    if let Some(wanted) = settings.shards {
        options.shards = ShardCount::new(wanted).context("a store needs at least one shard")?;
    }
    let journal = PostgresJournal::open(&shared.postgres, options, runtime).await?;
    let ledger = PostgresLedger::open(shared.ledger.as_deref().unwrap_or(first), &runtime.jobs).await?;
    let cluster: Arc<dyn Cluster> = if shared.etcd.is_empty() {
        Arc::new(Solo::new())
    } else {
        Arc::new(EtcdCluster::new(shared.etcd_options()?, runtime.clone())?)
    };
    let shards = journal.shards();
    tracing::info!(shards = shards.get(), "journal and ledger are in PostgreSQL");
    Ok((Stores { journal: Arc::new(journal), ledger: Arc::new(ledger), cluster }, shards))
}
