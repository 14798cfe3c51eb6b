//! Claims: a coordinator owns shards, and what is held of them is its own from now on (`docs/adr/0011-claims.md`).
//!
//! Owns: reading a claim and answering it. Never: decides whose claim holds.
use kapell_model::ShardId;
use kapell_proto::v1;
use kapell_proto::v1::connector_message::Kind;
use kapell_wire::claim::claim_from;
use kapell_wire::task::CallKey;

use super::{Ended, Open};
use crate::connector::call_report;

/// Calls that one message of the answer names; a long answer comes in several.
const HOLDING_CALLS_MAX: usize = 1_000;

/// Takes a claim: its answer goes out first, then the reports that the claimer has not been sent.
pub(super) fn take(open: &Open<'_>, claim: &v1::Claim) -> Result<(), Ended> {
    let claims = match claim_from(claim) {
        Ok(claims) => claims,
        Err(error) => {
            tracing::warn!(%error, "a claim names no shard");
            return Ok(());
        }
    };
    let brought = open.shared.held().claim(open.coordinator, open.no, &claims);
    for answer in answer(&brought.shards, &brought.calls) {
        let message = v1::ConnectorMessage { kind: Some(Kind::Holding(answer)) };
        open.outbox.try_send(message).map_err(|_| Ended::Stuck)?;
    }
    for (key, outcome) in brought.reports {
        open.shared.post(open.no, key, call_report(key.0, &outcome));
    }
    Ok(())
}

fn answer(shards: &[ShardId], calls: &[CallKey]) -> Vec<v1::HoldingCalls> {
    let part = |calls: &[CallKey]| v1::HoldingCalls {
        shards: Vec::new(),
        calls: calls.iter().map(CallKey::to_proto).collect(),
    };
    let mut answer: Vec<v1::HoldingCalls> = calls.chunks(HOLDING_CALLS_MAX).map(part).collect();
    if answer.is_empty() && !shards.is_empty() {
        answer.push(v1::HoldingCalls::default());
    }
    if let Some(last) = answer.last_mut() {
        last.shards = shards.iter().map(|shard| u32::from(shard.0)).collect();
    }
    answer
}
