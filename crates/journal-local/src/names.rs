//! What the files are called.
//!
//! Owns: names and their reading back. Never: opens one.
use kapell_model::ShardId;

const DIGITS: usize = 12;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileName {
    /// A segment of the log.
    Segment(u64),
    /// The index of a sealed segment.
    Index(u64),
    /// All runs of a shard at some point.
    Base(ShardId, u64),
    /// What changed in a shard since the checkpoint file before it.
    Delta(ShardId, u64),
    /// Not finished; nobody misses it.
    Unfinished,
}

/// Ending of a file that has no name of its own yet.
pub(crate) const UNFINISHED: &str = ".tmp";

impl FileName {
    /// `None` for a file that is not ours.
    pub(crate) fn parse(name: &str) -> Option<FileName> {
        if name.ends_with(UNFINISHED) {
            return Some(FileName::Unfinished);
        }
        let (stem, ending) = name.rsplit_once('.')?;
        let number = |text: &str| (text.len() == DIGITS).then(|| text.parse::<u64>().ok()).flatten();
        let parsed = match (stem.split_once('-'), ending) {
            (None, "log") => FileName::Segment(number(stem)?),
            (None, "idx") => FileName::Index(number(stem)?),
            (Some((shard, stem)), "base") => FileName::Base(ShardId(shard.parse().ok()?), number(stem)?),
            (Some((shard, stem)), "delta") => FileName::Delta(ShardId(shard.parse().ok()?), number(stem)?),
            (None | Some(_), _) => return None,
        };
        (parsed.text() == name).then_some(parsed)
    }

    /// The name in the directory.
    pub(crate) fn text(self) -> String {
        match self {
            FileName::Segment(number) => format!("{number:0DIGITS$}.log"),
            FileName::Index(number) => format!("{number:0DIGITS$}.idx"),
            FileName::Base(shard, number) => format!("{:05}-{number:0DIGITS$}.base", shard.0),
            FileName::Delta(shard, number) => format!("{:05}-{number:0DIGITS$}.delta", shard.0),
            FileName::Unfinished => format!("unfinished{UNFINISHED}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_strangers_are_left_alone() {
        let known = [
            FileName::Segment(1),
            FileName::Index(77),
            FileName::Base(ShardId(3), 4),
            FileName::Delta(ShardId(65535), 5),
        ];
        for name in known {
            assert_eq!(FileName::parse(&name.text()), Some(name));
        }
        assert_eq!(FileName::parse("spare.tmp"), Some(FileName::Unfinished));
        for stranger in ["1.log", "notes.txt", "lost+found", "+00000000001.log", "3-000000000004.base"] {
            assert_eq!(FileName::parse(stranger), None, "{stranger}");
        }
    }
}
