//! Keys of orders and timers.
use kapell_kernel::{ApprovalKey, Attempt, CallNo, OrderKey, TimerKey, UnitId};
use kapell_proto::journal::Empty;
use kapell_proto::peer::v1 as proto;

use crate::error::DecodeError;
use crate::field;
use crate::task::unit_to;

pub(super) fn order_to(key: OrderKey) -> proto::OrderKey {
    use proto::order_key::Kind;
    let kind = match key {
        OrderKey::Turn => Kind::Turn(Empty {}),
        OrderKey::Context => Kind::Context(Empty {}),
        OrderKey::Plan => Kind::Plan(Empty {}),
        OrderKey::Judge(unit, attempt) => Kind::Judge(attempt_to(unit, attempt)),
        OrderKey::Dispatch(unit, attempt) => Kind::Dispatch(attempt_to(unit, attempt)),
        OrderKey::Call(unit, no, attempt) => Kind::Call(making_to(unit, no, attempt)),
        OrderKey::Reconcile(unit, no, attempt) => Kind::Reconcile(making_to(unit, no, attempt)),
        OrderKey::Approval(ApprovalKey::Unit(unit, attempt)) => Kind::UnitApproval(attempt_to(unit, attempt)),
        OrderKey::Approval(ApprovalKey::Call(unit, no, attempt)) => {
            Kind::CallApproval(making_to(unit, no, attempt))
        }
        OrderKey::Timer(timer) => Kind::Timer(timer_to(timer)),
        OrderKey::Event(unit, attempt) => Kind::Event(attempt_to(unit, attempt)),
        OrderKey::Child(unit, attempt) => Kind::Child(attempt_to(unit, attempt)),
        OrderKey::CancelChild(unit, attempt) => Kind::CancelChild(attempt_to(unit, attempt)),
        OrderKey::Parent => Kind::Parent(Empty {}),
        OrderKey::Resume => Kind::Resume(Empty {}),
        OrderKey::Outcome => Kind::Outcome(Empty {}),
    };
    proto::OrderKey { kind: Some(kind) }
}

pub(super) fn order_from(key: proto::OrderKey) -> Result<OrderKey, DecodeError> {
    use proto::order_key::Kind;
    let unknown = || DecodeError::Newer { what: "it is about an order of a kind".to_owned() };
    let attempt = |of| attempt_from("OrderKey.unit", of);
    let making = |of| making_from("OrderKey.unit", of);
    Ok(match key.kind.ok_or_else(unknown)? {
        Kind::Turn(Empty {}) => OrderKey::Turn,
        Kind::Context(Empty {}) => OrderKey::Context,
        Kind::Plan(Empty {}) => OrderKey::Plan,
        Kind::Judge(of) => attempt(of).map(|(unit, attempt)| OrderKey::Judge(unit, attempt))?,
        Kind::Dispatch(of) => attempt(of).map(|(unit, attempt)| OrderKey::Dispatch(unit, attempt))?,
        Kind::Call(of) => making(of).map(|(unit, no, attempt)| OrderKey::Call(unit, no, attempt))?,
        Kind::Reconcile(of) => {
            making(of).map(|(unit, no, attempt)| OrderKey::Reconcile(unit, no, attempt))?
        }
        Kind::UnitApproval(of) => {
            attempt(of).map(|(unit, attempt)| OrderKey::Approval(ApprovalKey::Unit(unit, attempt)))?
        }
        Kind::CallApproval(of) => {
            making(of).map(|(unit, no, attempt)| OrderKey::Approval(ApprovalKey::Call(unit, no, attempt)))?
        }
        Kind::Timer(timer) => OrderKey::Timer(timer_from(timer)?),
        Kind::Event(of) => attempt(of).map(|(unit, attempt)| OrderKey::Event(unit, attempt))?,
        Kind::Child(of) => attempt(of).map(|(unit, attempt)| OrderKey::Child(unit, attempt))?,
        Kind::CancelChild(of) => attempt(of).map(|(unit, attempt)| OrderKey::CancelChild(unit, attempt))?,
        Kind::Parent(Empty {}) => OrderKey::Parent,
        Kind::Resume(Empty {}) => OrderKey::Resume,
        Kind::Outcome(Empty {}) => OrderKey::Outcome,
    })
}

pub(super) fn timer_to(key: TimerKey) -> proto::TimerKey {
    use proto::timer_key::Kind;
    let kind = match key {
        TimerKey::Attempt(unit, attempt) => Kind::Attempt(attempt_to(unit, attempt)),
        TimerKey::Retry(unit, attempt) => Kind::Retry(attempt_to(unit, attempt)),
        TimerKey::Sleep(unit, attempt) => Kind::Sleep(attempt_to(unit, attempt)),
        TimerKey::Wait(unit, attempt) => Kind::Wait(attempt_to(unit, attempt)),
        TimerKey::Approval(unit, attempt) => Kind::Approval(attempt_to(unit, attempt)),
        TimerKey::Run => Kind::Run(Empty {}),
        TimerKey::Outcome => Kind::Outcome(Empty {}),
    };
    proto::TimerKey { kind: Some(kind) }
}

pub(super) fn timer_from(key: proto::TimerKey) -> Result<TimerKey, DecodeError> {
    use proto::timer_key::Kind;
    let unknown = || DecodeError::Newer { what: "it is about a timer of a kind".to_owned() };
    let attempt = |of| attempt_from("TimerKey.unit", of);
    Ok(match key.kind.ok_or_else(unknown)? {
        Kind::Attempt(of) => attempt(of).map(|(unit, attempt)| TimerKey::Attempt(unit, attempt))?,
        Kind::Retry(of) => attempt(of).map(|(unit, attempt)| TimerKey::Retry(unit, attempt))?,
        Kind::Sleep(of) => attempt(of).map(|(unit, attempt)| TimerKey::Sleep(unit, attempt))?,
        Kind::Wait(of) => attempt(of).map(|(unit, attempt)| TimerKey::Wait(unit, attempt))?,
        Kind::Approval(of) => attempt(of).map(|(unit, attempt)| TimerKey::Approval(unit, attempt))?,
        Kind::Run(Empty {}) => TimerKey::Run,
        Kind::Outcome(Empty {}) => TimerKey::Outcome,
    })
}

fn attempt_to(unit: UnitId, attempt: Attempt) -> proto::UnitAttempt {
    proto::UnitAttempt { unit: Some(unit_to(unit)), attempt: attempt.0 }
}

fn attempt_from(field: field::Field, of: proto::UnitAttempt) -> Result<(UnitId, Attempt), DecodeError> {
    Ok((field::unit(field, of.unit)?, Attempt(of.attempt)))
}

fn making_to(unit: UnitId, no: CallNo, attempt: Attempt) -> proto::CallMaking {
    proto::CallMaking { unit: Some(unit_to(unit)), no: no.0, attempt: attempt.0 }
}

fn making_from(field: field::Field, of: proto::CallMaking) -> Result<(UnitId, CallNo, Attempt), DecodeError> {
    Ok((field::unit(field, of.unit)?, CallNo(of.no), Attempt(of.attempt)))
}
