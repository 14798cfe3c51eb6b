//! Peers: requests of shards that other nodes own go to them, and theirs come here.
//!
//! Owns: the way of each shard's requests, one stream to each node that owns any, and the service that takes theirs.
//! Never: decides who owns what (placement does), or passes on what was passed to it.
mod ask;
mod asked;
mod link;
mod outbox;
mod refusal;
mod serve;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kapell_cluster::{NodeName, Owner};
use kapell_model::ShardId;
use kapell_proto::v1;
use kapell_runtime::{DialError, Runtime, channel};
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::definitions::Definitions;
use crate::links::Links;
use crate::options::CoordinatorOptions;
use crate::placement::Route;
use link::Link;
pub(crate) use serve::PeerServer;

/// Channels that are kept.
const CHANNELS_MAX: usize = 1_024;

/// The way of each shard's requests.
pub(crate) struct Peers {
    node: NodeName,
    links: Arc<Links>,
    definitions: Arc<Definitions>,
    runtime: Runtime,
    ways: Mutex<Ways>,
    /// Told when a shard goes another way.
    moved: watch::Sender<()>,
}

#[derive(Default)]
struct Ways {
    routes: BTreeMap<ShardId, Route>,
    /// By who is asked where: another node may have taken over an address.
    links: BTreeMap<(NodeName, String), Arc<Link>>,
    /// By address, for requests that are passed on whole.
    channels: BTreeMap<String, Channel>,
}

/// Which link goes to an owner.
fn reached(owner: &Owner) -> (NodeName, String) {
    (owner.node.clone(), owner.address.clone())
}

impl Peers {
    pub(crate) fn new(
        options: &CoordinatorOptions,
        links: Arc<Links>,
        definitions: Arc<Definitions>,
        runtime: Runtime,
    ) -> Peers {
        let (node, moved) = (options.node.clone(), watch::Sender::default());
        Peers { node, links, definitions, runtime, ways: Mutex::default(), moved }
    }

    fn lock(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends requests of a shard another way from now on.
    pub(crate) fn route(&self, shard: ShardId, route: Route) {
        let Some(mailbox) = self.links.shard(shard) else { return };
        let mut ways = self.lock();
        match &route {
            // The shard's actor serves it once it is loaded.
            Route::Here | Route::Nowhere => mailbox.hold(),
            Route::To(owner) => {
                let link = ways.links.entry(reached(owner)).or_insert_with(|| self.dial(owner));
                link.take_on(shard, mailbox.clone());
            }
        }
        let before = ways.routes.insert(shard, route);
        if let Some(Route::To(before)) = before
            && !matches!(ways.routes.get(&shard), Some(Route::To(now)) if reached(now) == reached(&before))
            && let Some(link) = ways.links.get(&reached(&before))
            && link.let_go(shard) == 0
        {
            link.stop();
            ways.links.remove(&reached(&before));
        }
        self.moved.send_replace(());
    }

    fn dial(&self, owner: &Owner) -> Arc<Link> {
        let link =
            Arc::new(Link::new(owner, self.node.clone(), self.definitions.clone(), self.runtime.clone()));
        link.clone().keep();
        link
    }

    /// Whether the shard is this node's, loaded or on its way here.
    pub(crate) fn is_here(&self, shard: ShardId) -> bool {
        self.lock().routes.get(&shard) == Some(&Route::Here)
    }

    /// All shards that are this node's, loaded or on their way here.
    pub(crate) fn shards_here(&self) -> v1::ShardsHere {
        let ways = self.lock();
        let here = ways.routes.iter().filter(|(_, route)| **route == Route::Here);
        v1::ShardsHere {
            count: self.links.mailboxes().len() as u32,
            shards: here.map(|(shard, _)| u32::from(shard.0)).collect(),
        }
    }

    /// Changes when a shard goes another way.
    pub(crate) fn moves(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }

    /// Whether somebody owns the shard, as far as it is known.
    pub(crate) fn is_owned(&self, shard: ShardId) -> bool {
        !matches!(self.lock().routes.get(&shard), None | Some(Route::Nowhere))
    }

    /// A channel to another node.
    pub(crate) async fn channel(&self, address: &str) -> Result<Channel, DialError> {
        if let Some(known) = self.lock().channels.get(address) {
            return Ok(known.clone());
        }
        let opened = channel(self.runtime.net.clone(), address).await?;
        let mut ways = self.lock();
        if ways.channels.len() >= CHANNELS_MAX {
            // Addresses of nodes that are gone; those that live are dialed again.
            ways.channels.clear();
        }
        ways.channels.insert(address.to_owned(), opened.clone());
        Ok(opened)
    }

    /// The other node that owns the shard, as far as it is known.
    pub(crate) fn owner(&self, shard: ShardId) -> Option<Owner> {
        match self.lock().routes.get(&shard)? {
            Route::To(owner) => Some(owner.clone()),
            Route::Here | Route::Nowhere => None,
        }
    }

    /// The other node that owns the shard; `None`: this one does. Waits until somebody does, as far as it is known.
    pub(crate) async fn found(&self, shard: ShardId) -> Option<Owner> {
        let mut moved = self.moves();
        loop {
            match self.lock().routes.get(&shard) {
                Some(Route::Here) => return None,
                Some(Route::To(owner)) => return Some(owner.clone()),
                Some(Route::Nowhere) | None => {}
            }
            // The sender lives as long as `self`.
            _ = moved.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use kapell_model::{Epoch, ShardCount};

    use super::*;

    /// Node `name` at the one address that there is.
    fn owned_by(name: &str) -> Route {
        let node = NodeName::new(name).unwrap();
        Route::To(Owner { node, address: "10.0.0.1:7700".to_owned(), epoch: Epoch(1) })
    }

    #[tokio::test]
    async fn a_node_that_takes_over_an_address_is_asked_as_itself() {
        let links = Arc::new(Links::new(ShardCount::default(), 8));
        let options = CoordinatorOptions::default();
        let peers = Peers::new(&options, links, Arc::default(), Runtime::system());
        let asked = || peers.lock().links.keys().map(|(node, _)| node.to_string()).collect::<Vec<_>>();
        peers.route(ShardId(1), owned_by("old"));
        peers.route(ShardId(2), owned_by("old"));
        peers.route(ShardId(1), owned_by("new"));
        assert_eq!(asked(), ["new", "old"]);
        peers.route(ShardId(2), owned_by("new"));
        assert_eq!(asked(), ["new"], "nobody is left to be asked under the old name");
    }
    #[tokio::test]
    async fn who_asks_for_an_owner_waits_until_the_shard_is_somewhere() {
        let links = Arc::new(Links::new(ShardCount::default(), 8));
        let peers = Peers::new(&CoordinatorOptions::default(), links, Arc::default(), Runtime::system());
        let mut owner = pin!(peers.found(ShardId(1)));
        assert!(futures::poll!(&mut owner).is_pending(), "nothing is known yet");
        peers.route(ShardId(2), Route::Here);
        peers.route(ShardId(1), Route::Nowhere);
        assert!(futures::poll!(&mut owner).is_pending(), "it is on its way");
        peers.route(ShardId(1), owned_by("other"));
        assert_eq!(owner.await.map(|owner| owner.node.to_string()).as_deref(), Some("other"));
        peers.route(ShardId(1), Route::Here);
        assert_eq!(peers.found(ShardId(1)).await, None);
    }
}
