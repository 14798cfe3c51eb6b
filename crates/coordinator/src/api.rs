//! The API: gRPC services and HTTP on one port.
//!
//! Owns: turning requests into what the parts understand, and their errors into statuses. Never: decides.
mod admin;
mod approvals;
mod backlog;
mod events;
mod forward;
mod http;
mod others;
mod rebuild;
mod resources;
mod runs;
mod scaler;
mod schedules;
mod serving;
mod sources;
mod spread;
mod starts;
mod status;

use std::sync::Arc;
use std::time::Duration;

use kapell_proto::externalscaler::external_scaler_server::ExternalScalerServer;
use kapell_proto::peer::v1::peer_service_server::PeerServiceServer;
use kapell_proto::v1;
use kapell_runtime::{Job, Listener, OnDeath, Runtime, incoming_up_to};
use kapell_wire::peer::ASK_FRAME_BYTES_MAX;
use ractor::ActorRef;
use tokio::sync::oneshot;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tower::layer::layer_fn;

use crate::limits::{APPLY_BYTES_MAX, CONNECTIONS_MAX};
use crate::options::CoordinatorOptions;
use crate::peer::PeerServer;
use crate::placement::{Known, PlacementMessage};
use crate::root::Root;
use crate::session::{ConnectorSessions, Liveness, Streams, WorkerSessions};
use serving::Ending;
pub use serving::Stopped;
pub(crate) use serving::{Serving, Stopping};
pub(crate) use sources::{Sources, follow};

const SERVE: Job = Job { name: "api", on_panic: OnDeath::StopNode };

/// What every service needs.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) links: Arc<crate::links::Links>,
    pub(crate) definitions: Arc<crate::definitions::Definitions>,
    pub(crate) ingest: crate::ingest::Ingest,
    pub(crate) peers: Arc<crate::peer::Peers>,
    pub(crate) placement: ActorRef<PlacementMessage>,
    pub(crate) journal: Arc<dyn kapell_journal::Journal>,
    pub(crate) ledger: Arc<dyn kapell_ledger::Ledger>,
    pub(crate) runtime: Runtime,
    pub(crate) node: Arc<str>,
    pub(crate) started: kapell_model::Timestamp,
    pub(crate) streams: Streams,
    pub(crate) sources: Sources,
    pub(crate) stopping: Stopping,
}

impl Parts {
    pub(crate) fn of(root: &Root, options: &CoordinatorOptions, runtime: &Runtime) -> Parts {
        Parts {
            links: root.links.clone(),
            definitions: root.definitions.clone(),
            ingest: root.ingest.clone(),
            peers: root.peers.clone(),
            placement: root.placement(),
            journal: root.stores.journal.clone(),
            ledger: root.stores.ledger.clone(),
            runtime: runtime.clone(),
            node: options.node.as_str().into(),
            started: runtime.clock.now(),
            streams: Streams::default(),
            sources: Sources::default(),
            stopping: Stopping::default(),
        }
    }

    /// Waits until this node knows at least this revision of the definitions.
    async fn follow(&self, revision: u64) -> Result<(), tonic::Status> {
        let followed = self.definitions.follow_to(revision, &*self.journal).await;
        followed
            .map_err(|error| tonic::Status::unavailable(format!("stored, but not read here yet: {error}")))
    }

    /// What this node knows of the cluster.
    async fn known(&self) -> Result<Known, tonic::Status> {
        let (reply, known) = oneshot::channel();
        drop(self.placement.cast(PlacementMessage::Look(reply)));
        known.await.map_err(|_| tonic::Status::unavailable("the node is stopping"))
    }
}

/// Serves until the node stops. Not ready before it is told to say so.
pub(crate) async fn serve(
    listener: Box<dyn Listener>,
    parts: Parts,
    options: &CoordinatorOptions,
) -> Serving {
    let (runtime, stopping) = (parts.runtime.clone(), parts.stopping.clone());
    let mut routes = services(&parts, options);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    routes.add_service(health_service);
    let router = routes.routes().into_axum_router().merge(http::router(parts));
    let ends = stopping.clone();
    let (jobs, stopped) = (runtime.jobs.clone(), stopping.said());
    // Kept until the last connection is closed.
    let open = stopping.said();
    runtime.jobs.spawn(SERVE, async move {
        let served = Server::builder()
            .accept_http1(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .http2_keepalive_interval(Some(Duration::from_secs(2)))
            .http2_keepalive_timeout(Some(Duration::from_secs(4)))
            .layer(layer_fn(move |service| Ending { service, stopping: ends.clone() }))
            .add_routes(Routes::from(router))
            .serve_with_incoming_shutdown(incoming_up_to(listener, CONNECTIONS_MAX), stopped)
            .await;
        drop(open);
        if let Err(error) = served {
            tracing::error!(%error, "the API cannot be served any more");
            jobs.stop("api");
        }
    });
    Serving { health, stopping }
}

/// Every service but the one that says whether the node is ready.
fn services(parts: &Parts, options: &CoordinatorOptions) -> RoutesBuilder {
    let runtime = &parts.runtime;
    let liveness = Liveness { heartbeat: options.heartbeat, lease: options.lease };
    let workers = WorkerSessions {
        links: parts.links.clone(),
        definitions: parts.definitions.clone(),
        runtime: runtime.clone(),
        liveness,
        streams: parts.streams.clone(),
    };
    let connectors = ConnectorSessions {
        links: parts.links.clone(),
        definitions: parts.definitions.clone(),
        runtime: runtime.clone(),
        liveness,
        streams: parts.streams.clone(),
    };
    let peers = PeerServer { peers: parts.peers.clone(), journal: parts.journal.clone() };
    let mut routes = Routes::builder();
    routes
        .add_service(PeerServiceServer::new(peers).max_decoding_message_size(ASK_FRAME_BYTES_MAX))
        .add_service(v1::worker_service_server::WorkerServiceServer::new(workers))
        .add_service(v1::connector_service_server::ConnectorServiceServer::new(connectors))
        .add_service(v1::event_service_server::EventServiceServer::new(events::Events(parts.clone())))
        .add_service(v1::run_service_server::RunServiceServer::new(runs::Runs(parts.clone())))
        .add_service(v1::approval_service_server::ApprovalServiceServer::new(approvals::Approvals(
            parts.clone(),
        )))
        .add_service(
            v1::resource_service_server::ResourceServiceServer::new(resources::Resources(parts.clone()))
                .max_decoding_message_size(APPLY_BYTES_MAX),
        )
        .add_service(v1::schedule_service_server::ScheduleServiceServer::new(schedules::Schedules(
            parts.clone(),
        )))
        .add_service(v1::admin_service_server::AdminServiceServer::new(admin::Admin(parts.clone())))
        .add_service(ExternalScalerServer::new(scaler::Scaler(parts.clone())));
    if let Ok(reflection) = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(kapell_proto::DESCRIPTORS)
        .build_v1()
    {
        routes.add_service(reflection);
    }
    routes
}
