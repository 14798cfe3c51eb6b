//! What names a task or a call, and how it failed: between the streams and the kernel.
//!
//! Owns: the typed refusal of what a worker or connector may not say.
use std::ops::RangeInclusive;
use std::time::Duration;

use kapell_kernel::{Attempt, CallNo, ErrorClass, ItemIndex, Side, TaskError, UnitId};
use kapell_model::definition::EffectClass;
use kapell_model::limits::{CALLS_PER_TASK_MAX, FOREACH_ITEMS_MAX, PLAN_STEPS_MAX};
use kapell_model::plan::StepIndex;
use kapell_model::{RunId, ShardId};
use kapell_proto::v1;

/// One attempt of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    /// The run.
    pub run: RunId,
    /// The unit.
    pub unit: UnitId,
    /// The attempt.
    pub attempt: Attempt,
}

/// One making of one tool call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// The run.
    pub run: RunId,
    /// The unit.
    pub unit: UnitId,
    /// The call's number.
    pub no: CallNo,
    /// Which making of the call.
    pub attempt: Attempt,
}

/// Why a message from outside names nothing, or says what nobody may say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRef {
    /// Not 16 bytes.
    #[error("run has {bytes} bytes; send the 16 bytes of the id as they came with the task")]
    RunLength {
        /// How many came.
        bytes: usize,
    },
    /// No reference at all.
    #[error("{message} is missing; send back the one that came with the work")]
    Missing {
        /// Which message.
        message: &'static str,
    },
    /// A number above its limit.
    #[error("{field} is {got}, at most {most} is possible; send it back as it came")]
    TooLarge {
        /// Which number.
        field: &'static str,
        /// What came.
        got: u32,
        /// The limit.
        most: u32,
    },
    /// Attempts are counted from one.
    #[error("attempt is 0; attempts are counted from 1")]
    NoAttempt,
    /// A class of errors or effects that this program does not know.
    #[error("{field} is {value}, which is unknown here; use a value of kapell/v1/task.proto")]
    UnknownValue {
        /// Which field.
        field: &'static str,
        /// What came.
        value: i32,
    },
}

impl TaskKey {
    /// As it is sent.
    #[must_use]
    pub fn to_proto(&self) -> v1::TaskRef {
        let run = self.run.to_bytes().to_vec();
        v1::TaskRef { run, unit: Some(unit_to(self.unit)), attempt: self.attempt.0 }
    }

    /// From outside.
    pub fn from_proto(task: Option<&v1::TaskRef>) -> Result<TaskKey, BadRef> {
        let task = task.ok_or(BadRef::Missing { message: "task" })?;
        let (run, unit) = (run_from(&task.run)?, unit_from(task.unit.as_ref())?);
        Ok(TaskKey { run, unit, attempt: attempt_from(task.attempt)? })
    }

    /// All tasks of a shard, as a range of a map: keys are in order of their runs, and a run id begins with its shard.
    #[must_use]
    pub fn of_shard(shard: ShardId) -> RangeInclusive<TaskKey> {
        let [(first, from), (last, to)] = edges(shard);
        let [first, last] = [(first, from, 0), (last, to, u32::MAX)].map(|(run, unit, attempt)| TaskKey {
            run,
            unit,
            attempt: Attempt(attempt),
        });
        first..=last
    }
}

impl CallKey {
    /// As it is sent.
    #[must_use]
    pub fn to_proto(&self) -> v1::CallRef {
        let run = self.run.to_bytes().to_vec();
        v1::CallRef { run, unit: Some(unit_to(self.unit)), no: self.no.0, attempt: self.attempt.0 }
    }

    /// From outside.
    pub fn from_proto(call: Option<&v1::CallRef>) -> Result<CallKey, BadRef> {
        let call = call.ok_or(BadRef::Missing { message: "call" })?;
        let (run, unit) = (run_from(&call.run)?, unit_from(call.unit.as_ref())?);
        Ok(CallKey { run, unit, no: call_no_from(call.no)?, attempt: attempt_from(call.attempt)? })
    }

