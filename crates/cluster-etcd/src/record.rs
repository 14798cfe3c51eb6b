//! The values that are stored: JSON, readable by a person with `etcdctl get`.
//!
//! Owns: their form, which is a promise: what any version wrote, later ones read. A reader leaves alone what it does
//! not know, so a newer version may add fields that older ones can do without. Never: knows keys, leases or revisions.
use kapell_cluster::{Member, NodeName};
use kapell_model::Name;
use serde::{Deserialize, Serialize};

/// Why a value cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("not what a node writes: {0}")]
pub(crate) struct Unreadable(serde_json::Error);

/// Value of `members/NODE`.
#[derive(Serialize, Deserialize)]
struct MemberRecord {
    node: Name,
    address: String,
    version: String,
    /// Left out while it is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    leaving: bool,
}

/// Value of `shards/N`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnerRecord {
    node: Name,
    /// Where it is reached.
    pub(crate) address: String,
    /// With the revision that made the key it is the epoch.
    pub(crate) base: u64,
}

impl OwnerRecord {
    pub(crate) fn new(member: &Member, base: u64) -> OwnerRecord {
        OwnerRecord { node: member.node.name().clone(), address: member.address.clone(), base }
    }

    pub(crate) fn node(&self) -> NodeName {
        NodeName::from(self.node.clone())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(value: &[u8]) -> Result<OwnerRecord, Unreadable> {
        serde_json::from_slice(value).map_err(Unreadable)
    }
}

pub(crate) fn encode_member(member: &Member) -> Vec<u8> {
    encode(&MemberRecord {
        node: member.node.name().clone(),
        address: member.address.clone(),
        version: member.version.clone(),
        leaving: member.leaving,
    })
}

pub(crate) fn decode_member(value: &[u8]) -> Result<Member, Unreadable> {
    let MemberRecord { node, address, version, leaving } =
        serde_json::from_slice(value).map_err(Unreadable)?;
    Ok(Member { node: NodeName::from(node), address, version, leaving })
}

/// Value of `epochs/base`: a number.
pub(crate) fn encode_base(base: u64) -> Vec<u8> {
    encode(&base)
}

pub(crate) fn decode_base(value: &[u8]) -> Result<u64, Unreadable> {
    serde_json::from_slice(value).map_err(Unreadable)
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    // Names, texts and numbers: nothing in them that JSON could not say.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
