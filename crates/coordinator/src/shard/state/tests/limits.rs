//! What a shard refuses, and that a refusal leaves nothing behind.
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use kapell_kernel::Rejected;
use kapell_model::limits::KEY_QUEUE_MAX;
use kapell_model::{Json, Name};
use serde_json::json;

use super::*;
use crate::definitions::Definitions;

/// One waits for an event, the other fails at once.
fn definitions() -> Arc<InForce> {
    let workflow = |name: &str, step: serde_json::Value| DefinitionRecord {
        document: Json::of(&json!({
            "apiVersion": "kapell.dev/v1", "kind": "Workflow", "metadata": { "name": name },
            "spec": { "steps": [step], "onFailure": "stop" },
        })),
        removed: false,
        revision: 1,
        at: Timestamp(0),
    };
    let wait = json!({ "id": "wait", "wait": { "event": { "type": "t", "correlate": "k" } } });
    let fail = json!({ "id": "fail", "wait": { "until": "${event.data.at}" } });
    let definitions = Definitions::default();
    definitions.apply(&[workflow("waits", wait), workflow("fails", fail)]).unwrap();
    definitions.in_force()
}

fn shard(live_runs_max: usize) -> ShardState {
    ShardState::new(ShardRules {
        shard: ShardId(0),
        shards: ShardCount::default(),
        dedupe_window: Duration::from_secs(60),
        dedupe_runs_max: 10,
        live_runs_max,
        checkpoint_entries: 100,
        checkpoint_every: Duration::from_secs(60),
        history_entries: 100,
    })
}

fn start(no: u128, workflow: &str, key: Option<&str>, in_force: &InForce) -> StartRun {
    let (namespace, name) = (Name::default_namespace(), Name::new(workflow).unwrap());
    StartRun {
        run: RunId::new(ShardId(0), no),
        workflow: in_force.catalogue.workflow(&namespace, &name).unwrap().clone(),
        key: key.map(Arc::from),
        event: Json::of(&json!({ "type": "t", "data": {} })),
        parent: None,
        nesting: 0,
    }
}

const NOW: Timestamp = Timestamp(1_000);

#[test]
fn live_runs_have_a_limit_and_a_refused_one_leaves_nothing() {
    let (mut shard, in_force) = (shard(3), definitions());
    for no in 1..=3 {
        assert!(shard.start(start(no, "waits", None, &in_force), NOW, &in_force).is_ok());
    }
    let (records, last) = (shard.records.len(), shard.last);
    let refused = shard.start(start(4, "waits", Some("k"), &in_force), NOW, &in_force);
    assert_eq!(refused, Err(SubmitError::Busy { retry_after: Duration::from_secs(1) }));
    assert_eq!((shard.records.len(), shard.last, shard.runs.len()), (records, last, 3));
    let again = shard.start(start(3, "waits", None, &in_force), NOW, &in_force);
    assert!(
        again.is_ok_and(|started| started.duplicate),
        "what was accepted meets itself in a full shard too"
    );
    let cancel =
        Command::Cancel { by: "a".into(), reason: "b".into(), mode: kapell_kernel::CancelMode::Leave };
    shard.command(RunId::new(ShardId(0), 1), cancel, NOW, &in_force).unwrap();
    let started = shard.start(start(4, "waits", Some("k"), &in_force), NOW, &in_force);
    assert!(started.is_ok_and(|started| !started.duplicate), "there is room again, and the key is free");
}

#[test]
fn runs_behind_a_key_have_a_limit_and_a_refused_one_leaves_nothing() {
    let (mut shard, in_force) = (shard(usize::MAX), definitions());
    for no in 0..=KEY_QUEUE_MAX as u128 {
        assert!(shard.start(start(no + 1, "waits", Some("k"), &in_force), NOW, &in_force).is_ok());
    }
    let (last, no) = (shard.last, KEY_QUEUE_MAX as u128 + 2);
    let refused = shard.start(start(no, "waits", Some("k"), &in_force), NOW, &in_force);
    assert_eq!(refused, Err(SubmitError::KeyQueueFull { key: "k".to_owned(), waiting: KEY_QUEUE_MAX }));
    assert_eq!((shard.last, shard.runs.len()), (last, KEY_QUEUE_MAX + 1));
    assert!(shard.start(start(no, "waits", Some("other"), &in_force), NOW, &in_force).is_ok());
}

/// What the shard answers.
fn revive(shard: &mut ShardState, run: &Run, in_force: &InForce) -> Result<(), SubmitError> {
    let (to, answered) = mpsc::channel();
    let to = Mutex::new(to);
    let reply: Reply<Result<(), SubmitError>> =
        Box::new(move |result| to.lock().unwrap().send(result).unwrap());
    let retry = Box::new(Command::Retry { by: "ada".into() });
    let past = Past { run: Box::new(run.clone()), first: Seq(1) };
    shard.apply(Request::Revive(past, retry, reply), NOW, in_force);
    for output in shard.outputs.drain(..) {
        if let Output::Reply(answer) = output {
            answer();
        }
    }
    answered.try_recv().unwrap()
}

