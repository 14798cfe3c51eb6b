//! The state of a shard: synchronous, so that it is tested without an actor.
//!
//! Owns: applying requests to runs, answering the orders that need nobody else, and collecting records and outputs.
//! Never: awaits, or lets an output go (the actor does, once the records are on disk).
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use kapell_journal::Record;
use kapell_kernel::{Attempt, Command, Context, Entry, Run, accept, handle, outstanding};
use kapell_ledger::RunRow;
use kapell_model::plan::StepIndex;
use kapell_model::{Epoch, Name, RunId, Seq, ShardCount, ShardId, Timestamp};
use kapell_proto::v1;
use kapell_wire::{DefinitionRecord, RecordRef, encode_record};
use tokio::time::Instant;

use super::changed::Changed;
use super::ended::EndedRuns;
use super::keys::Keys;
use super::message::{
    AskedSince, Delivered, EndWaiter, Origin, Output, Past, Reply, Request, StartRun, Started, Stats,
    SubmitError,
};
use super::orders::{Asked, Owed};
use super::row::Telling;
use super::schedules::Schedules;
use super::timers::Timers;
use super::waits::{Waiter, Waits};
use super::{row, view};
use crate::definitions::InForce;
use crate::limits::{WAITERS_PER_RUN_MAX, WATCHERS_PER_RUN_MAX};

/// What a shard is told at its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardRules {
    /// Which shard it is.
    pub(crate) shard: ShardId,
    /// Of how many.
    pub(crate) shards: ShardCount,
    /// How long ended runs are remembered.
    pub(crate) dedupe_window: Duration,
    /// How many ended runs are remembered.
    pub(crate) dedupe_runs_max: usize,
    /// How many runs may be live.
    pub(crate) live_runs_max: usize,
    /// Entries between two checkpoints.
    pub(crate) checkpoint_entries: u64,
    /// Time between two checkpoints, if anything happened.
    pub(crate) checkpoint_every: Duration,
    /// Entries kept for history after a checkpoint covers them.
    pub(crate) history_entries: u64,
}

/// The state of a shard.
pub(super) struct ShardState {
    pub(super) rules: ShardRules,
    /// Under which it is owned.
    pub(super) epoch: Epoch,
    /// Looked up all the time under ids without order, and gone through hardly ever: then in the order of the ids.
    pub(super) runs: HashMap<RunId, Box<Run>>,
    pub(super) ended: EndedRuns,
    pub(super) keys: Keys,
    pub(super) waits: Waits,
    pub(super) timers: Timers,
    pub(super) schedules: Schedules,
    /// Questions that nobody has answered, and since when they are asked.
    pub(super) approvals: BTreeMap<OrderPlace, Option<Timestamp>>,
    pub(super) gathering: BTreeSet<RunId>,
    /// What other shards have to answer, and when they are asked again; `None`: so long after the next look.
    pub(super) owed: BTreeMap<Owed, Option<Instant>>,
    /// Children that have begun, or are being canceled, and have not ended.
    pub(super) children: BTreeSet<Owed>,
    pub(super) watchers: BTreeMap<RunId, Vec<tokio::sync::mpsc::Sender<v1::Run>>>,
    pub(super) awaited: BTreeMap<RunId, Vec<EndWaiter>>,
    /// Last record that was made.
    pub(super) last: Seq,
    /// The ledger has everything up to here.
    pub(super) projected: Seq,
    /// Runs that changed since the ledger was told.
    pub(super) unprojected: Changed,
    /// What the ledger was told in part.
    pub(super) telling: Option<Telling>,
    /// Rows of runs that are gone from memory and that the ledger was not told of.
    pub(super) finished: BTreeMap<RunId, RunRow>,
    /// Runs that changed since the last checkpoint.
    pub(super) unsaved: Changed,
    /// Runs that were set going again since the last checkpoint, and where their histories begin: until another holds
    /// them, those are all there is of them.
    pub(super) revived: BTreeMap<RunId, Seq>,
    /// What the checkpoint on disk covers; `None`: one is under way, or nobody knows whether it was stored.
    pub(super) checkpointed: Option<Seq>,
    /// The journal may not hold anything up to here any more.
    pub(super) trimmed: Seq,
    pub(super) origin: Origin,
    pub(super) records: Vec<Record>,
    pub(super) outputs: Vec<Output>,
}

