//! What the workloads run.
use anyhow::bail;
use kapell_proto::v1::resource_service_client::ResourceServiceClient;
use kapell_proto::v1::{ApplyRequest, SourceFile};
use serde_json::{Value, json};
use tonic::transport::Channel;

const DEFINITIONS: &str = "
apiVersion: kapell.dev/v1
kind: Specialist
metadata: { name: bench }
spec:
  limits: { concurrency: 10000 }
  skills:
    - name: bench.noop
      rules: { rows: [ { then: {} } ] }
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: five }
spec:
  steps:
    - { id: s1, skill: bench.noop }
    - { id: s2, skill: bench.noop, after: [s1] }
    - { id: s3, skill: bench.noop, after: [s2] }
    - { id: s4, skill: bench.noop, after: [s3] }
    - { id: s5, skill: bench.noop, after: [s4] }
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: fan }
spec:
  steps:
    - { id: all, skill: bench.noop, foreach: '${event.data.items}' }
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: park }
spec:
  on: { type: bench.park }
  steps:
    - { id: wait, wait: { for: 7d } }
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: one }
spec:
  on: { type: bench.one }
  steps:
    - { id: only, skill: bench.noop }
---
apiVersion: kapell.dev/v1
kind: Specialist
metadata: { name: slow }
spec:
  skills:
    - name: slow.step
      remote: {}
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: slow-one }
spec:
  steps:
    - { id: s1, skill: slow.step, with: { step: 0 } }
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: slow-five }
spec:
  steps:
    - { id: s1, skill: slow.step, with: { step: 1 } }
    - { id: s2, skill: slow.step, with: { step: 2 }, after: [s1] }
    - { id: s3, skill: slow.step, with: { step: 3 }, after: [s2] }
    - { id: s4, skill: slow.step, with: { step: 4 }, after: [s3] }
    - { id: s5, skill: slow.step, with: { step: 5 }, after: [s4] }
";

/// Applies the definitions of every workload.
pub(crate) async fn apply(channel: Channel) -> anyhow::Result<Value> {
    let file = SourceFile { name: "bench.yaml".to_owned(), text: DEFINITIONS.to_owned() };
    let request = ApplyRequest { files: vec![file], dry_run: false };
    let answer = ResourceServiceClient::new(channel).apply(request).await?.into_inner();
    if !answer.errors.is_empty() {
        bail!("the definitions do not hold together: {:?}", answer.errors);
    }
    Ok(json!({ "applied": answer.applied.len(), "revision": answer.revision }))
}
