//! Serving, until the node stops.
//!
//! Owns: that what was asked by then is answered, and that whoever listens is sent elsewhere. Never: waits for long.
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service;

/// Time for the answers to what is under way when the node stops; most of it only waits for another node.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// How a coordinator stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Whatever it was asked is answered.
    Clean,
    /// Something is not, after a second: whoever asked has to ask another one, and may have been heard.
    Unanswered,
}

/// Whether the node takes requests.
pub(crate) struct Serving {
    pub(super) health: HealthReporter,
    pub(super) stopping: Stopping,
}

impl Serving {
    /// The node has its shards.
    pub(crate) async fn ready(&self) {
        self.health.set_service_status("", ServingStatus::Serving).await;
    }

    /// Takes no more requests, and waits until those that are under way are answered, but not for ever. Streams end:
    /// whoever listens finds another node.
    pub(crate) async fn end(&self) -> Stopped {
        self.health.set_service_status("", ServingStatus::NotServing).await;
        self.stopping.0.send_replace(true);
        match timeout(ANSWERS_WITHIN, self.stopping.0.closed()).await {
            Ok(()) => Stopped::Clean,
            Err(_) => Stopped::Unanswered,
        }
    }
}

/// Says that the node takes no more requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopping(watch::Sender<bool>);

impl Stopping {
    /// Until the node takes no more requests. [`Serving::end`] waits for whoever keeps this.
    pub(super) fn said(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.0.subscribe();
        async move { _ = stopping.wait_for(|stopping| *stopping).await }
    }
}

/// What is said instead of the rest of an answer.
pub(super) fn stopped() -> Status {
    Status::unavailable("the node is stopping; ask another one")
}

/// A service whose streams end when the node stops.
#[derive(Clone)]
pub(super) struct Ending<S> {
    pub(super) service: S,
    pub(super) stopping: Stopping,
}

impl<S, B> Service<Request<B>> for Ending<S>
where
    S: Service<Request<Asked<B>>, Response = Response<Body>, Future: Send + 'static>,
{
    type Response = Response<Answer>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Answer>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (stopping, over) = (self.stopping.clone(), Arc::new(Over::default()));
        let answer = self.service.call(request.map(|body| Asked { body, over: over.clone() }));
        Box::pin(async move { Ok(answer.await?.map(|body| Answer { body, over, stopping, said: None })) })
    }
}

/// Whether an answer was ended: what is still asked then is heard by nobody.
#[derive(Default)]
struct Over {
    is_over: AtomicBool,
    reader: AtomicWaker,
}

/// The body of a request.
pub(super) struct Asked<B> {
    body: B,
    over: Arc<Over>,
}

impl<B: http_body::Body + Unpin> http_body::Body for Asked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.over.reader.register(context.waker());
        if self.over.is_over.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer. If it waits for something when the node stops, it ends: one that is complete never waits.
pub(super) struct Answer {
    body: Body,
    over: Arc<Over>,
    stopping: Stopping,
    said: Option<BoxFuture<'static, ()>>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        ready!(this.said.get_or_insert_with(|| Box::pin(this.stopping.said())).as_mut().poll(context));
        this.body = Body::empty();
        this.over.is_over.store(true, Ordering::Release);
        this.over.reader.wake();
        let mut trailers = HeaderMap::new();
        stopped().add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
