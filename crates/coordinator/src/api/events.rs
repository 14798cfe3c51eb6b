//! Events in, by gRPC.
use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use kapell_model::Name;
use kapell_proto::v1;
use kapell_wire::cloud_event::{BATCH_EVENTS_MAX, BadEvent, Event};
use tonic::{Request, Response, Status, Streaming};

use super::{Parts, status};
use crate::ingest::{Accepted, Refused};
use crate::shard::SubmitError;

/// Takes events.
pub(super) struct Events(pub(super) Parts);

/// Requests of one stream that are worked on at once.
const STREAM_REQUESTS_MAX: usize = 64;

#[tonic::async_trait]
impl v1::event_service_server::EventService for Events {
    type PublishStreamStream = Pin<Box<dyn Stream<Item = Result<v1::PublishResponse, Status>> + Send>>;

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        publish(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let (parts, open) = (self.0.clone(), self.0.streams.open()?);
        let answers = request
            .into_inner()
            .map(move |request| {
                // Held as long as the stream is.
                let _counted = &open;
                let parts = parts.clone();
                async move { publish(&parts, request?).await }
            })
            .buffered(STREAM_REQUESTS_MAX);
        Ok(Response::new(Box::pin(answers)))
    }
}

async fn publish(parts: &Parts, request: v1::PublishRequest) -> Result<v1::PublishResponse, Status> {
    let namespace = status::namespace(&request.namespace)?;
    if request.events.is_empty() || request.events.len() > BATCH_EVENTS_MAX {
        let count = request.events.len();
        let text = format!("a request must hold 1 to {BATCH_EVENTS_MAX} events; this holds {count}");
        return Err(Status::invalid_argument(text));
    }
    let read = request.events.into_iter().map(Event::from_proto);
    Ok(v1::PublishResponse { results: all(parts, &namespace, read).await })
}

/// Publishes those events that could be read; answers for each in order.
pub(super) async fn all(
    parts: &Parts,
    namespace: &Name,
    read: impl Iterator<Item = Result<Event, BadEvent>>,
) -> Vec<v1::PublishResult> {
    let mut events = Vec::with_capacity(read.size_hint().0);
    let mut results: Vec<Option<v1::PublishResult>> = Vec::with_capacity(read.size_hint().0);
    for event in read {
        results.push(match event {
            Ok(event) => {
                events.push(event);
                None
            }
            Err(error) => Some(refused(v1::Refusal {
                code: "bad-event".to_owned(),
                message: error.to_string(),
                retry_after_ms: None,
            })),
        });
    }
    let mut published = parts.ingest.publish(namespace, events).await;
    if published.iter().any(is_for_nobody) && !parts.known().await.is_ok_and(|known| known.joined) {
        // Out of the cluster, it may not know of the definitions that the event is for.
        let unsure = published.iter_mut().filter(|published| is_for_nobody(published));
        unsure.for_each(|published| *published = Err(SubmitError::Unavailable.into()));
    }
    let mut published = published.into_iter().map(result_of);
    results.into_iter().filter_map(|result| result.or_else(|| published.next())).collect()
}

fn is_for_nobody(published: &Result<Accepted, Refused>) -> bool {
    published.as_ref().is_ok_and(|accepted| accepted.runs.is_empty() && accepted.delivered == 0)
}

fn result_of(published: Result<Accepted, Refused>) -> v1::PublishResult {
    match published {
        Ok(accepted) => v1::PublishResult {
            runs: accepted
                .runs
                .into_iter()
                .map(|(started, workflow)| v1::StartedRun {
                    run: started.run.to_string(),
                    workflow: workflow.to_string(),
                    duplicate: started.duplicate,
                })
                .collect(),
            delivered: accepted.delivered,
            refusal: None,
        },
        Err(error) => refused(status::refusal(&error)),
    }
}

fn refused(refusal: v1::Refusal) -> v1::PublishResult {
    v1::PublishResult { refusal: Some(refusal), ..v1::PublishResult::default() }
}
