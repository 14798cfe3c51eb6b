//! Requests that only the owner of a shard can do, on their way to it.
//!
//! Owns: finding the owner, and that a request is passed on once at most. Most requests never come here: they wait in a
//! shard's mailbox, which a peer empties.
use std::error::Error as _;
use std::time::Duration;

use kapell_model::ShardId;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{Parts, status};

/// Marks a request that another node passed on.
const PASSED_ON: &str = "kapell-passed-on";

/// How long a request waits for a shard that nobody owns: a node that starts takes less, a crash in a cluster more.
const OWNERLESS_MAX: Duration = Duration::from_secs(2);

/// Where to send the request instead; `None`: the shard is here, loaded or not.
pub(super) async fn owner(
    parts: &Parts,
    shard: ShardId,
    metadata: &MetadataMap,
) -> Result<Option<Channel>, Status> {
    let owner = timeout(OWNERLESS_MAX, parts.peers.found(shard));
    let Some(owner) = owner.await.map_err(|_| status::on_its_way(shard))? else { return Ok(None) };
    if metadata.contains_key(PASSED_ON) {
        // It moves: whoever asked first finds its new owner.
        return Err(status::on_its_way(shard));
    }
    let channel = parts.peers.channel(&owner.address).await;
    channel.map(Some).map_err(|error| Status::unavailable(format!("node `{}`: {error}", owner.node)))
}

/// The same request, marked.
pub(super) fn passed_on<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.metadata_mut().insert(PASSED_ON, tonic::metadata::MetadataValue::from_static("1"));
    request
}

/// What the connection says of itself, and not the owner: whoever asked may ask again.
pub(super) fn lost(status: Status) -> Status {
    if status.source().is_none() {
        return status;
    }
    Status::unavailable(format!("the owner of the shard did not answer: {}", status.message()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic::Code;

    use super::*;

    #[test]
    fn what_a_connection_says_is_not_what_the_owner_says() {
        let said = lost(Status::internal("it is broken"));
        assert_eq!((said.code(), said.message()), (Code::Internal, "it is broken"));
        let mut broke = Status::internal("h2 protocol error");
        broke.set_source(Arc::new(std::io::Error::other("closed")));
        assert_eq!(lost(broke).code(), Code::Unavailable, "whoever asked may ask again");
    }
}
