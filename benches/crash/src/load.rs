//! The load under which faults happen: orders, each an event that starts one run.
//!
//! Owns: which orders were accepted as which run, when, and which were under way at a moment. Never: starts over with
//! a new id: an event whose answer was lost is sent again as itself.
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use futures::future::try_join_all;
use kapell_client::{Client, ClientError};
use kapell_proto::cloudevents::CloudEvent;
use kapell_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use kapell_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use kapell_proto::v1::{PublishRequest, RunState};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::definitions::EVENT_TYPE;

/// One order of a caller takes at least so long, so that a long matrix does not fill the book.
const PACE: Duration = Duration::from_millis(400);
/// A caller waits this long for its run, then leaves it to the end and goes on.
const RUN_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a run.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time that the client library gets to have an event accepted, or to find out about a run.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(30);
const LOOK_PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries.
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

/// How an order went.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    sent: Instant,
    /// Its run, and when it was known to be one.
    accepted: Option<(String, Instant)>,
    /// When its run was seen to have ended.
    ended: Option<Instant>,
}

impl Course {
    /// From the first sending to the answer.
    pub(crate) fn acceptance(&self) -> Span {
        Span { from: self.sent, to: self.accepted.as_ref().map(|(_, at)| *at) }
    }

    /// From there to the end of the run.
    pub(crate) fn work(&self) -> Option<Span> {
        self.accepted.as_ref().map(|(_, at)| Span { from: *at, to: self.ended })
    }

    /// Whether some of it was between these.
    pub(crate) fn was_within(&self, from: Instant, to: Instant) -> bool {
        !Span { from: self.sent, to: self.ended }.within(from, to).is_zero()
    }
}

/// A time that may not be over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from: Instant,
    pub(crate) to: Option<Instant>,
}

impl Span {
    /// How long it is, or has been.
    pub(crate) fn length(self, now: Instant) -> Duration {
        self.to.unwrap_or(now) - self.from
    }

    /// How much of it was between these.
    pub(crate) fn within(self, from: Instant, to: Instant) -> Duration {
        let end = self.to.map_or(to, |end| end.min(to));
        end.saturating_duration_since(self.from.max(from))
    }
}

/// Publishes orders until it is told to stop.
pub(crate) struct Load {
    client: Client,
    next: Cell<u64>,
    stopping: Cell<bool>,
    courses: RefCell<BTreeMap<Order, Course>>,
    ended: Cell<u64>,
}

impl Load {
    pub(crate) fn new(client: &Client) -> Load {
        Load {
            client: client.clone().with_deadline(PUBLISH_PATIENCE),
            next: Cell::new(0),
            stopping: Cell::new(false),
            courses: RefCell::default(),
            ended: Cell::new(0),
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

    /// Every order so far.
    pub(crate) fn courses(&self) -> BTreeMap<Order, Course> {
        self.courses.borrow().clone()
    }

    /// Every accepted order and its run.
    pub(crate) fn accepted(&self) -> BTreeMap<Order, String> {
        let courses = self.courses.borrow();
        let runs = courses.iter().filter_map(|(order, course)| Some((*order, course.accepted.clone()?.0)));
        runs.collect()
    }

    /// Waits until more runs have ended, but not for ever.
    pub(crate) async fn progress(&self, runs: u64, patience: Duration) {
        let (begun, wanted) = (Instant::now(), self.ended.get() + runs);
        while self.ended.get() < wanted && begun.elapsed() < patience {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until every order so far is accepted, but not for ever.
    pub(crate) async fn caught_up(&self, patience: Duration) {
        let (begun, sent) = (Instant::now(), Order(self.next.get()));
        let is_behind = || self.courses.borrow().range(..sent).any(|(_, course)| course.accepted.is_none());
        while is_behind() && begun.elapsed() < patience {
            sleep(LOOK_EVERY).await;
        }
    }

    async fn caller(&self) -> anyhow::Result<()> {
        while !self.stopping.get() {
            let sent = Instant::now();
            let order = Order(self.next.get());
            self.next.set(order.0 + 1);
            self.courses.borrow_mut().insert(order, Course { sent, accepted: None, ended: None });
            let run = self.publish(order).await?;
            let accepted = Instant::now();
            self.note(order, |course| course.accepted = Some((run.clone(), accepted)));
            while accepted.elapsed() < RUN_PATIENCE {
                if ended(state_of(&self.client, &run).await) {
                    self.note(order, |course| course.ended = Some(Instant::now()));
                    self.ended.set(self.ended.get() + 1);
                    break;
                }
                sleep(LOOK_EVERY).await;
            }
            sleep(PACE.saturating_sub(sent.elapsed())).await;
        }
        Ok(())
    }

    fn note(&self, order: Order, change: impl FnOnce(&mut Course)) {
        if let Some(course) = self.courses.borrow_mut().get_mut(&order) {
            change(course);
        }
    }

    /// The same event until it is accepted.
    async fn publish(&self, order: Order) -> anyhow::Result<String> {
        loop {
            if let Some(run) = self.publish_once(order).await? {
                return Ok(run);
            }
            sleep(RETRY_AFTER).await;
        }
    }

    /// The run, or nothing when it has to be tried again.
    async fn publish_once(&self, order: Order) -> anyhow::Result<Option<String>> {
        let request = PublishRequest { namespace: String::new(), events: vec![event(order)] };
        let answer = match self.client.events().publish(request).await {
            Ok(answer) => answer,
            Err(
                ClientError::Unavailable { .. } | ClientError::TimedOut { .. } | ClientError::Busy { .. },
            ) => return Ok(None),
            Err(error) => bail!("{} was not taken: {error}", order.name()),
        };
        let result = answer.results.into_iter().next().unwrap_or_default();
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
pub(crate) async fn state_of(client: &Client, run: &str) -> Option<RunState> {
    let looked = client.clone().with_deadline(LOOK_PATIENCE).runs().get(run).await;
    looked.ok().map(|run| run.state())
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
