//! Schedules: what they have done and what comes next.
use kapell_proto::v1;
use tokio::sync::oneshot;
use tonic::{Request as GrpcRequest, Response, Status};

use super::{Parts, status};
use crate::answer::replying;
use crate::shard::{Request, SubmitError};

/// Schedules: what they have done and what comes next.
pub(super) struct Schedules(pub(super) Parts);

#[tonic::async_trait]
impl v1::schedule_service_server::ScheduleService for Schedules {
    async fn list(
        &self,
        request: GrpcRequest<v1::ListSchedulesRequest>,
    ) -> Result<Response<v1::ListSchedulesResponse>, Status> {
        let namespace = status::namespace(&request.into_inner().namespace)?;
        let mut schedules = Vec::new();
        for mailbox in self.0.links.mailboxes() {
            let (reply, answered) = oneshot::channel();
            mailbox.submit(Request::Schedules(namespace.clone(), replying(reply))).await;
            schedules.extend(answered.await.map_err(|_| status::of_submit(&SubmitError::Unavailable))?);
        }
        schedules.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Response::new(v1::ListSchedulesResponse { schedules }))
    }
}