    /// All calls of a shard, as [`TaskKey::of_shard`].
    #[must_use]
    pub fn of_shard(shard: ShardId) -> RangeInclusive<CallKey> {
        let [(first, from), (last, to)] = edges(shard);
        let [first, last] = [(first, from, 0), (last, to, u32::MAX)].map(|(run, unit, most)| CallKey {
            run,
            unit,
            no: CallNo(most),
            attempt: Attempt(most),
        });
        first..=last
    }
}

/// The first and the last unit that a shard could have.
fn edges(shard: ShardId) -> [(RunId, UnitId); 2] {
    let first = UnitId { step: StepIndex(0), item: None, side: Side::Forward };
    let most = u32::MAX;
    let last = UnitId { step: StepIndex(most), item: Some(ItemIndex(most)), side: Side::Undo };
    [(RunId::new(shard, 0), first), (RunId::new(shard, u128::MAX), last)]
}

/// A run id from outside.
pub fn run_from(bytes: &[u8]) -> Result<RunId, BadRef> {
    let bytes = <[u8; 16]>::try_from(bytes).map_err(|_| BadRef::RunLength { bytes: bytes.len() })?;
    Ok(RunId::from_bytes(bytes))
}

/// A unit from outside.
pub fn unit_from(unit: Option<&v1::UnitId>) -> Result<UnitId, BadRef> {
    let unit = unit.ok_or(BadRef::Missing { message: "unit" })?;
    at_most("unit.step", unit.step, PLAN_STEPS_MAX as u32 - 1)?;
    at_most("unit.item", unit.item.unwrap_or(0), FOREACH_ITEMS_MAX as u32 - 1)?;
    Ok(unit_of(unit))
}

/// A call's number from outside.
pub fn call_no_from(no: u32) -> Result<CallNo, BadRef> {
    at_most("no", no, CALLS_PER_TASK_MAX - 1).map(|()| CallNo(no))
}

/// A unit as it is sent and stored.
#[must_use]
pub fn unit_to(unit: UnitId) -> v1::UnitId {
    let undo = match unit.side {
        Side::Forward => false,
        Side::Undo => true,
    };
    v1::UnitId { step: unit.step.0, item: unit.item.map(|item| item.0), undo }
}

/// A stored unit. Its numbers were in range when they were written; a limit that shrank since must not hide them.
pub(crate) fn unit_of(unit: &v1::UnitId) -> UnitId {
    let side = if unit.undo { Side::Undo } else { Side::Forward };
    UnitId { step: StepIndex(unit.step), item: unit.item.map(ItemIndex), side }
}

/// An error as it is sent and stored. A wait is rounded up to whole milliseconds.
#[must_use]
pub fn error_to(error: &TaskError) -> v1::TaskError {
    let retry_after_ms = error.retry_after.map(millis_up);
    v1::TaskError { class: class_to(error.class).into(), message: error.message.clone(), retry_after_ms }
}

