//! Ids: what names a run, a shard, a place in the journal.
//!
//! Owns: their shape, their text form, how a run id derives from an event and how a key chooses a shard.
//! Never: draws a random number (the caller brings the entropy) or knows where a shard lives.
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Timestamp;

/// One fixed partition of the runs. Counted from zero; shard 0 is also the control shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Fencing token of a shard's owner; a larger one was acquired later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Place of an entry in its shard's journal, counted from 1 without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first entry.
    pub const ZERO: Seq = Seq(0);

    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }

    /// The place `count` entries further on.
    #[must_use]
    pub fn plus(self, count: u64) -> Seq {
        Seq(self.0 + count)
    }
}

/// How many shards a store was created with. At least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardCount(u16);

impl Default for ShardCount {
    /// Enough to keep every core of one machine busy, few enough to batch well.
    fn default() -> ShardCount {
        ShardCount(4)
    }
}

impl ShardCount {
    /// For a store that several nodes share: some for each of them, and for those that come later.
    pub const SHARED: ShardCount = ShardCount(64);

    /// Refuses zero.
    #[must_use]
    pub fn new(count: u16) -> Option<ShardCount> {
        (count > 0).then_some(ShardCount(count))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// All shards in order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        (0..self.0).map(ShardId)
    }

    /// The shard of everything in `namespace` that shares `key`.
    #[must_use]
    pub fn of_key(self, namespace: &Name, key: &str) -> ShardId {
        let hash = digest(&[b"key", namespace.as_str().as_bytes(), key.as_bytes()]);
        ShardId((hash % u128::from(self.0)) as u16)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One execution of a workflow. The upper 16 bits name its shard, the rest is a digest or entropy.
///
/// It is aligned as everything beside it in a key is: to 16 bytes, a third of the room of a map of timers was padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(Rust, packed(8))]
pub struct RunId(u128);

const SHARD_SHIFT: u32 = 112;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl RunId {
    /// A run id in `shard` from 112 bits of entropy or digest; upper bits of `low` are ignored.
    #[must_use]
    pub fn new(shard: ShardId, low: u128) -> RunId {
        RunId((u128::from(shard.0) << SHARD_SHIFT) | (low & ((1 << SHARD_SHIFT) - 1)))
    }

    /// The id of the run that `event` starts: the same event meets its first self.
    #[must_use]
    pub fn of_event(shards: ShardCount, origin: &Origin<'_>, key: Option<&str>) -> RunId {
        let low = digest(&[
            b"event",
            origin.namespace.as_str().as_bytes(),
            origin.workflow.as_str().as_bytes(),
            origin.source.as_bytes(),
            origin.event_id.as_bytes(),
        ]);
        let shard = match key {
            Some(key) => shards.of_key(origin.namespace, key),
            None => ShardId((low % u128::from(shards.get())) as u16),
        };
        RunId::new(shard, low)
    }

    /// The id of the run that a subworkflow step starts: derived, so that starting it twice is starting it once.
    #[must_use]
    pub fn of_child(shards: ShardCount, parent: RunId, step: &str, item: Option<u32>, try_no: u32) -> RunId {
        let item = item.map_or([0xff; 4], u32::to_be_bytes);
        let low = digest(&[b"child", &parent.0.to_be_bytes(), step.as_bytes(), &item, &try_no.to_be_bytes()]);
        RunId::new(ShardId((low % u128::from(shards.get())) as u16), low)
    }

    /// The id under which a schedule is kept, in the shard that decides its ticks. No run has it.
    #[must_use]
    pub fn of_schedule(shards: ShardCount, namespace: &Name, name: &Name) -> RunId {
        let low = digest(&[b"schedule", namespace.as_str().as_bytes(), name.as_str().as_bytes()]);
        RunId::new(ShardId((low % u128::from(shards.get())) as u16), low)
    }

    /// The id of the run that a schedule starts at a tick: the same tick meets its first self.
    #[must_use]
    pub fn of_tick(
        shards: ShardCount,
        namespace: &Name,
        schedule: &Name,
        tick: Timestamp,
        key: Option<&str>,
    ) -> RunId {
        let (namespace_bytes, schedule) = (namespace.as_str().as_bytes(), schedule.as_str().as_bytes());
        let low = digest(&[b"tick", namespace_bytes, schedule, &tick.0.to_be_bytes()]);
        let shard = match key {
            Some(key) => shards.of_key(namespace, key),
            None => ShardId((low % u128::from(shards.get())) as u16),
        };
        RunId::new(shard, low)
    }

    /// The shard that this run lives in.
    #[must_use]
    pub fn shard(self) -> ShardId {
        ShardId((self.0 >> SHARD_SHIFT) as u16)
    }

    /// All bits, for storing.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Back from [`RunId::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> RunId {
        RunId(u128::from_be_bytes(bytes))
    }
}

/// What somebody called a request that may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u128);

impl RequestId {
    /// The digest of what it is called: sixteen bytes, however long that is.
    #[must_use]
    pub fn of(name: &str) -> RequestId {
        RequestId(digest(&[b"request", name.as_bytes()]))
    }

    /// All bits, for storing.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Back from [`RequestId::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> RequestId {
        RequestId(u128::from_be_bytes(bytes))
    }
}

