//! Definitions, orders and a connector with one session, as most tests need them.
use std::sync::Arc;
use std::time::Duration;

use kapell_connector::{Connector, ConnectorHandle, ConnectorOptions, Outside, RealOutside};
use kapell_model::source::SourceFile;
use kapell_proto::v1;
use kapell_runtime::Runtime;
use serde_json::Value;

use crate::coordinator::{Coordinator, Session};

/// Documents as a coordinator sends them.
pub(crate) fn documents(yaml: &str) -> Vec<String> {
    let source = SourceFile { name: "test.yaml".to_owned(), text: yaml.to_owned() };
    match kapell_model::validate::load(&[source]) {
        Ok(loaded) => loaded.definitions.iter().map(|one| serde_json::to_string(one).unwrap()).collect(),
        Err(wrong) => panic!("{}", wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

/// A connection named `c` to one connector, with the given tools.
pub(crate) fn definitions(protocol: &str, endpoint: &str, connection: &str, tools: &str) -> Vec<String> {
    let indent = |text: &str| text.trim_end().lines().map(|line| format!("    {line}\n")).collect::<String>();
    documents(&format!(
        "apiVersion: kapell.dev/v1\nkind: Connector\nmetadata: {{ name: k }}\nspec:\n  protocol: {protocol}\n  tools:\n{}\
         ---\napiVersion: kapell.dev/v1\nkind: Connection\nmetadata: {{ name: c }}\nspec:\n  connector: k\n  endpoint: \"{endpoint}\"\n{}",
        indent(tools),
        connection.trim_end().lines().map(|line| format!("  {line}\n")).collect::<String>(),
    ))
}

pub(crate) struct Rig {
    pub(crate) runtime: Runtime,
    pub(crate) coordinator: Coordinator,
    pub(crate) connector: ConnectorHandle,
    pub(crate) session: Session,
    calls: u32,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.runtime.jobs.stop("shutdown");
    }
}

/// How a call ended, in a form that tests can compare.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Output(Value),
    Error { class: v1::ErrorClass, message: String, retry_after_ms: Option<u64> },
    Unknown(String),
}

impl Outcome {
    pub(crate) fn of(report: &v1::CallReport) -> Outcome {
        match report.result.clone().expect("a report says how the call ended") {
            v1::call_report::Result::Output(json) => Outcome::Output(serde_json::from_str(&json).unwrap()),
            v1::call_report::Result::Error(error) => Outcome::Error {
                class: error.class(),
                message: error.message,
                retry_after_ms: error.retry_after_ms,
            },
            v1::call_report::Result::Unknown(why) => Outcome::Unknown(why),
        }
    }

    pub(crate) fn output(self) -> Value {
        match self {
            Outcome::Output(ref value) => value.clone(),
            Outcome::Error { .. } | Outcome::Unknown(_) => panic!("expected an output, got {self:?}"),
        }
    }

    /// Checks the class; gives the message.
    pub(crate) fn error(self, wanted: v1::ErrorClass) -> String {
        match self {
            Outcome::Error { class, ref message, .. } if class == wanted => message.clone(),
            Outcome::Output(_) | Outcome::Error { .. } | Outcome::Unknown(_) => {
                panic!("expected {wanted:?}, got {self:?}")
            }
        }
    }

    pub(crate) fn unknown(self) -> String {
        match self {
            Outcome::Unknown(ref why) => why.clone(),
            Outcome::Output(_) | Outcome::Error { .. } => panic!("expected an unknown outcome, got {self:?}"),
        }
    }
}

pub(crate) fn call_ref(no: u32) -> v1::CallRef {
    let unit = Some(v1::UnitId { step: 0, item: None, undo: false });
    v1::CallRef { run: vec![7; 16], unit, no, attempt: 1 }
}

pub(crate) fn call_order(no: u32, tool: &str, args: &Value) -> v1::CallOrder {
    v1::CallOrder {
        which: Some(v1::call_order::Which::Call(call_ref(no))),
        namespace: "default".to_owned(),
        tool: format!("c/{tool}"),
        args: args.to_string(),
        key: format!("run/step/{no}"),
        begin_within_ms: 10_000,
        mode: v1::CallMode::Call.into(),
        epoch: 0,
    }
}

impl Rig {
    /// A connector that speaks to real systems.
    pub(crate) async fn start(documents: Vec<String>) -> Rig {
        let runtime = Runtime::system();
        let outside = Arc::new(RealOutside::new(runtime.clone()));
        Rig::with(documents, runtime, outside, 64).await
    }

    pub(crate) async fn with(
        documents: Vec<String>,
        runtime: Runtime,
        outside: Arc<dyn Outside>,
        capacity: u32,
    ) -> Rig {
        // Another test of this process may have installed it already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut coordinator = Coordinator::start().await;
        let options = ConnectorOptions {
            name: "connector-1".to_owned(),
            coordinators: vec![coordinator.address.clone()],
            capacity,
        };
        let connector = Connector::start(options, runtime.clone(), outside);
        let session = coordinator.session().await;
        session.welcome(documents, 5_000).await;
        Rig { runtime, coordinator, connector, session, calls: 0 }
    }

    /// Orders a call that has an effect and acknowledges its report.
    pub(crate) async fn call(&mut self, tool: &str, args: Value) -> Outcome {
        self.calls += 1;
        self.ordered(call_order(self.calls, tool, &args)).await
    }

    /// Asks whether the last call took effect.
    pub(crate) async fn reconcile(&mut self, tool: &str, args: Value) -> Outcome {
        let mode = v1::CallMode::Reconcile.into();
        self.ordered(v1::CallOrder { mode, ..call_order(self.calls, tool, &args) }).await
    }

    /// Orders a read.
    pub(crate) async fn read(&mut self, tool: &str, args: Value) -> Outcome {
        self.calls += 1;
        let which = Some(v1::call_order::Which::Read(u64::from(self.calls)));
        let report = self.exchange(v1::CallOrder { which, ..call_order(0, tool, &args) }).await;
        assert_eq!(report.which, Some(v1::call_report::Which::Read(u64::from(self.calls))));
        Outcome::of(&report)
    }

    async fn ordered(&mut self, order: v1::CallOrder) -> Outcome {
        let call = call_ref(self.calls);
        let report = self.exchange(order).await;
        assert_eq!(report.which, Some(v1::call_report::Which::Call(call.clone())));
        self.session.ack(call).await;
        Outcome::of(&report)
    }

    async fn exchange(&mut self, order: v1::CallOrder) -> v1::CallReport {
        self.session.order(order).await;
        self.session.report().await
    }

    /// Waits until the connector holds so many orders.
    pub(crate) async fn holding(&self, count: usize) {
        for _ in 0..400 {
            if self.connector.holding() == count {
                return;
            }
            // why: between two looks
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} are held, not {count}", self.connector.holding());
    }
}
