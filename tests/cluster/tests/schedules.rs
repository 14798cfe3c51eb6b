//! A thousand schedules on nodes that come, leave and hang, by clocks that the test moves: each tick starts one run.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt as _;
use kapell_client::v1;
use kapell_model::{Seq, ShardId, Timestamp};
use kapell_proto::journal;
use kapell_runtime::Clock;
use kapell_tests_cluster::{Node, SHARDS, Site, worker};
use prost::Message as _;
use tokio::time::{Instant, sleep};

const SCHEDULES: usize = 1_000;
const MINUTE_MS: u64 = 60_000;
/// Some minute has just begun.
const BEGIN: Timestamp = Timestamp(1_767_225_601_000);
/// Time for all that ticked to be over.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time of day of all nodes. It passes as it does, and minutes when the test says so.
#[derive(Clone)]
struct Hand {
    began: Instant,
    skipped_ms: Arc<AtomicU64>,
    /// How long it went before it was stopped.
    stopped: Arc<OnceLock<Duration>>,
}

impl Hand {
    fn new() -> Hand {
        Hand { began: Instant::now(), skipped_ms: Arc::default(), stopped: Arc::default() }
    }

    fn now(&self) -> Timestamp {
        let went = self.stopped.get().copied().unwrap_or_else(|| self.began.elapsed());
        BEGIN.after(went + Duration::from_millis(self.skipped_ms.load(Ordering::Relaxed)))
    }

    fn minute_passes(&self) {
        self.skipped_ms.fetch_add(MINUTE_MS, Ordering::Relaxed);
    }

    fn stop(&self) {
        self.stopped.set(self.began.elapsed()).unwrap();
    }

    /// The clock of a machine that is so many minutes ahead.
    fn ahead(&self, minutes: u64) -> Arc<dyn Clock> {
        Arc::new(Shown { hand: self.clone(), ahead: Duration::from_millis(minutes * MINUTE_MS) })
    }

    /// Minutes that have begun since the beginning.
    fn minutes(&self) -> u64 {
        minutes(self.now())
    }
}

fn minutes(at: Timestamp) -> u64 {
    at.0 / MINUTE_MS - BEGIN.0 / MINUTE_MS
}

struct Shown {
    hand: Hand,
    ahead: Duration,
}

impl Clock for Shown {
    fn now(&self) -> Timestamp {
        self.hand.now().after(self.ahead)
    }
}

/// Every minute, none left out. Half of them go one after the other, and a third of the runs live in the shard of a key.
fn definitions() -> String {
    let mut text = r#"
apiVersion: kapell.dev/v1
kind: Specialist
metadata: { name: clerk }
spec:
  skills:
    - name: clerk.note
      rules: { rows: [{ then: { of: "${input.of}", at: "${input.at}" } }] }
"#
    .to_owned();
    for (name, key) in [("tick", ""), ("tick-keyed", "  key: \"string(event.data.no)\"\n")] {
        text.push_str(&format!(
            "---\napiVersion: kapell.dev/v1\nkind: Workflow\nmetadata: {{ name: {name} }}\nspec:\n{key}\
             \x20 steps:\n\
             \x20   - id: note\n\
             \x20     skill: clerk.note\n\
             \x20     with: {{ of: \"${{event.source}}\", at: \"${{event.time}}\" }}\n\
             \x20     timeout: 1h\n\
             \x20     retry: {{ attempts: 90 }}\n"
        ));
    }
    for no in 0..SCHEDULES {
        let workflow = if no % 3 == 0 { "tick-keyed" } else { "tick" };
        let overlap = if no % 2 == 0 { "queue" } else { "allow" };
        text.push_str(&format!(
            "---\napiVersion: kapell.dev/v1\nkind: Schedule\nmetadata: {{ name: s{no} }}\n\
             spec: {{ cron: \"* * * * *\", workflow: {workflow}, with: {{ no: {no} }}, catchup: all, \
             overlap: {overlap} }}\n"
        ));
    }
    text
}

/// Waits until each schedule has started as many runs as minutes have passed, and all of them are over.
async fn all_done(node: &Node, minutes: u64) -> Vec<v1::Schedule> {
    let since = Instant::now();
    loop {
        let listed = node.client.schedules().list("").await;
        let done =
            |one: &&v1::Schedule| u64::from(one.started) >= minutes && one.running == 0 && one.waiting == 0;
        let count = listed.as_ref().map_or(0, |listed| listed.schedules.iter().filter(done).count());
        if count == SCHEDULES {
            return listed.unwrap().schedules;
        }
        assert!(since.elapsed() < PATIENCE, "{count} schedules are done with {minutes} minutes");
        // why: what is waited for happens at other nodes
        sleep(Duration::from_millis(100)).await;
    }
}

