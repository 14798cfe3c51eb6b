//! What runs while roles are killed.
use anyhow::bail;
use kapell_client::Client;
use kapell_proto::v1::{ApplyRequest, SourceFile};

/// The event that starts a run.
pub(crate) const EVENT_TYPE: &str = "crash.order";

/// Steps of a run that write to the business system; the reference of a posting is `ORDER/STEP`.
pub(crate) const POSTING_STEPS: [&str; 2] = ["first", "second"];

/// Accounting does a posting twice when it is told twice, so that an action done twice can be seen. A reference
/// names the order and not the run, so that an event that started two runs can be seen as well. Attempts are many:
/// what is judged here is loss and repetition, not patience.
const DEFINITIONS: &str = r#"
apiVersion: kapell.dev/v1
kind: Connector
metadata: { name: accounting }
spec:
  protocol: http
  tools:
    - name: post-entry
      effect: write
      idempotency: none
      timeout: 500ms
      http: { method: POST, path: /entries, body: { ref: "${args.ref}", amount: "${args.amount}" } }
      reconcile:
        tool: list-entries
        with: { ref: "${args.ref}" }
        done: "size(result.entries) > 0"
    - name: list-entries
      timeout: 500ms
      http: { method: GET, path: /entries, query: { ref: "${args.ref}" } }
---
apiVersion: kapell.dev/v1
kind: Connection
metadata: { name: books }
spec: { connector: accounting, endpoint: "ENDPOINT", limits: { concurrency: 64 } }
---
apiVersion: kapell.dev/v1
kind: Specialist
metadata: { name: clerk }
spec:
  limits: { concurrency: 1000 }
  skills:
    - name: books.note
      rules: { rows: [ { then: {} } ] }
    - name: books.post
      effect: write
      call: { tool: books/post-entry, output: {} }
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: crash }
spec:
  on: { type: crash.order }
  onFailure: stop
  steps:
    - { id: begin, skill: books.note }
    - id: first
      skill: books.post
      with: { ref: "${event.data.order}/first", amount: 100 }
      after: [begin]
      retry: { attempts: 100, backoff: { initial: 50ms, max: 500ms } }
    - id: second
      skill: books.post
      with: { ref: "${event.data.order}/second", amount: 200 }
      after: [first]
      retry: { attempts: 100, backoff: { initial: 50ms, max: 500ms } }
"#;

/// Applies the definitions; `endpoint` is the base URL of accounting.
pub(crate) async fn apply(client: &Client, endpoint: &str) -> anyhow::Result<()> {
    let text = DEFINITIONS.replace("ENDPOINT", endpoint);
    let request =
        ApplyRequest { files: vec![SourceFile { name: "crash.yaml".to_owned(), text }], dry_run: false };
    let answer = client.resources().apply(request).await?;
    if !answer.errors.is_empty() {
        bail!("the definitions do not hold together: {:?}", answer.errors);
    }
    Ok(())
}
