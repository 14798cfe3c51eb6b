//! A cluster as queues: runs arrive, shards decide in batches, databases commit groups, workers do steps.
//!
//! Owns: what waits for what. Never: costs that nobody measured.
use std::collections::VecDeque;

use hdrhistogram::Histogram;
use kapell_runtime::{Entropy, SeededEntropy};
use serde::Serialize;

use crate::agenda::{Agenda, Moment};
use crate::costs::Costs;

/// Steps of a run, as in the workload that was measured.
const STEPS: u8 = 5;
/// Rows that a writer sends to a database at once at most.
const GROUP_MAX: usize = 4096;
/// Share of a coordinator's work on a message that comes before the journal; the rest comes after it.
const BEFORE_JOURNAL: f64 = 0.6;
/// Simulated before anything is counted.
const WARM_NANOS: Moment = 500_000_000;
/// A millisecond.
const MS: f64 = 1e6;

/// How large it is, and what it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) coordinators: usize,
    pub(crate) cores_of_a_coordinator: usize,
    pub(crate) shards: usize,
    pub(crate) databases: usize,
    /// Connections of a coordinator to a database, which commit side by side.
    pub(crate) writers: usize,
    pub(crate) workers: usize,
    pub(crate) steps_per_s: f64,
    /// What a specialist takes for a step besides the worker's own time, in milliseconds; many at once.
    pub(crate) step_ms: f64,
}

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// What it was asked for, as chance had it.
    pub(crate) asked_per_s: f64,
    pub(crate) steps_per_s: f64,
    /// From being assigned to being reported and on disk.
    pub(crate) step_p50_ms: f64,
    pub(crate) step_p99_ms: f64,
    /// From its event's arrival to its end.
    pub(crate) run_p50_ms: f64,
    pub(crate) run_p99_ms: f64,
    /// Share of their time that they worked.
    pub(crate) coordinators_busy: f64,
    /// The same of the busiest coordinator.
    pub(crate) busiest_coordinator: f64,
    pub(crate) databases_busy: f64,
    pub(crate) workers_busy: f64,
    /// Messages that a shard decides at once, and that a writer commits at once, on average.
    pub(crate) batch: f64,
    pub(crate) group: f64,
    /// How many more runs were under way at the end than when counting began, as a share of those begun meanwhile.
    pub(crate) grew: f64,
}

/// A run, on its way from one station to the next.
#[derive(Clone, Copy)]
struct Run {
    shard: usize,
    begun: Moment,
    /// When its step was assigned.
    assigned: Moment,
    done: u8,
}

enum Event {
    /// The next run begins.
    Begin,
    /// An event, or a report.
    AtShard(Run),
    /// A shard's actor has used a core for what it had taken.
    ShardDone(usize),
    /// A database has committed what a coordinator gave it.
    Committed(Group),
    AtWorker(usize, Run),
    WorkerDone(usize),
    /// The specialist is done.
    Reported(Run),
}

#[derive(Default)]
struct Shard {
    owner: usize,
    inbox: Vec<Run>,
    /// On disk, to be told to others.
    released: Vec<Run>,
    /// Taken by the actor, which waits for a core or has one.
    deciding: Vec<Run>,
    releasing: Vec<Run>,
    is_taken: bool,
    /// Decided, to be committed; a group at a time.
    waiting: Vec<Run>,
    is_committing: bool,
}

#[derive(Default)]
struct Coordinator {
    /// Cores at work.
    busy: usize,
    /// For which they were at work since counting began.
    nanos: f64,
    ready: VecDeque<usize>,
}

/// What a coordinator's writers have for one database.
#[derive(Default)]
struct Link {
    /// Writers that wait for an answer.
    busy: usize,
    ready: VecDeque<usize>,
}

/// What one writer commits at once: shards and their runs.
struct Group {
    link: usize,
    parts: Vec<(usize, Vec<Run>)>,
}

