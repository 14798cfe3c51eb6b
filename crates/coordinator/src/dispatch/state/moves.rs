//! Shards that come and go with their tasks.
//!
//! Owns: what is claimed from whom, and what is forgotten without a word to its worker. See `docs/adr/0011-claims.md`.
use kapell_model::ShardId;
use kapell_wire::claim::ShardClaim;
use kapell_wire::task::TaskKey;
use tokio::time::Instant;

use super::{Act, DispatchState};
use crate::dispatch::SessionId;

impl DispatchState {
    /// The shard is here, and what was found in its journal was submitted: every worker is asked what it holds.
    pub(in crate::dispatch) fn own(&mut self, claim: ShardClaim) {
        self.shards.own(claim);
        let told = self.sessions.iter().filter(|(_, session)| session.claims && session.to.is_some());
        self.acts.extend(told.map(|(id, _)| Act::Claim(*id, vec![claim])));
    }

    /// The shard left. Its tasks go on where they are, and its next owner claims them.
    pub(in crate::dispatch) fn disown(&mut self, shard: ShardId) {
        self.shards.disown(shard);
        let leaving: Vec<TaskKey> = self.tasks.range(TaskKey::of_shard(shard)).map(|(key, _)| *key).collect();
        for key in &leaving {
            self.tasks.remove(key);
        }
        for queue in self.queues.values_mut() {
            queue.retain(|key| key.run.shard() != shard);
        }
        // A worker from before claims counts them as ours until it has reported them, and so do we.
        for (id, session) in self.sessions.iter_mut().filter(|(_, session)| session.claims) {
            session.held.retain(|key| key.run.shard() != shard);
            if session.to.is_some() {
                self.acts.push(Act::Disown(*id, shard));
            }
        }
        self.assign();
    }

    /// A worker answered a claim: it is at work on these, or has reports of them, and that is all of these shards.
    pub(in crate::dispatch) fn holding(
        &mut self,
        now: Instant,
        session: SessionId,
        shards: &[ShardId],
        keys: &[TaskKey],
    ) {
        if !self.sessions.contains_key(&session) {
            return;
        }
        for key in keys {
            self.claim(session, *key);
        }
        self.shards.answered(session, shards);
        self.end_limbo(now);
    }
}
