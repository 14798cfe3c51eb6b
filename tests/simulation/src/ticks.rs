//! Schedules: every minute of a day that passes fast, while hosts die and clocks step.
//!
//! Owns: the schedules, stopping them in the end, and which postings are right. Never: decides what goes wrong.
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use kapell_model::Timestamp;
use kapell_proto::v1;
use kapell_proto::v1::schedule_service_client::ScheduleServiceClient;
use tokio::time::sleep;

use crate::client::Client;
use crate::world::State;

/// The time of day passes so much faster than what networks and leases go by: a minute in three seconds.
pub(crate) const SPEED: u64 = 20;
const MINUTE_MS: u64 = 60_000;
/// Virtual time for which they tick, also when nothing goes wrong; the last minute may find a shard on its way.
const TICKS_FOR_MS: u64 = 17_000;
/// Minutes that must have passed at least.
const MINUTES_MIN: usize = 4;

/// What is promised of the ticks of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// Every minute from the first to the last.
    Each,
    /// The same, in order.
    InOrder,
    /// As many as the schedule says that it started.
    Some,
}

/// When schedules tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    EveryMinute,
    /// On the first of January: what waits goes on, and nothing comes any more.
    Yearly,
}

/// Catch-up and overlap, in turns.
const KINDS: [(&str, &str, Promise); 4] = [
    ("all", "allow", Promise::Each),
    ("all", "queue", Promise::InOrder),
    ("latest", "skip", Promise::Some),
    ("skip", "allow", Promise::Some),
];

fn kind(no: usize) -> (&'static str, &'static str, Promise) {
    KINDS[no % KINDS.len()]
}

/// The workflow and so many schedules, as a file; half of the runs live in the shard of their key.
pub(crate) fn definitions(count: usize, clock: Clock) -> String {
    let cron = match clock {
        Clock::EveryMinute => "* * * * *",
        Clock::Yearly => "0 0 1 1 *",
    };
    let mut text = String::new();
    for (name, key) in [("tick", ""), ("tick-keyed", "  key: string(event.data.no)\n")] {
        text.push_str(&format!(
            "---\napiVersion: kapell.dev/v1\nkind: Workflow\nmetadata: {{ name: {name} }}\nspec:\n{key}\
             \x20 steps:\n\
             \x20   - id: post\n\
             \x20     skill: clerk.post\n\
             \x20     with: {{ id: \"tick-${{event.data.no}}@${{event.time}}\" }}\n\
             \x20     retry: {{ attempts: 90, backoff: {{ initial: 50ms, max: 1s }} }}\n"
        ));
    }
    for no in 0..count {
        let (catchup, overlap, _) = kind(no);
        let workflow = if (no / KINDS.len()).is_multiple_of(2) { "tick" } else { "tick-keyed" };
        text.push_str(&format!(
            "---\napiVersion: kapell.dev/v1\nkind: Schedule\nmetadata: {{ name: tick-{no} }}\n\
             spec: {{ cron: \"{cron}\", workflow: {workflow}, with: {{ no: {no} }}, \
             catchup: {catchup}, overlap: {overlap} }}\n"
        ));
    }
    text
}

impl Client {
    /// When nothing goes wrong any more, no tick comes any more.
    pub(crate) async fn keep_schedules(&self) {
        while !self.world.lock().has_ticked_for(TICKS_FOR_MS) {
            // why: virtual time, and its passing is part of what is simulated
            sleep(Duration::from_millis(100)).await;
        }
        let yearly = || definitions(self.mix.schedules, Clock::Yearly);
        self.insist("stop the ticks", || self.apply(vec![("schedules.yaml", yearly())])).await;
        self.world.log("client", "the ticks are stopped");
        self.world.lock().stopped = true;
    }

    /// Whether all that ticked is over; writes down what the schedules say.
    pub(crate) async fn look_at_schedules(&self) -> anyhow::Result<()> {
        ensure!(self.world.lock().stopped, "the schedules tick still");
        let mut client = ScheduleServiceClient::new(self.channel().await?);
        let request = v1::ListSchedulesRequest::default();
        let schedules = client.list(request).await?.into_inner().schedules;
        ensure!(schedules.len() == self.mix.schedules, "there are {} schedules", schedules.len());
        let busy = schedules.iter().filter(|one| one.running > 0 || one.waiting > 0).count();
        ensure!(busy == 0, "{busy} schedules have runs that are not over");
        let started = schedules.into_iter().map(|one| (one.name, (one.started, one.left_out)));
        self.world.lock().scheduled = started.collect();
        Ok(())
    }
}

/// Says what is broken, and takes what is right out of the postings.
pub(crate) fn judge(count: usize, world: &mut State) {
    let mut ticks: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for entry in &world.posted {
        let Some((name, tick)) = entry.split_once('@') else { continue };
        let Some(Timestamp(tick)) = Timestamp::from_rfc3339(tick) else { continue };
        ticks.entry(name.to_owned()).or_default().push(tick);
    }
    world.postings.retain(|entry, _| !entry.starts_with("tick-"));
    for no in 0..count {
        let name = format!("tick-{no}");
        let posted = ticks.remove(&name).unwrap_or_default();
        let told = world.scheduled.get(&name).copied().unwrap_or_default();
        if let Some(wrong) = wrong_with(kind(no).2, &posted, told) {
            world.broken.push(format!("{name}, {:?}: {wrong}: {posted:?}", kind(no)));
        }
    }
    for (name, posted) in ticks {
        world.broken.push(format!("{name} ticked, and there is no such schedule: {posted:?}"));
    }
}

fn wrong_with(promise: Promise, posted: &[u64], (started, left_out): (u32, u64)) -> Option<String> {
    let mut sorted = posted.to_vec();
    sorted.sort_unstable();
    let whole = sorted.windows(2).all(|pair| pair[1] == pair[0] + MINUTE_MS);
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Some("a tick was posted twice".to_owned());
    }
    if posted.len() != started as usize {
        return Some(format!("{} ticks were posted and {started} were started", posted.len()));
    }
    match promise {
        Promise::Each | Promise::InOrder if !whole => Some("a tick in between was left out".to_owned()),
        Promise::Each | Promise::InOrder if posted.len() < MINUTES_MIN => Some("hardly a tick".to_owned()),
        Promise::Each | Promise::InOrder if left_out > 0 => Some(format!("{left_out} were left out")),
        Promise::InOrder if posted != sorted => Some("they were not in order".to_owned()),
        Promise::Some if started as usize + (left_out as usize) < MINUTES_MIN => {
            Some(format!("{started} were started and {left_out} left out: hardly a tick"))
        }
        Promise::Each | Promise::InOrder | Promise::Some => None,
    }
}