type OrderPlace = (RunId, kapell_kernel::ApprovalKey);

impl ShardState {
    pub(super) fn new(rules: ShardRules) -> ShardState {
        ShardState {
            rules,
            epoch: Epoch(0),
            runs: HashMap::new(),
            ended: EndedRuns::new(rules.dedupe_window, rules.dedupe_runs_max),
            keys: Keys::default(),
            waits: Waits::default(),
            timers: Timers::default(),
            schedules: Schedules::default(),
            approvals: BTreeMap::new(),
            gathering: BTreeSet::new(),
            owed: BTreeMap::new(),
            children: BTreeSet::new(),
            watchers: BTreeMap::new(),
            awaited: BTreeMap::new(),
            last: Seq::ZERO,
            projected: Seq::ZERO,
            unprojected: Changed::default(),
            telling: None,
            finished: BTreeMap::new(),
            unsaved: Changed::default(),
            revived: BTreeMap::new(),
            checkpointed: Some(Seq::ZERO),
            trimmed: Seq::ZERO,
            origin: Origin::New,
            records: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// table: applies one request, one arm for each.
    pub(super) fn apply(&mut self, request: Request, now: Timestamp, in_force: &InForce) {
        match request {
            Request::Start(group, reply) => {
                let results = group.into_iter().map(|start| self.start(start, now, in_force)).collect();
                self.reply(reply, results);
            }
            Request::Command(run, command, reply) | Request::Steer(_, run, command, reply) => {
                let result = self.command(run, *command, now, in_force);
                self.reply(reply, result);
            }
            Request::Commands(commands, reply) => {
                let results = self.commands(commands, now, in_force);
                self.reply(reply, results);
            }
            Request::Reports(reports, owed) => {
                let results = self.commands(reports, now, in_force);
                self.outputs.extend(owed.if_settled(&results).map(Output::Settled));
            }
            Request::Deliver(event, namespace, reply) => {
                let delivered = self.deliver(&event, &namespace, now, in_force);
                self.reply(reply, delivered);
            }
            Request::Read(run, look) => {
                let answer = look(self.runs.get(&run).map(|run| &**run));
                self.outputs.push(Output::Reply(Box::new(move || answer(()))));
            }
            Request::View(run, reply) => {
                let seen = self.runs.get(&run).map(|run| view::view(run));
                self.reply(reply, seen);
            }
            Request::AwaitEnd(run, waiter) => self.await_end(run, waiter),
            Request::Watch(run, to, reply) => {
                let result = self.watch(run, to);
                self.reply(reply, result);
            }
            Request::Stats(reply) => {
                let stats = self.stats();
                self.reply(reply, stats);
            }
            Request::Audit(reply) => {
                let audit = self.audit();
                self.reply(reply, audit);
            }
            Request::Asked(runs, reply) => {
                let asked = self.asked(&runs);
                self.reply(reply, asked);
            }
            Request::Define(changes, reply) => {
                self.define(changes);
                self.reply(reply, ());
            }
            Request::Schedules(namespace, reply) => {
                self.follow_schedules(now, in_force);
                let seen = self.schedules.view(&namespace);
                self.reply(reply, seen);
            }
            Request::Revive(past, command, reply) => {
                let result = self.revive(past, *command, now, in_force);
                self.reply(reply, result);
            }
            Request::Confirmed(Owed::Child(schedule, _, no)) if self.schedules.knows(schedule) => {
                self.tick_confirmed(schedule, no, now);
            }
            Request::Confirmed(owed) => {
                if self.owed.remove(&owed).is_some() {
                    self.children.insert(owed);
                }
            }
        }
    }

    fn reply<T: Send + 'static>(&mut self, reply: Reply<T>, value: T) {
        self.outputs.push(Output::Reply(Box::new(move || reply(value))));
    }

    fn await_end(&mut self, run: RunId, waiter: EndWaiter) {
        let seen = match self.runs.get(&run) {
            Some(found) if found.ended().is_none() => {
                let waiting = self.awaited.entry(run).or_default();
                if waiting.len() >= WAITERS_PER_RUN_MAX {
                    waiting.retain(|waiter| !(waiter.is_gone)());
                }
                if waiting.len() < WAITERS_PER_RUN_MAX {
                    waiting.push(waiter);
                    return;
                }
                None
            }
            Some(found) => Some(view::view(found)),
            None => None,
        };
        self.reply(waiter.tell, seen);
    }

    fn watch(&mut self, run: RunId, to: tokio::sync::mpsc::Sender<v1::Run>) -> Result<(), SubmitError> {
        let Some(found) = self.runs.get(&run) else { return Ok(()) };
        let watching = self.watchers.entry(run).or_default();
        watching.retain(|other| !other.is_closed());
        if watching.len() >= WATCHERS_PER_RUN_MAX {
            return Err(SubmitError::TooMany { what: "watch the run", most: WATCHERS_PER_RUN_MAX });
        }
        watching.push(to.clone());
        self.outputs.push(Output::Notify(to, Box::new(view::view(found))));
        Ok(())
    }

    fn start(&mut self, start: StartRun, now: Timestamp, in_force: &InForce) -> Result<Started, SubmitError> {
        let run = start.run;
        if self.runs.contains_key(&run) || self.ended.contains(run) {
            return Ok(Started { run, duplicate: true });
        }
        if self.runs.len() >= self.rules.live_runs_max {
            return Err(SubmitError::Busy { retry_after: Duration::from_secs(1) });
        }
        let namespace = start.workflow.namespace.clone();
        let queued = match &start.key {
            None => false,
            Some(key) => self
                .keys
                .would_wait(&namespace, key)
                .map_err(|full| SubmitError::KeyQueueFull { key: key.to_string(), waiting: full.waiting })?,
        };
        if let Some(key) = &start.key {
            self.keys.join(&namespace, key, run);
        }
        let StartRun { workflow, key, event, parent, nesting, .. } = start;
        let accepted = kapell_kernel::Accepted { workflow, key, event, parent, nesting, queued, at: now };
        self.record(run, now, &Entry::RunAccepted(Box::new(accepted.clone())));
        self.changed(run);
        let (begun, delta) = accept(run, accepted);
        self.runs.insert(run, Box::new(begun));
        let mut inline = VecDeque::new();
        self.open(run, delta.opened, in_force, &mut inline);
        self.drain(inline, now, in_force);
        Ok(Started { run, duplicate: false })
    }

    fn commands(
        &mut self,
        commands: Vec<(RunId, Command)>,
        now: Timestamp,
        in_force: &InForce,
    ) -> Vec<Result<(), SubmitError>> {
        commands.into_iter().map(|(run, command)| self.command(run, command, now, in_force)).collect()
    }

    pub(super) fn command(
        &mut self,
        run: RunId,
        command: Command,
        now: Timestamp,
        in_force: &InForce,
    ) -> Result<(), SubmitError> {
        let mut inline = VecDeque::new();
        let result = self.step(run, command, now, in_force, &mut inline);
        self.drain(inline, now, in_force);
        result
    }

    /// Answers that need nobody else follow at once, in the same batch.
    pub(super) fn drain(
        &mut self,
        mut inline: VecDeque<(RunId, Command)>,
        now: Timestamp,
        in_force: &InForce,
    ) {
        while let Some((run, command)) = inline.pop_front() {
            if let Err(error) = self.step(run, command, now, in_force, &mut inline) {
                // Another command of the same batch closed the order first.
                tracing::debug!(%run, %error, "an inline answer was not wanted any more");
            }
        }
    }

    fn step(
        &mut self,
        id: RunId,
        command: Command,
        now: Timestamp,
        in_force: &InForce,
        inline: &mut VecDeque<(RunId, Command)>,
    ) -> Result<(), SubmitError> {
        let context = Context { catalogue: &in_force.catalogue, shards: self.rules.shards };
        let Some(run) = self.runs.get_mut(&id) else {
            if self.schedules.knows(id) {
                return self.tell_schedule(id, &command, now, in_force);
            }
            let over = self.ended.contains(id);
            return Err(if over {
                kapell_kernel::Rejected::RunEnded.into()
            } else {
                SubmitError::NotFound(id)
            });
        };
        let asked = Asked::of(&command);
        let was_over = run.ended().is_some();
        let handled = handle(run, now, command, &context)?;
        for entry in &handled.entries {
            self.record(id, now, entry);
            self.call_news(id, entry);
        }
        if handled.entries.is_empty() {
            self.repeat_call_news(id, &asked);
        } else {
            self.changed(id);
        }
        self.close(id, &handled.delta.closed, &asked);
        self.open(id, handled.delta.opened, in_force, inline);
        self.after(id, was_over, inline);
        Ok(())
    }

    /// Leaves the key, tells watchers, forgets a run that nobody waits for.
    fn after(&mut self, id: RunId, was_over: bool, inline: &mut VecDeque<(RunId, Command)>) {
        let Some(run) = self.runs.get(&id) else { return };
        let is_over = run.ended().is_some();
        if is_over && !was_over {
            if let Some(key) = &run.accepted().key
                && let Some(next) = self.keys.leave(&run.workflow().namespace, key, id)
            {
                inline.push_back((next, Command::TakeTurn));
            }
            if let Some(awaited) = self.awaited.remove(&id) {
                let seen = view::view(run);
                for waiter in awaited {
                    let seen = seen.clone();
                    self.outputs.push(Output::Reply(Box::new(move || (waiter.tell)(Some(seen)))));
                }
            }
        }
        if let Some(watchers) = self.watchers.get(&id) {
            let seen = view::view(run);
            let notes = watchers.iter().map(|to| Output::Notify(to.clone(), Box::new(seen.clone())));
            self.outputs.extend(notes);
        }
        if is_over {
            self.watchers.remove(&id);
            if outstanding(run).is_empty() {
                self.retire(id);
            }
        }
    }

    /// Forgets a run that is over; its row still goes to the ledger, its id is remembered for a while.
    pub(super) fn retire(&mut self, id: RunId) {
        let Some(run) = self.runs.remove(&id) else { return };
        let at = run.ended().map_or(Timestamp(0), |ended| ended.at);
        self.ended.insert(id, at);
        self.finished.insert(id, row::row(&run));
    }

    pub(super) fn record(&mut self, run: RunId, at: Timestamp, entry: &Entry) {
        self.push(run, encode_record(at, RecordRef::Entry(entry)));
    }

    fn changed(&mut self, run: RunId) {
        self.unprojected.insert(run);
        self.unsaved.insert(run);
    }

    pub(super) fn push(&mut self, run: RunId, payload: bytes::Bytes) {
        self.last = self.last.next();
        self.records.push(Record { run, payload });
    }

    fn define(&mut self, changes: Vec<DefinitionRecord>) {
        for change in &changes {
            let record = encode_record(change.at, RecordRef::Definition(change));
            self.push(crate::definitions::control_run(), record);
        }
        self.unsaved.insert(crate::definitions::control_run());
        self.outputs.push(Output::Defined(changes));
    }

    /// A run that the command does not set going is forgotten again, as if nobody had asked.
    fn revive(
        &mut self,
        Past { run, first }: Past,
        command: Command,
        now: Timestamp,
        in_force: &InForce,
    ) -> Result<(), SubmitError> {
        let (id, folded) = (run.id, run.ended().map(|ended| ended.at));
        // It may have been set going and have ended again since its history was read: that history is too old.
        let is_fresh = self.ended.at(id).is_none_or(|at| folded == Some(at));
        if self.runs.contains_key(&id) || !is_fresh {
            return self.command(id, command, now, in_force);
        }
        if first <= self.trimmed {
            // Read before it was trimmed. What is written of the run now could not be understood after a restart.
            return Err(SubmitError::NotFound(id));
        }
        if command.request().is_some_and(|request| run.has_done(request)) {
            return Ok(());
        }
        let place = run.accepted().key.clone().map(|key| (run.workflow().namespace.clone(), key));
        self.runs.insert(id, run);
        let result = self.command(id, command, now, in_force);
        if result.is_err() {
            self.runs.remove(&id);
        } else if self.runs.contains_key(&id) {
            self.ended.remove(id);
            self.revived.insert(id, first);
            if let Some((namespace, key)) = place {
                self.keys.join_first(&namespace, &key, id);
            }
        }
        result
    }

    fn deliver(
        &mut self,
        event: &kapell_wire::cloud_event::Event,
        namespace: &Name,
        now: Timestamp,
        in_force: &InForce,
    ) -> Delivered {
        let event_type = event.event_type.clone();
        let mut count = 0;
        for waiter in self.waits.reached(namespace, &event_type, &event.json) {
            let json = event.json.clone();
            let (run, command) = match waiter {
                Waiter::Unit(run, unit, attempt) => {
                    (run, Command::DeliverEvent { unit, attempt, event: json })
                }
                Waiter::Outcome(run) => (run, Command::BindOutcome { event: json }),
            };
            count += u32::from(self.command(run, command, now, in_force).is_ok());
        }
        Delivered { count }
    }

    /// When there is something to fire next.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        [self.timers.next(), self.schedules.next()].into_iter().flatten().min()
    }

