//! Orders: what a coordinator wants called, and that each is answered.
//!
//! Owns: reading an order, starting it at most once, turning a panic into an outcome. Never: makes a call itself.
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use kapell_kernel::ErrorClass;
use kapell_model::{Epoch, Name, ToolRef};
use kapell_proto::v1;
use kapell_runtime::{Job, OnDeath};
use kapell_wire::task::CallKey;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Open;
use crate::connector::{CALLS_HELD_MAX, Shared, call_report, read_report};
use crate::desk::{Work, did_not_take_effect, took_effect};
use crate::held::{HeldKey, Mode, Taken};
use crate::lease::Tenure;
use crate::outside::{CallOutcome, is_read};

/// A job for each call under way. A panic in it is caught and reported; what is left is a log line.
const CALL: Job = Job { name: "connector-call", on_panic: OnDeath::Log };

/// How long an order may wait that does not say so itself.
const BEGIN_WITHIN: Duration = Duration::from_secs(30);

/// Takes one order: its report follows, whatever happens.
pub(super) fn take(open: &Open<'_>, order: v1::CallOrder) {
    let mode = match v1::CallMode::try_from(order.mode) {
        Ok(v1::CallMode::Call) => Mode::Call,
        Ok(v1::CallMode::Reconcile) => Mode::Reconcile,
        Err(_) => {
            tracing::warn!(mode = order.mode, "an order asks for something that this program does not know");
            return;
        }
    };
    match order.which.clone() {
        Some(v1::call_order::Which::Read(no)) => take_read(open, no, &order, mode),
        Some(v1::call_order::Which::Call(call)) => match CallKey::from_proto(Some(&call)) {
            Ok(call) if open.shared.held().is_stale(&call, Epoch(order.epoch)) => {
                // No report: the owner of the shard finds out for itself, and may have made the call otherwise.
                tracing::debug!(?call, "a coordinator ordered a call of a shard that it has lost");
            }
            Ok(call) => take_call(open, (call, mode), &order),
            Err(error) => tracing::warn!(%error, "an order names no call"),
        },
        None => tracing::warn!("an order names no call"),
    }
}

fn take_read(open: &Open<'_>, no: u64, order: &v1::CallOrder, mode: Mode) {
    let shared = Arc::clone(open.shared);
    let outbox = open.outbox.clone();
    let work = read_order(open, order, Tenure::under(open.lease.clone())).and_then(|work| {
        if mode == Mode::Call && !is_read(&work.tool) {
            // Reads are not kept, so nothing with an effect may be ordered as one.
            let why = format!("tool `{}` has an effect and cannot be ordered as a read", order.tool);
            return Err(CallOutcome::failed(ErrorClass::BadRequest, why));
        }
        Ok(work)
    });
    // A call that is under way here would be looked for too early.
    let held = match mode {
        Mode::Call => None,
        Mode::Reconcile => shared.held().call_known_by(&order.key),
    };
    open.shared.runtime.jobs.spawn(CALL, async move {
        let known = match held {
            Some(ended) => known_when(ended).await,
            None => None,
        };
        let outcome = match (known, work) {
            (Some(outcome), _) | (None, Err(outcome)) => outcome,
            (None, Ok(work)) => perform(&shared, &work, mode).await,
        };
        // A session that is over has nobody who waits for a read.
        drop(outbox.send(read_report(no, &outcome)).await);
    });
}

fn take_call(open: &Open<'_>, key: HeldKey, order: &v1::CallOrder) {
    let shared = open.shared;
    if shared.held().is_full(key, CALLS_HELD_MAX) {
        let why = "the connector holds as many reports as it can";
        // Not kept: should it get lost, the coordinator asks or reconciles.
        drop(open.outbox.try_send(call_report(key.0, &CallOutcome::failed(ErrorClass::Unavailable, why))));
        return;
    }
    let taken = shared.held().take(open.no, key, &order.key);
    match taken {
        Taken::UnderWay => {}
        Taken::Ended(outcome) => shared.post(open.no, key, call_report(key.0, &outcome)),
        Taken::Settled => {
            let why = "the call was settled or looked for before, and was not made again";
            shared.finish(key, CallOutcome::Unknown { why: why.to_owned() });
        }
        Taken::Begin(tenure) => match read_order(open, order, tenure) {
            Ok(work) => begin(shared, key, work),
            Err(refused) => shared.finish(key, refused),
        },
        Taken::AwaitCall(ended, tenure) => {
            let (shared, work) = (Arc::clone(shared), read_order(open, order, tenure));
            open.shared.runtime.jobs.spawn(CALL, async move {
                match (known_when(ended).await, work) {
                    (Some(outcome), _) | (None, Err(outcome)) => shared.finish(key, outcome),
                    (None, Ok(work)) => begin(&shared, key, work),
                }
            });
        }
    }
}