#[test]
fn a_retry_that_is_refused_leaves_nothing_in_the_shard() {
    let (mut shard, in_force) = (shard(9), definitions());
    let id = RunId::new(ShardId(0), 1);
    shard.start(start(1, "waits", None, &in_force), NOW, &in_force).unwrap();
    let cancel =
        Command::Cancel { by: "a".into(), reason: "b".into(), mode: kapell_kernel::CancelMode::Leave };
    let before = shard.runs[&id].clone();
    let mut run = before;
    let context = Context { catalogue: &in_force.catalogue, shards: shard.rules.shards };
    handle(&mut run, NOW, cancel.clone(), &context).unwrap();
    shard.command(id, cancel, NOW, &in_force).unwrap();
    assert!(shard.runs.is_empty() && shard.ended.contains(id));
    let last = shard.last;
    assert_eq!(
        revive(&mut shard, &run, &in_force),
        Err(Rejected::RunNotFailed { state: "was canceled" }.into())
    );
    assert!(shard.runs.is_empty() && shard.ended.contains(id));
    assert_eq!(shard.last, last);
}

#[test]
fn a_retry_with_an_old_history_is_refused() {
    let (mut shard, in_force) = (shard(9), definitions());
    let id = RunId::new(ShardId(0), 1);
    let begun = start(1, "fails", None, &in_force);
    let accepted = kapell_kernel::Accepted {
        workflow: begun.workflow.clone(),
        key: None,
        event: begun.event.clone(),
        parent: None,
        nesting: 0,
        queued: false,
        at: NOW,
    };
    let (mut run, _) = accept(id, accepted);
    let context = Context { catalogue: &in_force.catalogue, shards: shard.rules.shards };
    let known = Command::SupplyContext { context: Json::trusted("{}"), reasons: vec![] };
    handle(&mut run, NOW, known, &context).unwrap();
    let source = kapell_kernel::PlanSource::Written;
    handle(&mut run, NOW, Command::AdoptPlan { source, reasons: vec![] }, &context).unwrap();
    assert!(run.ended().is_some(), "its step fails at once");
    // It was retried and ended again after that history was read.
    shard.ended.insert(id, NOW.after(Duration::from_secs(1)));
    assert_eq!(revive(&mut shard, &run, &in_force), Err(Rejected::RunEnded.into()));
    shard.ended.insert(id, NOW);
    assert_eq!(revive(&mut shard, &run, &in_force), Ok(()));
}

/// Asks to watch a run; answers whether it is allowed, and what is to be kept open.
fn watch(
    shard: &mut ShardState,
    run: RunId,
) -> (Result<(), SubmitError>, tokio::sync::mpsc::Receiver<v1::Run>) {
    let (to, from) = tokio::sync::mpsc::channel(1);
    (shard.watch(run, to), from)
}

#[test]
fn watchers_of_a_run_have_a_limit_and_those_that_went_do_not_count() {
    let (mut shard, in_force) = (shard(9), definitions());
    let id = RunId::new(ShardId(0), 1);
    shard.start(start(1, "waits", None, &in_force), NOW, &in_force).unwrap();
    let mut watching: Vec<_> = (0..WATCHERS_PER_RUN_MAX).map(|_| watch(&mut shard, id)).collect();
    assert!(watching.iter().all(|(allowed, _)| allowed.is_ok()));
    let too_many = SubmitError::TooMany { what: "watch the run", most: WATCHERS_PER_RUN_MAX };
    assert_eq!(watch(&mut shard, id).0, Err(too_many));
    watching.pop();
    assert_eq!(watch(&mut shard, id).0, Ok(()));
}

#[test]
fn those_who_wait_for_an_end_have_a_limit_and_those_who_went_do_not_count() {
    let (mut shard, in_force) = (shard(9), definitions());
    let id = RunId::new(ShardId(0), 1);
    shard.start(start(1, "waits", None, &in_force), NOW, &in_force).unwrap();
    shard.outputs.clear();
    let here = Arc::new(());
    let wait = |shard: &mut ShardState, here: &Arc<()>| {
        let here = Arc::downgrade(here);
        let is_gone = Box::new(move || here.upgrade().is_none());
        shard.await_end(id, EndWaiter { is_gone, tell: Box::new(|_| {}) });
        // Whoever is not kept is answered at once.
        shard.outputs.drain(..).count() == 0
    };
    let one = Arc::new(());
    assert!(wait(&mut shard, &one));
    assert!((1..WAITERS_PER_RUN_MAX).all(|_| wait(&mut shard, &here)));
    assert!(!wait(&mut shard, &here));
    drop(one);
    assert!(wait(&mut shard, &here), "somebody went");
    assert!(!wait(&mut shard, &here));
}
