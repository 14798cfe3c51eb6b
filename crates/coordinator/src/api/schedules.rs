//! Schedules: what they have done and what comes next.
use std::time::Duration;

use futures::future::try_join_all;
use kapell_model::{Name, ShardId};
use kapell_proto::v1;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::{Request as GrpcRequest, Response, Status};

use super::{Parts, status};
use crate::answer::replying;
use crate::shard::{Request, SubmitError};

/// Time for the shards to say what their schedules do. One without an owner would keep the question until it has one.
const LIST_WAIT_MAX: Duration = Duration::from_secs(5);

/// Schedules: what they have done and what comes next.
pub(super) struct Schedules(pub(super) Parts);

#[tonic::async_trait]
impl v1::schedule_service_server::ScheduleService for Schedules {
    async fn list(
        &self,
        request: GrpcRequest<v1::ListSchedulesRequest>,
    ) -> Result<Response<v1::ListSchedulesResponse>, Status> {
        let namespace = status::namespace(&request.into_inner().namespace)?;
        let shards = (0..self.0.links.mailboxes().len()).map(|shard| ShardId(shard as u16));
        let asked = shards.map(|shard| of_shard(&self.0, shard, &namespace));
        let mut schedules: Vec<v1::Schedule> = try_join_all(asked).await?.into_iter().flatten().collect();
        schedules.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Response::new(v1::ListSchedulesResponse { schedules }))
    }
}

/// Asks the shard, wherever it is. A list without the schedules of one shard would be taken for all of them.
async fn of_shard(parts: &Parts, shard: ShardId, namespace: &Name) -> Result<Vec<v1::Schedule>, Status> {
    let Some(mailbox) = parts.links.shard(shard) else { return Ok(Vec::new()) };
    let (reply, answered) = oneshot::channel();
    let asked = async {
        mailbox.submit(Request::Schedules(namespace.clone(), replying(reply))).await;
        answered.await.map_err(|_| status::of_submit(&SubmitError::Unavailable))
    };
    timeout(LIST_WAIT_MAX, asked).await.unwrap_or_else(|_| {
        let text = format!("shard {shard} does not answer; `kapell cluster status` says who owns it");
        Err(Status::unavailable(text))
    })
}