/// What is known about a call that is held here, when it has ended.
async fn known_when(mut ended: watch::Receiver<Option<CallOutcome>>) -> Option<CallOutcome> {
    let outcome = ended.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
    outcome.and_then(what_is_known)
}

/// What the outcome of the call itself says to the question whether it took effect.
fn what_is_known(call: CallOutcome) -> Option<CallOutcome> {
    match call {
        CallOutcome::Succeeded { output, .. } => Some(CallOutcome::succeeded(took_effect(&output))),
        CallOutcome::Failed(_) => Some(CallOutcome::succeeded(did_not_take_effect())),
        CallOutcome::Unknown { .. } => None,
    }
}

fn begin(shared: &Arc<Shared>, key: HeldKey, work: Work) {
    let job = Arc::clone(shared);
    shared.runtime.jobs.spawn(CALL, async move {
        let outcome = perform(&job, &work, key.1).await;
        job.finish(key, outcome);
    });
}

async fn perform(shared: &Arc<Shared>, work: &Work, mode: Mode) -> CallOutcome {
    let running = match shared.begin() {
        Ok(running) => running,
        Err(why) => return CallOutcome::failed(ErrorClass::Unavailable, why),
    };
    let doing = async {
        match mode {
            Mode::Call => shared.desk.call(work).await,
            Mode::Reconcile => shared.desk.reconcile(work).await,
        }
    };
    let outcome = AssertUnwindSafe(doing).catch_unwind().await;
    drop(running);
    let tool = format_args!("{}/{}", work.tool.connection_name, work.tool.tool.name).to_string();
    match outcome {
        Ok(CallOutcome::Succeeded { output, note: Some(note) }) => {
            tracing::warn!(tool, note, "the call took effect, and its answer is odd");
            CallOutcome::Succeeded { output, note: Some(note) }
        }
        Ok(outcome) => outcome,
        Err(_) => {
            tracing::error!(tool, "a call panicked");
            let why = "the connector's own code failed in the middle of the call";
            match mode {
                Mode::Call => CallOutcome::lost(&work.tool, why),
                Mode::Reconcile => CallOutcome::failed(ErrorClass::Unavailable, why),
            }
        }
    }
}

/// What the order means here, or why it means nothing. Either way nothing was begun.
fn read_order(open: &Open<'_>, order: &v1::CallOrder, tenure: Tenure) -> Result<Work, CallOutcome> {
    let refuse = |why: String| CallOutcome::failed(ErrorClass::BadRequest, why);
    let namespace = Name::new(&order.namespace).map_err(|error| refuse(error.to_string()))?;
    let name: ToolRef =
        order.tool.parse().map_err(|error: kapell_model::NotAToolRef| refuse(error.to_string()))?;
    let found = open.catalogue.tool(&namespace, &name);
    let tool = found.ok_or_else(|| refuse(format!("`{namespace}` defines no tool `{name}`")))?;
    let args = serde_json::from_str(&order.args)
        .map_err(|error| refuse(format!("the arguments are no JSON: {error}")))?;
    let within = match order.begin_within_ms {
        0 => BEGIN_WITHIN,
        ms => Duration::from_millis(ms),
    };
    Ok(Work {
        namespace,
        tool: Arc::clone(tool),
        catalogue: Arc::clone(&open.catalogue),
        args,
        key: order.key.clone(),
        begin_by: Instant::now() + within,
        tenure,
    })
}
