//! The tasks that the worker holds.
//!
//! Owns: what is under way and what waits to be acknowledged, and which coordinator each task belongs to. Never:
//! decides what is taken.
use std::collections::BTreeMap;

use kapell_model::ShardId;
use kapell_proto::v1::worker_message::Kind;
use kapell_proto::v1::{Checkpoint, TaskRef, TaskReport, ToolRequest, WorkerMessage, task_report};
use kapell_wire::task::TaskKey;

use super::message::{CallAnswer, CheckpointAnswer, SessionNo, SpecialistNo};

/// The tasks that the worker holds.
#[derive(Debug)]
pub(crate) struct HeldTasks {
    tasks: BTreeMap<TaskKey, Held>,
    counts: Vec<Counts>,
}

/// How many tasks of one coordinator are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Under way or waiting for their specialist, in rooms that the coordinator believes to be taken.
    pub(crate) running: usize,
    /// Ended, the report not acknowledged.
    pub(crate) unacknowledged: usize,
    /// The same, in bytes.
    pub(crate) unacknowledged_bytes: usize,
}

#[derive(Debug)]
struct Held {
    /// Who is told of it, and who may stop it.
    home: SessionNo,
    /// Whose room it takes. `None`: nobody's; it came with its shard from a coordinator that has filled the room again.
    room_of: Option<SessionNo>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Running(Running),
    Ended(TaskReport),
}

/// A task under way, with what it waits for.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) specialist: SpecialistNo,
    /// By number; sent, not answered.
    pub(crate) calls: BTreeMap<u32, (ToolRequest, CallAnswer)>,
    /// By position; sent, not acknowledged.
    pub(crate) checkpoints: BTreeMap<u32, (Checkpoint, CheckpointAnswer)>,
}

/// What the owner of a shard is told of the tasks that belong to it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retell {
    /// What they have unanswered: it may have been lost.
    Unanswered,
    /// Nothing: it was told already.
    Nothing,
}

/// What a coordinator is told of a task that it assigns again.
#[derive(Debug, PartialEq)]
pub(crate) enum Again {
    /// Nothing: it is under way, and these requests were told to nobody who still cares.
    Running(Vec<WorkerMessage>),
    /// Its report.
    Ended(WorkerMessage),
}

