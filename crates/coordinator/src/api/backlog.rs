//! Tasks that workers have to do, of the whole cluster.
//!
//! Owns: that every node gives the same answer. Never: leaves out a node that does not answer: half a backlog would have
//! somebody send workers away.
use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use kapell_cluster::Member;
use kapell_proto::v1;
use kapell_proto::v1::admin_service_client::AdminServiceClient;
use tokio::sync::oneshot;
use tonic::{Response, Status};

use super::Parts;
use crate::dispatch::DispatchMessage;

/// A node has so long to answer: KEDA waits for a few seconds.
const WITHIN: Duration = Duration::from_secs(2);

/// Of the shards of this node.
pub(super) async fn of_this_node(parts: &Parts) -> Result<Vec<v1::SkillBacklog>, Status> {
    let (reply, backlog) = oneshot::channel();
    parts.links.tell_dispatch(DispatchMessage::Backlog(reply));
    backlog.await.map_err(|_| Status::unavailable("the node is stopping"))
}

/// Of all shards, in the order of the skills.
pub(super) async fn of_all_nodes(parts: &Parts) -> Result<Vec<v1::SkillBacklog>, Status> {
    let known = parts.known().await?;
    let others = known.members.values().filter(|member| member.node.as_str() != &*parts.node);
    let (here, there) =
        tokio::try_join!(of_this_node(parts), try_join_all(others.map(|member| of_other(parts, member))))?;
    let mut sum: BTreeMap<String, v1::SkillBacklog> = BTreeMap::new();
    for part in there.into_iter().flatten().chain(here) {
        let whole = sum.entry(part.skill.clone()).or_default();
        let (queued, held) = (whole.queued + part.queued, whole.held + part.held);
        *whole = v1::SkillBacklog { queued, held, ..part };
    }
    Ok(sum.into_values().collect())
}

async fn of_other(parts: &Parts, member: &Member) -> Result<Vec<v1::SkillBacklog>, Status> {
    let asked = async {
        let channel = parts.peers.channel(&member.address).await.map_err(|error| error.to_string())?;
        let request = v1::BacklogRequest { this_node_only: true };
        let answer = AdminServiceClient::new(channel).backlog(request).await;
        answer.map(Response::into_inner).map_err(|status| status.message().to_owned())
    };
    let answer = tokio::time::timeout(WITHIN, asked).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", WITHIN.as_secs())));
    let answer = answer.map_err(|error| {
        Status::unavailable(format!(
            "node `{}` at {} does not say what it has to do: {error}; ask again when others have its shards",
            member.node, member.address
        ))
    })?;
    Ok(answer.skills)
}
