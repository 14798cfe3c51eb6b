//! The desk: what is done with one order, from its turn to its outcome.
//!
//! Owns: checking arguments, waiting for a turn, the last moment to begin, the time a call may take, what a result
//! must be, and looking for a lost call. Never: speaks a protocol, keeps a report, knows a coordinator.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::catalogue::{Catalogue, CompiledReconcile, ToolEntry};
use kapell_model::expr::Scope;
use kapell_model::limits::PAYLOAD_BYTES_MAX;
use kapell_model::{Name, ToolRef};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::gate::{Gate, NoTurn};
use crate::lease::Tenure;
use crate::outside::{CallOutcome, Fence, Outside, OutsideRequest, is_read};

/// One order, understood.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) namespace: Name,
    pub(crate) tool: Arc<ToolEntry>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) args: Value,
    pub(crate) key: String,
    pub(crate) begin_by: Instant,
    pub(crate) tenure: Tenure,
}

/// Where calls are made.
pub(crate) struct Desk {
    outside: Arc<dyn Outside>,
    gates: Mutex<BTreeMap<(Name, Name), Arc<Gate>>>,
}

impl Desk {
    pub(crate) fn new(outside: Arc<dyn Outside>) -> Desk {
        Desk { outside, gates: Mutex::new(BTreeMap::new()) }
    }

    /// Makes the call.
    pub(crate) async fn call(&self, work: &Work) -> CallOutcome {
        if let Err(misfit) = work.tool.input.check_value(&work.args) {
            return CallOutcome::failed(
                ErrorClass::BadRequest,
                format!("the arguments do not fit: {misfit}"),
            );
        }
        let gate = self.gate(&work.namespace, &work.tool);
        let turn = match gate.enter(work.begin_by).await {
            Ok(turn) => turn,
            Err(refused) => return no_turn(&work.tool, refused),
        };
        if Instant::now() > work.begin_by || !work.tenure.is_held() {
            let why = "the call was not begun in time: the session with the coordinator is over";
            return CallOutcome::failed(ErrorClass::Unavailable, why);
        }
        let outcome = self.make(work).await;
        drop(turn);
        settle(&work.tool, outcome)
    }

    async fn make(&self, work: &Work) -> CallOutcome {
        let fence = Fence::new();
        let request = OutsideRequest {
            namespace: work.namespace.clone(),
            tool: Arc::clone(&work.tool),
            args: work.args.clone(),
            key: work.key.clone(),
            fence: fence.clone(),
        };
        let Ok(outcome) = timeout(work.tool.timeout, self.outside.call(request)).await else {
            let within = format!("no answer within {} ms", work.tool.timeout.as_millis());
            return if fence.shut() {
                CallOutcome::failed(ErrorClass::Unavailable, format!("{within}; nothing was sent"))
            } else {
                CallOutcome::lost(&work.tool, within)
            };
        };
        outcome
    }

    /// Finds out, by the tool's `reconcile`, whether an earlier making of the call took effect.
    pub(crate) async fn reconcile(&self, work: &Work) -> CallOutcome {
        match self.look(work).await {
            Ok(found) => CallOutcome::succeeded(found),
            Err(error) => CallOutcome::Failed(error),
        }
    }

    async fn look(&self, work: &Work) -> Result<Value, TaskError> {
        let Some(how) = &work.tool.reconcile else {
            let why = format!("tool `{}` says no way to find a lost call", work.tool.tool.name);
            return Err(TaskError::new(ErrorClass::BadRequest, why));
        };
        let mut scope = Scope::new();
        scope.set("args", &work.args);
        scope.set("call", &json!({ "key": work.key }));
        let args = match &how.with {
            Some(with) => with.eval(&scope).map_err(expression)?,
            None => work.args.clone(),
        };
        let tool = reading_tool(work, how)?;
        let read = Work { tool, args, ..work.clone() };
        let result = match self.call(&read).await {
            CallOutcome::Succeeded { output, .. } => output,
            CallOutcome::Failed(error) => return Err(error),
            CallOutcome::Unknown { why } => return Err(TaskError::new(ErrorClass::Unavailable, why)),
        };
        scope.set("result", &result);
        if !how.done.eval_bool(&scope).map_err(expression)? {
            return Ok(did_not_take_effect());
        }
        let result = match &how.result {
            Some(template) => template.eval(&scope).map_err(expression)?,
            None => result,
        };
        Ok(took_effect(&result))
    }

    fn gate(&self, namespace: &Name, tool: &ToolEntry) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = tool.connection.limits;
        let gate = gates
            .entry((namespace.clone(), tool.connection_name.clone()))
            .or_insert_with(|| Arc::new(Gate::new(limits)));
        if gate.limits() != limits {
            *gate = Arc::new(Gate::new(limits));
        }
        Arc::clone(gate)
    }
}

/// The answer to a reconciliation that found the call.
pub(crate) fn took_effect(result: &Value) -> Value {
    json!({ "took_effect": true, "result": result })
}

/// The answer to a reconciliation that found no trace of the call.
pub(crate) fn did_not_take_effect() -> Value {
    json!({ "took_effect": false })
}

fn reading_tool(work: &Work, how: &CompiledReconcile) -> Result<Arc<ToolEntry>, TaskError> {
    let name = ToolRef { connection: work.tool.connection_name.clone(), tool: Arc::clone(&how.tool) };
    let found = work.catalogue.tool(&work.namespace, &name).filter(|tool| is_read(tool));
    // Validation has proven it; definitions of another program may say otherwise.
    found.cloned().ok_or_else(|| {
        TaskError::new(ErrorClass::BadRequest, format!("`{name}` is no tool that reads; it cannot reconcile"))
    })
}

fn expression(error: kapell_model::expr::EvalError) -> TaskError {
    TaskError::new(ErrorClass::Expression, error.to_string())
}

fn no_turn(tool: &ToolEntry, refused: NoTurn) -> CallOutcome {
    let message = format!("connection `{}`: {refused}", tool.connection_name);
    let (class, retry_after) = match refused {
        NoTurn::QueueFull => (ErrorClass::RateLimited, None),
        NoTurn::TooLate { retry_after } => (ErrorClass::Unavailable, retry_after),
    };
    CallOutcome::Failed(TaskError { retry_after, ..TaskError::new(class, message) })
}

/// Holds a success to the tool's contract. A read that breaks it has failed; a write has taken effect all the same,
/// and is never made again for the shape of its answer.
fn settle(tool: &ToolEntry, outcome: CallOutcome) -> CallOutcome {
    let CallOutcome::Succeeded { output, note } = outcome else { return outcome };
    let bytes = output.to_string().len();
    if bytes > PAYLOAD_BYTES_MAX {
        let why = format!("the result is {bytes} bytes, at most {PAYLOAD_BYTES_MAX} are allowed");
        return if is_read(tool) {
            CallOutcome::failed(ErrorClass::ContractBroken, why)
        } else {
            CallOutcome::Succeeded { output: json!({ "note": why }), note: Some(why) }
        };
    }
    match tool.output.check_value(&output) {
        Ok(()) => CallOutcome::Succeeded { output, note },
        Err(misfit) if is_read(tool) => {
            CallOutcome::failed(ErrorClass::ContractBroken, format!("the result does not fit: {misfit}"))
        }
        Err(misfit) => {
            let misfit = format!("the result does not fit: {misfit}");
            let note = note.map_or_else(|| misfit.clone(), |note| format!("{note}; {misfit}"));
            CallOutcome::Succeeded { output, note: Some(note) }
        }
    }
}
