//! What became of the orders: judged by the books of the business and by the state of the runs.
//!
//! Owns: what counts as lost, done twice, stuck or failed. Never: asks the system under test what it has done outside.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kapell_client::Client;
use kapell_proto::v1::{Finding, RunState};
use tokio::time::{Instant, sleep};

use crate::company::Company;
use crate::definitions::POSTING_STEPS;
use crate::load::{Order, ended, state_of};

/// Requests at once.
const ASKED_AT_ONCE: usize = 32;
/// Stories that are written down at once.
const STORIES_MAX: usize = 20;

/// What became of each accepted order.
#[derive(Default)]
pub(crate) struct Fates {
    /// A posting is missing.
    pub(crate) lost: BTreeSet<Order>,
    /// A posting was made more than once.
    pub(crate) twice: BTreeSet<Order>,
    /// The run has not ended.
    pub(crate) stuck: BTreeSet<Order>,
    /// The run ended otherwise than completed, though nothing was wrong with it.
    pub(crate) failed: BTreeSet<Order>,
    /// Postings that belong to no accepted order.
    pub(crate) foreign_postings: u64,
}

impl Fates {
    /// Orders that something is wrong with.
    pub(crate) fn wrong(&self) -> BTreeSet<Order> {
        [&self.lost, &self.twice, &self.stuck, &self.failed].into_iter().flatten().copied().collect()
    }
}

/// Waits until every run has ended, and answers the last state of those that were looked at.
pub(crate) async fn settle(
    client: &Client,
    accepted: &BTreeMap<Order, String>,
    patience: Duration,
) -> BTreeMap<Order, Option<RunState>> {
    let begun = Instant::now();
    let mut states = BTreeMap::new();
    let mut open: Vec<(Order, String)> = accepted.iter().map(|(order, run)| (*order, run.clone())).collect();
    loop {
        let asked = stream::iter(open.drain(..))
            .map(async |(order, run)| {
                let state = state_of(client, &run).await;
                (order, run, state)
            })
            .buffer_unordered(ASKED_AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        for (order, run, state) in asked {
            states.insert(order, state);
            if !ended(state) {
                open.push((order, run));
            }
        }
        if open.is_empty() || begun.elapsed() > patience {
            return states;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Holds the books against the orders.
pub(crate) async fn judge(
    company: &Company,
    states: &BTreeMap<Order, Option<RunState>>,
) -> anyhow::Result<Fates> {
    let references = states
        .keys()
        .flat_map(|order| POSTING_STEPS.map(|step| (*order, format!("{}/{step}", order.name()))));
    let counts: Vec<(Order, u64)> = stream::iter(references)
        .map(async |(order, reference)| anyhow::Ok((order, company.postings(&reference).await?)))
        .buffer_unordered(ASKED_AT_ONCE)
        .try_collect()
        .await
        .context("reading the books")?;
    let mut fates = Fates::default();
    for (order, count) in &counts {
        match count {
            0 => drop(fates.lost.insert(*order)),
            1 => {}
            _ => drop(fates.twice.insert(*order)),
        }
    }
    let ours: u64 = counts.iter().map(|(_, count)| count).sum();
    fates.foreign_postings = company.all_postings().await?.saturating_sub(ours);
    for (order, state) in states {
        if !ended(*state) {
            fates.stuck.insert(*order);
        } else if *state != Some(RunState::Completed) {
            fates.failed.insert(*order);
        }
    }
    Ok(fates)
}

/// What the system itself finds wrong.
pub(crate) async fn doctor(client: &Client) -> anyhow::Result<Vec<Finding>> {
    Ok(client.admin().doctor().await?.findings)
}

/// How calls of unknown outcome ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settled {
    /// They had taken effect and were not made again.
    pub(crate) took_effect: u64,
    /// They had not.
    pub(crate) repeated: u64,
}

/// Counts, in the stories of these runs, the calls whose outcome had to be found out.
pub(crate) async fn settled(client: &Client, runs: BTreeSet<String>) -> anyhow::Result<Settled> {
    let each: Vec<Settled> = stream::iter(runs)
        .map(async |run| {
            let story = story(client, &run).await?;
            let of = |text: &str| story.iter().filter(|line| line.contains(text)).count() as u64;
            anyhow::Ok(Settled {
                took_effect: of("found out: the call took effect"),
                repeated: of("found out: the call may safely be made again"),
            })
        })
        .buffer_unordered(ASKED_AT_ONCE)
        .try_collect()
        .await?;
    Ok(each.into_iter().fold(Settled::default(), |sum, one| Settled {
        took_effect: sum.took_effect + one.took_effect,
        repeated: sum.repeated + one.repeated,
    }))
}

/// Writes the stories of these orders' runs to a file.
pub(crate) async fn write_stories(
    client: &Client,
    accepted: &BTreeMap<Order, String>,
    orders: &BTreeSet<Order>,
    file: &Path,
) -> anyhow::Result<()> {
    let mut text = String::new();
    for order in orders.iter().take(STORIES_MAX) {
        let run = accepted.get(order).cloned().unwrap_or_default();
        text.push_str(&format!("{} is run {run}\n", order.name()));
        match story(client, &run).await {
            Ok(lines) => lines.iter().for_each(|line| text.push_str(&format!("  {line}\n"))),
            Err(error) => text.push_str(&format!("  no story: {error:#}\n")),
        }
    }
    Ok(std::fs::write(file, text)?)
}

async fn story(client: &Client, run: &str) -> anyhow::Result<Vec<String>> {
    let answer = client.runs().explain(run).await?;
    let line = |line: &kapell_proto::v1::StoryLine| {
        format!("{} {} {} {} {}", line.seq, line.at_ms, line.entry, line.step, line.text)
    };
    Ok(answer.lines.iter().map(line).collect())
}
