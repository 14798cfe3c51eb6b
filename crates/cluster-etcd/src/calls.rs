//! The calls to etcd that may be made twice.
//!
//! Owns: reads, transactions that say what must not have changed, the end of a lease. Never: decides what an answer means.
use etcd_client::{
    Client, Compare, CompareOp, GetOptions, KeyValue, ResponseHeader, Txn, TxnOpResponse, TxnResponse,
};
use tokio::time::Instant;

use crate::endpoints::Endpoints;
use crate::trouble::Trouble;
use crate::view::Stored;

/// Largest answer of etcd that is taken: 65,536 shards with long names fit.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What was found, as it was at one revision.
pub(crate) struct Found {
    pub(crate) revision: i64,
    pub(crate) all: Vec<KeyValue>,
}

/// One key.
pub(crate) async fn get(endpoints: &Endpoints, key: &str, until: Instant) -> Result<Found, Trouble> {
    range(endpoints, key, GetOptions::new(), until).await
}

/// All keys that begin with `root`.
pub(crate) async fn list(endpoints: &Endpoints, root: &str, until: Instant) -> Result<Found, Trouble> {
    range(endpoints, root, GetOptions::new().with_prefix(), until).await
}

/// Asks etcd's leader, not what one member remembers.
async fn range(
    endpoints: &Endpoints,
    key: &str,
    options: GetOptions,
    until: Instant,
) -> Result<Found, Trouble> {
    let get = |client: Client| {
        let options = options.clone();
        async move {
            let mut kv = client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX);
            kv.get(key, Some(options)).await
        }
    };
    let mut answer = endpoints.call(until, get).await?;
    let revision = answer.header().map_or(0, ResponseHeader::revision);
    Ok(Found { revision, all: answer.take_kvs() })
}

/// A transaction. It must be one that does no harm when it is made again after it was made.
pub(crate) async fn txn(endpoints: &Endpoints, txn: &Txn, until: Instant) -> Result<TxnResponse, Trouble> {
    let call = |mut client: Client| {
        let txn = txn.clone();
        async move { client.txn(txn).await }
    };
    endpoints.call(until, call).await
}

/// Ends a lease, with everything that is attached to it. One that is gone is ended.
pub(crate) async fn revoke(endpoints: &Endpoints, lease: i64, until: Instant) -> Result<(), Trouble> {
    let revoke = |mut client: Client| async move { client.lease_revoke(lease).await };
    match endpoints.call(until, revoke).await {
        Ok(_) | Err(Trouble::LeaseGone) => Ok(()),
        Err(trouble @ (Trouble::Passing(_) | Trouble::Refused(_))) => Err(trouble),
    }
}

/// The revision at which a transaction was made.
pub(crate) fn revision(answer: &TxnResponse) -> i64 {
    answer.header().map_or(0, ResponseHeader::revision)
}

/// What the reads of a transaction found, in their order.
pub(crate) fn reads(answer: &TxnResponse) -> Vec<Option<KeyValue>> {
    let read = |operation| match operation {
        TxnOpResponse::Get(mut found) => Some(found.take_kvs().into_iter().next()),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    };
    answer.op_responses().into_iter().filter_map(read).collect()
}

/// Nobody has made the key.
pub(crate) fn is_absent(key: &str) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, 0)
}

/// The key is as it was when it was changed at that revision.
pub(crate) fn is_unchanged(key: &str, revision: i64) -> Compare {
    Compare::mod_revision(key, CompareOp::Equal, revision)
}

/// A key with its value, as the view takes it.
pub(crate) fn stored(kv: &KeyValue) -> Stored<'_> {
    Stored {
        key: kv.key(),
        value: kv.value(),
        lease: kv.lease(),
        created: kv.create_revision(),
        changed: kv.mod_revision(),
    }
}
