//! What KEDA asks: any node answers for the whole cluster.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kapell_client::v1;
use kapell_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use kapell_proto::externalscaler::{GetMetricsRequest, ScaledObjectRef};
use kapell_runtime::SystemNet;
use kapell_tests_cluster::{Node, Site, worker};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Code, Status};

const DEFINITIONS: &str = r#"
apiVersion: kapell.dev/v1
kind: Specialist
metadata: { name: clerk }
spec:
  skills:
    - name: clerk.noop
      rules: { rows: [{ then: { done: true } }] }
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: task }
spec:
  key: "event.data.key"
  steps: [{ id: one, skill: clerk.noop }]
"#;
/// Enough that both nodes have some.
const TASKS: u32 = 40;
const SKILL: &str = "default/clerk.noop";

async fn scaler(node: &Node) -> ExternalScalerClient<Channel> {
    ExternalScalerClient::new(kapell_runtime::channel(Arc::new(SystemNet), &node.address).await.unwrap())
}

fn trigger(metadata: &[(&str, &str)]) -> ScaledObjectRef {
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    ScaledObjectRef { scaler_metadata: metadata.collect(), ..ScaledObjectRef::default() }
}

async fn tasks(node: &Node, metadata: &[(&str, &str)]) -> Result<f64, Status> {
    let request = GetMetricsRequest {
        scaled_object_ref: Some(trigger(metadata)),
        metric_name: "kapell-tasks".to_owned(),
    };
    let answer = scaler(node).await.get_metrics(request).await?.into_inner();
    let [value] = answer.metric_values.as_slice() else { panic!("{answer:?}") };
    assert_eq!(value.metric_name, "kapell-tasks");
    assert!((value.metric_value as f64 - value.metric_value_float).abs() < 0.5);
    Ok(value.metric_value_float)
}

async fn becomes(node: &Node, wanted: f64) {
    let since = Instant::now();
    while tasks(node, &[]).await.map_or(true, |tasks| (tasks - wanted).abs() > 0.5) {
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", node.client.admin().backlog().await);
        // why: nothing tells that a task has come to its dispatcher
        sleep(Duration::from_millis(20)).await;
    }
}

/// Asks until the answer is an error that says this; whatever else is answered before is all of them, or an error too.
async fn refused(node: &Node, saying: &str) {
    let since = Instant::now();
    loop {
        match tasks(node, &[]).await {
            Ok(all) => assert!((all - f64::from(TASKS)).abs() < 0.5, "{all} of {TASKS}"),
            Err(refused) => {
                let is_said = refused.message().contains(saying);
                assert_eq!(
                    refused.code(),
                    Code::Unavailable,
                    "half a backlog sends workers away: {refused:?}"
                );
                if is_said {
                    return;
                }
            }
        }
        assert!(since.elapsed() < Duration::from_secs(20), "nobody says `{saying}`");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_says_how_many_tasks_there_are_in_the_whole_cluster() {
    let Some(site) = Site::new() else { return };
    let (a, b) = tokio::join!(site.node("a"), site.node("b"));
    a.owners(&[&a, &b]).await;
    b.owners(&[&a, &b]).await;
    a.apply(DEFINITIONS).await;
    let mut at_b = scaler(&b).await;
    let mut active = at_b.stream_is_active(trigger(&[])).await.unwrap().into_inner();
    assert!(!active.message().await.unwrap().unwrap().result, "nothing to do");
    assert!(!at_b.is_active(trigger(&[])).await.unwrap().into_inner().result);

    join_all((0..TASKS).map(|key| a.start("task", key))).await;
    becomes(&a, f64::from(TASKS)).await;
    assert!(
        (tasks(&b, &[("skills", SKILL)]).await.unwrap() - f64::from(TASKS)).abs() < 0.5,
        "the other one knows too"
    );
    assert!(
        tasks(&b, &[("skills", "default/clerk.other")]).await.unwrap() < 0.5,
        "of another skill there is none"
    );
    assert!(active.message().await.unwrap().unwrap().result, "told without being asked again");
    let backlog = v1::SkillBacklog { skill: SKILL.to_owned(), queued: u64::from(TASKS), held: 0 };
    assert_eq!(b.client.admin().backlog().await.unwrap().skills, [backlog], "nobody works");

    let _worker = worker(&[&a, &b]).await;
    becomes(&b, 0.0).await;
    assert!(!active.message().await.unwrap().unwrap().result, "all is done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_answer_makes_the_answer_an_error_until_it_is_none() {
    let Some(site) = Site::new() else { return };
    let node = site.node("a").await;
    node.apply(DEFINITIONS).await;
    join_all((0..TASKS).map(|key| node.start("task", key))).await;
    becomes(&node, f64::from(TASKS)).await;
    // It takes connections, as a process does that was stopped.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = site.member("b", &hangs.local_addr().unwrap().to_string()).await;
    refused(&node, "`b`").await;
    let mut asked = scaler(&node).await;
    let (told, ()) = tokio::join!(
        async { asked.stream_is_active(trigger(&[])).await.unwrap().into_inner().message().await },
        async { drop(silent) }
    );
    assert!(told.unwrap().unwrap().result, "a stream waits until somebody can say");
    becomes(&node, f64::from(TASKS)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_nobody_owns_make_the_answer_an_error_until_somebody_does() {
    let Some(site) = Site::new() else { return };
    let node = site.node("a").await;
    node.apply(DEFINITIONS).await;
    join_all((0..TASKS).map(|key| node.start("task", key))).await;
    becomes(&node, f64::from(TASKS)).await;
    // A member that answers, as a node of another cluster does it for it, and takes none of the shards that are its own.
    let Some(elsewhere) = Site::new() else { return };
    let stranger = elsewhere.node("b").await;
    let idle = site.member("b", &stranger.address).await;
    refused(&node, "on their way").await;
    drop(idle);
    becomes(&node, f64::from(TASKS)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_says_how_many_tasks_a_worker_is_for_and_nonsense_is_refused() {
    let Some(site) = Site::new() else { return };
    let node = site.node("a").await;
    let mut scaler = scaler(&node).await;
    let answer = scaler.get_metric_spec(trigger(&[("tasksPerWorker", "2.5")])).await.unwrap().into_inner();
    let [spec] = answer.metric_specs.as_slice() else { panic!("{answer:?}") };
    assert_eq!((spec.metric_name.as_str(), spec.target_size), ("kapell-tasks", 3));
    assert!((spec.target_size_float - 2.5).abs() < 1e-9);
    let refused = scaler.is_active(trigger(&[("skills", "clerk")])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("NAMESPACE/SPECIALIST.SKILL"), "{refused:?}");
}
