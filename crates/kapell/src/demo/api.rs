//! What the demonstration asks of the coordinator: the public gRPC API and nothing else.
//!
//! Owns: one channel, which finds the coordinator again after it was killed.
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kapell_proto::cloudevents::CloudEvent;
use kapell_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use kapell_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use kapell_proto::v1;
use kapell_proto::v1::admin_service_client::AdminServiceClient;
use kapell_proto::v1::approval_service_client::ApprovalServiceClient;
use kapell_proto::v1::event_service_client::EventServiceClient;
use kapell_proto::v1::resource_service_client::ResourceServiceClient;
use kapell_proto::v1::run_service_client::RunServiceClient;
use kapell_runtime::{SystemNet, channel};
use serde_json::Value;
use tonic::transport::Channel;

use super::definitions::NAMESPACE;

/// The coordinator's API.
#[derive(Clone)]
pub(super) struct Api(Channel);

impl Api {
    pub(super) async fn connect(address: &str) -> anyhow::Result<Api> {
        Ok(Api(channel(Arc::new(SystemNet), address).await?))
    }

    /// Who is connected.
    pub(super) async fn status(&self) -> Result<v1::StatusResponse, tonic::Status> {
        let answer = AdminServiceClient::new(self.0.clone()).status(v1::StatusRequest {}).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Applies all definitions; gives how many.
    pub(super) async fn apply(&self, files: Vec<v1::SourceFile>) -> anyhow::Result<usize> {
        let request = v1::ApplyRequest { files, dry_run: false };
        let answer = ResourceServiceClient::new(self.0.clone()).apply(request).await?.into_inner();
        if let Some(first) = answer.errors.first() {
            let v1::Diagnostic { file, line, message, .. } = first;
            bail!("{file}:{line}: {message} ({} errors in all)", answer.errors.len());
        }
        Ok(answer.applied.len())
    }

    /// Sends a CloudEvent in JSON; gives the run that it started.
    pub(super) async fn publish(&self, event: &str) -> anyhow::Result<String> {
        let request =
            v1::PublishRequest { namespace: NAMESPACE.to_owned(), events: vec![cloud_event(event)?] };
        let answer = EventServiceClient::new(self.0.clone()).publish(request).await?.into_inner();
        let result = answer.results.into_iter().next().context("the event was not answered")?;
        if let Some(refusal) = result.refusal {
            bail!("the event was refused: {} ({})", refusal.message, refusal.code);
        }
        let run = result.runs.into_iter().next().context("the event started no run")?;
        Ok(run.run)
    }

    pub(super) async fn run(&self, run: &str) -> Result<v1::Run, tonic::Status> {
        let request = v1::GetRunRequest { run: run.to_owned() };
        RunServiceClient::new(self.0.clone()).get(request).await.map(tonic::Response::into_inner)
    }

    pub(super) async fn explain(&self, run: &str) -> Result<v1::ExplainResponse, tonic::Status> {
        let request = v1::GetRunRequest { run: run.to_owned() };
        RunServiceClient::new(self.0.clone()).explain(request).await.map(tonic::Response::into_inner)
    }

    /// Open questions of the run.
    pub(super) async fn questions(&self, run: &str) -> Result<Vec<v1::Approval>, tonic::Status> {
        let request = v1::ListApprovalsRequest {
            namespace: NAMESPACE.to_owned(),
            run: run.to_owned(),
            ..v1::ListApprovalsRequest::default()
        };
        let answer = ApprovalServiceClient::new(self.0.clone()).list(request).await?;
        Ok(answer.into_inner().approvals)
    }

    pub(super) async fn decide(&self, answer: v1::DecideApprovalRequest) -> Result<(), tonic::Status> {
        ApprovalServiceClient::new(self.0.clone()).decide(answer).await.map(drop)
    }
}

/// The protobuf form of a CloudEvent that was written in JSON.
fn cloud_event(json: &str) -> anyhow::Result<CloudEvent> {
    let Value::Object(mut members) = serde_json::from_str(json)? else { bail!("an event is a JSON object") };
    let mut text = |name: &str| match members.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) | None => Err(anyhow::anyhow!("the event has no `{name}`")),
    };
    let (id, source) = (text("id")?, text("source")?);
    let (spec_version, kind) = (text("specversion")?, text("type")?);
    let data = members.remove("data").map(|data| Data::TextData(data.to_string()));
    let attributes = members
        .into_iter()
        .filter_map(|(name, value)| {
            let text = value.as_str()?.to_owned();
            Some((name, CloudEventAttributeValue { attr: Some(Attr::CeString(text)) }))
        })
        .collect();
    Ok(CloudEvent { id, source, spec_version, r#type: kind, attributes, data })
}
