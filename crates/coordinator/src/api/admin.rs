//! What operators ask of a node.
use std::time::Duration;

use futures::future::join_all;
use kapell_cluster::NodeName;
use kapell_model::{RunId, ShardId};
use kapell_proto::v1;
use kapell_wire::task::{CallKey, TaskKey};
use tokio::sync::oneshot;
use tonic::{Request as GrpcRequest, Response, Status};

use super::others::{ask, others};
use super::{Parts, backlog, rebuild, status};
use crate::answer::replying;
use crate::calls::CallMessage;
use crate::dispatch::{DispatchMessage, RESTART, Stuck};
use crate::placement::{preferred, staying};
use crate::shard::{Audit, Request, Stats, SubmitError};

/// What operators ask of a node.
pub(super) struct Admin(pub(super) Parts);

#[tonic::async_trait]
impl v1::admin_service_server::AdminService for Admin {
    async fn ping(&self, _: GrpcRequest<v1::StatusRequest>) -> Result<Response<v1::PingResponse>, Status> {
        Ok(Response::new(v1::PingResponse {}))
    }

    async fn status(
        &self,
        _: GrpcRequest<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        node_status(&self.0).await.map(Response::new)
    }

    async fn doctor(
        &self,
        request: GrpcRequest<v1::DoctorRequest>,
    ) -> Result<Response<v1::DoctorResponse>, Status> {
        let mut answer = doctor(&self.0).await?;
        if !request.into_inner().this_node_only {
            ask_others(&self.0, &mut answer).await?;
        }
        Ok(Response::new(answer))
    }

    async fn cluster(
        &self,
        _: GrpcRequest<v1::ClusterRequest>,
    ) -> Result<Response<v1::ClusterResponse>, Status> {
        cluster(&self.0).await.map(Response::new)
    }

    async fn backlog(
        &self,
        request: GrpcRequest<v1::BacklogRequest>,
    ) -> Result<Response<v1::BacklogResponse>, Status> {
        let skills = if request.into_inner().this_node_only {
            backlog::of_this_node(&self.0).await?
        } else {
            backlog::of_all_nodes(&self.0).await?
        };
        Ok(Response::new(v1::BacklogResponse { skills }))
    }

    async fn rebuild_ledger(
        &self,
        request: GrpcRequest<v1::RebuildLedgerRequest>,
    ) -> Result<Response<v1::RebuildLedgerResponse>, Status> {
        let built = if request.into_inner().this_node_only {
            rebuild::of_this_node(&self.0).await?
        } else {
            rebuild::of_all_nodes(&self.0).await?
        };
        Ok(Response::new(built))
    }
}

/// Time to find out how far the ledger is behind.
const BEHIND_WAIT_MAX: Duration = Duration::from_secs(1);

pub(super) async fn stats(parts: &Parts, shard: usize) -> Option<(Stats, usize)> {
    let mailbox = parts.links.mailboxes().get(shard)?;
    let (reply, answered) = oneshot::channel();
    mailbox.submit(Request::Stats(replying(reply))).await;
    Some((answered.await.ok()?, mailbox.waiting()))
}

/// Entries that the ledger has not seen yet, of the shards that say so in time.
pub(super) async fn behind(parts: &Parts) -> u64 {
    // A shard that nobody owns would keep the question until somebody does.
    let owned =
        (0..parts.links.mailboxes().len()).filter(|shard| parts.peers.is_owned(ShardId(*shard as u16)));
    let asked = owned.map(|shard| tokio::time::timeout(BEHIND_WAIT_MAX, stats(parts, shard)));
    let answered = join_all(asked).await;
    answered.into_iter().filter_map(|stats| stats.ok().flatten()).map(|(stats, _)| stats.behind).sum()
}

/// The shards of this node.
pub(super) fn here(parts: &Parts) -> impl Iterator<Item = usize> + use<'_> {
    (0..parts.links.mailboxes().len()).filter(|shard| parts.peers.is_here(ShardId(*shard as u16)))
}

async fn node_status(parts: &Parts) -> Result<v1::StatusResponse, Status> {
    let mut answer = v1::StatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: parts.node.to_string(),
        uptime_ms: parts.started.until(parts.runtime.clock.now()).as_millis() as u64,
        revision: parts.definitions.in_force().revision,
        sources: parts.sources.status(),
        ..v1::StatusResponse::default()
    };
    for shard in here(parts) {
        let Some((stats, waiting)) = stats(parts, shard).await else { continue };
        answer.open_approvals += stats.approvals;
        answer.ledger_behind += stats.behind;
        answer.shards.push(v1::ShardStatus {
            shard: shard as u32,
            epoch: stats.epoch,
            last_seq: stats.last,
            live_runs: stats.live,
            queued_commands: waiting as u64,
            checkpointed_seq: stats.checkpointed.map(|through| through.0),
        });
    }
    let (reply, tasks) = oneshot::channel();
    parts.links.tell_dispatch(DispatchMessage::Status(reply));
    if let Ok(tasks) = tasks.await {
        answer.workers = tasks.workers;
        answer.queued_tasks = tasks.queued;
    }
    let (reply, connectors) = oneshot::channel();
    parts.links.tell_calls(CallMessage::Status(reply));
    answer.connectors = connectors.await.unwrap_or_default();
    Ok(answer)
}

