//! The schedules whose ticks this shard decides: a shard owns some of them as it owns some of the runs.
//!
//! Owns: following the definitions, deciding ticks that are due, asking for their runs, and knowing when these are over.
//! Never: starts a run before the tick is on disk (the runs may live in other shards), or looks at a schedule without
//! a reason: a batch costs nothing more because there are schedules.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_kernel::schedule::{
    Due, Fate, LeftOut, OpenTick, ScheduleEntry, ScheduleState, StartNo, TickRun, due,
};
use kapell_kernel::{Attempt, Command, ParentRef, UnitId};
use kapell_model::catalogue::CompiledSchedule;
use kapell_model::limits::TICKS_COUNTED_MAX;
use kapell_model::plan::StepIndex;
use kapell_model::{Json, Name, RunId, ShardCount, Timestamp};
use kapell_proto::v1;
use kapell_wire::{RecordRef, encode_record};

use super::message::{Audit, Output, StartRun, SubmitError};
use super::orders::Owed;
use super::state::ShardState;
use crate::definitions::InForce;
use crate::ingest::key_of;
use crate::own_event::tick_event;

/// All schedules of a shard.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    kept: BTreeMap<RunId, Kept>,
    /// When each ticks next.
    due: BTreeSet<(Timestamp, RunId)>,
    /// Of the definitions that are followed.
    revision: Option<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    state: ScheduleState,
    /// Its definition; `None`: it has none any more.
    plan: Option<Plan>,
    next: Option<Timestamp>,
}

/// What the definitions say of a schedule.
#[derive(Clone, Debug)]
struct Plan {
    namespace: Name,
    name: Name,
    schedule: Arc<CompiledSchedule>,
    /// From when its ticks count.
    since: Timestamp,
}

impl Kept {
    /// The next tick that is not decided.
    fn next_tick(&self) -> Option<Timestamp> {
        let plan = self.plan.as_ref().filter(|plan| !plan.schedule.spec.suspend)?;
        plan.schedule.cron.next(plan.since.max(self.state.through))
    }

    /// The tick that waits and may start now.
    fn next_waiting(&self) -> Option<Timestamp> {
        let plan = self.plan.as_ref().filter(|plan| !plan.schedule.spec.suspend)?;
        self.state.next_waiting(plan.schedule.spec.overlap)
    }

    fn is_asking(&self) -> bool {
        self.state.open.values().any(|open| open.start.is_some())
    }
}

impl Schedules {
    /// A schedule, as a checkpoint holds it.
    pub(super) fn load(&mut self, id: RunId, state: ScheduleState) {
        self.kept.entry(id).or_default().state = state;
    }

    /// What happened to a schedule after the checkpoint.
    pub(super) fn evolve(&mut self, id: RunId, entry: &ScheduleEntry) {
        if *entry == ScheduleEntry::ScheduleRemoved {
            self.kept.remove(&id);
        } else {
            self.kept.entry(id).or_default().state.evolve(entry);
        }
    }

    /// Whether it is the id of a schedule of this shard.
    pub(super) fn knows(&self, id: RunId) -> bool {
        self.kept.contains_key(&id)
    }

    /// How far a schedule is.
    pub(super) fn state(&self, id: RunId) -> Option<&ScheduleState> {
        self.kept.get(&id).map(|kept| &kept.state)
    }

    /// Every schedule.
    pub(super) fn ids(&self) -> impl Iterator<Item = RunId> {
        self.kept.keys().copied()
    }

    /// When the next one ticks.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The schedules of a namespace, for people.
    pub(super) fn view(&self, namespace: &Name) -> Vec<v1::Schedule> {
        let seen = |kept: &Kept| {
            kept.plan.as_ref().filter(|plan| plan.namespace == *namespace).map(|plan| view(plan, kept))
        };
        self.kept.values().filter_map(seen).collect()
    }

    fn set_next(&mut self, id: RunId) {
        let Some(kept) = self.kept.get_mut(&id) else { return };
        if let Some(before) = kept.next.take() {
            self.due.remove(&(before, id));
        }
        kept.next = kept.next_tick();
        self.due.extend(kept.next.map(|next| (next, id)));
    }

    /// From when the ticks of a schedule count, of which the definitions do not say so: one that has ticked goes on from
    /// there, and another counts from when this shard met it.
    fn counted_from(&self, id: RunId, now: Timestamp) -> Timestamp {
        let Some(kept) = self.kept.get(&id) else { return now };
        let met = kept.plan.as_ref().map_or(now, |plan| plan.since);
        if kept.state.through > Timestamp(0) { kept.state.through } else { met }
    }

