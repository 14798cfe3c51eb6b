//! A known refusal of each kind and shape.
use std::time::Duration;

use kapell_kernel::{ApprovalKey, Attempt, CallNo, OrderKey, Rejected, TimerKey};
use kapell_wire::peer::Refusal;

use crate::commands::{timers, unit};
use crate::world::run_id;

/// How many kinds of [`Rejected`] there are.
pub(crate) const REJECTED_KINDS: usize = 14;
/// How many kinds of [`OrderKey`] there are, those of approvals and timers counted by their own kinds.
pub(crate) const ORDER_KINDS: usize = 22;
/// How many kinds of [`Refusal`] there are.
pub(crate) const REFUSAL_KINDS: usize = 6;

pub(crate) fn kind_of(rejected: &Rejected) -> &'static str {
    match rejected {
        Rejected::RunEnded => "run-ended",
        Rejected::RunNotFailed { .. } => "run-not-failed",
        Rejected::Compensated => "compensated",
        Rejected::Stale(_) => "stale",
        Rejected::Paused => "paused",
        Rejected::NotPaused => "not-paused",
        Rejected::WindingUp => "winding-up",
        Rejected::TooLarge { .. } => "too-large",
        Rejected::CallDiverged { .. } => "call-diverged",
        Rejected::NoMandate { .. } => "no-mandate",
        Rejected::PlanChangesHistory(_) => "plan-changes-history",
        Rejected::UnsoundPlan(_) => "unsound-plan",
        Rejected::UnfitResult(_) => "unfit-result",
        Rejected::TooMany { .. } => "too-many",
    }
}

pub(crate) fn order_kind(key: OrderKey) -> &'static str {
    match key {
        OrderKey::Turn => "turn",
        OrderKey::Context => "context",
        OrderKey::Plan => "plan",
        OrderKey::Judge(..) => "judge",
        OrderKey::Dispatch(..) => "dispatch",
        OrderKey::Call(..) => "call",
        OrderKey::Reconcile(..) => "reconcile",
        OrderKey::Approval(ApprovalKey::Unit(..)) => "unit-approval",
        OrderKey::Approval(ApprovalKey::Call(..)) => "call-approval",
        OrderKey::Timer(TimerKey::Attempt(..)) => "timer-attempt",
        OrderKey::Timer(TimerKey::Retry(..)) => "timer-retry",
        OrderKey::Timer(TimerKey::Sleep(..)) => "timer-sleep",
        OrderKey::Timer(TimerKey::Wait(..)) => "timer-wait",
        OrderKey::Timer(TimerKey::Approval(..)) => "timer-approval",
        OrderKey::Timer(TimerKey::Run) => "timer-run",
        OrderKey::Timer(TimerKey::Outcome) => "timer-outcome",
        OrderKey::Event(..) => "event",
        OrderKey::Child(..) => "child",
        OrderKey::CancelChild(..) => "cancel-child",
        OrderKey::Parent => "parent",
        OrderKey::Resume => "resume",
        OrderKey::Outcome => "outcome",
    }
}

pub(crate) fn refusal_kind(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Busy { .. } => "busy",
        Refusal::KeyQueueFull { .. } => "key-queue-full",
        Refusal::NotFound(_) => "not-found",
        Refusal::Rejected(_) => "rejected",
        Refusal::Unavailable => "unavailable",
        Refusal::Unsupported { .. } => "unsupported",
    }
}

pub(crate) fn orders() -> Vec<OrderKey> {
    let (unit, attempt, no) = (unit(), Attempt(3), CallNo(5));
    let plain = [
        OrderKey::Turn,
        OrderKey::Context,
        OrderKey::Plan,
        OrderKey::Judge(unit, attempt),
        OrderKey::Dispatch(unit, attempt),
        OrderKey::Call(unit, no, attempt),
        OrderKey::Reconcile(unit, no, attempt),
        OrderKey::Approval(ApprovalKey::Unit(unit, attempt)),
        OrderKey::Approval(ApprovalKey::Call(unit, no, attempt)),
        OrderKey::Event(unit, attempt),
        OrderKey::Child(unit, attempt),
        OrderKey::CancelChild(unit, attempt),
        OrderKey::Parent,
        OrderKey::Resume,
        OrderKey::Outcome,
    ];
    plain.into_iter().chain(timers().into_iter().map(|(_, timer)| OrderKey::Timer(timer))).collect()
}

/// Each under its kind, those about an order under the order's too.
pub(crate) fn rejections() -> Vec<(String, Rejected)> {
    let text = || "grün €".to_owned();
    let plain = [
        Rejected::RunEnded,
        Rejected::RunNotFailed { state: "was canceled" },
        Rejected::Compensated,
        Rejected::Paused,
        Rejected::NotPaused,
        Rejected::WindingUp,
        Rejected::TooLarge { what: "the output", bytes: (1 << 20) + 1, most: 1 << 20 },
        Rejected::CallDiverged { number: 3, before: "a/read".to_owned(), now: "a/write".to_owned() },
        Rejected::NoMandate { tool: "a/write".to_owned() },
        Rejected::PlanChangesHistory(text()),
        Rejected::UnsoundPlan(text()),
        Rejected::UnfitResult(text()),
        Rejected::TooMany { what: "unread signals", most: 10_000 },
    ];
    let plain = plain.into_iter().map(|rejected| (kind_of(&rejected).to_owned(), rejected));
    let stale = orders().into_iter().map(|key| (format!("stale.{}", order_kind(key)), Rejected::Stale(key)));
    plain.chain(stale).collect()
}

/// Each under its kind.
pub(crate) fn refusals() -> Vec<(String, Refusal)> {
    let all = [
        Refusal::Busy { retry_after: Duration::from_millis(250) },
        Refusal::KeyQueueFull { key: "vendor:V-100".to_owned(), waiting: 10_000 },
        Refusal::NotFound(run_id(7)),
        Refusal::Rejected(Rejected::RunEnded),
        Refusal::Unavailable,
        Refusal::Unsupported { reason: "it is a command of a kind".to_owned() },
    ];
    all.into_iter().map(|refusal| (refusal_kind(&refusal).to_owned(), refusal)).collect()
}
