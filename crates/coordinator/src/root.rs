//! Everything that runs in a coordinator.
//!
//! Owns: starting the parts in order, and stopping them. Never: handles a request.
use std::io;
use std::sync::Arc;
use std::time::Duration;

use kapell_cluster::{Cluster, Member};
use kapell_journal::Journal;
use kapell_ledger::Ledger;
use kapell_runtime::Runtime;
use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;

use crate::definitions::{Definitions, Unreadable};
use crate::ingest::Ingest;
use crate::links::Links;
use crate::membership::Membership;
use crate::options::{BadOptions, CoordinatorOptions};
use crate::peer::Peers;
use crate::placement::{PlacementMessage, Supervisor, SupervisorArguments};

/// Where a coordinator keeps what it must not lose, and whom it shares it with.
#[derive(Clone)]
pub struct Stores {
    /// The source of truth.
    pub journal: Arc<dyn Journal>,
    /// Its read model.
    pub ledger: Arc<dyn Ledger>,
    /// Who owns which shard.
    pub cluster: Arc<dyn Cluster>,
}

/// Why a coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options cannot work.
    #[error(transparent)]
    Options(#[from] BadOptions),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; is another coordinator running there?")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The definitions in the journal cannot be read.
    #[error("the definitions cannot be read from the journal")]
    Definitions(#[from] Unreadable),
    /// A shard cannot be recovered.
    #[error("a shard cannot be recovered: {0}")]
    Shard(String),
}

/// Everything that runs in a coordinator.
pub(crate) struct Root {
    pub(crate) links: Arc<Links>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) ingest: Ingest,
    pub(crate) peers: Arc<Peers>,
    pub(crate) stores: Stores,
    placement: ActorRef<PlacementMessage>,
}

impl Root {
    /// Starts the parts; shards are loaded from now on. `address` is where others reach this node.
    pub(crate) async fn start(
        options: &CoordinatorOptions,
        address: String,
        stores: Stores,
        runtime: &Runtime,
    ) -> Result<Root, StartError> {
        let definitions = Arc::new(Definitions::default());
        definitions.follow(&*stores.journal).await?;
        let links = Arc::new(Links::new(options.shards, options.mailbox_capacity));
        let peers = Arc::new(Peers::new(options, links.clone(), definitions.clone(), runtime.clone()));
        let args = SupervisorArguments {
            options: options.clone(),
            journal: stores.journal.clone(),
            ledger: stores.ledger.clone(),
            links: links.clone(),
            definitions: definitions.clone(),
            peers: peers.clone(),
            runtime: runtime.clone(),
        };
        let (placement, _) = Actor::spawn(None, Supervisor, args)
            .await
            .map_err(|error| StartError::Shard(error.to_string()))?;
        let member = Member::new(options.node.clone(), address, env!("CARGO_PKG_VERSION").to_owned());
        let membership = Membership {
            cluster: stores.cluster.clone(),
            member,
            shards: options.shards,
            journal: stores.journal.clone(),
            definitions: definitions.clone(),
            placement: placement.clone(),
            runtime: runtime.clone(),
        };
        membership.keep();
        let ingest =
            Ingest { links: links.clone(), definitions: definitions.clone(), shards: options.shards };
        Ok(Root { links, definitions, ingest, peers, stores, placement })
    }

    /// Waits until every shard of this node is loaded.
    pub(crate) async fn settled(&self) -> Result<(), StartError> {
        let (reply, settled) = oneshot::channel();
        drop(self.placement.cast(PlacementMessage::Settle(reply)));
        let settled = settled.await.unwrap_or_else(|_| Err("placement died".to_owned()));
        settled.map_err(StartError::Shard)
    }

    pub(crate) fn placement(&self) -> ActorRef<PlacementMessage> {
        self.placement.clone()
    }

    /// Hands the shards over to other nodes, if there are any.
    pub(crate) async fn leave(&self) {
        let (reply, left) = oneshot::channel();
        drop(self.placement.cast(PlacementMessage::Leave(reply)));
        if left.await.is_err() {
            tracing::warn!("placement died before everything was handed over");
        }
    }

    pub(crate) async fn stop(self) {
        // What the shards had not stored was not answered; a stopped one loses nothing.
        if let Err(error) = self.placement.stop_and_wait(None, Some(Duration::from_secs(5))).await {
            tracing::warn!(%error, "the supervisor did not stop in time");
        }
    }
}
