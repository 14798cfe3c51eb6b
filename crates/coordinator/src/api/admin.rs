//! What operators ask of a node.
use kapell_model::{RunId, Seq, ShardId};
use kapell_proto::v1;
use kapell_wire::task::{CallKey, TaskKey};
use tokio::sync::oneshot;
use tonic::{Request as GrpcRequest, Response, Status};

use super::{Parts, status};
use crate::answer::replying;
use crate::calls::CallMessage;
use crate::dispatch::{DispatchMessage, RESTART, Stuck};
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
        _: GrpcRequest<v1::DoctorRequest>,
    ) -> Result<Response<v1::DoctorResponse>, Status> {
        doctor(&self.0).await.map(Response::new)
    }

    async fn rebuild_ledger(
        &self,
        _: GrpcRequest<v1::RebuildLedgerRequest>,
    ) -> Result<Response<v1::RebuildLedgerResponse>, Status> {
        rebuild(&self.0).await.map(Response::new)
    }
}

async fn stats(parts: &Parts, shard: usize) -> Option<(Stats, usize)> {
    let mailbox = parts.links.mailboxes().get(shard)?;
    let (reply, answered) = oneshot::channel();
    mailbox.submit(Request::Stats(replying(reply))).await;
    Some((answered.await.ok()?, mailbox.waiting()))
}

/// Entries that the ledger has not seen yet.
pub(super) async fn behind(parts: &Parts) -> u64 {
    let mut behind = 0;
    for shard in 0..parts.links.mailboxes().len() {
        behind += stats(parts, shard).await.map_or(0, |(stats, _)| stats.behind);
    }
    behind
}

async fn node_status(parts: &Parts) -> Result<v1::StatusResponse, Status> {
    let mut answer = v1::StatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: parts.node.to_string(),
        uptime_ms: parts.started.until(parts.runtime.clock.now()).as_millis() as u64,
        revision: parts.definitions.in_force().revision,
        ..v1::StatusResponse::default()
    };
    for shard in 0..parts.links.mailboxes().len() {
        let Some((stats, waiting)) = stats(parts, shard).await else { continue };
        answer.open_approvals += stats.approvals;
        answer.ledger_behind += stats.behind;
        answer.shards.push(v1::ShardStatus {
            shard: shard as u32,
            epoch: stats.epoch,
            last_seq: stats.last,
            live_runs: stats.live,
            queued_commands: waiting as u64,
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

/// What is outstanding is looked at twice: work on its way between two desks looks lost for a moment.
async fn doctor(parts: &Parts) -> Result<v1::DoctorResponse, Status> {
    let first = examine(parts).await?;
    if first.findings.is_empty() {
        return Ok(first);
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let mut second = examine(parts).await?;
    second.findings.retain(|finding| first.findings.contains(finding));
    Ok(second)
}

async fn examine(parts: &Parts) -> Result<v1::DoctorResponse, Status> {
    let mut answer = v1::DoctorResponse::default();
    for mailbox in parts.links.mailboxes() {
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

/// Folds every run that the journal still holds and writes its row.
async fn rebuild(parts: &Parts) -> Result<v1::RebuildLedgerResponse, Status> {
    let _alone = parts.links.ledger.write().await;
    parts.ledger.reset().await.map_err(|error| status::of_ledger(&error))?;
    let mut answer = v1::RebuildLedgerResponse::default();
    for shard in 0..parts.links.mailboxes().len() {
        let shard = ShardId(shard as u16);
        let rebuilt = crate::shard::rebuild(parts.journal.as_ref(), &parts.definitions, shard)
            .await
            .map_err(|error| Status::data_loss(error.to_string()))?;
        answer.entries += rebuilt.entries;
        answer.runs += rebuilt.batch.runs.len() as u64;
        if rebuilt.batch.through > Seq::ZERO {
            parts.ledger.apply(rebuilt.batch).await.map_err(|error| status::of_ledger(&error))?;
        }
    }
    Ok(answer)
}
