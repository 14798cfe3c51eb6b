//! Shards that come and go with their calls.
//!
//! Owns: what is claimed from whom, and what is forgotten. See `docs/adr/0011-claims.md`.
use kapell_model::ShardId;
use kapell_wire::claim::ShardClaim;
use kapell_wire::task::CallKey;
use tokio::time::Instant;

use super::{Act, CallState, Item};
use crate::dispatch::SessionId;

impl CallState {
    /// The shard is here, and what was found in its journal was given to this desk: every connector is asked what it
    /// holds.
    pub(in crate::calls) fn own(&mut self, claim: ShardClaim) {
        self.shards.own(claim);
        let told = self.sessions.iter().filter(|(_, session)| session.claims && session.to.is_some());
        self.acts.extend(told.map(|(id, _)| Act::Claim(*id, vec![claim])));
    }

    /// The shard left. Its calls go on where they are, and its next owner claims them. A read that finds out about one
    /// goes on too and tells nobody; one that a task waits for ends as always, and the task has asked its new home.
    pub(in crate::calls) fn disown(&mut self, shard: ShardId) {
        self.shards.disown(shard);
        let leaving: Vec<CallKey> = self.calls.range(CallKey::of_shard(shard)).map(|(key, _)| *key).collect();
        for key in &leaving {
            self.calls.remove(key);
        }
        let stays = |item: &Item| match item {
            Item::Call(key) => key.run.shard() != shard,
            Item::Read(_) => true,
        };
        self.queue.retain(stays);
        // A connector from before claims reports here all the same, and has room again when it does.
        for session in self.sessions.values_mut().filter(|session| session.claims) {
            session.held.retain(stays);
        }
    }

    /// A connector answered a claim: it is at work on these, or has reports of them, and that is all of these shards.
    pub(in crate::calls) fn holding(
        &mut self,
        now: Instant,
        session: SessionId,
        shards: &[ShardId],
        keys: &[CallKey],
    ) {
        if !self.sessions.contains_key(&session) {
            return;
        }
        keys.iter().for_each(|key| self.claim(session, *key));
        self.shards.answered(session, shards);
        self.end_limbo(now);
    }
}