impl HeldTasks {
    pub(crate) fn new(sessions: usize) -> HeldTasks {
        HeldTasks { tasks: BTreeMap::new(), counts: vec![Counts::default(); sessions] }
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn counts(&self, session: SessionNo) -> Counts {
        self.counts[session.0]
    }

    pub(crate) fn begin(&mut self, key: TaskKey, home: SessionNo, specialist: SpecialistNo) {
        let running = Running { specialist, calls: BTreeMap::new(), checkpoints: BTreeMap::new() };
        let held = Held { home, room_of: Some(home), work: Work::Running(running) };
        count(&mut self.counts, &held, Change::More);
        let before = self.tasks.insert(key, held);
        debug_assert!(before.is_none(), "a held task is not begun again");
    }

    /// A coordinator assigns a task that may be held already: then it is that coordinator's from now on.
    pub(crate) fn assigned_again(&mut self, key: &TaskKey, by: SessionNo) -> Option<Again> {
        let held = self.tasks.get_mut(key)?;
        let moved = held.home != by;
        count(&mut self.counts, held, Change::Less);
        (held.home, held.room_of) = (by, Some(by));
        count(&mut self.counts, held, Change::More);
        Some(match &held.work {
            Work::Ended(report) => Again::Ended(of(Kind::Report(report.clone()))),
            Work::Running(running) if moved => Again::Running(running.unanswered().collect()),
            Work::Running(_) => Again::Running(Vec::new()),
        })
    }

    /// A coordinator owns the shard: its tasks are that coordinator's from now on. What it must be told.
    pub(crate) fn rehome(&mut self, shard: ShardId, to: SessionNo, retell: Retell) -> Vec<WorkerMessage> {
        let mut told = Vec::new();
        for (_, held) in self.tasks.range_mut(TaskKey::of_shard(shard)) {
            let moved = held.home != to;
            if moved {
                count(&mut self.counts, held, Change::Less);
                (held.home, held.room_of) = (to, None);
                count(&mut self.counts, held, Change::More);
            }
            if moved || retell == Retell::Unanswered {
                held.tell(&mut told);
            }
        }
        told
    }

    /// A coordinator does not own these shards any more, and fills the room of their tasks again. They stay its own
    /// until somebody claims them.
    pub(crate) fn give_back_room(&mut self, of: SessionNo, left: impl Fn(ShardId) -> bool) {
        for (_, held) in self.tasks.iter_mut().filter(|(key, _)| left(key.run.shard())) {
            if held.room_of == Some(of) {
                count(&mut self.counts, held, Change::Less);
                held.room_of = None;
                count(&mut self.counts, held, Change::More);
            }
        }
    }

    pub(crate) fn running(&mut self, key: &TaskKey) -> Option<(SessionNo, &mut Running)> {
        let held = self.tasks.get_mut(key)?;
        match &mut held.work {
            Work::Running(running) => Some((held.home, running)),
            Work::Ended(_) => None,
        }
    }

    /// A task ended; whom to tell. `None`: it was not under way any more.
    pub(crate) fn end(&mut self, key: &TaskKey, report: TaskReport) -> Option<(SessionNo, WorkerMessage)> {
        let held = self.tasks.get_mut(key)?;
        match held.work {
            Work::Ended(_) => return None,
            Work::Running(_) => {}
        }
        count(&mut self.counts, held, Change::Less);
        held.work = Work::Ended(report.clone());
        count(&mut self.counts, held, Change::More);
        Some((held.home, of(Kind::Report(report))))
    }

    /// The report is durable: forget it. One of a task under way is not meant.
    pub(crate) fn acknowledged(&mut self, key: &TaskKey) {
        let ended = |held: &Held| match held.work {
            Work::Ended(_) => true,
            Work::Running(_) => false,
        };
        if self.tasks.get(key).is_some_and(ended) {
            self.remove(key);
        }
    }

    /// Forgets a task that its coordinator does not want; who is working on it. One that has ended stays until its
    /// report is acknowledged: the coordinator may have taken the report, and lose it before it is on disk.
    pub(crate) fn cancel(&mut self, key: &TaskKey, by: SessionNo) -> Option<SpecialistNo> {
        let (home, running) = self.running(key)?;
        let specialist = running.specialist;
        if home != by {
            return None;
        }
        self.remove(key);
        Some(specialist)
    }

    fn remove(&mut self, key: &TaskKey) -> Option<Held> {
        let held = self.tasks.remove(key)?;
        count(&mut self.counts, &held, Change::Less);
        Some(held)
    }

    /// Forgets what is under way for a coordinator, and says who works on it. Reports are kept.
    pub(crate) fn abandon(&mut self, home: SessionNo) -> Vec<(TaskKey, SpecialistNo)> {
        let lost = self.under_way(|held_home, _| held_home == home);
        for (key, _) in &lost {
            self.remove(key);
        }
        lost
    }

    /// What a specialist works on.
    pub(crate) fn of_specialist(&self, specialist: SpecialistNo) -> Vec<TaskKey> {
        self.under_way(|_, by| by == specialist).into_iter().map(|(key, _)| key).collect()
    }

    fn under_way(&self, wanted: impl Fn(SessionNo, SpecialistNo) -> bool) -> Vec<(TaskKey, SpecialistNo)> {
        let running = self.tasks.iter().filter_map(|(key, held)| match &held.work {
            Work::Running(running) => {
                wanted(held.home, running.specialist).then_some((*key, running.specialist))
            }
            Work::Ended(_) => None,
        });
        running.collect()
    }

    /// All tasks of a shard, in order.
    pub(crate) fn of_shard(&self, shard: ShardId) -> impl Iterator<Item = TaskRef> {
        self.tasks.range(TaskKey::of_shard(shard)).map(|(key, _)| key.to_proto())
    }

    /// All tasks of a coordinator, in order.
    pub(crate) fn holding(&self, home: SessionNo) -> Vec<TaskRef> {
        self.tasks.iter().filter(|(_, held)| held.home == home).map(|(key, _)| key.to_proto()).collect()
    }

    /// Everything that a coordinator has not answered, in order of the tasks.
    pub(crate) fn unanswered(&self, home: SessionNo) -> Vec<WorkerMessage> {
        let mut messages = Vec::new();
        self.tasks.values().filter(|held| held.home == home).for_each(|held| held.tell(&mut messages));
        messages
    }
}

impl Held {
    /// What is not answered.
    fn tell(&self, to: &mut Vec<WorkerMessage>) {
        match &self.work {
            Work::Running(running) => to.extend(running.unanswered()),
            Work::Ended(report) => to.push(of(Kind::Report(report.clone()))),
        }
    }
}

impl Running {
    fn unanswered(&self) -> impl Iterator<Item = WorkerMessage> {
        let checkpoints = self.checkpoints.values().map(|(sent, _)| of(Kind::Checkpoint(sent.clone())));
        checkpoints.chain(self.calls.values().map(|(sent, _)| of(Kind::Tool(sent.clone()))))
    }
}

pub(crate) fn of(kind: Kind) -> WorkerMessage {
    WorkerMessage { kind: Some(kind) }
}

#[derive(Clone, Copy)]
enum Change {
    More,
    Less,
}

fn count(counts: &mut [Counts], held: &Held, change: Change) {
    let add = |count: &mut usize, by: usize| match change {
        Change::More => *count += by,
        Change::Less => *count -= by,
    };
    match (&held.work, held.room_of) {
        (Work::Running(_), Some(room)) => add(&mut counts[room.0].running, 1),
        (Work::Running(_), None) => {}
        (Work::Ended(report), _) => {
            let counts = &mut counts[held.home.0];
            add(&mut counts.unacknowledged, 1);
            add(&mut counts.unacknowledged_bytes, bytes(report));
        }
    }
}

fn bytes(report: &TaskReport) -> usize {
    match &report.result {
        Some(task_report::Result::Output(output)) => output.len(),
        Some(task_report::Result::Error(error)) => error.message.len(),
        None => 0,
    }
}