/// Never earlier than asked.
pub(crate) fn millis_up(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// An error from outside; its message is cut at the limit.
pub fn error_from(error: v1::TaskError) -> Result<TaskError, BadRef> {
    let unknown = BadRef::UnknownValue { field: "error.class", value: error.class };
    let class = class_of(error.class).ok_or(unknown)?;
    let retry_after = error.retry_after_ms.map(Duration::from_millis);
    Ok(TaskError { retry_after, ..TaskError::new(class, error.message) })
}

/// An effect class from outside.
pub fn effect_from(value: i32) -> Result<EffectClass, BadRef> {
    effect_of(value).ok_or(BadRef::UnknownValue { field: "effect", value })
}

/// An effect class as it is sent and stored.
#[must_use]
pub fn effect_to(effect: EffectClass) -> v1::EffectClass {
    match effect {
        EffectClass::Read => v1::EffectClass::Read,
        EffectClass::Write => v1::EffectClass::Write,
        EffectClass::Irreversible => v1::EffectClass::Irreversible,
    }
}

pub(crate) fn effect_of(value: i32) -> Option<EffectClass> {
    Some(match v1::EffectClass::try_from(value).ok()? {
        v1::EffectClass::Read => EffectClass::Read,
        v1::EffectClass::Write => EffectClass::Write,
        v1::EffectClass::Irreversible => EffectClass::Irreversible,
    })
}

/// table: both directions of the error classes.
fn class_to(class: ErrorClass) -> v1::ErrorClass {
    match class {
        ErrorClass::Unavailable => v1::ErrorClass::Unavailable,
        ErrorClass::RateLimited => v1::ErrorClass::RateLimited,
        ErrorClass::Timeout => v1::ErrorClass::Timeout,
        ErrorClass::WorkerLost => v1::ErrorClass::WorkerLost,
        ErrorClass::Panicked => v1::ErrorClass::Panicked,
        ErrorClass::Auth => v1::ErrorClass::Auth,
        ErrorClass::BadRequest => v1::ErrorClass::BadRequest,
        ErrorClass::ContractBroken => v1::ErrorClass::ContractBroken,
        ErrorClass::UnknownOutcome => v1::ErrorClass::UnknownOutcome,
        ErrorClass::Denied => v1::ErrorClass::Denied,
        ErrorClass::Rejected => v1::ErrorClass::Rejected,
        ErrorClass::Expression => v1::ErrorClass::Expression,
        ErrorClass::NoSpecialist => v1::ErrorClass::NoSpecialist,
        ErrorClass::Permanent => v1::ErrorClass::Permanent,
    }
}

pub(crate) fn class_of(value: i32) -> Option<ErrorClass> {
    Some(match v1::ErrorClass::try_from(value).ok()? {
        v1::ErrorClass::Unspecified => return None,
        v1::ErrorClass::Unavailable => ErrorClass::Unavailable,
        v1::ErrorClass::RateLimited => ErrorClass::RateLimited,
        v1::ErrorClass::Timeout => ErrorClass::Timeout,
        v1::ErrorClass::WorkerLost => ErrorClass::WorkerLost,
        v1::ErrorClass::Panicked => ErrorClass::Panicked,
        v1::ErrorClass::Auth => ErrorClass::Auth,
        v1::ErrorClass::BadRequest => ErrorClass::BadRequest,
        v1::ErrorClass::ContractBroken => ErrorClass::ContractBroken,
        v1::ErrorClass::UnknownOutcome => ErrorClass::UnknownOutcome,
        v1::ErrorClass::Denied => ErrorClass::Denied,
        v1::ErrorClass::Rejected => ErrorClass::Rejected,
        v1::ErrorClass::Expression => ErrorClass::Expression,
        v1::ErrorClass::NoSpecialist => ErrorClass::NoSpecialist,
        v1::ErrorClass::Permanent => ErrorClass::Permanent,
    })
}

fn attempt_from(attempt: u32) -> Result<Attempt, BadRef> {
    if attempt == 0 { Err(BadRef::NoAttempt) } else { Ok(Attempt(attempt)) }
}

fn at_most(field: &'static str, got: u32, most: u32) -> Result<(), BadRef> {
    if got > most { Err(BadRef::TooLarge { field, got, most }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kapell_model::limits::ERROR_BYTES_MAX;

    fn task() -> TaskKey {
        let run = RunId::new(ShardId(3), 77);
        TaskKey { run, unit: UnitId::item(StepIndex(4), 9).undo(), attempt: Attempt(2) }
    }

    #[test]
    fn tasks_and_calls_survive_the_stream() {
        let task = task();
        assert_eq!(TaskKey::from_proto(Some(&task.to_proto())), Ok(task));
        let call = CallKey { run: task.run, unit: task.unit, no: CallNo(9_999), attempt: Attempt(1) };
        assert_eq!(CallKey::from_proto(Some(&call.to_proto())), Ok(call));
    }

    #[test]
    fn a_shard_is_a_range_of_keys() {
        let shard = ShardId(3);
        let (tasks, calls) = (TaskKey::of_shard(shard), CallKey::of_shard(shard));
        let call =
            |task: &TaskKey| CallKey { run: task.run, unit: task.unit, no: CallNo(7), attempt: task.attempt };
        let edges = [(2, u128::MAX), (3, 0), (3, u128::MAX), (4, 0)];
        let inside = edges.map(|(shard, low)| TaskKey { run: RunId::new(ShardId(shard), low), ..task() });
        assert_eq!(inside.map(|task| tasks.contains(&task)), [false, true, true, false]);
        assert_eq!(inside.map(|task| calls.contains(&call(&task))), [false, true, true, false]);
    }

    #[test]
    fn what_names_nothing_is_refused_with_its_reason() {
        let good = task().to_proto();
        let with = |change: fn(&mut v1::TaskRef)| {
            let mut task = good.clone();
            change(&mut task);
            TaskKey::from_proto(Some(&task)).unwrap_err()
        };
        assert_eq!(TaskKey::from_proto(None), Err(BadRef::Missing { message: "task" }));
        assert_eq!(with(|task| task.run.truncate(15)), BadRef::RunLength { bytes: 15 });
        assert_eq!(with(|task| task.run.clear()), BadRef::RunLength { bytes: 0 });
        assert_eq!(with(|task| task.unit = None), BadRef::Missing { message: "unit" });
        assert_eq!(with(|task| task.attempt = 0), BadRef::NoAttempt);
        let unit = |step, item| Some(v1::UnitId { step, item, undo: false });
        let mut edge = good.clone();
        edge.unit = unit(9_999, Some(9_999));
        assert!(TaskKey::from_proto(Some(&edge)).is_ok(), "the limit itself fits");
        edge.unit = unit(10_000, None);
        let told = TaskKey::from_proto(Some(&edge)).unwrap_err();
        assert_eq!(told, BadRef::TooLarge { field: "unit.step", got: 10_000, most: 9_999 });
        edge.unit = unit(0, Some(10_000));
        let told = TaskKey::from_proto(Some(&edge)).unwrap_err();
        assert_eq!(told.to_string(), "unit.item is 10000, at most 9999 is possible; send it back as it came");
        let call = v1::CallRef { run: vec![0; 16], unit: unit(0, None), no: 10_000, attempt: 1 };
        let told = CallKey::from_proto(Some(&call)).unwrap_err();
        assert_eq!(told, BadRef::TooLarge { field: "no", got: 10_000, most: 9_999 });
        assert_eq!(CallKey::from_proto(None), Err(BadRef::Missing { message: "call" }));
    }

    #[test]
    fn every_class_of_errors_and_effects_has_its_own_number() {
        for value in 1..=14 {
            let class = class_of(value).unwrap();
            assert_eq!(class_to(class) as i32, value, "{class}");
        }
        assert_eq!((class_of(0), class_of(15), class_of(-1)), (None, None, None));
        for value in 0..=2 {
            assert_eq!(effect_to(effect_from(value).unwrap()) as i32, value);
        }
        assert_eq!(effect_from(3), Err(BadRef::UnknownValue { field: "effect", value: 3 }));
    }

    #[test]
    fn an_error_from_outside_is_checked_and_cut() {
        let long = "ä".repeat(ERROR_BYTES_MAX);
        let sent = v1::TaskError { class: 2, message: long, retry_after_ms: Some(1_500) };
        let error = error_from(sent).unwrap();
        assert_eq!((error.class, error.message.len()), (ErrorClass::RateLimited, ERROR_BYTES_MAX));
        assert_eq!(error.retry_after, Some(Duration::from_millis(1_500)));
        assert_eq!(error_from(error_to(&error)).unwrap(), error);
        let unknown = v1::TaskError { class: 0, message: String::new(), retry_after_ms: None };
        assert_eq!(error_from(unknown), Err(BadRef::UnknownValue { field: "error.class", value: 0 }));
        let hurried = TaskError { retry_after: Some(Duration::from_micros(1)), ..error };
        assert_eq!(error_to(&hurried).retry_after_ms, Some(1), "never earlier than asked");
    }
}
