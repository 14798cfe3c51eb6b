//! Questions that people answer.
use std::collections::{BTreeMap, BTreeSet};

use kapell_kernel::{ApprovalAnswer, Command};
use kapell_ledger::{ApprovalQuery, ApprovalRow, Cursor, PAGE_MAX, RunRow};
use kapell_model::{Json, RunId, ShardId, Timestamp};
use kapell_proto::v1;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::{Parts, runs, status};
use crate::answer::replying;
use crate::shard::{AskedSince, Request as ShardRequest, approval_key_text, parse_approval_id};

/// Questions that people answer.
pub(super) struct Approvals(pub(super) Parts);

#[tonic::async_trait]
impl v1::approval_service_server::ApprovalService for Approvals {
    async fn list(
        &self,
        request: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
        let request = request.into_inner();
        let run = match request.run.as_str() {
            "" => None,
            text => Some(status::run(text)?),
        };
        let query = ApprovalQuery {
            namespace: Some(status::namespace(&request.namespace)?),
            run,
            cursor: (!request.cursor.is_empty()).then_some(Cursor(request.cursor)),
            limit: match request.limit as usize {
                0 => 50,
                limit => limit.min(PAGE_MAX),
            },
        };
        let page = self.0.ledger.approvals(query).await.map_err(|error| status::of_ledger(&error))?;
        let since = since(&self.0, &page.rows).await;
        let asked = |run: RunId, key: &str| since.get(&(run, key.to_owned())).copied().unwrap_or_default();
        let shown = |(run, one): &(RunRow, ApprovalRow)| shown(run, one, asked(run.run, &one.key));
        let approvals = page.rows.iter().map(shown).collect();
        let next_cursor = page.next.map_or_else(String::new, |cursor| cursor.0);
        Ok(Response::new(v1::ListApprovalsResponse { approvals, next_cursor }))
    }

    async fn decide(
        &self,
        request: Request<v1::DecideApprovalRequest>,
    ) -> Result<Response<v1::DecideApprovalResponse>, Status> {
        let request = request.into_inner();
        let (run, key) = parse_approval_id(&request.id).ok_or_else(|| {
            let text = format!("`{}` names no question; take an id from `kapell approvals`", request.id);
            Status::invalid_argument(text)
        })?;
        let result = match request.result.as_str() {
            "" => None,
            text => Some(
                Json::parse(text).map_err(|error| Status::invalid_argument(format!("result: {error}")))?,
            ),
        };
        let (by, reason) = (status::by(&request.by)?, status::words("reason", &request.reason)?);
        let answer = ApprovalAnswer { approved: request.approved, by, reason, result };
        let state = runs::steer(&self.0, run, Command::DecideApproval { key, answer }).await?;
        Ok(Response::new(v1::DecideApprovalResponse { run: state.id }))
    }
}

/// Since when each is asked, in milliseconds. The shards know; a question that they do not know is answered by now.
async fn since(parts: &Parts, rows: &[(RunRow, ApprovalRow)]) -> BTreeMap<(RunId, String), i64> {
    let mut by_shard: BTreeMap<ShardId, BTreeSet<RunId>> = BTreeMap::new();
    for (run, _) in rows {
        by_shard.entry(run.run.shard()).or_default().insert(run.run);
    }
    let mut all = BTreeMap::new();
    for (shard, runs) in by_shard {
        let mailbox = parts.links.shard(shard).filter(|_| parts.peers.is_here(shard));
        // A shard of another node does not say: how long a question waits is not worth a refusal.
        let Some(mailbox) = mailbox else { continue };
        let (reply, answered) = oneshot::channel::<Vec<AskedSince>>();
        mailbox.submit(ShardRequest::Asked(runs.into_iter().collect(), replying(reply))).await;
        let asked = answered.await.unwrap_or_default();
        let millis = |at: Timestamp| i64::try_from(at.0).unwrap_or(i64::MAX);
        all.extend(asked.iter().map(|(run, key, since)| ((*run, approval_key_text(key)), millis(*since))));
    }
    all
}

fn shown(run: &RunRow, approval: &ApprovalRow, asked_ms: i64) -> v1::Approval {
    v1::Approval {
        id: format!("{}:{}", run.run, approval.key),
        run: run.run.to_string(),
        workflow: run.workflow.to_string(),
        step: approval.step.clone(),
        kind: approval.kind.clone(),
        ask: approval.ask.clone(),
        show: approval.show.to_string(),
        asked_ms,
        expires_ms: approval.expires.and_then(|at| i64::try_from(at.0).ok()),
    }
}
