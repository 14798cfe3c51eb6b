//! Many runs over one stream, against a real node.
use std::time::Duration;

use futures::future::join_all;
use kapell_client::{AnswerWhen, Client, ClientError, v1};

use crate::node_with_definitions;

fn request(workflow: &str, id: &str) -> v1::StartRunRequest {
    v1::StartRunRequest {
        workflow: workflow.to_owned(),
        input: format!(r#"{{"name":"{id}","number":3}}"#),
        request_id: id.to_owned(),
        wait_ms: Some(60_000),
        ..v1::StartRunRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_of_a_shared_stream_gets_its_own_answer() {
    let node = node_with_definitions();
    let starter = Client::connect(&node.address).await.unwrap().runs().starter();
    let ids: Vec<String> = (0..100).map(|n| format!("request-{n}")).collect();
    let ended = join_all(ids.iter().map(|id| starter.start(request("greet", id), AnswerWhen::Ended))).await;
    let mut runs: Vec<String> = ended
        .into_iter()
        .map(|answer| {
            let answer = answer.unwrap();
            let state = answer.state.unwrap();
            assert_eq!((state.state(), answer.duplicate), (v1::RunState::Completed, false), "{state:?}");
            assert_eq!(state.id, answer.run);
            answer.run
        })
        .collect();
    // A run that had ended before it was asked for again.
    let again = starter.start(request("greet", "request-0"), AnswerWhen::Ended).await.unwrap();
    assert!(again.duplicate);
    assert_eq!((&again.run, again.state.unwrap().state()), (&runs[0], v1::RunState::Completed));
    let begun = starter.start(request("greet", "request-1"), AnswerWhen::Started).await.unwrap();
    assert_eq!((&begun.run, begun.state), (&runs[1], None));
    runs.sort_unstable();
    runs.dedup();
    assert_eq!(runs.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_start_is_refused_as_by_a_call_and_harms_no_other() {
    let node = node_with_definitions();
    let client = Client::connect(&node.address).await.unwrap();
    let starter = client.runs().starter();
    let wrong = request("no-such-workflow", "wrong");
    let (by_stream, right) = futures::join!(
        starter.start(wrong.clone(), AnswerWhen::Started),
        starter.start(request("greet", "right"), AnswerWhen::Ended),
    );
    let by_call = client.runs().start(wrong).await.unwrap_err();
    assert!(matches!(by_call, ClientError::NotFound { .. }), "{by_call}");
    assert_eq!(by_stream.unwrap_err(), by_call);
    assert!(right.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_in_the_middle_starts_every_run_once() {
    let mut node = node_with_definitions();
    let starter = Client::connect(&node.address).await.unwrap().runs().starter();
    let start = |n: u32| {
        let starter = starter.clone();
        async move { starter.start(request("greet", &format!("request-{n}")), AnswerWhen::Ended).await }
    };
    let crash = async {
        // why: some runs have ended by then, some are under way, some were not read
        tokio::time::sleep(Duration::from_millis(30)).await;
        node.crash_and_restart();
    };
    let (answers, ()) = futures::join!(join_all((0..2_000).map(start)), crash);
    let mut runs: Vec<String> = answers.into_iter().map(|answer| answer.unwrap().run).collect();
    runs.sort_unstable();
    runs.dedup();
    assert_eq!(runs.len(), 2_000);
    let epochs = node.json(&["status"])["shards"].as_array().unwrap().clone();
    let is_later = |shard: &serde_json::Value| shard["epoch"].as_u64() > Some(epochs.len() as u64);
    assert!(epochs.iter().all(is_later), "each start takes the shards anew: {epochs:?}");
    let doctor = node.kapell(&["doctor"]);
    assert_eq!(doctor.exit, 0, "{}", doctor.stdout);
}
