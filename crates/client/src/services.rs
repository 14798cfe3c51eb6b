//! The services: one method a request.
//!
//! Owns: which request may be sent twice. Never: changes an answer.
use std::time::Duration;

use kapell_proto::v1;
use kapell_runtime::{Entropy as _, SystemEntropy};
use tokio::time::{Instant, sleep};
use v1::admin_service_client::AdminServiceClient;
use v1::approval_service_client::ApprovalServiceClient;
use v1::event_service_client::EventServiceClient;
use v1::resource_service_client::ResourceServiceClient;
use v1::run_service_client::RunServiceClient;
use v1::schedule_service_client::ScheduleServiceClient;

use crate::ClientError;
use crate::link::{ANSWER_BYTES_MAX, Link};
use crate::retry::{Repeat, backoff};
use crate::starter::Starter;

/// Sends one request of a service, again and again as `$repeat` allows.
macro_rules! ask {
    ($link:expr, $repeat:expr, $service:ident :: $method:ident ( $request:expr )) => {{
        let request = $request;
        $link
            .ask($repeat, |channel| {
                let request = request.clone();
                async move {
                    $service::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).$method(request).await
                }
            })
            .await
    }};
}

/// Runs: start, look, steer.
#[derive(Clone, Debug)]
pub struct Runs(pub(crate) Link);

impl Runs {
    /// Starts a run. Without a `request_id` it is given one, so that it starts once even when the request has to be
    /// sent twice. With `wait_ms` the time to wait comes on top of the deadline.
    pub async fn start(&self, mut request: v1::StartRunRequest) -> Result<v1::StartRunResponse, ClientError> {
        name(&mut request.request_id);
        let wait = Duration::from_millis(request.wait_ms.unwrap_or_default());
        self.0
            .ask_waiting(wait, Repeat::Harmless, |channel| {
                let request = request.clone();
                async move {
                    RunServiceClient::new(channel)
                        .max_decoding_message_size(ANSWER_BYTES_MAX)
                        .start(request)
                        .await
                }
            })
            .await
    }

    /// Starts runs for many callers over one stream.
    #[must_use]
    pub fn starter(&self) -> Starter {
        Starter::new(&self.0)
    }

    /// One run, as fresh as it is.
    pub async fn get(&self, run: &str) -> Result<v1::Run, ClientError> {
        ask!(self.0, Repeat::Harmless, RunServiceClient::get(named(run)))
    }

    /// A page of runs, newest first.
    pub async fn list(&self, request: v1::ListRunsRequest) -> Result<v1::ListRunsResponse, ClientError> {
        ask!(self.0, Repeat::Harmless, RunServiceClient::list(request))
    }

    /// The run now, and after every change until it has ended.
    pub async fn watch(&self, run: &str) -> Result<RunChanges, ClientError> {
        ask!(self.0, Repeat::Harmless, RunServiceClient::watch(named(run))).map(RunChanges)
    }

    /// What happened, entry by entry, with reasons.
    pub async fn explain(&self, run: &str) -> Result<v1::ExplainResponse, ClientError> {
        ask!(self.0, Repeat::Harmless, RunServiceClient::explain(named(run)))
    }

    /// Folds the run's journal anew and compares it with the live state.
    pub async fn replay(&self, run: &str) -> Result<v1::ReplayResponse, ClientError> {
        ask!(self.0, Repeat::HarmlessAndLong, RunServiceClient::replay(named(run)))
    }

    /// Gives an event to this run alone. Without a `request_id`, here and below, a request is given one, so that it is
    /// done once even when it has to be sent twice.
    pub async fn signal(&self, mut request: v1::SignalRequest) -> Result<v1::Run, ClientError> {
        name(&mut request.request_id);
        ask!(self.0, Repeat::Harmless, RunServiceClient::signal(request))
    }

    /// Ends a run early.
    pub async fn cancel(&self, mut request: v1::CancelRequest) -> Result<v1::Run, ClientError> {
        name(&mut request.request_id);
        ask!(self.0, Repeat::Harmless, RunServiceClient::cancel(request))
    }

