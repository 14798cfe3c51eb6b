//! The ledger, built anew from the journal: each node does it for the shards that it owns.
//!
//! Owns: that a shard's new rows are of one moment. Never: takes old rows away before the new ones are there.
use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::try_join_all;
use kapell_cluster::Member;
use kapell_ledger::Rebuild;
use kapell_model::{Seq, ShardId};
use kapell_proto::v1;
use tonic::Status;

use super::others::{ask, others};
use super::{Parts, admin, status};
use crate::shard::{LoadError, Rebuilt, rebuild, with_causes};

/// How often a shard is folded whose checkpoint changes meanwhile. While the ledger is built, a shard can store at most
/// the one checkpoint that the ledger was ready for.
const FOLDS_MAX: u32 = 10;
/// Pause before a shard is looked at again that stores a checkpoint.
const FOLD_AGAIN: Duration = Duration::from_millis(200);

/// Of all shards. Those of which it fails keep the rows that they had.
pub(super) async fn of_all_nodes(parts: &Parts) -> Result<v1::RebuildLedgerResponse, Status> {
    let known = parts.known().await?;
    let there = try_join_all(others(parts, &known).map(|member| of_other(parts, member)));
    let (here, there) = tokio::try_join!(of_this_node(parts), there)?;
    let mut all = v1::RebuildLedgerResponse::default();
    for part in there.into_iter().chain([here]) {
        all.entries += part.entries;
        all.runs += part.runs;
        all.shards.extend(part.shards);
    }
    let built: BTreeSet<u32> = all.shards.iter().copied().collect();
    let shards = 0..parts.links.mailboxes().len() as u32;
    let left: Vec<String> =
        shards.filter(|shard| !built.contains(shard)).map(|shard| shard.to_string()).collect();
    if left.is_empty() {
        return Ok(all);
    }
    let left = left.join(", ");
    Err(Status::unavailable(format!(
        "shards {left} are on their way between nodes and were not built anew; run `kapell ledger rebuild` again"
    )))
}

async fn of_other(parts: &Parts, member: &Member) -> Result<v1::RebuildLedgerResponse, Status> {
    let request = v1::RebuildLedgerRequest { this_node_only: true };
    let answer = ask(parts, member, |mut node| async move { node.rebuild_ledger(request).await }).await;
    answer.map_err(|error| {
        Status::unavailable(format!(
            "node `{}` at {} did not build its part: {error}; run `kapell ledger rebuild` again",
            member.node, member.address
        ))
    })
}

/// Of the shards that this node owns all the while.
pub(super) async fn of_this_node(parts: &Parts) -> Result<v1::RebuildLedgerResponse, Status> {
    let mut answer = v1::RebuildLedgerResponse::default();
    for shard in admin::here(parts) {
        let Some(rebuilt) = of_shard(parts, ShardId(shard as u16)).await? else { continue };
        answer.entries += rebuilt.entries;
        answer.runs += rebuilt.runs;
        answer.shards.push(shard as u32);
    }
    Ok(answer)
}

struct Built {
    entries: u64,
    runs: u64,
}

/// `None`: the shard went to another node.
async fn of_shard(parts: &Parts, shard: ShardId) -> Result<Option<Built>, Status> {
    let _alone = parts.links.ledger.write().await;
    let found = parts.ledger.contained(shard).await.map_err(|error| status::of_ledger(&error))?;
    let Some(Rebuilt { entries, through, runs }) = fold(parts, shard).await? else { return Ok(None) };
    let built = Built { entries, runs: runs.len() as u64 };
    let stored = parts.ledger.replace(Rebuild { shard, found, through, runs }).await;
    stored.map_err(|error| status::of_ledger(&error))?;
    Ok(Some(built))
}

/// Folds every run that the journal still holds, as of one checkpoint. `None`: the shard went to another node.
async fn fold(parts: &Parts, shard: ShardId) -> Result<Option<Rebuilt>, Status> {
    for _ in 0..FOLDS_MAX {
        if !parts.peers.is_here(shard) {
            return Ok(None);
        }
        if let Some(before) = checkpointed(parts, shard).await {
            let rebuilt = rebuild(parts.journal.as_ref(), &parts.definitions, shard, before).await;
            let rebuilt = rebuilt.map_err(|error| not_folded(&error))?;
            if rebuilt.is_some() && checkpointed(parts, shard).await == Some(before) {
                return Ok(rebuilt);
            }
        }
        tokio::time::sleep(FOLD_AGAIN).await;
    }
    let text = format!("shard {shard} is storing checkpoints; run `kapell ledger rebuild` again");
    Err(Status::unavailable(text))
}

fn not_folded(error: &LoadError) -> Status {
    let text = format!("{}; the ledger keeps the rows that it had", with_causes(error));
    if error.may_pass() { Status::unavailable(text) } else { Status::data_loss(text) }
}

/// What the shard's checkpoint covers, if that is not changing.
async fn checkpointed(parts: &Parts, shard: ShardId) -> Option<Seq> {
    admin::stats(parts, usize::from(shard.0)).await.and_then(|(stats, _)| stats.checkpointed)
}