    /// Fires timers and ticks that are due; says whether more are.
    pub(super) fn fire(&mut self, now: Timestamp, most: usize, in_force: &InForce) -> bool {
        let more_ticks = self.fire_schedules(now, most, in_force);
        let due = self.timers.take_due(now, most);
        let full = due.len() == most;
        for (run, key) in due {
            if let Err(error) = self.command(run, Command::FireTimer(key), now, in_force) {
                tracing::debug!(%run, ?key, %error, "a timer was not wanted any more");
            }
        }
        full || more_ticks
    }

    /// Since when people are asked about these runs.
    fn asked(&self, runs: &[RunId]) -> Vec<AskedSince> {
        let first = kapell_kernel::ApprovalKey::Unit(kapell_kernel::UnitId::step(StepIndex(0)), Attempt(0));
        let of_run = |run: &RunId| {
            let run = *run;
            self.approvals.range((run, first)..).take_while(move |((asked, _), _)| *asked == run)
        };
        let questions = runs.iter().flat_map(of_run);
        questions.filter_map(|((run, key), since)| since.map(|since| (*run, *key, since))).collect()
    }

    /// Whether an event may reach a run.
    pub(super) fn has_waits(&self) -> bool {
        !self.waits.is_empty()
    }

    fn stats(&self) -> Stats {
        Stats {
            epoch: self.epoch.0,
            last: self.last.0,
            live: self.runs.len() as u64,
            behind: self.last.0 - self.projected.0,
            approvals: self.approvals.len() as u64,
            checkpointed: self.checkpointed,
        }
    }