    /// Holds a run.
    pub async fn pause(&self, mut request: v1::SteerRequest) -> Result<v1::Run, ClientError> {
        name(&mut request.request_id);
        ask!(self.0, Repeat::Harmless, RunServiceClient::pause(request))
    }

    /// Lets a paused run go on.
    pub async fn resume(&self, mut request: v1::SteerRequest) -> Result<v1::Run, ClientError> {
        name(&mut request.request_id);
        ask!(self.0, Repeat::Harmless, RunServiceClient::resume(request))
    }

    /// Tries the failed steps of an ended run again.
    pub async fn retry(&self, mut request: v1::SteerRequest) -> Result<v1::Run, ClientError> {
        name(&mut request.request_id);
        ask!(self.0, Repeat::Harmless, RunServiceClient::retry(request))
    }
}

/// By this name the same request is known when it comes again.
pub(crate) fn name(request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = format!("{:032x}", SystemEntropy.next_u128());
    }
}

fn named(run: &str) -> v1::GetRunRequest {
    v1::GetRunRequest { run: run.to_owned() }
}

/// A run after each of its changes.
#[derive(Debug)]
pub struct RunChanges(tonic::Streaming<v1::Run>);

impl RunChanges {
    /// The run after its next change; `None`: it has ended, or the coordinator closed the stream.
    pub async fn next(&mut self) -> Result<Option<v1::Run>, ClientError> {
        Ok(self.0.message().await?)
    }
}

/// Events in.
#[derive(Clone, Debug)]
pub struct Events(pub(crate) Link);

impl Events {
    /// Publishes events. An event is known by its source and id, so sending it twice is harmless; those that were
    /// refused for now are sent again until the deadline.
    pub async fn publish(&self, request: v1::PublishRequest) -> Result<v1::PublishResponse, ClientError> {
        let end = Instant::now() + self.0.deadline;
        let mut answer = ask!(self.0, Repeat::Harmless, EventServiceClient::publish(request.clone()))?;
        let mut tries = 0;
        loop {
            let Some((again, hint)) = refused_for_now(&answer) else { return Ok(answer) };
            let pause = hint.max(backoff(tries));
            if Instant::now() + pause >= end {
                return Ok(answer);
            }
            sleep(pause).await;
            let events = again.iter().filter_map(|at| request.events.get(*at).cloned()).collect();
            let part = v1::PublishRequest { namespace: request.namespace.clone(), events };
            let results = ask!(self.0, Repeat::Harmless, EventServiceClient::publish(part))?.results;
            for (at, result) in again.into_iter().zip(results) {
                answer.results[at] = result;
            }
            tries += 1;
        }
    }
}

/// Places of the events that may be sent again, and the longest time that one of them asks for.
fn refused_for_now(answer: &v1::PublishResponse) -> Option<(Vec<usize>, Duration)> {
    let hint =
        |result: &v1::PublishResult| result.refusal.as_ref().and_then(|refusal| refusal.retry_after_ms);
    let places: Vec<usize> =
        (0..).zip(&answer.results).filter(|(_, result)| hint(result).is_some()).map(|(at, _)| at).collect();
    let longest = answer.results.iter().filter_map(hint).max()?;
    Some((places, Duration::from_millis(longest)))
}

/// Questions that people answer.
#[derive(Clone, Debug)]
pub struct Approvals(pub(crate) Link);

impl Approvals {
    /// A page of open questions.
    pub async fn list(
        &self,
        request: v1::ListApprovalsRequest,
    ) -> Result<v1::ListApprovalsResponse, ClientError> {
        ask!(self.0, Repeat::Harmless, ApprovalServiceClient::list(request))
    }

    /// Answers a question.
    pub async fn decide(
        &self,
        request: v1::DecideApprovalRequest,
    ) -> Result<v1::DecideApprovalResponse, ClientError> {
        ask!(self.0, Repeat::OnlyIfRefused, ApprovalServiceClient::decide(request))
    }
}

