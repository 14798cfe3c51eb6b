//! The API: gRPC services and HTTP on one port.
//!
//! Owns: turning requests into what the parts understand, and their errors into statuses. Never: decides.
mod admin;
mod approvals;
mod events;
mod http;
mod resources;
mod runs;
mod schedules;
mod starts;
mod status;

use std::sync::Arc;
use std::time::Duration;

use kapell_proto::v1;
use kapell_runtime::{Job, Listener, OnDeath, Runtime, incoming};
use tonic::transport::Server;

use crate::options::CoordinatorOptions;
use crate::root::Root;
use crate::session::{ConnectorSessions, Liveness, WorkerSessions};

const SERVE: Job = Job { name: "api", on_panic: OnDeath::StopNode };

/// What every service needs.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) links: Arc<crate::links::Links>,
    pub(crate) definitions: Arc<crate::definitions::Definitions>,
    pub(crate) ingest: crate::ingest::Ingest,
    pub(crate) journal: Arc<dyn kapell_journal::Journal>,
    pub(crate) ledger: Arc<dyn kapell_ledger::Ledger>,
    pub(crate) runtime: Runtime,
    pub(crate) node: Arc<str>,
    pub(crate) started: kapell_model::Timestamp,
}

/// Serves until the node stops.
pub(crate) fn serve(
    listener: Box<dyn Listener>,
    root: &Root,
    options: &CoordinatorOptions,
    runtime: &Runtime,
) {
    let parts = Parts {
        links: root.links.clone(),
        definitions: root.definitions.clone(),
        ingest: root.ingest.clone(),
        journal: root.journal.clone(),
        ledger: root.ledger.clone(),
        runtime: runtime.clone(),
        node: options.node.as_str().into(),
        started: runtime.clock.now(),
    };
    let liveness = Liveness { heartbeat: options.heartbeat, lease: options.lease };
    let workers = WorkerSessions {
        links: parts.links.clone(),
        definitions: parts.definitions.clone(),
        runtime: runtime.clone(),
        liveness,
    };
    let connectors = ConnectorSessions {
        links: parts.links.clone(),
        definitions: parts.definitions.clone(),
        runtime: runtime.clone(),
        liveness,
    };
    let mut routes = tonic::service::Routes::builder();
    routes
        .add_service(v1::worker_service_server::WorkerServiceServer::new(workers))
        .add_service(v1::connector_service_server::ConnectorServiceServer::new(connectors))
        .add_service(v1::event_service_server::EventServiceServer::new(events::Events(parts.clone())))
        .add_service(v1::run_service_server::RunServiceServer::new(runs::Runs(parts.clone())))
        .add_service(v1::approval_service_server::ApprovalServiceServer::new(approvals::Approvals(
            parts.clone(),
        )))
        .add_service(v1::resource_service_server::ResourceServiceServer::new(resources::Resources(
            parts.clone(),
        )))
        .add_service(v1::schedule_service_server::ScheduleServiceServer::new(schedules::Schedules(
            parts.clone(),
        )))
        .add_service(v1::admin_service_server::AdminServiceServer::new(admin::Admin(parts.clone())));
    if let Ok(reflection) = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(kapell_proto::DESCRIPTORS)
        .build_v1()
    {
        routes.add_service(reflection);
    }
    let (health, health_service) = tonic_health::server::health_reporter();
    routes.add_service(health_service);
    let router = routes.routes().into_axum_router().merge(http::router(parts));
    let jobs = runtime.jobs.clone();
    runtime.jobs.spawn(SERVE, async move {
        health.set_service_status("", tonic_health::ServingStatus::Serving).await;
        let served = Server::builder()
            .accept_http1(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .http2_keepalive_interval(Some(Duration::from_secs(2)))
            .http2_keepalive_timeout(Some(Duration::from_secs(4)))
            .add_routes(tonic::service::Routes::from(router))
            .serve_with_incoming(incoming(listener))
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the API cannot be served any more");
            jobs.stop("api");
        }
    });
}
