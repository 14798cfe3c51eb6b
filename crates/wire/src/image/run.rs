//! A run, as a checkpoint holds it.
use kapell_kernel::{OutcomeImage, PhaseImage, RunImage, StepImage};
use kapell_model::plan::StepIndex;
use kapell_model::{RunId, Timestamp};
use kapell_proto::journal as proto;
use kapell_proto::journal::run_image::Phase;

use super::unit::{forward_from, forward_to};
use crate::entry;
use crate::error::DecodeError;
use crate::field::{json, json_list, json_option, request, required, time};
use crate::plan;
use crate::record::Definitions;
use crate::task::{unit_of, unit_to};

pub(super) fn to_proto(run: &RunImage) -> proto::RunImage {
    proto::RunImage {
        accepted: Some(entry::accepted_to(&run.accepted)),
        paused: run.paused,
        context: run.context.to_string(),
        plan: run.plan.as_ref().map(|plan| plan::spec_of(plan).to_string()),
        steps: run.steps.iter().map(|(step, state)| step_to(*step, state)).collect(),
        cleared: run.cleared.iter().map(|unit| unit_to(*unit)).collect(),
        failed: run.failed.map(unit_to),
        signals: run.signals.iter().map(ToString::to_string).collect(),
        requests: run.requests.iter().map(|request| request.to_bytes().to_vec()).collect(),
        deadline_ms: run.deadline.map(|at| at.0),
        planned: run.planned,
        phase: Some(phase_to(&run.phase)),
    }
}

pub(super) fn from_proto(
    id: RunId,
    run: proto::RunImage,
    definitions: &dyn Definitions,
) -> Result<RunImage, DecodeError> {
    Ok(RunImage {
        id,
        accepted: entry::accepted_from(required("RunImage.accepted", run.accepted)?, definitions)?,
        phase: phase_from(required("RunImage.phase", run.phase)?)?,
        paused: run.paused,
        context: json("RunImage.context", &run.context)?,
        plan: run.plan.as_deref().map(|spec| plan::plan_of("RunImage.plan", spec)).transpose()?,
        planned: run.planned,
        steps: run.steps.into_iter().map(step_from).collect::<Result<_, _>>()?,
        cleared: run.cleared.iter().map(unit_of).collect(),
        failed: run.failed.as_ref().map(unit_of),
        signals: json_list("RunImage.signals", &run.signals)?,
        requests: run.requests.iter().map(|id| request("RunImage.requests", id)).collect::<Result<_, _>>()?,
        deadline: time(run.deadline_ms),
    })
}

fn phase_to(phase: &PhaseImage) -> Phase {
    match phase {
        PhaseImage::Queued => Phase::WaitingForTurn(proto::Empty {}),
        PhaseImage::Gathering => Phase::Gathering(proto::Empty {}),
        PhaseImage::Planning => Phase::Planning(proto::Empty {}),
        PhaseImage::Running => Phase::Running(proto::Empty {}),
        PhaseImage::WindingUp { towards, undo } => Phase::WindingUp(entry::undo_to(towards, *undo)),
        PhaseImage::Ended { ending, at, parent_waits, undone, outcome } => Phase::Ended(proto::EndedState {
            ending: Some(entry::ending_to(ending)),
            at_ms: at.0,
            parent_waits: *parent_waits,
            undone: *undone,
            outcome: Some(outcome_to(outcome)),
        }),
    }
}

fn phase_from(phase: Phase) -> Result<PhaseImage, DecodeError> {
    Ok(match phase {
        Phase::WaitingForTurn(proto::Empty {}) => PhaseImage::Queued,
        Phase::Gathering(proto::Empty {}) => PhaseImage::Gathering,
        Phase::Planning(proto::Empty {}) => PhaseImage::Planning,
        Phase::Running(proto::Empty {}) => PhaseImage::Running,
        Phase::WindingUp(began) => {
            let (towards, undo) = entry::undo_from(began)?;
            PhaseImage::WindingUp { towards, undo }
        }
        Phase::Ended(ended) => PhaseImage::Ended {
            ending: entry::ending_from("EndedState.ending", ended.ending, json)?,
            at: Timestamp(ended.at_ms),
            parent_waits: ended.parent_waits,
            undone: ended.undone,
            outcome: outcome_from(required("EndedState.outcome", ended.outcome)?)?,
        },
    })
}

fn outcome_to(outcome: &OutcomeImage) -> proto::ended_state::Outcome {
    use proto::ended_state::Outcome;
    match outcome {
        OutcomeImage::None => Outcome::None(proto::Empty {}),
        OutcomeImage::Known(verdict) => Outcome::Settled(entry::outcome_to(*verdict).into()),
        OutcomeImage::Open { correlation, until } => {
            Outcome::Open(proto::OpenOutcome { correlation: correlation.to_string(), until_ms: until.0 })
        }
    }
}

fn outcome_from(outcome: proto::ended_state::Outcome) -> Result<OutcomeImage, DecodeError> {
    use proto::ended_state::Outcome;
    Ok(match outcome {
        Outcome::None(proto::Empty {}) => OutcomeImage::None,
        Outcome::Settled(value) => OutcomeImage::Known(entry::outcome_from("EndedState.settled", value)?),
        Outcome::Open(open) => {
            OutcomeImage::Open { correlation: open.correlation.into(), until: Timestamp(open.until_ms) }
        }
    })
}

fn step_to(step: StepIndex, image: &StepImage) -> proto::StepImage {
    use proto::step_image::State;
    let state = match image {
        StepImage::One(one) => State::One(forward_to(one)),
        StepImage::Fan { items, units, output } => State::Fan(proto::FanImage {
            items: items.iter().map(ToString::to_string).collect(),
            units: units.iter().map(forward_to).collect(),
            output: output.as_ref().map(ToString::to_string),
        }),
        StepImage::Skipped => State::Skipped(proto::Empty {}),
    };
    proto::StepImage { step: step.0, state: Some(state) }
}

fn step_from(step: proto::StepImage) -> Result<(StepIndex, StepImage), DecodeError> {
    use proto::step_image::State;
    let image = match required("StepImage.state", step.state)? {
        State::One(one) => StepImage::One(Box::new(forward_from(one)?)),
        State::Fan(fan) => StepImage::Fan {
            items: json_list("FanImage.items", &fan.items)?,
            units: fan.units.into_iter().map(forward_from).collect::<Result<_, _>>()?,
            output: json_option("FanImage.output", fan.output.as_deref())?,
        },
        State::Skipped(proto::Empty {}) => StepImage::Skipped,
    };
    Ok((StepIndex(step.step), image))
}