async fn cluster(parts: &Parts) -> Result<v1::ClusterResponse, Status> {
    let known = parts.known().await?;
    let members = known.members.values().map(|member| v1::ClusterMember {
        node: member.node.to_string(),
        address: member.address.clone(),
        version: member.version.clone(),
        leaving: member.leaving,
    });
    let shards = (0..parts.links.mailboxes().len()).map(|shard| {
        let id = ShardId(shard as u16);
        let owner = known.owners.get(&id);
        v1::ShardOwner {
            shard: shard as u32,
            preferred: preferred(id, staying(&known.members)).map_or_else(String::new, NodeName::to_string),
            node: owner.map_or_else(String::new, |owner| owner.node.to_string()),
            epoch: owner.map_or(0, |owner| owner.epoch.0),
        }
    });
    Ok(v1::ClusterResponse {
        node: parts.node.to_string(),
        joined: known.joined,
        members: members.collect(),
        shards: shards.collect(),
    })
}

/// Adds what other nodes find in their shards, and what nobody can look at.
async fn ask_others(parts: &Parts, answer: &mut v1::DoctorResponse) -> Result<(), Status> {
    let known = parts.known().await?;
    for member in others(parts, &known) {
        let request = v1::DoctorRequest { this_node_only: true };
        match ask(parts, member, |mut node| async move { node.doctor(request).await }).await {
            Ok(found) => {
                answer.findings.extend(found.findings);
                answer.runs_checked += found.runs_checked;
                answer.orders_checked += found.orders_checked;
            }
            Err(error) => answer.findings.push(v1::Finding {
                kind: "unreachable".to_owned(),
                run: String::new(),
                text: format!("node `{}` at {} does not answer: {error}", member.node, member.address),
                hint: "start it again, or wait until its lease ends and others take its shards".to_owned(),
            }),
        }
    }
    let nobody = (0..parts.links.mailboxes().len()).map(|shard| ShardId(shard as u16));
    let nobody: Vec<String> =
        nobody.filter(|shard| !known.owners.contains_key(shard)).map(|shard| shard.to_string()).collect();
    if !nobody.is_empty() {
        answer.findings.push(v1::Finding {
            kind: "unowned".to_owned(),
            run: String::new(),
            text: format!("nobody owns shards {}", nobody.join(", ")),
            hint: "they are on their way for a few seconds at most; see `kapell cluster status`".to_owned(),
        });
    }
    Ok(())
}

/// What is outstanding is looked at twice: work on its way between two desks looks lost for a moment.
async fn doctor(parts: &Parts) -> Result<v1::DoctorResponse, Status> {
    let first = examine(parts).await?;
    if first.findings.is_empty() {
        return Ok(first);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut second = examine(parts).await?;
    second.findings.retain(|finding| first.findings.contains(finding));
    Ok(second)
}

async fn examine(parts: &Parts) -> Result<v1::DoctorResponse, Status> {
    let mut answer = v1::DoctorResponse::default();
    for shard in here(parts) {
        let Some(mailbox) = parts.links.mailboxes().get(shard) else { continue };
        let (reply, answered) = oneshot::channel::<Audit>();
        mailbox.submit(Request::Audit(replying(reply))).await;
        let audit = answered.await.map_err(|_| status::of_submit(&SubmitError::Unavailable))?;
        answer.runs_checked += audit.runs;
        answer.orders_checked += audit.orders;
        let broken = audit.broken.iter().map(|(run, what)| finding("invariant", run, what));
        answer.findings.extend(broken);
        let undriven = audit
            .undriven
            .iter()
            .map(|(run, order)| finding("undriven", run, &format!("nobody drives {order}")));
        answer.findings.extend(undriven);
        let tasks = audit.tasks.iter().map(|(run, unit, attempt)| TaskKey {
            run: *run,
            unit: *unit,
            attempt: *attempt,
        });
        let stuck = stuck_tasks(parts, tasks.collect()).await;
        answer.findings.extend(stuck.iter().map(|stuck| of_stuck(&stuck.key.run, stuck)));
        let calls = audit.calls.iter().map(|(run, unit, no, attempt)| CallKey {
            run: *run,
            unit: *unit,
            no: *no,
            attempt: *attempt,
        });
        let stuck = stuck_calls(parts, calls.collect()).await;
        answer.findings.extend(stuck.iter().map(|stuck| of_stuck(&stuck.key.run, stuck)));
    }
    Ok(answer)
}

async fn stuck_tasks(parts: &Parts, keys: Vec<TaskKey>) -> Vec<Stuck<TaskKey>> {
    let (reply, stuck) = oneshot::channel();
    parts.links.tell_dispatch(DispatchMessage::Stuck(keys, reply));
    stuck.await.unwrap_or_default()
}

async fn stuck_calls(parts: &Parts, keys: Vec<CallKey>) -> Vec<Stuck<CallKey>> {
    let (reply, stuck) = oneshot::channel();
    parts.links.tell_calls(CallMessage::Stuck(keys, reply));
    stuck.await.unwrap_or_default()
}

fn of_stuck<K>(run: &RunId, stuck: &Stuck<K>) -> v1::Finding {
    finding_with(stuck.grip.as_str(), run, &stuck.what, stuck.todo)
}

fn finding(kind: &str, run: &RunId, text: &str) -> v1::Finding {
    finding_with(kind, run, text, RESTART)
}

fn finding_with(kind: &str, run: &RunId, text: &str, todo: &str) -> v1::Finding {
    v1::Finding {
        kind: kind.to_owned(),
        run: run.to_string(),
        text: text.to_owned(),
        hint: format!("{todo}; `kapell run explain {run}` tells the run's story"),
    }
}