    /// Takes over what the definitions say; gives back whom it concerns.
    fn plan(&mut self, plans: BTreeMap<RunId, Plan>) -> Vec<RunId> {
        for kept in self.kept.values_mut() {
            kept.plan = None;
        }
        for (id, plan) in plans {
            self.kept.entry(id).or_default().plan = Some(plan);
        }
        self.ids().collect()
    }
}

impl ShardState {
    /// The schedules whose ticks are decided here, as the definitions say.
    fn defined<'a>(
        &self,
        in_force: &'a InForce,
    ) -> impl Iterator<Item = (RunId, &'a Name, &'a Name, &'a Arc<CompiledSchedule>)> + use<'a> {
        let (shards, shard) = (self.rules.shards, self.rules.shard);
        let all = in_force.catalogue.namespaces().flat_map(move |(namespace, defined)| {
            defined.schedules.iter().map(move |(name, schedule)| {
                (RunId::of_schedule(shards, namespace, name), namespace, name, schedule)
            })
        });
        all.filter(move |(id, ..)| id.shard() == shard)
    }

    /// Whether there are any, or were when the last tick was decided.
    pub(super) fn has_schedules(&self, in_force: &InForce) -> bool {
        !self.schedules.kept.is_empty() || self.defined(in_force).next().is_some()
    }

    /// Follows the definitions, if they have changed.
    pub(super) fn follow_schedules(&mut self, now: Timestamp, in_force: &InForce) {
        if self.schedules.revision == Some(in_force.revision) {
            return;
        }
        self.schedules.revision = Some(in_force.revision);
        let plan = |(id, namespace, name, schedule): (RunId, &Name, &Name, &Arc<CompiledSchedule>)| {
            let since = in_force.counts_from(namespace, name);
            let since = since.unwrap_or_else(|| self.schedules.counted_from(id, now));
            let (namespace, name) = (namespace.clone(), name.clone());
            (id, Plan { namespace, name, schedule: schedule.clone(), since })
        };
        let plans = self.defined(in_force).map(plan).collect();
        for id in self.schedules.plan(plans) {
            self.start_waiting(id, now, in_force);
            self.schedules.set_next(id);
            self.forget_removed(id, now);
        }
    }

    /// Decides ticks that are due, at most so many; says whether more are.
    pub(super) fn fire_schedules(&mut self, now: Timestamp, most: usize, in_force: &InForce) -> bool {
        // A record says under which definitions it was decided, so it is under these.
        self.follow_schedules(now, in_force);
        let mut left = most;
        while let Some((at, id)) = self.schedules.due.first().copied()
            && at <= now
        {
            if left == 0 {
                return true;
            }
            left = left.saturating_sub(self.decide_ticks(id, now, left, in_force).max(1));
            self.schedules.set_next(id);
            let moved = self.schedules.kept.get(&id).is_none_or(|kept| kept.next != Some(at));
            debug_assert!(moved, "what is due was decided");
            if !moved {
                // A loop would hold up the shard; so it is looked at again when the definitions change.
                self.schedules.due.remove(&(at, id));
            }
        }
        false
    }

    /// Decides what is due of one schedule; says how many ticks were looked at.
    fn decide_ticks(&mut self, id: RunId, now: Timestamp, most: usize, in_force: &InForce) -> usize {
        let Some(kept) = self.schedules.kept.get(&id) else { return 0 };
        let Some(plan) = kept.plan.clone() else { return 0 };
        let (spec, after) = (&plan.schedule.spec, plan.since.max(kept.state.through));
        let Due { left_out, ticks } = due(&plan.schedule.cron, spec.catchup, after, now, most);
        let (revision, mut looked_at) = (in_force.revision, ticks.len());
        if let Some((through, count, why)) = left_out {
            looked_at += count as usize;
            self.note(id, ScheduleEntry::TicksLeftOut { through, count, why, revision }, now);
        }
        for tick in &ticks {
            let fate = self.schedules.state(id).map(|state| state.fate(spec.overlap));
            match fate {
                Some(Fate::Start) => self.start_tick(id, *tick, now, in_force),
                Some(Fate::Wait) => {
                    self.note(id, ScheduleEntry::TickQueued { tick: *tick, revision }, now);
                }
                Some(Fate::LeaveOut(why)) => self.leave_out(id, *tick, why, now, in_force),
                None => {}
            }
        }
        looked_at
    }

    /// Starts ticks that have waited for long enough.
    fn start_waiting(&mut self, id: RunId, now: Timestamp, in_force: &InForce) {
        while let Some(tick) = self.schedules.kept.get(&id).and_then(Kept::next_waiting) {
            self.start_tick(id, tick, now, in_force);
        }
    }

    fn start_tick(&mut self, id: RunId, tick: Timestamp, now: Timestamp, in_force: &InForce) {
        let Some(kept) = self.schedules.kept.get(&id) else { return };
        let Some(plan) = &kept.plan else { return };
        match tick_run(self.rules.shards, plan, tick, in_force) {
            Ok(start) => {
                let no = StartNo(kept.state.starts.saturating_add(1));
                let (start, revision) = (Box::new(start), in_force.revision);
                self.note(id, ScheduleEntry::TickStarted { no, tick, start, revision }, now);
                self.ask_for_tick_run(id, Attempt(no.0));
            }
            Err(reason) => self.leave_out(id, tick, LeftOut::NoStart(reason), now, in_force),
        }
    }

    fn leave_out(&mut self, id: RunId, tick: Timestamp, why: LeftOut, now: Timestamp, in_force: &InForce) {
        let revision = in_force.revision;
        self.note(id, ScheduleEntry::TicksLeftOut { through: tick, count: 1, why, revision }, now);
    }

    fn note(&mut self, id: RunId, entry: ScheduleEntry, now: Timestamp) {
        if let ScheduleEntry::TicksLeftOut { through, count, why, .. } = &entry {
            let plan = self.schedules.kept.get(&id).and_then(|kept| kept.plan.as_ref());
            let place = plan.map_or_else(String::new, |plan| format!("{}/{}", plan.namespace, plan.name));
            let or_more = if *count == TICKS_COUNTED_MAX { " or more" } else { "" };
            tracing::warn!(schedule = place, %through, "{count}{or_more} ticks were left out: {why}");
        }
        self.schedules.evolve(id, &entry);
        self.push(id, encode_record(now, RecordRef::Schedule(&entry)));
        self.unsaved.insert(id);
    }

    /// Asks the shard of a run that a tick starts for it, unless it has it already.
    pub(super) fn ask_for_tick_run(&mut self, id: RunId, no: Attempt) {
        let open = self.schedules.state(id).and_then(|state| state.open.get(&StartNo(no.0)));
        let Some(TickRun { run, workflow, key, event }) = open.and_then(|open| open.start.as_deref()) else {
            return;
        };
        let parent = above(id, no);
        let start = StartRun {
            run: *run,
            workflow: workflow.clone(),
            key: key.clone(),
            event: event.clone(),
            parent: Some(parent),
            nesting: 0,
        };
        self.outputs.push(Output::StartChild(parent, Box::new(start)));
        self.owed.insert(owed(id, no), None);
    }

    /// After loading: asks for the runs that were asked for and not confirmed.
    pub(super) fn drive_schedules(&mut self) {
        let asking = self.schedules.kept.iter().flat_map(|(id, kept)| {
            let starts = kept.state.open.iter().filter(|(_, open)| open.start.is_some());
            starts.map(|(no, _)| (*id, Attempt(no.0)))
        });
        for (id, no) in asking.collect::<Vec<_>>() {
            self.ask_for_tick_run(id, no);
        }
    }

    /// The run is on disk in its shard.
    pub(super) fn tick_confirmed(&mut self, id: RunId, no: Attempt, now: Timestamp) {
        self.owed.remove(&owed(id, no));
        let open = self.schedules.state(id).and_then(|state| state.open.get(&StartNo(no.0)));
        if open.is_some_and(|open| open.start.is_some()) {
            self.note(id, ScheduleEntry::RunBegan { no: StartNo(no.0) }, now);
            self.forget_removed(id, now);
        }
    }

    /// A run tells the schedule that started it that it is over.
    pub(super) fn tell_schedule(
        &mut self,
        id: RunId,
        command: &Command,
        now: Timestamp,
        in_force: &InForce,
    ) -> Result<(), SubmitError> {
        let Command::ReportChild { attempt, .. } = command else { return Err(SubmitError::NotFound(id)) };
        let no = StartNo(attempt.0);
        self.owed.remove(&owed(id, *attempt));
        // One that was tried again after its end is over twice.
        if self.schedules.state(id).is_some_and(|state| state.open.contains_key(&no)) {
            self.note(id, ScheduleEntry::RunOver { no }, now);
            self.start_waiting(id, now, in_force);
            self.forget_removed(id, now);
        }
        Ok(())
    }

    /// Forgets a schedule without a definition, once all its ticks have their runs. A node that knows less of the
    /// definitions than whoever decided its last tick does not know that it is gone.
    fn forget_removed(&mut self, id: RunId, now: Timestamp) {
        let Some(kept) = self.schedules.kept.get(&id) else { return };
        let known = self.schedules.revision.is_some_and(|revision| revision > kept.state.revision);
        if kept.plan.is_some() || kept.is_asking() || !known {
            return;
        }
        if kept.state == ScheduleState::default() {
            // Nothing of it is on disk.
            self.schedules.kept.remove(&id);
        } else {
            self.note(id, ScheduleEntry::ScheduleRemoved, now);
        }
    }

    /// Every run that is asked for has somebody who asks, and every tick a time at which it is decided.
    pub(super) fn audit_schedules(&self, audit: &mut Audit) {
        for (id, kept) in &self.schedules.kept {
            let asking = |(no, open): (&StartNo, &OpenTick)| open.start.is_some().then_some(Attempt(no.0));
            for no in kept.state.open.iter().filter_map(asking) {
                audit.orders += 1;
                if !self.owed.contains_key(&owed(*id, no)) {
                    audit.undriven.push((*id, format!("start {} of a schedule", no.0)));
                }
            }
            if kept.next_tick().is_some_and(|next| !self.schedules.due.contains(&(next, *id))) {
                audit.undriven.push((*id, "the next tick of a schedule".to_owned()));
            }
        }
    }
}

