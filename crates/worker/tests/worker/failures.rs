//! Panics, hangs, cancelation, quarantine.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kapell_model::Json;
use kapell_proto::v1::coordinator_message::Kind as Said;
use kapell_proto::v1::worker_message::Kind;
use kapell_worker::{Agent, ErrorClass, TaskContext, TaskError, WorkerOptions};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::{SOON, assignment, definitions, pair, task, terms};

/// Does what its input says; tells when a task of it is over.
struct Puppet {
    begun: Arc<AtomicUsize>,
    over: mpsc::Sender<()>,
}

struct Over(mpsc::Sender<()>);

impl Drop for Over {
    fn drop(&mut self) {
        // A test that does not look is no error.
        let _full = self.0.try_send(());
    }
}

impl Agent for Puppet {
    async fn run(&self, task: TaskContext) -> Result<Json, TaskError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let _over = Over(self.over.clone());
        match task.input().as_str() {
            r#""panic""# => panic!("the puppet broke: {}", task.run_id()),
            r#""block""# => {
                #[expect(clippy::disallowed_methods, reason = "a task that never awaits is what is tested")]
                // why: a thread that is busy is what is tested
                std::thread::sleep(Duration::from_millis(1_500));
                Ok(Json::null())
            }
            r#""hang""# => std::future::pending().await,
            _ => Ok(task.input().clone()),
        }
    }
}

fn puppet() -> (WorkerOptions, Arc<AtomicUsize>, mpsc::Receiver<()>) {
    let (begun, (over, ends)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel(100));
    let agent = Puppet { begun: Arc::clone(&begun), over };
    (WorkerOptions::new("w1").with_agent("retail/desk.work", agent).unwrap(), begun, ends)
}

#[tokio::test]
async fn a_panic_is_a_failed_attempt_and_nothing_else() {
    let (options, _, _) = puppet();
    let (_worker, _coordinator, mut peer) = pair(options, terms()).await;
    for at in 0..3 {
        peer.assign(task(at), "desk.work", &json!("panic")).await;
        let error = peer.error(task(at)).await;
        assert_eq!(error.class, ErrorClass::Panicked);
        assert!(error.message.contains("the puppet broke"), "{error}");
        peer.assign(task(at + 100), "desk.work", &json!("go on")).await;
        assert_eq!(peer.output(task(at + 100)).await, json!("go on"));
    }
}

#[tokio::test]
async fn a_hanging_task_is_stopped_at_its_deadline_and_its_place_is_free() {
    let (options, begun, mut ends) = puppet();
    let mut terms = terms();
    terms.definitions = definitions(1, json!({"concurrency": 1}));
    let (_worker, _coordinator, mut peer) = pair(options, terms).await;
    let mut hanging = assignment(task(0), "desk.work", &json!("hang"));
    hanging.timeout_ms = 200;
    let mut waiting = assignment(task(1), "desk.work", &json!("hang"));
    waiting.timeout_ms = 1;
    peer.say_all([Said::Assignment(hanging), Said::Assignment(waiting)]).await;
    peer.assign(task(2), "desk.work", &json!("next")).await;
    assert_eq!(peer.error(task(0)).await.class, ErrorClass::Timeout);
    timeout(SOON, ends.recv()).await.expect("the agent's future is dropped");
    assert_eq!(peer.error(task(1)).await.class, ErrorClass::Timeout, "its time ran out while it waited");
    assert_eq!(peer.output(task(2)).await, json!("next"));
    assert_eq!(begun.load(Ordering::SeqCst), 2, "it never began");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_task_that_never_awaits_is_given_up_and_its_place_is_free() {
    let (options, _, _) = puppet();
    let mut terms = terms();
    terms.definitions = definitions(1, json!({"concurrency": 1}));
    let (_worker, _coordinator, mut peer) = pair(options, terms).await;
    let mut blocking = assignment(task(0), "desk.work", &json!("block"));
    blocking.timeout_ms = 50;
    peer.say(Said::Assignment(blocking)).await;
    peer.assign(task(1), "desk.work", &json!("next")).await;
    assert_eq!(peer.error(task(0)).await.class, ErrorClass::Timeout);
    assert_eq!(peer.output(task(1)).await, json!("next"));
    peer.hears_nothing(Duration::from_millis(1_500)).await;
}

#[tokio::test]
async fn a_canceled_task_stops_and_is_not_reported() {
    let (options, begun, mut ends) = puppet();
    let mut terms = terms();
    terms.definitions = definitions(1, json!({"concurrency": 1}));
    let (worker, _coordinator, mut peer) = pair(options, terms).await;
    for at in 0..2 {
        peer.assign(task(at), "desk.work", &json!("hang")).await;
    }
    peer.assign(task(2), "desk.work", &json!("next")).await;
    while begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // The one that waits first, then the one that runs.
    peer.say_all([Said::Cancel(task(1).to_proto()), Said::Cancel(task(0).to_proto())]).await;
    assert_eq!(peer.output(task(2)).await, json!("next"));
    timeout(SOON, ends.recv()).await.expect("the agent's future is dropped");
    assert_eq!(begun.load(Ordering::SeqCst), 2, "the waiting one never began");
    peer.acknowledge(task(2)).await;
    peer.hears_nothing(Duration::from_millis(100)).await;
    assert_eq!(worker.held().await, 0);
}

#[tokio::test]
async fn a_specialist_that_keeps_dying_is_quarantined_and_others_go_on() {
    let (mut options, begun, _) = puppet();
    options.quarantine = Duration::from_millis(600);
    let mut terms = terms();
    terms.definitions = definitions(1, json!({"restartsPerMinute": 2, "concurrency": 1}));
    let (_worker, mut coordinator, mut peer) = pair(options, terms).await;
    for at in 0..5 {
        peer.assign(task(at), "desk.work", &json!("panic")).await;
    }
    let mut classes = Vec::new();
    let mut reason = String::new();
    while classes.len() < 5 {
        match peer.next().await {
            Kind::Report(report) => {
                let Some(kapell_proto::v1::task_report::Result::Error(error)) = report.result else {
                    panic!("it panics")
                };
                classes.push(kapell_wire::task::error_from(error).unwrap().class);
            }
            Kind::Quarantine(quarantine) => {
                assert_eq!(quarantine.specialist, "retail/clerk");
                reason = quarantine.reason;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    use ErrorClass::{NoSpecialist, Panicked};
    assert_eq!(classes, [Panicked, Panicked, Panicked, NoSpecialist, NoSpecialist]);
    assert!(reason.contains("the puppet broke"), "{reason}");
    assert_eq!(begun.load(Ordering::SeqCst), 3);
    peer.assign(task(10), "desk.nothing", &json!({})).await;
    let error = peer.error(task(10)).await;
    assert_eq!(error.class, NoSpecialist);
    assert!(error.message.contains("quarantine"), "{error}");
    peer.assign(task(11), "other.nothing", &json!({})).await;
    assert_eq!(peer.output(task(11)).await, json!(1));

    // A coordinator that comes later is told.
    drop(peer);
    let mut peer = coordinator.session().await;
    let Kind::Quarantine(again) = peer.next().await else { panic!("no quarantine") };
    assert_eq!(again.reason, reason);
    loop {
        match peer.next().await {
            Kind::Report(_) => {}
            Kind::Quarantine(over) => {
                assert_eq!((over.specialist.as_str(), over.reason.as_str()), ("retail/clerk", ""));
                break;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    peer.assign(task(12), "desk.work", &json!("well again")).await;
    assert_eq!(peer.output(task(12)).await, json!("well again"));
}