#[derive(Default)]
struct Worker {
    queue: VecDeque<Run>,
}

/// What is counted once it is warm.
struct Counts {
    steps: u64,
    begun: u64,
    ended: u64,
    step: Histogram<u64>,
    run: Histogram<u64>,
    database_nanos: f64,
    worker_nanos: f64,
    batches: u64,
    batched: u64,
    groups: u64,
    grouped: u64,
}

pub(crate) struct Simulation<'a> {
    costs: &'a Costs,
    cluster: &'a Cluster,
    dice: SeededEntropy,
    agenda: Agenda<Event>,
    shards: Vec<Shard>,
    coordinators: Vec<Coordinator>,
    /// Of each coordinator to each database.
    links: Vec<Link>,
    /// When each database has done with the rows that it was given.
    databases: Vec<Moment>,
    workers: Vec<Worker>,
    counts: Counts,
}

impl<'a> Simulation<'a> {
    /// # Errors
    ///
    /// None that happens: the histograms' bounds are constant.
    pub(crate) fn new(costs: &'a Costs, cluster: &'a Cluster, seed: u64) -> anyhow::Result<Simulation<'a>> {
        let dice = SeededEntropy::new(seed);
        // As rendezvous hashing does: each shard by itself, so that some coordinators own more than others.
        let shard = |_| Shard { owner: any(&dice, cluster.coordinators), ..Shard::default() };
        let shards = (0..cluster.shards).map(shard).collect();
        Ok(Simulation {
            costs,
            cluster,
            dice,
            agenda: Agenda::new(),
            shards,
            coordinators: new(cluster.coordinators),
            links: new(cluster.coordinators * cluster.databases),
            databases: new(cluster.databases),
            workers: new(cluster.workers),
            counts: Counts::new()?,
        })
    }

    /// Lets so many seconds pass after it is warm.
    pub(crate) fn run(mut self, secs: f64) -> anyhow::Result<Outcome> {
        self.agenda.after(0, Event::Begin);
        while let Some(event) = self.agenda.next_until(WARM_NANOS) {
            self.happen(event);
        }
        self.counts = Counts::new()?;
        self.coordinators.iter_mut().for_each(|coordinator| coordinator.nanos = 0.0);
        while let Some(event) = self.agenda.next_until(WARM_NANOS + nanos(secs * 1e3)) {
            self.happen(event);
        }
        Ok(self.outcome(secs))
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Begin => self.begin(),
            Event::AtShard(run) => {
                self.shards[run.shard].inbox.push(run);
                self.wake(run.shard);
            }
            Event::ShardDone(shard) => self.shard_done(shard),
            Event::Committed(group) => self.committed(group),
            Event::AtWorker(worker, run) => {
                self.workers[worker].queue.push_back(run);
                if self.workers[worker].queue.len() == 1 {
                    self.work(worker);
                }
            }
            Event::WorkerDone(worker) => self.worker_done(worker),
            Event::Reported(run) => self.send(Event::AtShard(run)),
        }
    }

    fn begin(&mut self) {
        let mean_ms = 1e3 * f64::from(STEPS) / self.cluster.steps_per_s;
        let pause = self.exponential(mean_ms);
        self.agenda.after(pause, Event::Begin);
        let (now, shard) = (self.agenda.now(), self.any(self.cluster.shards));
        self.counts.begun += 1;
        self.send(Event::AtShard(Run { shard, begun: now, assigned: now, done: 0 }));
    }

    /// Lets a shard's actor take what waits for it, if it is not at work.
    fn wake(&mut self, at: usize) {
        let shard = &mut self.shards[at];
        if shard.is_taken || shard.inbox.is_empty() && shard.released.is_empty() {
            return;
        }
        shard.is_taken = true;
        let coordinator = shard.owner;
        self.coordinators[coordinator].ready.push_back(at);
        self.give_cores(coordinator);
    }

    fn give_cores(&mut self, at: usize) {
        while self.coordinators[at].busy < self.cluster.cores_of_a_coordinator {
            let Some(ready) = self.coordinators[at].ready.pop_front() else { return };
            self.coordinators[at].busy += 1;
            let shard = &mut self.shards[ready];
            shard.deciding = std::mem::take(&mut shard.inbox);
            shard.releasing = std::mem::take(&mut shard.released);
            let before = count(shard.deciding.len()) * BEFORE_JOURNAL;
            let after = count(shard.releasing.len()) * (1.0 - BEFORE_JOURNAL);
            let us = (before + after) * a_message(self.costs.coordinator_us);
            self.counts.batches += u64::from(!shard.deciding.is_empty());
            self.counts.batched += shard.deciding.len() as u64;
            self.coordinators[at].nanos += us * 1e3;
            self.agenda.after(nanos(us / 1e3), Event::ShardDone(ready));
        }
    }

    fn shard_done(&mut self, at: usize) {
        let shard = &mut self.shards[at];
        shard.is_taken = false;
        let decided = std::mem::take(&mut shard.deciding);
        let released = std::mem::take(&mut shard.releasing);
        let coordinator = shard.owner;
        shard.waiting.extend(decided);
        for run in released {
            self.go_on(run);
        }
        self.offer(at);
        self.coordinators[coordinator].busy -= 1;
        self.give_cores(coordinator);
        self.wake(at);
    }

    /// What is on disk leaves: the run has ended, or its next step goes to a worker.
    fn go_on(&mut self, mut run: Run) {
        if run.done == STEPS {
            self.counts.ended += 1;
            self.counts.run.saturating_record(self.agenda.now() - run.begun);
            return;
        }
        run.assigned = self.agenda.now();
        let worker = self.any(self.cluster.workers);
        self.send(Event::AtWorker(worker, run));
    }

    /// Lets a database have what a shard has decided, unless it is still busy with what came before.
    fn offer(&mut self, at: usize) {
        let shard = &mut self.shards[at];
        if shard.is_committing || shard.waiting.is_empty() {
            return;
        }
        shard.is_committing = true;
        let database = at % self.cluster.databases;
        let link = database * self.cluster.coordinators + shard.owner;
        self.links[link].ready.push_back(at);
        self.commit(link);
    }

    /// Each idle writer takes what is ready. A database does rows one after the other, and commits side by side.
    fn commit(&mut self, at: usize) {
        while self.links[at].busy < self.cluster.writers && !self.links[at].ready.is_empty() {
            let (mut parts, mut rows) = (Vec::new(), 0);
            while rows < GROUP_MAX
                && let Some(shard) = self.links[at].ready.pop_front()
            {
                let part = std::mem::take(&mut self.shards[shard].waiting);
                rows += part.len();
                parts.push((shard, part));
            }
            self.links[at].busy += 1;
            let took = 1e3 * self.costs.group_us(count(rows) * a_message(self.costs.entries));
            let database = at / self.cluster.coordinators;
            let now = self.agenda.now();
            let rows_done = self.databases[database].max(now) + nanos(took / MS);
            self.databases[database] = rows_done;
            let commit = nanos(self.costs.commit_ms * 0.7) + self.exponential(self.costs.commit_ms * 0.3);
            self.counts.groups += 1;
            self.counts.grouped += rows as u64;
            self.counts.database_nanos += took;
            self.agenda.after(rows_done - now + commit, Event::Committed(Group { link: at, parts }));
        }
    }

    fn committed(&mut self, group: Group) {
        self.links[group.link].busy -= 1;
        for (shard, runs) in group.parts {
            self.shards[shard].is_committing = false;
            for run in runs.iter().filter(|run| run.done > 0) {
                self.counts.steps += 1;
                self.counts.step.saturating_record(self.agenda.now() - run.assigned);
            }
            self.shards[shard].released.extend(runs);
            self.wake(shard);
            self.offer(shard);
        }
        self.commit(group.link);
    }

    fn work(&mut self, at: usize) {
        self.counts.worker_nanos += self.costs.worker_us * 1e3;
        self.agenda.after(nanos(self.costs.worker_us / 1e3), Event::WorkerDone(at));
    }

    fn worker_done(&mut self, at: usize) {
        if let Some(mut run) = self.workers[at].queue.pop_front() {
            run.done += 1;
            let specialist = self.exponential(self.cluster.step_ms);
            self.agenda.after(specialist, Event::Reported(run));
        }
        if !self.workers[at].queue.is_empty() {
            self.work(at);
        }
    }

    fn send(&mut self, event: Event) {
        let way = nanos(self.costs.network_ms * 0.7) + self.exponential(self.costs.network_ms * 0.3);
        self.agenda.after(way, event);
    }

    fn any(&self, count: usize) -> usize {
        any(&self.dice, count)
    }

    /// A random time around a mean, in milliseconds.
    fn exponential(&self, mean_ms: f64) -> Moment {
        // From 0 (left out) to 1.
        let uniform = (count(self.any(1 << 30)) + 1.0) / count(1 << 30);
        nanos(-mean_ms * uniform.ln())
    }

    fn outcome(&self, secs: f64) -> Outcome {
        let counts = &self.counts;
        let cores = count(self.cluster.cores_of_a_coordinator);
        let nanos = self.coordinators.iter().map(|coordinator| coordinator.nanos);
        let ms = |histogram: &Histogram<u64>, quantile: f64| real(histogram.value_at_quantile(quantile)) / MS;
        let busy = |nanos: f64, servers: f64| nanos / (secs * 1e9 * servers);
        Outcome {
            asked_per_s: real(counts.begun) * f64::from(STEPS) / secs,
            steps_per_s: real(counts.steps) / secs,
            step_p50_ms: ms(&counts.step, 0.5),
            step_p99_ms: ms(&counts.step, 0.99),
            run_p50_ms: ms(&counts.run, 0.5),
            run_p99_ms: ms(&counts.run, 0.99),
            coordinators_busy: busy(nanos.clone().sum(), cores * count(self.cluster.coordinators)),
            busiest_coordinator: busy(nanos.fold(0.0, f64::max), cores),
            databases_busy: busy(counts.database_nanos, count(self.cluster.databases)),
            workers_busy: busy(counts.worker_nanos, count(self.cluster.workers)),
            batch: real(counts.batched) / real(counts.batches).max(1.0),
            group: real(counts.grouped) / real(counts.groups).max(1.0),
            grew: (real(counts.begun) - real(counts.ended)) / real(counts.begun).max(1.0),
        }
    }
}

impl Counts {
    fn new() -> anyhow::Result<Counts> {
        // From a microsecond to a minute, at three digits.
        let histogram = || Histogram::new_with_bounds(1_000, 60_000_000_000, 3);
        Ok(Counts {
            steps: 0,
            begun: 0,
            ended: 0,
            step: histogram()?,
            run: histogram()?,
            database_nanos: 0.0,
            worker_nanos: 0.0,
            batches: 0,
            batched: 0,
            groups: 0,
            grouped: 0,
        })
    }
}

fn new<T: Default>(count: usize) -> Vec<T> {
    (0..count).map(|_| T::default()).collect()
}

fn any(dice: &SeededEntropy, count: usize) -> usize {
    usize::try_from(dice.below(count as u64)).unwrap_or(0)
}

/// A run is one message more than it has steps: its event.
fn a_message(of_step: f64) -> f64 {
    of_step * f64::from(STEPS) / f64::from(STEPS + 1)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time is not negative, nor centuries"
)]
fn nanos(ms: f64) -> Moment {
    (ms * MS).round() as Moment
}

#[expect(clippy::cast_precision_loss, reason = "nothing here counts to 2^52")]
fn count(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "nothing here counts to 2^52")]
fn real(count: u64) -> f64 {
    count as f64
}
