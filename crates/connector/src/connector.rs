//! The connector process's part: what its sessions share, and the handle to it.
//!
//! Owns: starting, draining, the count of calls under way, handing reports to the sessions that count on them.
//! Never: reads a setting from anywhere.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kapell_proto::v1;
use kapell_runtime::Runtime;
use kapell_wire::task::CallKey;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::desk::Desk;
use crate::held::{CoordinatorNo, Held, HeldKey, SessionNo};
use crate::outside::{CallOutcome, Outside};
use crate::session;

/// Orders held at once, ended ones with an unacknowledged report included. More are refused.
pub const CALLS_HELD_MAX: usize = 20_000;

/// How a connector is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorOptions {
    /// Name of the process, for people.
    pub name: String,
    /// `host:port` of every coordinator.
    pub coordinators: Vec<String>,
    /// Calls that it takes at once from each coordinator.
    pub capacity: u32,
}

/// Starts connectors.
#[derive(Clone, Copy, Debug)]
pub struct Connector;

/// A running connector; cheap to clone. It runs until the runtime's jobs are stopped.
#[derive(Clone)]
pub struct ConnectorHandle(Arc<Shared>);

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) options: ConnectorOptions,
    pub(crate) runtime: Runtime,
    pub(crate) desk: Desk,
    /// Drawn at start: another instance is another process.
    pub(crate) instance: [u8; 16],
    held: Mutex<Held>,
    outboxes: Mutex<BTreeMap<SessionNo, mpsc::Sender<v1::ConnectorMessage>>>,
    running: AtomicUsize,
    draining: AtomicBool,
}

/// A call under way; counted until it is dropped.
pub(crate) struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Connector {
    /// Begins to serve all coordinators.
    #[must_use]
    pub fn start(options: ConnectorOptions, runtime: Runtime, outside: Arc<dyn Outside>) -> ConnectorHandle {
        let mut instance = [0; 16];
        runtime.entropy.fill(&mut instance);
        let shared = Arc::new(Shared {
            desk: Desk::new(outside),
            instance,
            held: Mutex::new(Held::default()),
            outboxes: Mutex::new(BTreeMap::new()),
            running: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            options,
            runtime,
        });
        for (at, address) in shared.options.coordinators.iter().enumerate() {
            let serve = session::serve(Arc::clone(&shared), CoordinatorNo(at), address.clone());
            shared.runtime.jobs.spawn(session::SESSION, serve);
        }
        ConnectorHandle(shared)
    }
}

impl ConnectorHandle {
    /// Open sessions; as many as there are coordinators when all is well.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.0.outboxes().len()
    }

    /// Orders under way and ended ones whose report nobody has acknowledged.
    #[must_use]
    pub fn holding(&self) -> usize {
        self.0.held().len()
    }

    /// Takes no more calls and waits until nothing is under way and every report is acknowledged, at most for
    /// `patience`. `true`: nothing is left.
    pub async fn drain(&self, patience: Duration) -> bool {
        self.0.draining.store(true, Ordering::Release);
        let end = Instant::now() + patience;
        loop {
            let idle = self.0.running.load(Ordering::Acquire) == 0 && self.holding() == 0;
            if idle || Instant::now() >= end {
                return idle;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Shared {
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn outboxes(&self) -> MutexGuard<'_, BTreeMap<SessionNo, mpsc::Sender<v1::ConnectorMessage>>> {
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more call under way, unless there are as many as the connector takes, or it is draining.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Running, &'static str> {
        if self.draining.load(Ordering::Acquire) {
            return Err("the connector is about to stop and takes no more calls");
        }
        let before = self.running.fetch_add(1, Ordering::AcqRel);
        let running = Running(Arc::clone(self));
        // Each coordinator counts what it ordered. One that gave a shard away does not count its calls any more, and their
        // new owner does; so the sum is what can be held to.
        let capacity = usize::try_from(self.options.capacity).unwrap_or(usize::MAX);
        if before >= capacity.saturating_mul(self.options.coordinators.len()) {
            return Err("the connector has as many calls under way as it takes");
        }
        Ok(running)
    }

    /// An order ended: its report is kept, and sent to every session that counts on it.
    pub(crate) fn finish(&self, key: HeldKey, outcome: CallOutcome) {
        let report = call_report(key.0, &outcome);
        let sessions = self.held().finish(key, outcome);
        for session in sessions {
            self.post(session, key, report.clone());
        }
    }

    /// Sends the report now if there is room; else the session's next round does.
    pub(crate) fn post(&self, session: SessionNo, key: HeldKey, report: v1::ConnectorMessage) {
        let outbox = self.outboxes().get(&session).cloned();
        if outbox.is_some_and(|outbox| outbox.try_send(report).is_ok()) {
            self.held().sent(session, key, Instant::now());
        }
    }
}

/// The report of a call.
pub(crate) fn call_report(call: CallKey, outcome: &CallOutcome) -> v1::ConnectorMessage {
    report(v1::call_report::Which::Call(call.to_proto()), outcome)
}

/// The report of a read.
pub(crate) fn read_report(no: u64, outcome: &CallOutcome) -> v1::ConnectorMessage {
    report(v1::call_report::Which::Read(no), outcome)
}

fn report(which: v1::call_report::Which, outcome: &CallOutcome) -> v1::ConnectorMessage {
    use v1::call_report::Result as Ended;
    let result = match outcome {
        CallOutcome::Succeeded { output, .. } => Ended::Output(output.to_string()),
        CallOutcome::Failed(error) => Ended::Error(kapell_wire::task::error_to(error)),
        CallOutcome::Unknown { why } => Ended::Unknown(why.clone()),
    };
    let report = v1::CallReport { which: Some(which), result: Some(result) };
    v1::ConnectorMessage { kind: Some(v1::connector_message::Kind::Report(report)) }
}
