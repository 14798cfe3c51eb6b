//! Two and three coordinators over a real etcd: requests at the wrong node, nodes that come, leave and hang.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kapell_client::v1::RunState;
use kapell_client::{cloudevents, v1};
use kapell_cluster::NodeName;
use kapell_model::ShardId;
use kapell_proto::v1::resource_service_client::ResourceServiceClient;
use kapell_runtime::{Net as _, SystemNet};
use kapell_tests_cluster::{Node, SHARDS, Site, TTL, shard_of, worker};
use tokio::time::{Instant, timeout};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

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
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: parked }
spec:
  key: "event.data.key"
  steps:
    - id: news
      wait: { event: { type: com.example.news, correlate: "${event.data.key}", by: "event.data.key" } }
---
apiVersion: kapell.dev/v1
kind: Workflow
metadata: { name: parent }
spec:
  key: "event.data.key"
  steps:
    - id: child
      workflow: task
      with: { key: "${'child of ' + event.data.key}" }
"#;

/// Keys of so many runs: enough that every shard has some.
const RUNS: u32 = 96;

/// What a node says of itself to whoever decides where requests go; `None`: it does not answer.
async fn health(address: &str) -> Option<ServingStatus> {
    let channel = kapell_runtime::channel(Arc::new(SystemNet), address).await.ok()?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.ok()?;
    Some(answer.get_ref().status())
}

