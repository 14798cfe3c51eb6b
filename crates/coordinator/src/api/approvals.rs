//! Questions that people answer.
use kapell_kernel::{ApprovalAnswer, Command};
use kapell_ledger::{ApprovalQuery, ApprovalRow, Cursor, PAGE_MAX, RunRow};
use kapell_model::Json;
use kapell_proto::v1;
use tonic::{Request, Response, Status};

use super::{Parts, runs, status};
use crate::shard::parse_approval_id;

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
        let approvals = page.rows.iter().map(|(run, approval)| shown(run, approval)).collect();
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
        let (by, reason) = (status::by(&request.by), request.reason.into());
        let answer = ApprovalAnswer { approved: request.approved, by, reason, result };
        let state = runs::steer(&self.0, run, Command::DecideApproval { key, answer }).await?;
        Ok(Response::new(v1::DecideApprovalResponse { run: state.id }))
    }
}

fn shown(run: &RunRow, approval: &ApprovalRow) -> v1::Approval {
    v1::Approval {
        id: format!("{}:{}", run.run, approval.key),
        run: run.run.to_string(),
        workflow: run.workflow.to_string(),
        step: approval.step.clone(),
        kind: approval.kind.clone(),
        ask: approval.ask.clone(),
        show: approval.show.to_string(),
        asked_ms: 0,
        expires_ms: approval.expires.and_then(|at| i64::try_from(at.0).ok()),
    }
}
