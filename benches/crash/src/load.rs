//! The load under which roles are killed: orders, each an event that starts one run.
//!
//! Owns: which orders were accepted as which run, and which were under way at a moment. Never: starts over with a new
//! id: an event whose answer was lost is sent again as itself.
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::bail;
use futures::future::try_join_all;
use kapell_proto::cloudevents::CloudEvent;
use kapell_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use kapell_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use kapell_proto::v1::event_service_client::EventServiceClient;
use kapell_proto::v1::run_service_client::RunServiceClient;
use kapell_proto::v1::{GetRunRequest, PublishRequest, RunState};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use crate::definitions::EVENT_TYPE;

/// One order of a caller takes at least so long, so that a long matrix does not fill the book.
const PACE: Duration = Duration::from_millis(400);
/// A caller waits this long for its run, then leaves it to the end and goes on.
const RUN_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at a run.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// One request; a killed coordinator breaks the connection much earlier.
const REQUEST_PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries of a request.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// An order; `order-NUMBER` to the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order(pub(crate) u64);

impl Order {
    /// What the event and its postings call it.
    pub(crate) fn name(self) -> String {
        format!("order-{}", self.0)
    }
}

/// Publishes orders until it is told to stop.
pub(crate) struct Load {
    channel: Channel,
    next: Cell<u64>,
    stopping: Cell<bool>,
    under_way: RefCell<BTreeSet<Order>>,
    accepted: RefCell<BTreeMap<Order, String>>,
    ended: Cell<u64>,
    /// Events that were sent more than once, for the answer to the first sending was lost.
    resent: Cell<u64>,
}

impl Load {
    pub(crate) fn new(channel: Channel) -> Load {
        Load {
            channel,
            next: Cell::new(0),
            stopping: Cell::new(false),
            under_way: RefCell::default(),
            accepted: RefCell::default(),
            ended: Cell::new(0),
            resent: Cell::new(0),
        }
    }

    /// So many orders at once, until [`Load::stop`]; then those that are under way are accepted to the last.
    pub(crate) async fn run(&self, in_flight: usize) -> anyhow::Result<()> {
        try_join_all((0..in_flight).map(|_| self.caller())).await?;
        Ok(())
    }

    /// No new orders from now on.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
    }

    /// Orders that were sent and, as far as is known, have not ended.
    pub(crate) fn under_way(&self) -> BTreeSet<Order> {
        self.under_way.borrow().clone()
    }

    /// Every accepted order and its run.
    pub(crate) fn accepted(&self) -> BTreeMap<Order, String> {
        self.accepted.borrow().clone()
    }

    /// Waits until more runs have ended, but not for ever.
    pub(crate) async fn progress(&self, runs: u64, patience: Duration) {
        let (begun, wanted) = (Instant::now(), self.ended.get() + runs);
        while self.ended.get() < wanted && begun.elapsed() < patience {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Events that were sent more than once.
    pub(crate) fn resent(&self) -> u64 {
        self.resent.get()
    }

    async fn caller(&self) -> anyhow::Result<()> {
        while !self.stopping.get() {
            let begun = Instant::now();
            let order = Order(self.next.get());
            self.next.set(order.0 + 1);
            self.under_way.borrow_mut().insert(order);
            let run = self.publish(order).await?;
            self.accepted.borrow_mut().insert(order, run.clone());
            while begun.elapsed() < RUN_PATIENCE {
                if ended(state_of(&self.channel, &run).await) {
                    self.under_way.borrow_mut().remove(&order);
                    self.ended.set(self.ended.get() + 1);
                    break;
                }
                sleep(LOOK_EVERY).await;
            }
            sleep(PACE.saturating_sub(begun.elapsed())).await;
        }
        Ok(())
    }

    /// The same event until it is accepted.
    async fn publish(&self, order: Order) -> anyhow::Result<String> {
        for sent in 0_u64.. {
            if sent == 1 {
                self.resent.set(self.resent.get() + 1);
            }
            if let Some(run) = self.publish_once(order).await? {
                return Ok(run);
            }
            sleep(RETRY_AFTER).await;
        }
        bail!("{} was never accepted", order.name())
    }

    /// The run, or nothing when it has to be tried again.
    async fn publish_once(&self, order: Order) -> anyhow::Result<Option<String>> {
        let request = PublishRequest { namespace: String::new(), events: vec![event(order)] };
        let mut client = EventServiceClient::new(self.channel.clone());
        let Ok(Ok(answer)) = timeout(REQUEST_PATIENCE, client.publish(request)).await else {
            return Ok(None);
        };
        let result = answer.into_inner().results.into_iter().next().unwrap_or_default();
        match (&result.refusal, result.runs.as_slice()) {
            (Some(refusal), _) if refusal.retry_after_ms.is_some() => Ok(None),
            (Some(refusal), _) => bail!("{} was refused: {}", order.name(), refusal.message),
            (None, [started]) => Ok(Some(started.run.clone())),
            (None, runs) => bail!("{} started {} runs", order.name(), runs.len()),
        }
    }
}

fn event(order: Order) -> CloudEvent {
    let json = CloudEventAttributeValue { attr: Some(Attr::CeString("application/json".to_owned())) };
    CloudEvent {
        id: order.name(),
        source: "/crash".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: EVENT_TYPE.to_owned(),
        data: Some(Data::TextData(json!({ "order": order.name() }).to_string())),
        attributes: [("datacontenttype".to_owned(), json)].into(),
    }
}

/// The state of a run; nothing while nobody answers, or when the run is not known.
pub(crate) async fn state_of(channel: &Channel, run: &str) -> Option<RunState> {
    let request = GetRunRequest { run: run.to_owned() };
    let mut client = RunServiceClient::new(channel.clone());
    match timeout(REQUEST_PATIENCE, client.get(request)).await {
        Ok(Ok(answer)) => Some(answer.into_inner().state()),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// Nothing more will happen to it.
pub(crate) fn ended(state: Option<RunState>) -> bool {
    match state {
        Some(RunState::Completed | RunState::Failed | RunState::Canceled) => true,
        Some(
            RunState::Unspecified
            | RunState::Queued
            | RunState::Running
            | RunState::Waiting
            | RunState::Paused
            | RunState::WindingUp,
        )
        | None => false,
    }
}