/// Definitions.
#[derive(Clone, Debug)]
pub struct Resources(pub(crate) Link);

impl Resources {
    /// Applies files together. What is wrong with them is in the answer, it is no error of the request.
    pub async fn apply(&self, request: v1::ApplyRequest) -> Result<v1::ApplyResponse, ClientError> {
        ask!(self.0, Repeat::HarmlessAndLong, ResourceServiceClient::apply(request))
    }

    /// Stored definitions.
    pub async fn get(
        &self,
        request: v1::GetResourcesRequest,
    ) -> Result<v1::GetResourcesResponse, ClientError> {
        ask!(self.0, Repeat::Harmless, ResourceServiceClient::get(request))
    }

    /// Deletes one definition.
    pub async fn delete(
        &self,
        request: v1::DeleteResourceRequest,
    ) -> Result<v1::DeleteResourceResponse, ClientError> {
        ask!(self.0, Repeat::OnlyIfRefused, ResourceServiceClient::delete(request))
    }
}

/// What schedules have done and what comes next.
#[derive(Clone, Debug)]
pub struct Schedules(pub(crate) Link);

impl Schedules {
    /// The schedules of a namespace, in order of their names.
    pub async fn list(&self, namespace: &str) -> Result<v1::ListSchedulesResponse, ClientError> {
        let request = v1::ListSchedulesRequest { namespace: namespace.to_owned() };
        ask!(self.0, Repeat::Harmless, ScheduleServiceClient::list(request))
    }
}

/// What operators ask of a node.
#[derive(Clone, Debug)]
pub struct Admin(pub(crate) Link);

impl Admin {
    /// Who is connected and how much is going on.
    pub async fn status(&self) -> Result<v1::StatusResponse, ClientError> {
        ask!(self.0, Repeat::Harmless, AdminServiceClient::status(v1::StatusRequest::default()))
    }

    /// Checks that no work is stuck.
    pub async fn doctor(&self) -> Result<v1::DoctorResponse, ClientError> {
        ask!(self.0, Repeat::HarmlessAndLong, AdminServiceClient::doctor(v1::DoctorRequest::default()))
    }

    /// Which nodes there are and who owns which shard.
    pub async fn cluster(&self) -> Result<v1::ClusterResponse, ClientError> {
        ask!(self.0, Repeat::Harmless, AdminServiceClient::cluster(v1::ClusterRequest {}))
    }

    /// Tasks that workers have to do, in the whole cluster, by skill.
    pub async fn backlog(&self) -> Result<v1::BacklogResponse, ClientError> {
        ask!(self.0, Repeat::Harmless, AdminServiceClient::backlog(v1::BacklogRequest::default()))
    }

    /// Builds the ledger anew from the journal, in the whole cluster.
    pub async fn rebuild_ledger(&self) -> Result<v1::RebuildLedgerResponse, ClientError> {
        ask!(
            self.0,
            Repeat::HarmlessAndLong,
            AdminServiceClient::rebuild_ledger(v1::RebuildLedgerRequest::default())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(retry_after_ms: Option<u64>) -> v1::PublishResult {
        let (code, message) = ("busy".to_owned(), "the shard is busy".to_owned());
        v1::PublishResult {
            refusal: Some(v1::Refusal { code, message, retry_after_ms }),
            ..v1::PublishResult::default()
        }
    }

    #[test]
    fn only_events_that_were_refused_for_now_are_sent_again() {
        let results = vec![v1::PublishResult::default(), result(Some(200)), result(None), result(Some(900))];
        let again = refused_for_now(&v1::PublishResponse { results });
        assert_eq!(again, Some((vec![1, 3], Duration::from_millis(900))));
    }

    #[test]
    fn a_final_refusal_is_an_answer() {
        let results = vec![v1::PublishResult::default(), result(None)];
        assert_eq!(refused_for_now(&v1::PublishResponse { results }), None);
    }
}
