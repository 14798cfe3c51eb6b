//! The other nodes of the cluster: each answers operators for its own shards.
//!
//! Owns: how one is asked. Never: knows what.
use std::future::Future;

use kapell_cluster::Member;
use kapell_proto::v1::admin_service_client::AdminServiceClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::Parts;
use crate::placement::Known;

/// Every member but this node.
pub(super) fn others<'k>(parts: &Parts, known: &'k Known) -> impl Iterator<Item = &'k Member> {
    let node = parts.node.clone();
    known.members.values().filter(move |member| member.node.as_str() != &*node)
}

/// What another node answers, or why it does not. It takes as long as it takes.
pub(super) async fn ask<T, F>(
    parts: &Parts,
    member: &Member,
    question: impl FnOnce(AdminServiceClient<Channel>) -> F,
) -> Result<T, String>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let channel = parts.peers.channel(&member.address).await.map_err(|error| error.to_string())?;
    let answer = question(AdminServiceClient::new(channel)).await;
    answer.map(Response::into_inner).map_err(|status| status.message().to_owned())
}