    /// Takes in a run from the journal; its orders are driven once all runs are loaded.
    pub(super) fn load(&mut self, run: Box<Run>) {
        self.runs.insert(run.id, run);
    }

    /// Of every run, in order: a hash has another one each time.
    pub(super) fn ids(&self) -> Vec<RunId> {
        let mut ids: Vec<RunId> = self.runs.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Drives everything that is outstanding, after loading.
    pub(super) fn drive_all(&mut self, now: Timestamp, in_force: &InForce) {
        self.origin = Origin::Recovered;
        let ids = self.ids();
        self.line_up(&ids);
        let mut inline = VecDeque::new();
        for id in ids {
            let orders = self.runs.get(&id).map(|run| outstanding(run)).unwrap_or_default();
            if orders.is_empty() {
                self.retire(id);
                continue;
            }
            self.open(id, orders, in_force, &mut inline);
        }
        self.drain(inline, now, in_force);
        self.drive_schedules();
        self.follow_schedules(now, in_force);
        self.origin = Origin::New;
        self.outputs.push(Output::Loaded(self.rules.shard, self.epoch));
    }

    /// Runs stand in line for their keys in the order in which they were accepted, those with the turn first.
    fn line_up(&mut self, ids: &[RunId]) {
        let mut waiting: Vec<(Timestamp, RunId)> = Vec::new();
        for id in ids {
            let Some(run) = self.runs.get(id) else { continue };
            let Some(key) = run.accepted().key.clone() else { continue };
            let namespace = run.workflow().namespace.clone();
            match run.phase() {
                kapell_kernel::Phase::Queued => waiting.push((run.accepted().at, *id)),
                kapell_kernel::Phase::Ended(_) => {}
                kapell_kernel::Phase::Gathering
                | kapell_kernel::Phase::Planning
                | kapell_kernel::Phase::Running
                | kapell_kernel::Phase::WindingUp { .. } => self.keys.join_first(&namespace, &key, *id),
            }
        }
        waiting.sort_unstable();
        for (_, id) in waiting {
            let Some(run) = self.runs.get(&id) else { continue };
            if let Some(key) = &run.accepted().key {
                self.keys.join(&run.workflow().namespace.clone(), &key.clone(), id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
