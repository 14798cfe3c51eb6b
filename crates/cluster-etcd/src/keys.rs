//! Names of the keys.
//!
//! Owns: where what is stored, and what a stored key stands for. Never: reads a value.
//!
//! ```text
//! PREFIX/CLUSTER/members/NODE      a node, under its lease
//! PREFIX/CLUSTER/shards/N          an owner, under its lease; made once, never changed
//! PREFIX/CLUSTER/epochs/base       what etcd's revision is added to
//! PREFIX/CLUSTER/revisions/NAME    a counter: its modification revision
//! ```
use kapell_cluster::NodeName;
use kapell_model::{Name, ShardId};

/// All keys of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    root: String,
}

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Member(NodeName),
    Shard(ShardId),
    Base,
    Revision(Name),
}

impl Keys {
    pub(crate) fn new(prefix: &str, cluster: &Name) -> Keys {
        Keys { root: format!("{prefix}/{cluster}/") }
    }

    /// What all of them begin with.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    pub(crate) fn member(&self, node: &NodeName) -> String {
        format!("{}members/{node}", self.root)
    }

    pub(crate) fn shard(&self, shard: ShardId) -> String {
        format!("{}shards/{shard}", self.root)
    }

    pub(crate) fn base(&self) -> String {
        format!("{}epochs/base", self.root)
    }

    pub(crate) fn revision(&self, name: &Name) -> String {
        format!("{}revisions/{name}", self.root)
    }

    /// `None` for what a newer version, or somebody else, put there.
    pub(crate) fn parse(&self, key: &[u8]) -> Option<Key> {
        let key = std::str::from_utf8(key).ok()?.strip_prefix(&self.root)?;
        match key.split_once('/')? {
            ("members", node) => NodeName::new(node).ok().map(Key::Member),
            ("shards", shard) => {
                let number = shard.parse().ok().map(ShardId)?;
                // One shard has one key: `+1` and `01` are numbers too, and no keys of ours.
                (number.to_string() == shard).then_some(Key::Shard(number))
            }
            ("epochs", "base") => Some(Key::Base),
            ("revisions", name) => Name::new(name).ok().map(Key::Revision),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_what_it_was_written_for() {
        let keys = Keys::new("/kapell", &Name::new("prod").unwrap());
        let (node, name) = (NodeName::new("node-1").unwrap(), Name::new("definitions").unwrap());
        for (text, written, key) in [
            ("/kapell/prod/members/node-1", keys.member(&node), Key::Member(node)),
            ("/kapell/prod/shards/65535", keys.shard(ShardId(u16::MAX)), Key::Shard(ShardId(u16::MAX))),
            ("/kapell/prod/epochs/base", keys.base(), Key::Base),
            ("/kapell/prod/revisions/definitions", keys.revision(&name), Key::Revision(name)),
        ] {
            assert_eq!((text, keys.parse(text.as_bytes())), (written.as_str(), Some(key)));
        }
        for foreign in [
            "/kapell/prod2/shards/1",
            "/kapell/prod/shards/65536",
            "/kapell/prod/shards/01",
            "/kapell/prod/shards/+1",
            "/kapell/prod/members/Node",
            "/kapell/prod/members/a/b",
            "/kapell/prod/epochs/other",
            "/kapell/prod/later/1",
            "/kapell/prod/",
        ] {
            assert_eq!(keys.parse(foreign.as_bytes()), None, "{foreign}");
        }
        assert_eq!(keys.parse(&[0xff]), None);
    }
}