/// The shard of the definitions.
const CONTROL: u32 = 0;

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_waits_for_an_owner_of_the_definitions_and_says_that_there_is_none() {
    let Some(site) = Site::new() else { return };
    let node = site.node("a").await;
    // Members that take no shards, until the definitions are one's.
    let (mut idle, since) = (vec![], Instant::now());
    loop {
        let known = node.client.admin().cluster().await.unwrap();
        let control = known.shards.iter().find(|shard| shard.shard == CONTROL).unwrap();
        if control.preferred != node.name && control.node != node.name {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{known:?}");
        if known.members.len() == idle.len() + 1 && control.preferred == node.name {
            idle.push(site.member(&format!("idle-{}", idle.len()), &node.address).await);
        }
        // why: nothing tells that etcd's news has arrived
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let channel = kapell_runtime::channel(Arc::new(SystemNet), &node.address).await.unwrap();
    let file = v1::SourceFile { name: "all.yaml".to_owned(), text: DEFINITIONS.to_owned() };
    let request = v1::ApplyRequest { files: vec![file], dry_run: false };
    let asked = Instant::now();
    let refused = ResourceServiceClient::new(channel).apply(request).await.unwrap_err();
    assert!(asked.elapsed() >= Duration::from_millis(1_900), "it did not wait: {refused:?}");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");
    assert!(refused.message().contains("on its way to a node and nothing was done"), "{refused:?}");
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"), "{refused:?}");
    drop(idle);
    // By a client that hides it.
    node.apply(DEFINITIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_journal_is_away_says_that_it_is_not_ready_and_is_when_the_journal_is_back() {
    let Some(site) = Site::new() else { return };
    let journal = site.way_to_journal();
    let address = SystemNet.listen("127.0.0.1:0").await.unwrap().address().to_string();
    journal.keep_shards();
    let mut starting = Box::pin(site.node_at("a", &address, journal.clone()));
    let since = Instant::now();
    let mut heard = None;
    // Longer than one try to load takes, and its pause.
    while heard.is_none() || since.elapsed() < Duration::from_secs(1) {
        assert!(futures::poll!(&mut starting).is_pending(), "it has no shard yet");
        heard = health(&address).await;
        assert!(matches!(heard, None | Some(ServingStatus::NotServing)), "{heard:?}");
    }
    journal.back();
    let node = starting.await;
    assert_eq!(health(&address).await, Some(ServingStatus::Serving));
    assert_eq!(node.owners(&[&node]).await, [usize::from(SHARDS)]);
}

/// It could not tell the others that its shards are free.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_to_leave_serves_on_while_etcd_is_silent() {
    let Some(mut site) = Site::new() else { return };
    let (a, b) = tokio::join!(site.node("a"), site.node("b"));
    b.owners(&[&a, &b]).await;
    b.apply(DEFINITIONS).await;
    a.knows(1).await;
    let of_a = b.shards_of(&a).await;
    let keys: Vec<u32> = (0..).filter(|key| of_a.contains(&shard_of(*key))).take(8).collect();
    site.silence_etcd();
    let mut leaving = Box::pin(a.leave());
    for key in keys {
        let started = timeout(TTL / 4, b.start("parked", key));
        tokio::select! {
            started = started => drop(started.expect("its owner is there")),
            _ = &mut leaving => panic!("it left, and nobody knows"),
        }
    }
    site.wake_etcd();
    leaving.await;
    assert_eq!(b.owners(&[&b]).await, [usize::from(SHARDS)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_of_a_node_that_does_not_reach_the_journal_go_to_one_that_does_and_come_back() {
    let Some(site) = Site::new() else { return };
    let way = site.way_to_journal();
    let (a, b) = tokio::join!(site.node_at("a", "127.0.0.1:0", way.clone()), site.node("b"));
    let counts = b.owners(&[&a, &b]).await;
    b.apply(DEFINITIONS).await;
    way.go();
    assert_eq!(b.owners(&[&b]).await, [usize::from(SHARDS)]);
    for key in 0..RUNS {
        b.start("parked", key).await;
    }
    let refusal = try_publish(&a, "com.example.unknown", 0).await.refusal.unwrap();
    assert!(
        refusal.retry_after_ms.is_some(),
        "it is no member, and may not know what the event is for: {refusal:?}"
    );
    assert_eq!(publish(&b, "com.example.unknown", 0).await.runs, [], "a member knows");
    way.back();
    let since = Instant::now();
    while b.owners(&[&a, &b]).await != counts {
        assert!(since.elapsed() < Duration::from_secs(30), "it gets none back");
    }
    assert_eq!(publish(&a, "com.example.unknown", 1).await.runs, [], "a member again");
    a.is_well().await;
}

async fn two(site: &Site) -> (Node, Node) {
    let (a, b) = tokio::join!(site.node("a"), site.node("b"));
    let counts = a.owners(&[&a, &b]).await;
    assert_eq!(b.owners(&[&a, &b]).await, counts, "both know the same");
    a.apply(DEFINITIONS).await;
    b.knows(1).await;
    (a, b)
}

async fn start_all(node: &Node, workflow: &str, keys: std::ops::Range<u32>) -> Vec<String> {
    join_all(keys.map(|key| node.start(workflow, key))).await
}

async fn news(node: &Node, key: u32) -> u32 {
    publish(node, "com.example.news", key).await.delivered
}

/// An event of a type about a key, which is taken.
async fn publish(node: &Node, event_type: &str, key: u32) -> v1::PublishResult {
    let result = try_publish(node, event_type, key).await;
    assert!(result.refusal.is_none(), "{result:?}");
    result
}

async fn try_publish(node: &Node, event_type: &str, key: u32) -> v1::PublishResult {
    let json =
        cloudevents::cloud_event::cloud_event_attribute_value::Attr::CeString("application/json".to_owned());
    let json = cloudevents::cloud_event::CloudEventAttributeValue { attr: Some(json) };
    let event = cloudevents::CloudEvent {
        id: format!("news-{key}"),
        source: "/test".to_owned(),
        spec_version: "1.0".to_owned(),
        r#type: event_type.to_owned(),
        data: Some(cloudevents::cloud_event::Data::TextData(format!("{{\"key\":\"k{key}\"}}"))),
        attributes: [("datacontenttype".to_owned(), json)].into(),
    };
    let request = v1::PublishRequest { namespace: String::new(), events: vec![event] };
    node.client.events().publish(request).await.unwrap().results.remove(0)
}

fn steer(run: &str) -> v1::SteerRequest {
    let (run, by, reason) = (run.to_owned(), "ann".to_owned(), "to see".to_owned());
    v1::SteerRequest { run, by, reason, ..v1::SteerRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_takes_any_request() {
    let Some(site) = Site::new() else { return };
    let (a, b) = two(&site).await;
    let runs = start_all(&b, "parked", 0..RUNS).await;
    assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), RUNS as usize);
    assert_eq!(
        start_all(&a, "parked", 0..RUNS).await,
        runs,
        "the same request meets its first self anywhere"
    );
    for (run, key) in runs.iter().zip(0..) {
        let (here, there) = if key % 2 == 0 { (&a, &b) } else { (&b, &a) };
        here.reaches(run, RunState::Waiting).await;
        let pause = v1::SteerRequest { request_id: "pause".to_owned(), ..steer(run) };
        here.client.runs().pause(pause.clone()).await.unwrap();
        assert_eq!(there.state(run).await, RunState::Paused);
        there.client.runs().resume(steer(run)).await.unwrap();
        there.client.runs().pause(pause).await.unwrap();
        assert_eq!(here.state(run).await, RunState::Waiting, "the first pause, which comes late");
        assert_eq!(news(here, key).await, 1, "the event reaches the run wherever it is");
        there.reaches(run, RunState::Completed).await;
        assert!(here.client.runs().replay(run).await.unwrap().same);
    }
    cancels_twice(&a, &b, RUNS).await;
    assert_eq!(news(&a, 0).await, 0, "nobody waits for it any more");
    a.is_well().await;
    b.is_well().await;
}

/// The run is over by the time at which the same request comes again.
async fn cancels_twice(a: &Node, b: &Node, key: u32) {
    let run = a.start("parked", key).await;
    let v1::SteerRequest { run, by, reason, .. } = steer(&run);
    let cancel = v1::CancelRequest { run, by, reason, leave: false, request_id: "end".to_owned() };
    a.client.runs().cancel(cancel.clone()).await.unwrap();
    b.reaches(&cancel.run, RunState::Canceled).await;
    assert_eq!(b.client.runs().cancel(cancel.clone()).await.unwrap().state(), RunState::Canceled);
    let other = v1::CancelRequest { request_id: String::new(), ..cancel };
    let refused = b.client.runs().cancel(other).await.unwrap_err();
    assert!(refused.to_string().contains("ended"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_applied_at_one_node_is_known_to_every_other_at_once() {
    let Some(site) = Site::new() else { return };
    let (a, b) = two(&site).await;
    for change in 0..20 {
        let (node, other) = if change % 2 == 0 { (&a, &b) } else { (&b, &a) };
        assert_eq!(node.apply(&on_event(change)).await, [], "nobody is out of reach");
        assert_eq!(publish(other, &event_type(change), 0).await.runs.len(), 1, "{change}");
    }
    let kind = v1::GetResourcesRequest { kind: "workflow".to_owned(), ..v1::GetResourcesRequest::default() };
    let of = async |node: &Node| node.client.resources().get(kind.clone()).await.unwrap().resources;
    assert_eq!(of(&a).await, of(&b).await);
    assert_eq!(of(&a).await.len(), 3 + 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_applies_is_told_which_node_may_not_know_of_it() {
    let Some(site) = Site::new() else { return };
    let ways = ["a", "b"].map(|name| (name, site.way_to_journal()));
    let nodes = ways.clone().map(|(name, way)| site.node_at(name, "127.0.0.1:0", way));
    let nodes = join_all(nodes).await;
    nodes[0].owners(&[&nodes[0], &nodes[1]]).await;
    let (applies, other) =
        if nodes[0].shards_of(&nodes[0]).await.contains(&ShardId(0)) { (0, 1) } else { (1, 0) };
    ways[other].1.go();
    let warnings = nodes[applies].apply(DEFINITIONS).await;
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    let named = format!("node `{}` may not know of it yet: ", ways[other].0);
    assert!(warning.message.starts_with(&named) && warning.message.contains("it is away"), "{warning:?}");
    ways[other].1.back();
    nodes[other].knows(1).await;
}

fn event_type(no: u32) -> String {
    format!("com.example.t{no}")
}

/// A workflow that is started by events of this type.
fn on_event(no: u32) -> String {
    let event_type = event_type(no);
    format!(
        "apiVersion: kapell.dev/v1\nkind: Workflow\nmetadata: {{ name: w{no} }}\nspec:\n  on: {{ type: {event_type} }}\n  steps: [{{ id: one, wait: {{ for: 1h }} }}]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_done_for_both_nodes_and_children_live_where_they_live() {
    let Some(site) = Site::new() else { return };
    let (a, b) = two(&site).await;
    let _worker = worker(&[&a, &b]).await;
    let (tasks, parents) =
        tokio::join!(start_all(&a, "task", 0..RUNS), start_all(&b, "parent", 1_000..1_000 + RUNS));
    for run in tasks.iter().chain(&parents) {
        b.reaches(run, RunState::Completed).await;
    }
    a.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_at_the_wrong_node_sees_the_end() {
    let Some(site) = Site::new() else { return };
    let (a, b) = two(&site).await;
    let runs = start_all(&a, "parked", 0..8).await;
    for (run, key) in runs.iter().zip(0..) {
        for node in [&a, &b] {
            node.reaches(run, RunState::Waiting).await;
        }
        let (mut at_a, mut at_b) =
            (a.client.runs().watch(run).await.unwrap(), b.client.runs().watch(run).await.unwrap());
        assert_eq!(news(&b, key).await, 1);
        for changes in [&mut at_a, &mut at_b] {
            let mut last = None;
            while let Some(change) = changes.next().await.unwrap() {
                last = Some(change.state());
            }
            assert_eq!(last, Some(RunState::Completed));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_gets_shards_and_one_that_leaves_gives_them_and_nothing_is_lost() {
    let Some(site) = Site::new() else { return };
    let (a, b) = two(&site).await;
    let mut runs = start_all(&a, "parked", 0..RUNS).await;
    let c = site.node("c").await;
    a.owners(&[&a, &b, &c]).await;
    // While the shards of `b` move, others start runs: none is refused, none is lost.
    let (more, _) = tokio::join!(start_all(&c, "parked", RUNS..2 * RUNS), b.leave());
    runs.extend(more);
    a.owners(&[&a, &c]).await;
    for (run, key) in runs.iter().zip(0..) {
        c.reaches(run, RunState::Waiting).await;
        assert_eq!(news(&a, key).await, 1, "{run} waits, and is reached once");
        c.reaches(run, RunState::Completed).await;
    }
    a.is_well().await;
}

/// As the cluster sees it, through the eyes of a member that is to own nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_has_handed_its_shards_over_a_few_at_a_time_before_it_is_gone() {
    const AT_ONCE: usize = 4;
    let Some(site) = Site::new() else { return };
    let onlooker = site.member("onlooker", "127.0.0.1:1").await;
    onlooker.retire().await.unwrap();
    let (a, b) = two(&site).await;
    let (mut members, mut owners) = (onlooker.members(), onlooker.owners());
    owners.wait_for(|owners| owners.len() == usize::from(SHARDS)).await.unwrap();
    let of_a = b.shards_of(&a).await.len();
    let leaving = NodeName::new(&a.name).unwrap();
    let gone = members.wait_for(|members| !members.contains_key(&leaving));
    let mut most = 0;
    let watching = async {
        while owners.changed().await.is_ok() {
            most = most.max(usize::from(SHARDS) - owners.borrow_and_update().len());
        }
    };
    let left = async { tokio::join!(a.leave(), gone).1.map(drop) };
    tokio::select! {
        left = left => left.unwrap(),
        () = watching => {}
    }
    assert!(of_a > AT_ONCE && most <= AT_ONCE, "of {of_a}, {most} were nobody's");
    assert_eq!(b.owners(&[&b]).await, [usize::from(SHARDS)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shards_of_a_node_that_hangs_are_taken_over_within_its_lease_and_their_runs_go_on() {
    let Some(site) = Site::new() else { return };
    let (a, b) = two(&site).await;
    let runs = start_all(&a, "parked", 0..RUNS).await;
    let since = Instant::now();
    let _hanging = b.hang();
    assert_eq!(a.owners(&[&a]).await, [usize::from(SHARDS)]);
    // etcd looks for leases that ended twice a second, and then writes.
    assert!(since.elapsed() < TTL + Duration::from_secs(3), "{:?}", since.elapsed());
    for (run, key) in runs.iter().zip(0..) {
        a.reaches(run, RunState::Waiting).await;
        assert_eq!(news(&a, key).await, 1);
        a.reaches(run, RunState::Completed).await;
        assert!(
            a.client.runs().replay(run).await.unwrap().same,
            "the journal tells what the new owner knows"
        );
    }
    a.is_well().await;
}
