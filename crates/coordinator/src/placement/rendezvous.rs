//! Rendezvous hashing: which member is to own a shard.
//!
//! Owns: a preference that every node computes alike from the same members. When a member comes or goes, only the
//! shards that it takes or had move.
use kapell_cluster::{Members, NodeName};
use kapell_model::ShardId;

/// The members that are to own shards.
pub(crate) fn staying(members: &Members) -> impl Iterator<Item = &NodeName> {
    members.values().filter(|member| !member.leaving).map(|member| &member.node)
}

/// The member with the highest score.
pub(crate) fn preferred<'a>(
    shard: ShardId,
    members: impl Iterator<Item = &'a NodeName>,
) -> Option<&'a NodeName> {
    members.max_by_key(|node| (score(shard, node.as_str()), *node))
}

/// FNV-1a over shard and name, then mixed so that names that differ in one letter do not score alike.
fn score(shard: ShardId, node: &str) -> u64 {
    let mut hash: u64 = 0xCBF2_9CE4_8422_2325;
    for byte in shard.0.to_be_bytes().into_iter().chain(node.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}
