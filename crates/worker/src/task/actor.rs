//! Runs one task after another.
use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::Json;
use kapell_model::catalogue::{CompiledCall, CompiledDecision};
use kapell_model::limits::PAYLOAD_BYTES_MAX;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::message::{Outcome, Task, TaskMessage};
use crate::agent::AnyAgent;
use crate::context::{Given, TaskContext};
use crate::definitions::How;
use crate::host::HostHandle;
use crate::specialist::{SlotNo, SpecialistHandle};

/// Runs one task after another for one specialist.
pub(crate) struct TaskActor {
    pub(crate) specialist: SpecialistHandle,
    pub(crate) host: HostHandle,
}

impl Actor for TaskActor {
    type Msg = TaskMessage;
    type State = SlotNo;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<TaskMessage>, _: ()) -> Result<SlotNo, ActorProcessingErr> {
        Ok(SlotNo::of(&myself))
    }

    async fn handle(
        &self,
        _: ActorRef<TaskMessage>,
        message: TaskMessage,
        slot: &mut SlotNo,
    ) -> Result<(), ActorProcessingErr> {
        let TaskMessage::Run(task) = message;
        let key = task.key;
        let outcome = checked(self.run(task).await);
        // First: when the report frees credit and another task comes, this actor must be known to be free.
        self.specialist.freed(*slot, key);
        self.host.ended(key, outcome);
        Ok(())
    }
}

impl TaskActor {
    async fn run(&self, task: Task) -> Outcome {
        let skill = std::sync::Arc::clone(&task.skill);
        match &skill.how {
            How::Constant(output) => Ok(output.clone()),
            How::Rules(table) => rules(table, &task.input),
            How::Call(call, tool) => {
                let deadline = task.deadline;
                within(deadline, self.call(call, tool, task)).await
            }
            How::Agent(agent) => {
                let deadline = task.deadline;
                within(deadline, self.agent(&**agent, task)).await
            }
            How::Elsewhere => {
                Err(TaskError::new(ErrorClass::NoSpecialist, "nothing here works on the skill"))
            }
        }
    }

    async fn call(&self, call: &CompiledCall, tool: &str, task: Task) -> Outcome {
        let args = match &call.with {
            None => task.input.clone(),
            Some(with) => match with.constant() {
                Some(args) => args.as_str().to_owned(),
                None => call.arguments(&parse(&task.input)?).map_err(expression)?.to_string(),
            },
        };
        let (answer, result) = oneshot::channel();
        self.host.call(task.key, 0, tool.to_owned(), args, answer);
        let result = result.await.map_err(|_| stopped())??;
        match &call.output {
            None => Ok(result),
            Some(output) => match output.constant() {
                Some(output) => Ok(output.as_str().to_owned()),
                None => {
                    let result: Value = serde_json::from_str(&result).map_err(|error| {
                        let text = format!("the result of {tool} is not JSON: {error}");
                        TaskError::new(ErrorClass::ContractBroken, text)
                    })?;
                    let output = call.output(&parse(&task.input)?, &result).map_err(expression)?;
                    Ok(output.to_string())
                }
            },
        }
    }

    async fn agent(&self, agent: &dyn AnyAgent, task: Task) -> Outcome {
        let proven = |text: &String| Json::parse(text).map_err(|error| bad_request(&error));
        // Dropped with this future: whoever waits for `cancelled` is told.
        let (_over, ended) = watch::channel(());
        let span = tracing::debug_span!("task", run = %task.key.run, traceparent = task.traceparent);
        let given = Given {
            key: task.key,
            input: proven(&task.input)?,
            checkpoints: task.checkpoints.iter().map(proven).collect::<Result<_, _>>()?,
            deadline: task.deadline,
            traceparent: task.traceparent,
            ended,
        };
        let context = TaskContext::new(given, self.host.clone());
        // Whoever this actor has woken may only be run by this thread; an agent that blocks it must not hold them.
        tokio::task::yield_now().await;
        agent.run_boxed(context).instrument(span).await.map(|output| output.as_str().to_owned())
    }
}

async fn within(deadline: Instant, work: impl Future<Output = Outcome>) -> Outcome {
    // A timer lets the work begin before it looks; work whose time ran out in the queue must not begin.
    if deadline <= Instant::now() {
        return Err(too_late());
    }
    tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| Err(too_late()))
}

pub(crate) fn too_late() -> TaskError {
    TaskError::new(ErrorClass::Timeout, "the attempt took longer than it may")
}

fn rules(table: &CompiledDecision, input: &str) -> Outcome {
    table.evaluate(&parse(input)?).map(|output| output.to_string()).map_err(expression)
}

fn parse(input: &str) -> Result<Value, TaskError> {
    serde_json::from_str(input).map_err(|error| bad_request(&error))
}

fn bad_request(error: &dyn std::error::Error) -> TaskError {
    TaskError::new(ErrorClass::BadRequest, format!("the input or a checkpoint is not JSON: {error}"))
}

fn expression(error: impl std::error::Error) -> TaskError {
    TaskError::new(ErrorClass::Expression, error.to_string())
}

fn stopped() -> TaskError {
    TaskError::new(ErrorClass::Unavailable, "the task is being stopped")
}

/// An output beyond the limit would be refused by every coordinator, again and again.
fn checked(outcome: Outcome) -> Outcome {
    match outcome {
        Ok(output) if output.len() > PAYLOAD_BYTES_MAX => {
            let text = format!(
                "the output is {} bytes, at most {PAYLOAD_BYTES_MAX} are allowed; pass a reference instead",
                output.len()
            );
            Err(TaskError::new(ErrorClass::Permanent, text))
        }
        Ok(_) | Err(_) => outcome,
    }
}
