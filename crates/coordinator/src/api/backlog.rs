//! Tasks that workers have to do, of the whole cluster.
//!
//! Owns: that every node gives the same answer. Never: leaves out what it cannot see, a node that does not answer or a
//! shard on its way: half a backlog would have somebody send workers away.
use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use kapell_cluster::Member;
use kapell_model::ShardId;
use kapell_proto::v1;
use tokio::sync::oneshot;
use tonic::Status;

use super::others::{ask, others};
use super::{Parts, admin};
use crate::dispatch::DispatchMessage;

/// A node has so long to answer: KEDA waits for a few seconds.
const WITHIN: Duration = Duration::from_secs(2);

/// Of the shards of this node, once all of them are loaded: before that nobody knows their tasks.
pub(super) async fn of_this_node(parts: &Parts) -> Result<Vec<v1::SkillBacklog>, Status> {
    let loaded = join_all(admin::here(parts).map(|shard| admin::stats(parts, shard)));
    let loaded = tokio::time::timeout(WITHIN, loaded).await;
    if !loaded.is_ok_and(|shards| shards.iter().all(Option::is_some)) {
        return Err(Status::unavailable("shards of this node are being loaded; ask again"));
    }
    let (reply, backlog) = oneshot::channel();
    parts.links.tell_dispatch(DispatchMessage::Backlog(reply));
    backlog.await.map_err(|_| Status::unavailable("the node is stopping"))
}

/// Of all shards, in the order of the skills.
pub(super) async fn of_all_nodes(parts: &Parts) -> Result<Vec<v1::SkillBacklog>, Status> {
    let known = parts.known().await?;
    if !known.joined {
        return Err(Status::unavailable("this node is no member of its cluster now; ask another one"));
    }
    let there = try_join_all(others(parts, &known).map(|member| of_other(parts, member)));
    let (here, there) = tokio::try_join!(of_this_node(parts), there)?;
    let shards = (0..parts.links.mailboxes().len()).map(|shard| ShardId(shard as u16));
    if parts.known().await?.owners != known.owners
        || !shards.into_iter().all(|shard| parts.peers.is_owned(shard))
    {
        return Err(Status::unavailable("shards are on their way between nodes; ask again"));
    }
    let mut sum: BTreeMap<String, v1::SkillBacklog> = BTreeMap::new();
    for part in there.into_iter().flatten().chain(here) {
        let whole = sum.entry(part.skill.clone()).or_default();
        let (queued, held) = (whole.queued + part.queued, whole.held + part.held);
        *whole = v1::SkillBacklog { queued, held, ..part };
    }
    Ok(sum.into_values().collect())
}

async fn of_other(parts: &Parts, member: &Member) -> Result<Vec<v1::SkillBacklog>, Status> {
    let request = v1::BacklogRequest { this_node_only: true };
    let asked = ask(parts, member, |mut node| async move { node.backlog(request).await });
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
