//! Tasks that follow their shards from one coordinator to another.
//!
//! Owns: what a claim moves and how it is answered (`docs/adr/0011-claims.md`). Never: begins or stops a task.
use kapell_model::ShardId;
use kapell_proto::v1::worker_message::Kind;
use kapell_proto::v1::{Claim, Disowned, Holding, TaskRef};
use kapell_wire::claim::{Claimed, ShardClaim, claim_from, shard_from};

use super::{Effects, State};
use crate::host::held::{Retell, of};
use crate::host::message::SessionNo;
use crate::limits::HOLDING_TASKS_MAX;

impl State {
    /// A coordinator owns shards: whatever is held of them is its own from now on.
    pub(super) fn claimed(&mut self, from: SessionNo, claim: &Claim, effects: &mut Effects) {
        let claims = match claim_from(claim) {
            Ok(claims) => claims,
            Err(error) => return tracing::warn!(%error, "a claim names no shard"),
        };
        let first = !std::mem::replace(&mut self.sessions[from.0].has_claimed, true);
        if first {
            self.claims.begin(from, &claims);
            let kept = |shard| claims.iter().any(|claim| claim.shard == shard);
            self.tasks.give_back_room(from, |shard| !kept(shard));
        }
        let (mut shards, mut told) = (Vec::new(), Vec::new());
        for ShardClaim { shard, epoch } in claims {
            let retell = match self.claims.claim(from, ShardClaim { shard, epoch }) {
                Claimed::Stale => {
                    tracing::debug!(%shard, %epoch, "a coordinator claims a shard that it has lost");
                    continue;
                }
                // What was said since the hello came after these shards: it was heard.
                Claimed::New | Claimed::Known if first => Retell::Nothing,
                // Under the same epoch, too: the shard was loaded anew, and the one before took its answers with it.
                Claimed::New | Claimed::Known => Retell::Unanswered,
            };
            told.extend(self.tasks.rehome(shard, from, retell));
            shards.push(shard);
        }
        let answer = self.holding(&shards).into_iter().map(|holding| of(Kind::Holding(holding)));
        effects.send.extend(answer.chain(told).map(|message| (from, message)));
    }

    fn holding(&self, shards: &[ShardId]) -> Vec<Holding> {
        let tasks: Vec<TaskRef> = shards.iter().flat_map(|shard| self.tasks.of_shard(*shard)).collect();
        let mut answer: Vec<Holding> = tasks
            .chunks(HOLDING_TASKS_MAX)
            .map(|tasks| Holding { shards: Vec::new(), tasks: tasks.to_vec() })
            .collect();
        if answer.is_empty() && !shards.is_empty() {
            answer.push(Holding::default());
        }
        if let Some(last) = answer.last_mut() {
            last.shards = shards.iter().map(|shard| u32::from(shard.0)).collect();
        }
        answer
    }

    /// A coordinator does not own shards any more; what is held of them goes on and waits for its next owner.
    pub(super) fn disowned(&mut self, from: SessionNo, disowned: &Disowned) {
        for shard in &disowned.shards {
            match shard_from(*shard) {
                Ok(left) => self.tasks.give_back_room(from, |shard| shard == left),
                Err(error) => tracing::warn!(%error, "a coordinator disowns what is no shard"),
            }
        }
    }
}
