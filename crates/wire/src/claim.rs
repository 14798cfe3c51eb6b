//! Claims: a coordinator's word that it owns a shard, and whose word holds when two say so.
//!
//! Owns: one rule for workers and connectors (`docs/adr/0011-claims.md`). Never: moves a task or a call.
use std::collections::{BTreeMap, BTreeSet};

use kapell_model::{Epoch, ShardId};
use kapell_proto::v1;

use crate::task::BadRef;

/// What a worker or connector that understands claims says in its hello.
pub const FEATURE: &str = "claims";

/// Whether a hello with these features may be followed by claims.
#[must_use]
pub fn understood(features: &[String]) -> bool {
    features.iter().any(|feature| feature == FEATURE)
}

/// One shard, owned under an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardClaim {
    /// Which.
    pub shard: ShardId,
    /// Under which.
    pub epoch: Epoch,
}

/// Claims as they are sent.
#[must_use]
pub fn claim_to(claims: &[ShardClaim]) -> v1::Claim {
    let shards =
        claims.iter().map(|claim| v1::ShardClaim { shard: u32::from(claim.shard.0), epoch: claim.epoch.0 });
    v1::Claim { shards: shards.collect() }
}

/// Claims from outside.
pub fn claim_from(claim: &v1::Claim) -> Result<Vec<ShardClaim>, BadRef> {
    let one = |claim: &v1::ShardClaim| {
        Ok(ShardClaim { shard: shard_from(claim.shard)?, epoch: Epoch(claim.epoch) })
    };
    claim.shards.iter().map(one).collect()
}

/// A shard from outside.
pub fn shard_from(shard: u32) -> Result<ShardId, BadRef> {
    let most = u32::from(u16::MAX);
    u16::try_from(shard).map(ShardId).map_err(|_| BadRef::TooLarge { field: "shard", got: shard, most })
}

/// The claims that hold, and whose they are.
///
/// A higher epoch holds against a lower one. A claim is remembered for as long as its claimer's word counts: until
/// another's takes its place, its lease is over, or it is back and does not repeat it. So a store that begins anew with
/// low epochs is not refused for ever.
#[derive(Debug)]
pub struct Claims<S> {
    of: BTreeMap<ShardId, (S, Epoch)>,
}

/// What a claim changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Nothing: another coordinator claimed the shard under a higher epoch.
    Stale,
    /// Nothing: the same coordinator has owned the shard under this epoch all the time.
    Known,
    /// The shard has another owner, or the same one lost it in between.
    New,
}

impl<S> Default for Claims<S> {
    fn default() -> Claims<S> {
        Claims { of: BTreeMap::new() }
    }
}

impl<S: Copy + Eq> Claims<S> {
    /// The first claim of a session names everything that its coordinator owns: what it said before and does not say
    /// again is forgotten.
    pub fn begin(&mut self, by: S, claims: &[ShardClaim]) {
        let repeated: BTreeSet<ShardClaim> = claims.iter().copied().collect();
        self.of.retain(|shard, (owner, epoch)| {
            *owner != by || repeated.contains(&ShardClaim { shard: *shard, epoch: *epoch })
        });
    }

    /// A coordinator claims a shard.
    pub fn claim(&mut self, by: S, claim: ShardClaim) -> Claimed {
        if self.is_below(claim.shard, claim.epoch) {
            return Claimed::Stale;
        }
        match self.of.insert(claim.shard, (by, claim.epoch)) {
            Some(before) if before == (by, claim.epoch) => Claimed::Known,
            Some(_) | None => Claimed::New,
        }
    }

    /// Whether an order under this epoch comes from an owner that has lost the shard. `Epoch(0)`: it does not say.
    #[must_use]
    pub fn is_stale(&self, shard: ShardId, epoch: Epoch) -> bool {
        epoch != Epoch(0) && self.is_below(shard, epoch)
    }

    fn is_below(&self, shard: ShardId, epoch: Epoch) -> bool {
        self.of.get(&shard).is_some_and(|(_, highest)| epoch < *highest)
    }

    /// The lease of a coordinator is over.
    pub fn forget(&mut self, by: S) {
        self.of.retain(|_, (owner, _)| *owner != by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(shard: u16, epoch: u64) -> ShardClaim {
        ShardClaim { shard: ShardId(shard), epoch: Epoch(epoch) }
    }

    #[test]
    fn claims_survive_the_stream_and_a_shard_that_cannot_be_is_refused() {
        let sent = [claim(0, 1), claim(u16::MAX, u64::MAX)];
        assert_eq!(claim_from(&claim_to(&sent)), Ok(sent.to_vec()));
        let bad = v1::Claim { shards: vec![v1::ShardClaim { shard: 65_536, epoch: 1 }] };
        let refused = BadRef::TooLarge { field: "shard", got: 65_536, most: 65_535 };
        assert_eq!(claim_from(&bad), Err(refused));
        assert!(understood(&["other".into(), FEATURE.into()]) && !understood(&["other".into()]));
    }

    #[test]
    fn the_highest_epoch_holds_whoever_comes_when() {
        let mut claims = Claims::default();
        assert_eq!(claims.claim('a', claim(1, 5)), Claimed::New);
        assert_eq!(claims.claim('a', claim(1, 5)), Claimed::Known);
        assert_eq!(claims.claim('b', claim(1, 6)), Claimed::New);
        assert_eq!(claims.claim('a', claim(1, 5)), Claimed::Stale);
        assert!(claims.is_stale(ShardId(1), Epoch(5)) && !claims.is_stale(ShardId(1), Epoch(6)));
        assert!(!claims.is_stale(ShardId(2), Epoch(1)), "of another shard nothing is known");
        assert!(!claims.is_stale(ShardId(1), Epoch(0)), "a sender that does not say is believed");
        assert_eq!(claims.claim('a', claim(1, 7)), Claimed::New, "it came back");
        assert_eq!(claims.claim('a', claim(1, 8)), Claimed::New, "what it did not hear in between is lost");
        assert_eq!(claims.claim('b', claim(1, 6)), Claimed::Stale, "however late it arrives");
    }

    #[test]
    fn a_claim_is_forgotten_with_its_claimer_and_a_store_may_begin_anew() {
        let mut claims = Claims::default();
        for shard in 1..=3 {
            claims.claim('a', claim(shard, 50));
        }
        claims.claim('b', claim(4, 50));
        let again = [claim(1, 50), claim(2, 1)];
        claims.begin('a', &again);
        assert_eq!(again.map(|one| claims.claim('a', one)), [Claimed::Known, Claimed::New]);
        assert_eq!(claims.claim('b', claim(3, 1)), Claimed::New, "it was not repeated");
        assert_eq!(claims.claim('a', claim(4, 1)), Claimed::Stale, "the other's word still counts");
        claims.forget('b');
        assert_eq!(claims.claim('a', claim(4, 1)), Claimed::New);
    }
}