/// A schedule stands above its runs as a run above its children; the number of the start takes the attempt's place.
fn above(schedule: RunId, no: Attempt) -> ParentRef {
    ParentRef { run: schedule, unit: UnitId::step(StepIndex(0)), attempt: no }
}

fn owed(schedule: RunId, no: Attempt) -> Owed {
    Owed::Child(schedule, UnitId::step(StepIndex(0)), no)
}

/// The run of a tick, or why there is none.
fn tick_run(
    shards: ShardCount,
    plan: &Plan,
    tick: Timestamp,
    in_force: &InForce,
) -> Result<TickRun, Arc<str>> {
    let Plan { namespace, name, schedule, .. } = plan;
    let target = &schedule.spec.workflow;
    let workflow = in_force.catalogue.workflow(namespace, target);
    let workflow = workflow.ok_or_else(|| format!("there is no workflow `{target}`"))?;
    let with = schedule.spec.with.as_ref().map_or_else(|| Json::trusted("{}"), Json::of);
    let event = tick_event(name, tick, &with).map_err(|error| error.to_string())?;
    let key = key_of(workflow, &event).map_err(|error| error.to_string())?;
    let run = RunId::of_tick(shards, namespace, name, tick, key.as_deref());
    Ok(TickRun { run, workflow: workflow.clone(), key, event: event.json })
}

fn view(plan: &Plan, kept: &Kept) -> v1::Schedule {
    let millis = |at: Timestamp| i64::try_from(at.0).unwrap_or(i64::MAX);
    let (spec, state) = (&plan.schedule.spec, &kept.state);
    let last = state.last_start.as_ref();
    let left_out = state.last_left_out.as_ref();
    v1::Schedule {
        namespace: plan.namespace.to_string(),
        name: plan.name.to_string(),
        workflow: spec.workflow.to_string(),
        cron: spec.cron.clone(),
        time_zone: spec.time_zone.clone().unwrap_or_else(|| "UTC".to_owned()),
        suspended: spec.suspend,
        next_ms: kept.next.map_or(0, millis),
        last_ms: last.map_or(0, |(tick, _)| millis(*tick)),
        last_run: last.map_or_else(String::new, |(_, run)| run.to_string()),
        running: state.open.len() as u32,
        waiting: state.waiting.len() as u32,
        left_out: state.left_out,
        last_left_out_ms: left_out.map_or(0, |(tick, _)| millis(*tick)),
        started: state.starts,
        last_left_out_reason: left_out.map_or_else(String::new, |(_, why)| why.to_string()),
    }
}

#[cfg(test)]
mod tests;
