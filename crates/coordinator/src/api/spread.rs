//! A new revision of the definitions, on its way to the other nodes.
//!
//! Owns: that an event finds them at whatever node it is sent to, once they were said to be applied. Never: waits long for
//! a node that is out of reach: that one learns of them from the cluster, or finds that it is no member any more.
use std::time::Duration;

use futures::future::join_all;
use kapell_cluster::{Member, NodeName};
use kapell_proto::peer::v1::FollowRequest;
use kapell_proto::peer::v1::peer_service_client::PeerServiceClient;
use kapell_proto::v1;
use tonic::Status;

use super::Parts;

/// A node has so long to read what changed.
const WITHIN: Duration = Duration::from_secs(2);

/// A node that may not know of a change.
pub(super) struct Untold {
    pub(super) node: NodeName,
    pub(super) error: String,
}

/// Tells all other members, and waits until they know; answers those of which nobody can say that.
pub(super) async fn tell_others(parts: &Parts, revision: u64) -> Result<Vec<Untold>, Status> {
    let known = parts.known().await?;
    let others = known.members.values().filter(|member| member.node.as_str() != &*parts.node);
    let told = join_all(others.map(async |member| {
        let told = tokio::time::timeout(WITHIN, tell(parts, member, revision)).await;
        let told = told.unwrap_or_else(|_| Err(format!("no answer within {} s", WITHIN.as_secs())));
        told.err().map(|error| Untold { node: member.node.clone(), error })
    }));
    Ok(told.await.into_iter().flatten().collect())
}

async fn tell(parts: &Parts, member: &Member, revision: u64) -> Result<(), String> {
    let channel = parts.peers.channel(&member.address).await.map_err(|error| error.to_string())?;
    let told = PeerServiceClient::new(channel).follow(FollowRequest { revision }).await;
    let knows = told.map_err(|status| status.message().to_owned())?.into_inner().revision;
    if knows < revision { Err(format!("it knows revision {knows} of {revision}")) } else { Ok(()) }
}

impl Untold {
    /// For whoever applied the change.
    pub(super) fn warning(&self) -> v1::Diagnostic {
        let Untold { node, error } = self;
        v1::Diagnostic {
            message: format!("node `{node}` may not know of it yet: {error}"),
            hint: "events that it takes meanwhile are taken under the old definitions; see `kapell cluster status`"
                .to_owned(),
            ..v1::Diagnostic::default()
        }
    }
}