/// Every decision to start a run that was ever written, by schedule: its ticks. An owner that does not know what was
/// decided before would decide it again, though the run would meet its first self.
async fn decided(site: &Site) -> BTreeMap<String, Vec<u64>> {
    let mut ticks: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for shard in 0..SHARDS {
        let mut records = site.journal().read(ShardId(shard), Seq::ZERO);
        while let Some(placed) = records.next().await {
            let record = journal::Record::decode(placed.unwrap().record.payload).unwrap();
            let Some(journal::record::Kind::Schedule(entry)) = record.kind else { continue };
            let Some(journal::schedule_entry::Kind::TickStarted(started)) = entry.kind else { continue };
            let event: serde_json::Value = serde_json::from_str(&started.start.unwrap().event).unwrap();
            let tick = minutes(Timestamp(started.tick_ms));
            ticks.entry(schedule_of(event["source"].as_str().unwrap())).or_default().push(tick);
        }
    }
    ticks
}

fn schedule_of(source: &str) -> String {
    source.strip_prefix("/kapell/schedules/").unwrap().to_owned()
}

/// Every run that the ledger knows, by schedule: its ticks. The same tick twice is two runs of it.
async fn ticks(node: &Node) -> BTreeMap<String, Vec<u64>> {
    let mut request = v1::ListRunsRequest { limit: 1_000, ..v1::ListRunsRequest::default() };
    let mut ticks: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    loop {
        let page = node.client.runs().list(request.clone()).await.unwrap();
        for run in &page.runs {
            assert_eq!(run.state(), v1::RunState::Completed, "{run:?}");
            let output: serde_json::Value = serde_json::from_str(&run.output).unwrap();
            let (of, at) = (output["of"].as_str().unwrap(), output["at"].as_str().unwrap());
            let tick = Timestamp::from_rfc3339(at).unwrap();
            ticks.entry(schedule_of(of)).or_default().push(minutes(tick));
        }
        if page.next_cursor.is_empty() {
            assert_eq!(page.behind, 0, "the ledger has it all");
            return ticks;
        }
        request.cursor = page.next_cursor;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tick_of_a_thousand_schedules_starts_one_run_whoever_owns_them() {
    let Some(site) = Site::new() else { return };
    let hand = Hand::new();
    let (a, b) = tokio::join!(site.node_by("a", hand.ahead(0)), site.node_by("b", hand.ahead(0)));
    a.owners(&[&a, &b]).await;
    b.apply(&definitions()).await;
    a.knows(1).await;
    let _at_first = worker(&[&a, &b]).await;
    hand.minute_passes();
    let at_a = all_done(&a, 1).await;
    assert_eq!(names(&at_a), names(&all_done(&b, 1).await), "either node lists those of both");

    // A node that comes takes shards over while they tick. Its clock is ahead: what it starts early is not started again.
    hand.minute_passes();
    let c = site.node_by("c", hand.ahead(2)).await;
    let _at_c = worker(&[&c]).await;
    hand.minute_passes();
    a.owners(&[&a, &b, &c]).await;
    all_done(&c, hand.minutes()).await;

    // A node hangs with starts on their way, and minutes pass while nobody owns its shards.
    hand.minute_passes();
    // why: some are decided then, some are asked for, and some are over; which ones must not matter
    sleep(Duration::from_millis(30)).await;
    let _hanging = b.hang();
    hand.minute_passes();
    a.owners(&[&a, &c]).await;
    all_done(&a, hand.minutes()).await;

    // The one that is ahead gives everything back while it ticks: the others have not got so far yet.
    hand.minute_passes();
    c.leave().await;
    hand.minute_passes();
    assert_eq!(a.owners(&[&a]).await, [usize::from(SHARDS)]);
    for _ in 0..3 {
        hand.minute_passes();
    }
    all_done(&a, hand.minutes()).await;
    hand.stop();
    let schedules = all_done(&a, hand.minutes()).await;
    a.ledger_is_told().await;
    let (ran, decided) = (ticks(&a).await, decided(&site).await);
    let expected: Vec<u64> = (1..=hand.minutes()).collect();
    for one in &schedules {
        for mut ticks in [ran[&one.name].clone(), decided[&one.name].clone()] {
            ticks.sort_unstable();
            assert_eq!(ticks, expected, "{one:?}");
        }
        assert_eq!((u64::from(one.started), one.left_out), (hand.minutes(), 0), "{one:?}");
    }
    assert_eq!((ran.len(), decided.len()), (SCHEDULES, SCHEDULES));
    a.is_well().await;
}

fn names(schedules: &[v1::Schedule]) -> BTreeSet<&str> {
    schedules.iter().map(|one| one.name.as_str()).collect()
}
