//! Starting and stopping a worker.
use std::sync::Arc;
use std::time::Duration;

use kapell_runtime::{Job, OnDeath, Runtime};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::definitions::Compiler;
use crate::host::{HostActor, HostArguments, HostHandle, Identity, SessionNo};
use crate::options::WorkerOptions;
use crate::outbox::Outbox;
use crate::session::Session;

const SESSION: Job = Job { name: "worker session", on_panic: OnDeath::StopNode };
const WATCH_HOST: Job = Job { name: "worker host", on_panic: OnDeath::StopNode };

/// Hosts specialists.
pub struct Worker;

/// Why a worker was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// It would take no task.
    #[error("capacity is 0; a worker takes at least one task at once")]
    NoCapacity,
    /// Nobody would give it a task.
    #[error("no coordinator is named; give at least one HOST:PORT")]
    NoCoordinator,
    /// Two sessions with one coordinator would take each other's tasks.
    #[error("coordinator {0} is named twice")]
    SameCoordinatorTwice(String),
    /// The root of the supervision tree did not start.
    #[error("the host could not be started: {0}")]
    Host(String),
}

/// How draining ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is held any more.
    Clean,
    /// Time ran out.
    Held {
        /// Tasks that are under way or whose reports are not acknowledged.
        tasks: usize,
    },
}

/// A running worker; dropping it stops the worker without waiting.
#[derive(Debug)]
pub struct WorkerHandle {
    host: HostHandle,
    stop: watch::Sender<()>,
}

impl Worker {
    /// Starts the supervision tree and a session with each coordinator. They are dialed for as long as it takes.
    pub async fn start(options: WorkerOptions, runtime: Runtime) -> Result<WorkerHandle, StartError> {
        options.prove()?;
        let identity = Identity {
            worker: options.name,
            instance: runtime.entropy.next_u128().to_be_bytes(),
            capacity: options.capacity,
            hosted: options.hosted,
            skills: options.agents.keys().map(ToString::to_string).collect(),
        };
        let outboxes: Vec<Arc<Outbox>> = options.coordinators.iter().map(|_| Arc::default()).collect();
        let arguments = HostArguments { identity, outboxes: outboxes.clone(), cool_down: options.quarantine };
        let (host, ended) =
            HostActor::spawn(arguments).await.map_err(|error| StartError::Host(error.to_string()))?;
        let (stop, stopping) = watch::channel(());
        let compiler = Arc::new(Compiler::new(options.hosted, options.agents));
        for (at, (address, outbox)) in options.coordinators.into_iter().zip(outboxes).enumerate() {
            let session = Session {
                no: SessionNo(at),
                address,
                host: host.clone(),
                outbox,
                compiler: Arc::clone(&compiler),
                runtime: runtime.clone(),
                stop: stopping.clone(),
            };
            runtime.jobs.spawn(SESSION, session.run());
        }
        let (jobs, mut stopping, tree) = (runtime.jobs.clone(), stopping, host.clone());
        runtime.jobs.spawn(WATCH_HOST, async move {
            tokio::select! {
                biased;
                _ = stopping.changed() => tree.stop().await,
                // The host handles no agent's code: its death is a defect, and without it no task is answered.
                _ = ended => jobs.stop(WATCH_HOST.name),
            }
        });
        Ok(WorkerHandle { host, stop })
    }
}

impl WorkerHandle {
    /// Takes no more tasks and waits until those that it holds are over and acknowledged, or time runs out.
    pub async fn drain(&self, at_most: Duration) -> Drained {
        match timeout(at_most, self.host.drain()).await {
            Ok(()) => Drained::Clean,
            Err(_) => Drained::Held { tasks: self.host.held().await },
        }
    }

    /// How many tasks are under way, or ended with reports that are not acknowledged.
    pub async fn held(&self) -> usize {
        self.host.held().await
    }

    /// Stops everything at once; tasks under way are lost.
    pub async fn stop(self) {
        self.stop.send_replace(());
        self.host.stop().await;
    }
}
