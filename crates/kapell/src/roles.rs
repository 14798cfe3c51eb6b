//! The roles that a process can play.
//!
//! Owns: building a role from its settings and running it until it is told to stop. Never: knows a storage backend;
//! `stores` chooses them.
mod stores;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kapell_cluster::NodeName;
use kapell_connector::{Connector, ConnectorHandle, ConnectorOptions, RealOutside};
use kapell_coordinator::{Coordinator, CoordinatorOptions, Stopped};
use kapell_event_source_nats::NatsSource;
use kapell_runtime::Runtime;
use kapell_worker::{Drained, Worker, WorkerHandle, WorkerOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::settings::{CoordinatorSettings, MemberSettings, STOP_WITHIN, SharedSettings};

/// Plays the coordinator until it is told to stop.
pub(crate) async fn coordinator(settings: &CoordinatorSettings) -> anyhow::Result<()> {
    let coordinator = start_coordinator(settings, Runtime::system()).await?;
    tracing::info!(address = %coordinator.address(), "coordinator is ready");
    let outcome = tokio::select! {
        why = coordinator.stopped() => Err(why),
        () = told_to_stop() => Ok(()),
    };
    stop(async { log_stopped(coordinator.stop().await) }).await;
    match outcome {
        Ok(()) => Ok(()),
        Err(why) => bail!("the node stopped by itself: `{why}` died; the log says why"),
    }
}

/// Plays the worker until it is told to stop; then it finishes what it holds.
pub(crate) async fn worker(settings: &MemberSettings) -> anyhow::Result<()> {
    let worker = start_worker(settings, Runtime::system()).await?;
    tracing::info!(coordinators = ?settings.coordinators, "worker is ready");
    told_to_stop().await;
    stop(async { log_drained(worker.drain(STOP_WITHIN).await) }).await;
    Ok(())
}

/// Plays the connector until it is told to stop.
pub(crate) async fn connector(settings: &MemberSettings) -> anyhow::Result<()> {
    let runtime = Runtime::system();
    let _connector = start_connector(settings, runtime.clone());
    tracing::info!(coordinators = ?settings.coordinators, "connector is ready");
    told_to_stop().await;
    runtime.jobs.stop("shutdown");
    Ok(())
}

/// Plays all roles in one process; they talk gRPC to each other even so.
pub(crate) async fn dev(settings: &CoordinatorSettings) -> anyhow::Result<()> {
    let coordinator = start_coordinator(settings, Runtime::system()).await?;
    let address = coordinator.address();
    let member = |name: &str| member_of(address, name);
    let runtime = Runtime::system();
    let worker = start_worker(&member("dev-worker"), runtime.clone()).await?;
    let _connector = start_connector(&member("dev-connector"), runtime.clone());
    tracing::info!(%address, data = %settings.data.display(), "all roles are ready");
    let outcome = tokio::select! {
        why = coordinator.stopped() => Err(why),
        () = told_to_stop() => Ok(()),
    };
    stop(async { log_drained(worker.drain(STOP_WITHIN).await) }).await;
    runtime.jobs.stop("shutdown");
    stop(async { log_stopped(coordinator.stop().await) }).await;
    match outcome {
        Ok(()) => Ok(()),
        Err(why) => bail!("the node stopped by itself: `{why}` died; the log says why"),
    }
}

fn member_of(address: SocketAddr, name: &str) -> MemberSettings {
    MemberSettings {
        coordinators: vec![address.to_string()],
        name: Some(name.to_owned()),
        capacity: 1_000,
        threads: None,
    }
}

async fn start_coordinator(settings: &CoordinatorSettings, runtime: Runtime) -> anyhow::Result<Coordinator> {
    let node = match &settings.node {
        Some(name) => NodeName::new(name).with_context(|| format!("--node {name}"))?,
        None => settings.shared.default_node()?,
    };
    check_advertised(settings)?;
    warn_of_short_lease(settings);
    let (stores, shards) = stores::open(settings, &runtime).await?;
    let options = CoordinatorOptions {
        listen: settings.listen.clone(),
        advertise: settings.shared.advertise.clone(),
        node,
        shards,
        heartbeat: settings.heartbeat.get(),
        lease: settings.lease(),
        dedupe_window: settings.dedupe_window.get(),
        ..CoordinatorOptions::default()
    };
    let source = match settings.nats.options()? {
        Some((options, namespace)) => Some((NatsSource::open(options).await?, namespace)),
        None => None,
    };
    let coordinator = Coordinator::start(options, stores, runtime).await?;
    if let Some((source, namespace)) = source {
        coordinator.follow(Arc::new(source), namespace);
    }
    Ok(coordinator)
}

/// Nobody can be reached at "all addresses".
fn check_advertised(settings: &CoordinatorSettings) -> anyhow::Result<()> {
    let SharedSettings { etcd, advertise, .. } = &settings.shared;
    let listens = settings.listen.parse::<SocketAddr>();
    if !etcd.is_empty() && advertise.is_none() && listens.is_ok_and(|address| address.ip().is_unspecified()) {
        bail!(
            "other coordinators cannot reach this one at {}: say where they can with --advertise HOST:PORT",
            settings.listen
        );
    }
    Ok(())
}

fn warn_of_short_lease(settings: &CoordinatorSettings) {
    let (lease, node_lease) = (settings.lease(), settings.shared.node_lease.get());
    if !settings.shared.etcd.is_empty() && lease <= node_lease {
        tracing::warn!(
            ?lease,
            ?node_lease,
            "workers stop what they do for a coordinator that died before another can take it over (hint: a longer --lease)"
        );
    }
}

async fn start_worker(settings: &MemberSettings, runtime: Runtime) -> anyhow::Result<WorkerHandle> {
    let mut options = WorkerOptions::new(name_of(settings, "worker"));
    options.coordinators.clone_from(&settings.coordinators);
    options.capacity = settings.capacity;
    Ok(Worker::start(options, runtime).await?)
}

fn start_connector(settings: &MemberSettings, runtime: Runtime) -> ConnectorHandle {
    let options = ConnectorOptions {
        name: name_of(settings, "connector"),
        coordinators: settings.coordinators.clone(),
        capacity: settings.capacity,
    };
    let outside = RealOutside::new(runtime.clone());
    Connector::start(options, runtime, Arc::new(outside))
}

/// Two processes of one name would take each other's place, so a name that nobody chose holds the process id.
fn name_of(settings: &MemberSettings, role: &str) -> String {
    settings.name.clone().unwrap_or_else(|| format!("{role}-{}", std::process::id()))
}

/// Waits for SIGTERM or SIGINT.
async fn told_to_stop() {
    let listen = |kind| signal(kind).ok();
    let (mut term, mut int) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    let wait = async |signal: &mut Option<tokio::signal::unix::Signal>| match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    };
    tokio::select! {
        () = wait(&mut term) => {}
        () = wait(&mut int) => {}
    }
    tracing::info!("told to stop");
}

fn log_stopped(stopped: Stopped) {
    match stopped {
        Stopped::Clean => {}
        Stopped::Unanswered => {
            tracing::info!("not everything that was asked is answered; whoever asked asks another node");
        }
    }
}

fn log_drained(drained: Drained) {
    match drained {
        Drained::Clean => {}
        Drained::Held { tasks } => tracing::warn!(tasks, "tasks were not over in time; others take them up"),
    }
}

async fn stop(work: impl Future<Output = ()>) {
    if tokio::time::timeout(STOP_WITHIN, work).await.is_err() {
        tracing::warn!("not everything stopped in time; nothing that was accepted is lost");
    }
}
