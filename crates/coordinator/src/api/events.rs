//! Events in, by gRPC.
use std::pin::Pin;

use futures::future::join_all;
use futures::{Stream, StreamExt as _};
use kapell_model::Name;
use kapell_proto::v1;
use kapell_wire::cloud_event::{BATCH_EVENTS_MAX, Event};
use tonic::{Request, Response, Status, Streaming};

use super::{Parts, status};

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
        let parts = self.0.clone();
        let answers = request
            .into_inner()
            .map(move |request| {
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
    let results = request.events.into_iter().map(|event| {
        let read = Event::from_proto(event);
        let namespace = &namespace;
        async move {
            match read {
                Ok(event) => one(parts, namespace, event).await,
                Err(error) => v1::PublishResult {
                    refusal: Some(v1::Refusal {
                        code: "bad-event".to_owned(),
                        message: error.to_string(),
                        retry_after_ms: None,
                    }),
                    ..v1::PublishResult::default()
                },
            }
        }
    });
    Ok(v1::PublishResponse { results: join_all(results).await })
}

/// Publishes one event.
pub(super) async fn one(parts: &Parts, namespace: &Name, event: Event) -> v1::PublishResult {
    match parts.ingest.publish(namespace, event).await {
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
        Err(error) => {
            v1::PublishResult { refusal: Some(status::refusal(&error)), ..v1::PublishResult::default() }
        }
    }
}
