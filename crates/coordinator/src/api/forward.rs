//! Requests that only the owner of a shard can do, on their way to it.
//!
//! Owns: finding the owner, and that a request is passed on once at most. Most requests never come here: they wait in a
//! shard's mailbox, which a peer empties.
use kapell_model::ShardId;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{Parts, status};
use crate::shard::SubmitError;

/// Marks a request that another node passed on.
const PASSED_ON: &str = "kapell-passed-on";

/// Where to send the request instead; `None`: the shard is here.
pub(super) async fn owner(
    parts: &Parts,
    shard: ShardId,
    metadata: &MetadataMap,
) -> Result<Option<Channel>, Status> {
    if parts.peers.is_here(shard) {
        return Ok(None);
    }
    let on_its_way = || status::of_submit(&SubmitError::Unavailable);
    if metadata.contains_key(PASSED_ON) {
        // It moves: whoever asked first finds its new owner.
        return Err(on_its_way());
    }
    let owner = parts.peers.owner(shard).ok_or_else(on_its_way)?;
    let channel = parts.peers.channel(&owner.address).await;
    channel.map(Some).map_err(|error| Status::unavailable(format!("node `{}`: {error}", owner.node)))
}

/// The same request, marked.
pub(super) fn passed_on<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.metadata_mut().insert(PASSED_ON, tonic::metadata::MetadataValue::from_static("1"));
    request
}
