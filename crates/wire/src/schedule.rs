//! Schedules, in the journal and in a checkpoint.
use kapell_kernel::schedule::{LeftOut, OpenTick, ScheduleEntry, ScheduleState, StartNo, TickRun};
use kapell_model::{RunId, Timestamp};
use kapell_proto::journal as proto;
use kapell_proto::journal::schedule_entry::Kind;

use crate::error::DecodeError;
use crate::field::{self, json, required};
use crate::record::Definitions;

/// table: one arm for each entry.
pub(crate) fn to_proto(entry: &ScheduleEntry) -> Kind {
    match entry {
        ScheduleEntry::TickStarted { no, tick, start, revision } => Kind::TickStarted(proto::TickStarted {
            no: no.0,
            tick_ms: tick.0,
            start: Some(start_to(start)),
            revision: *revision,
        }),
        ScheduleEntry::TickQueued { tick, revision } => {
            Kind::TickQueued(proto::TickQueued { tick_ms: tick.0, revision: *revision })
        }
        ScheduleEntry::TicksLeftOut { through, count, why, revision } => {
            let left_out = left_out_to(*through, why);
            Kind::TicksLeftOut(proto::TicksLeftOut { count: *count, revision: *revision, ..left_out })
        }
        ScheduleEntry::RunBegan { no } => Kind::RunBegan(proto::TickRunBegan { no: no.0 }),
        ScheduleEntry::RunOver { no } => Kind::RunOver(proto::TickRunOver { no: no.0 }),
        ScheduleEntry::ScheduleRemoved => Kind::Removed(proto::ScheduleRemoved {}),
    }
}

/// table: one arm for each entry.
pub(crate) fn from_proto(kind: Kind, definitions: &dyn Definitions) -> Result<ScheduleEntry, DecodeError> {
    Ok(match kind {
        Kind::TickStarted(entry) => ScheduleEntry::TickStarted {
            no: StartNo(entry.no),
            tick: Timestamp(entry.tick_ms),
            start: Box::new(start_from(required("TickStarted.start", entry.start)?, definitions)?),
            revision: entry.revision,
        },
        Kind::TickQueued(entry) => {
            ScheduleEntry::TickQueued { tick: Timestamp(entry.tick_ms), revision: entry.revision }
        }
        Kind::TicksLeftOut(entry) => {
            let (count, revision) = (entry.count, entry.revision);
            let (through, why) = left_out_from(entry)?;
            ScheduleEntry::TicksLeftOut { through, count, why, revision }
        }
        Kind::RunBegan(entry) => ScheduleEntry::RunBegan { no: StartNo(entry.no) },
        Kind::RunOver(entry) => ScheduleEntry::RunOver { no: StartNo(entry.no) },
        Kind::Removed(proto::ScheduleRemoved {}) => ScheduleEntry::ScheduleRemoved,
    })
}

pub(crate) fn image_to(state: &ScheduleState) -> proto::ScheduleImage {
    let open = |(no, open): (&StartNo, &OpenTick)| proto::OpenTickImage {
        no: no.0,
        tick_ms: open.tick.0,
        run: open.run.to_bytes().to_vec(),
        start: open.start.as_deref().map(start_to),
    };
    proto::ScheduleImage {
        through_ms: state.through.0,
        revision: state.revision,
        starts: state.starts,
        open: state.open.iter().map(open).collect(),
        waiting_ms: state.waiting.iter().map(|tick| tick.0).collect(),
        last_tick_ms: state.last_start.map(|(tick, _)| tick.0),
        last_run: state.last_start.map_or_else(Vec::new, |(_, run)| run.to_bytes().to_vec()),
        left_out: state.left_out,
        last_left_out: state.last_left_out.as_ref().map(|(through, why)| left_out_to(*through, why)),
    }
}

pub(crate) fn image_from(
    image: proto::ScheduleImage,
    definitions: &dyn Definitions,
) -> Result<ScheduleState, DecodeError> {
    let open = |open: proto::OpenTickImage| -> Result<(StartNo, OpenTick), DecodeError> {
        let run: RunId = field::run("OpenTickImage.run", &open.run)?;
        let start = open.start.map(|start| start_from(start, definitions)).transpose()?;
        let tick = Timestamp(open.tick_ms);
        Ok((StartNo(open.no), OpenTick { tick, run, start: start.map(Box::new) }))
    };
    let last_start = match image.last_tick_ms {
        Some(tick) => Some((Timestamp(tick), field::run("ScheduleImage.last_run", &image.last_run)?)),
        None => None,
    };
    Ok(ScheduleState {
        through: Timestamp(image.through_ms),
        revision: image.revision,
        starts: image.starts,
        open: image.open.into_iter().map(open).collect::<Result<_, _>>()?,
        waiting: image.waiting_ms.into_iter().map(Timestamp).collect(),
        last_start,
        left_out: image.left_out,
        last_left_out: image.last_left_out.map(left_out_from).transpose()?,
    })
}

fn start_to(start: &TickRun) -> proto::TickRun {
    proto::TickRun {
        run: start.run.to_bytes().to_vec(),
        definition: start.workflow.digest.0.to_vec(),
        key: start.key.as_deref().map(str::to_owned),
        event: start.event.to_string(),
    }
}

fn start_from(start: proto::TickRun, definitions: &dyn Definitions) -> Result<TickRun, DecodeError> {
    Ok(TickRun {
        run: field::run("TickRun.run", &start.run)?,
        workflow: field::workflow("TickRun.definition", &start.definition, definitions)?,
        key: start.key.map(Into::into),
        event: json("TickRun.event", &start.event)?,
    })
}

fn left_out_to(through: Timestamp, why: &LeftOut) -> proto::TicksLeftOut {
    let (why, reason) = match why {
        LeftOut::Missed => (proto::LeftOut::Missed, ""),
        LeftOut::TooManyMissed => (proto::LeftOut::TooManyMissed, ""),
        LeftOut::LastRunGoesOn => (proto::LeftOut::LastRunGoesOn, ""),
        LeftOut::TooManyRuns => (proto::LeftOut::TooManyRuns, ""),
        LeftOut::TooManyWait => (proto::LeftOut::TooManyWait, ""),
        LeftOut::NoStart(reason) => (proto::LeftOut::NoStart, &**reason),
    };
    proto::TicksLeftOut {
        through_ms: through.0,
        why: why.into(),
        reason: reason.to_owned(),
        ..proto::TicksLeftOut::default()
    }
}

fn left_out_from(entry: proto::TicksLeftOut) -> Result<(Timestamp, LeftOut), DecodeError> {
    let unknown = |_| DecodeError::UnknownValue { field: "TicksLeftOut.why", value: entry.why };
    let why = match proto::LeftOut::try_from(entry.why).map_err(unknown)? {
        proto::LeftOut::Missed => LeftOut::Missed,
        proto::LeftOut::TooManyMissed => LeftOut::TooManyMissed,
        proto::LeftOut::LastRunGoesOn => LeftOut::LastRunGoesOn,
        proto::LeftOut::TooManyRuns => LeftOut::TooManyRuns,
        proto::LeftOut::TooManyWait => LeftOut::TooManyWait,
        proto::LeftOut::NoStart => LeftOut::NoStart(entry.reason.into()),
    };
    Ok((Timestamp(entry.through_ms), why))
}
