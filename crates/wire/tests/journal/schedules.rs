//! A known value of each entry of a schedule, and its images.
use kapell_kernel::schedule::{LeftOut, ScheduleEntry, ScheduleState, StartNo, TickRun};
use kapell_model::{Json, Name, Timestamp};
use kapell_wire::{DefinitionsImage, Image, ScheduleSince};

use crate::world::{WORLD, run_id};

const TICK: Timestamp = Timestamp(1_700_000_040_000);

fn start(no: u32, key: Option<&str>) -> ScheduleEntry {
    let run = TickRun {
        run: run_id(no.into()),
        workflow: WORLD.workflow("everything"),
        key: key.map(Into::into),
        event: Json::parse(r#"{"type":"kapell.schedule.tick"}"#).unwrap(),
    };
    ScheduleEntry::TickStarted { no: StartNo(no), tick: TICK, start: Box::new(run), revision: 12 }
}

fn left_out(why: LeftOut) -> ScheduleEntry {
    ScheduleEntry::TicksLeftOut { through: TICK, count: 3, why, revision: 12 }
}

/// Each kind and shape, with the name of its golden file.
pub(crate) fn entries() -> Vec<(&'static str, ScheduleEntry)> {
    vec![
        ("schedule.tick-started", start(1, None)),
        ("schedule.tick-started.key", start(2, Some("v7"))),
        ("schedule.tick-queued", ScheduleEntry::TickQueued { tick: TICK, revision: 12 }),
        ("schedule.ticks-left-out.missed", left_out(LeftOut::Missed)),
        ("schedule.ticks-left-out.too-many-missed", left_out(LeftOut::TooManyMissed)),
        ("schedule.ticks-left-out.last-run-goes-on", left_out(LeftOut::LastRunGoesOn)),
        ("schedule.ticks-left-out.too-many-runs", left_out(LeftOut::TooManyRuns)),
        ("schedule.ticks-left-out.too-many-wait", left_out(LeftOut::TooManyWait)),
        ("schedule.ticks-left-out.no-start", left_out(LeftOut::NoStart("grün ist gelb".into()))),
        ("schedule.run-began", ScheduleEntry::RunBegan { no: StartNo(1) }),
        ("schedule.run-over", ScheduleEntry::RunOver { no: StartNo(1) }),
        ("schedule.removed", ScheduleEntry::ScheduleRemoved),
    ]
}

/// How many kinds of entries there are; a new one does not compile here.
pub(crate) fn kind_of(entry: &ScheduleEntry) -> usize {
    match entry {
        ScheduleEntry::TickStarted { .. } => 0,
        ScheduleEntry::TickQueued { .. } => 1,
        ScheduleEntry::TicksLeftOut { why, .. } => match why {
            LeftOut::Missed => 2,
            LeftOut::TooManyMissed => 3,
            LeftOut::LastRunGoesOn => 4,
            LeftOut::TooManyRuns => 5,
            LeftOut::TooManyWait => 6,
            LeftOut::NoStart(_) => 7,
        },
        ScheduleEntry::RunBegan { .. } => 8,
        ScheduleEntry::RunOver { .. } => 9,
        ScheduleEntry::ScheduleRemoved => 10,
    }
}

/// See [`kind_of`].
pub(crate) const KINDS: usize = 11;

/// A schedule with all that it may hold, one with nothing, and from when ticks count.
pub(crate) fn images() -> Vec<(&'static str, Image)> {
    let mut state = ScheduleState::default();
    let queued = |tick: u64| ScheduleEntry::TickQueued { tick: Timestamp(TICK.0 + tick), revision: 13 };
    for entry in [start(1, None), start(2, Some("v7")), ScheduleEntry::RunBegan { no: StartNo(1) }] {
        state.evolve(&entry);
    }
    for entry in [left_out(LeftOut::NoStart("no field `x`".into())), queued(60_000), queued(120_000)] {
        state.evolve(&entry);
    }
    let since = |name: &str| ScheduleSince {
        namespace: Name::default_namespace(),
        name: Name::new(name).unwrap(),
        since: TICK,
    };
    let definitions = DefinitionsImage {
        revision: 12,
        current: vec![],
        former: vec![],
        since: vec![since("a"), since("b")],
    };
    vec![
        ("image-schedule", Image::Schedule(Box::new(state))),
        ("image-schedule.new", Image::Schedule(Box::default())),
        ("image-definitions.since", Image::Definitions(definitions)),
    ]
}
