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
#[cfg(test)]
mod kept;
mod limits;
mod links;
mod membership;
mod options;
mod own_event;
mod peer;
mod placement;
mod release;
mod root;
mod session;
mod shard;
mod story;

use std::net::SocketAddr;
use std::sync::Arc;

use kapell_event_source::EventSource;
use kapell_model::Name;
use kapell_runtime::Runtime;

pub use api::Stopped;
pub use definitions::{Definitions, InForce};
pub use options::{BadOptions, CoordinatorOptions};
pub use root::{StartError, Stores};

/// A running coordinator.
pub struct Coordinator {
    address: SocketAddr,
    runtime: Runtime,
    root: root::Root,
    parts: api::Parts,
    serving: api::Serving,
}

impl Coordinator {
    /// Serves, and recovers the shards that the cluster gives to this node from the journal: until then what is asked of
    /// them waits. A journal that is out of reach is waited for.
    pub async fn start(
        options: CoordinatorOptions,
        stores: Stores,
        runtime: Runtime,
    ) -> Result<Coordinator, StartError> {
        options.check()?;
        let listener = runtime
            .net
            .listen(&options.listen)
            .await
            .map_err(|source| StartError::Listen { address: options.listen.clone(), source })?;
        let address = listener.address();
        let advertised = options.advertise.clone().unwrap_or_else(|| address.to_string());
        let root = root::Root::start(&options, advertised, stores, &runtime).await?;
        let parts = api::Parts::of(&root, &options, &runtime);
        let serving = api::serve(listener, parts.clone(), &options).await;
        root.settled().await?;
        serving.ready().await;
        Ok(Coordinator { address, runtime, root, parts, serving })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes events of a namespace from another system's stream until the node stops. Each is answered there when what
    /// it asks for is on disk; one that comes again meets its first self.
    pub fn follow(&self, source: Arc<dyn EventSource>, namespace: Name) {
        api::follow(&self.parts, source, namespace);
    }

    /// Waits until the node stops by itself; says which job died.
    pub async fn stopped(&self) -> &'static str {
        self.runtime.jobs.stopped().await
    }

    /// Hands the shards over, answers what was asked, and stops. What was accepted is on disk already.
    pub async fn stop(self) -> Stopped {
        self.parts.sources.end().await;
        self.root.leave().await;
        let stopped = self.serving.end().await;
        self.runtime.jobs.stop("shutdown");
        self.root.stop().await;
        stopped
    }
}