/// Where a run comes from, as far as its identity goes.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Tenant.
    pub namespace: &'a Name,
    /// Workflow that is triggered.
    pub workflow: &'a Name,
    /// CloudEvents `source`.
    pub source: &'a str,
    /// CloudEvents `id`.
    pub event_id: &'a str,
}

impl<'a> Origin<'a> {
    /// `source` of the events by which runs are started on request.
    pub const REQUEST: &'static str = "/kapell/start";

    /// Of a run that is started on request.
    #[must_use]
    pub fn of_request(namespace: &'a Name, workflow: &'a Name, request_id: &'a str) -> Origin<'a> {
        Origin { namespace, workflow, source: Origin::REQUEST, event_id: request_id }
    }
}

/// Length-prefixed, so that no two different part lists share a digest.
fn digest(parts: &[&[u8]]) -> u128 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let out = hash.finalize();
    let mut low = [0_u8; 16];
    low.copy_from_slice(&out[..16]);
    u128::from_be_bytes(low)
}

impl fmt::Display for RunId {
    /// 26 characters of Crockford base 32, lower case: sorts as the number does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; 26];
        for (place, slot) in text.iter_mut().enumerate() {
            let shift = 5 * (25 - place);
            *slot = ALPHABET[((self.0 >> shift) & 31) as usize];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}
impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no run id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no run id: 26 characters of 0-9 and a-z without i, l, o, u (see `kapell run list`)")]
pub struct NotARunId(String);

impl FromStr for RunId {
    type Err = NotARunId;

    fn from_str(text: &str) -> Result<RunId, NotARunId> {
        let wrong = || NotARunId(text.chars().take(80).collect());
        if text.len() != 26 {
            return Err(wrong());
        }
        let mut value = 0_u128;
        for (place, byte) in text.bytes().enumerate() {
            let lower = byte.to_ascii_lowercase();
            let digit = ALPHABET.iter().position(|&known| known == lower).ok_or_else(wrong)? as u128;
            // 26 digits of 5 bits are 130 bits: the first may only carry 3.
            if place == 0 && digit > 7 {
                return Err(wrong());
            }
            value = (value << 5) | digit;
        }
        Ok(RunId(value))
    }
}

/// A name as Kubernetes has it: 1 to 63 of `a-z 0-9 -`, a letter or digit at both ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name: use 1 to 63 of a-z, 0-9 and `-`, with a letter or digit at both ends")]
pub struct NotAName(String);

impl Name {
    /// Checks the text.
    pub fn new(text: &str) -> Result<Name, NotAName> {
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        let inside = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        if bytes.len() > 63 || !inside || !edge(bytes.first()) || !edge(bytes.last()) {
            return Err(NotAName(text.chars().take(80).collect()));
        }
        Ok(Name(Arc::from(text)))
    }

    /// The namespace of those who name none.
    #[must_use]
    pub fn default_namespace() -> Name {
        Name(Arc::from("default"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
        let text = String::deserialize(from)?;
        Name::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_survives_its_text_and_names_its_shard() {
        for (shard, low) in [(0, 0), (3, 77), (u16::MAX, u128::MAX)] {
            let id = RunId::new(ShardId(shard), low);
            assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
            assert_eq!(RunId::from_bytes(id.to_bytes()), id);
            assert_eq!(id.shard(), ShardId(shard));
        }
        assert!("zzzzzzzzzzzzzzzzzzzzzzzzzz".parse::<RunId>().is_err(), "130 bits do not fit");
        assert!("short".parse::<RunId>().is_err());
    }

    #[test]
    fn the_same_event_is_the_same_run_and_parts_do_not_run_together() {
        let shards = ShardCount::new(8).unwrap();
        let (a, b) = (Name::new("a").unwrap(), Name::new("b").unwrap());
        let id = |source, event_id| {
            let origin = Origin { namespace: &a, workflow: &b, source, event_id };
            RunId::of_event(shards, &origin, Some("k"))
        };
        assert_eq!(id("shop", "1"), id("shop", "1"));
        assert_ne!(id("shop", "1"), id("shop1", ""));
        assert_eq!(id("shop", "1").shard(), id("erp", "2").shard(), "one key, one shard");
    }

    #[test]
    fn a_tick_is_one_run_and_a_schedule_is_none_of_its_runs() {
        let shards = ShardCount::new(8).unwrap();
        let (ns, a, b) = (Name::default_namespace(), Name::new("a").unwrap(), Name::new("b").unwrap());
        let id = |schedule, tick, key| RunId::of_tick(shards, &ns, schedule, Timestamp(tick), key);
        assert_eq!(id(&a, 60_000, None), id(&a, 60_000, None));
        assert_ne!(id(&a, 60_000, None), id(&a, 120_000, None));
        assert_ne!(id(&a, 60_000, None), id(&b, 60_000, None));
        assert_eq!(id(&a, 60_000, Some("k")).shard(), id(&b, 0, Some("k")).shard(), "one key, one shard");
        assert_ne!(RunId::of_schedule(shards, &ns, &a), id(&a, 0, None));
        assert!(RunId::of_schedule(shards, &a, &b) != RunId::of_schedule(shards, &b, &a));
    }

    #[test]
    fn names_are_kubernetes_names() {
        for good in ["a", "a-1", "0", &"x".repeat(63)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }
}
