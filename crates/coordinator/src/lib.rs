//! The coordinator: ingest, shards, dispatch, approvals, API.
//!
//! Owns: the runs, and everything that is decided about them. Never: does a task (workers do), talks to an outside
//! system (connectors do), or names a storage backend (the binary does).
mod answer;
mod api;
mod calls;
mod context;
mod definitions;
mod dispatch;
mod ingest;
mod links;
mod options;
mod own_event;
mod release;
mod root;
mod session;
mod shard;
mod story;

use std::net::SocketAddr;
use std::sync::Arc;

use kapell_journal::Journal;
use kapell_ledger::Ledger;
use kapell_runtime::Runtime;

pub use definitions::{Definitions, InForce};
pub use options::{BadOptions, CoordinatorOptions};
pub use root::StartError;

/// A running coordinator.
pub struct Coordinator {
    address: SocketAddr,
    runtime: Runtime,
    root: root::Root,
}

impl Coordinator {
    /// Recovers every shard from the journal, then listens.
    pub async fn start(
        options: CoordinatorOptions,
        journal: Arc<dyn Journal>,
        ledger: Arc<dyn Ledger>,
        runtime: Runtime,
    ) -> Result<Coordinator, StartError> {
        let root = root::Root::start(&options, journal, ledger, &runtime).await?;
        let listener = runtime
            .net
            .listen(&options.listen)
            .await
            .map_err(|source| StartError::Listen { address: options.listen.clone(), source })?;
        let address = listener.address();
        api::serve(listener, &root, &options, &runtime);
        Ok(Coordinator { address, runtime, root })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the node stops by itself; says which job died.
    pub async fn stopped(&self) -> &'static str {
        self.runtime.jobs.stopped().await
    }

    /// Stops. What was accepted is on disk already.
    pub async fn stop(self) {
        self.runtime.jobs.stop("shutdown");
        self.root.stop().await;
    }
}
