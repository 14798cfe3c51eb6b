//! One stream for each worker.
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use kapell_kernel::{CallNo, Command, ErrorClass, TaskError};
use kapell_model::{Json, ShardId, ToolRef};
use kapell_proto::v1::{self, coordinator_message::Kind, worker_message};
use kapell_runtime::{Job, OnDeath, Runtime};
use kapell_wire::claim;
use kapell_wire::task::{BadRef, TaskKey, error_from};
use tokio::sync::{oneshot, watch};
use tonic::{Request as GrpcRequest, Response, Status, Streaming};

use super::outlet::{Gone, Outlet};
use super::{FRAMES_WAITING_MAX, Liveness, OpenStream, Streams, shards};
use crate::definitions::{Definitions, InForce};
use crate::dispatch::{Acknowledgement, DispatchMessage, SessionId, WorkerIntro, definitions_to};
use crate::links::Links;
use crate::shard::{Request, SubmitError};

const SESSION: Job = Job { name: "worker session", on_panic: OnDeath::Log };

type ToWorker = Outlet<v1::CoordinatorFrame>;

/// Serves workers.
pub(crate) struct WorkerSessions {
    pub(crate) links: Arc<Links>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) runtime: Runtime,
    pub(crate) liveness: Liveness,
    pub(crate) streams: Streams,
}

#[tonic::async_trait]
impl v1::worker_service_server::WorkerService for WorkerSessions {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::CoordinatorFrame, Status>> + Send>>;

    async fn session(
        &self,
        request: GrpcRequest<Streaming<v1::WorkerFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let counted = self.streams.open()?;
        let mut frames = request.into_inner();
        let first = frames
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("the first frame must hold a hello"))?;
        let mut messages = first.messages.into_iter();
        let Some(worker_message::Kind::Hello(hello)) = messages.next().and_then(|message| message.kind)
        else {
            return Err(Status::invalid_argument("the first message must be a hello"));
        };
        let (to, from) = Outlet::new(FRAMES_WAITING_MAX);
        // Before the welcome says what is in force: a revision in between must not be missed.
        let revisions = self.definitions.subscribe();
        let session = self.join(hello, &to).await?;
        let links = self.links.clone();
        let stream = Session { links, revisions, session, to, _counted: counted };
        let rest = messages.collect();
        self.runtime.jobs.spawn(SESSION, async move { stream.serve(rest, frames).await });
        Ok(Response::new(Box::pin(from)))
    }
}

impl WorkerSessions {
    async fn join(&self, hello: v1::WorkerHello, to: &ToWorker) -> Result<SessionId, Status> {
        let holding = tasks(&hello.holding)?;
        let in_force = self.definitions.in_force();
        let welcome = v1::Welcome {
            heartbeat_ms: self.liveness.heartbeat.as_millis() as u64,
            lease_ms: self.liveness.lease.as_millis() as u64,
            definitions: Some(definitions_to(&in_force)),
        };
        send(to, vec![Kind::Welcome(welcome)]).await?;
        let intro = WorkerIntro {
            name: hello.worker,
            instance: hello.instance,
            capacity: hello.capacity,
            builtin: hello.builtin,
            skills: hello.skills,
            holding,
            claims: claim::understood(&hello.features),
            revision: in_force.revision,
            to: to.clone(),
        };
        let (reply, joined) = oneshot::channel();
        self.links.tell_dispatch(DispatchMessage::Join(intro, reply));
        let joined = joined.await.map_err(|_| Status::unavailable("the coordinator is stopping"))?;
        Ok(joined.session)
    }
}

async fn send(to: &ToWorker, kinds: Vec<Kind>) -> Result<(), Status> {
    to.send(frame(kinds)).await.map_err(|Gone| Status::cancelled("the worker is gone"))
}

fn frame(kinds: impl IntoIterator<Item = Kind>) -> v1::CoordinatorFrame {
    let messages = kinds.into_iter().map(|kind| v1::CoordinatorMessage { kind: Some(kind) }).collect();
    v1::CoordinatorFrame { messages }
}

/// One open stream.
struct Session {
    links: Arc<Links>,
    revisions: watch::Receiver<Arc<InForce>>,
    session: SessionId,
    to: ToWorker,
    _counted: OpenStream,
}

impl Session {
    async fn serve(mut self, first: Vec<v1::WorkerMessage>, mut frames: Streaming<v1::WorkerFrame>) {
        let mut next = Ok(Some(v1::WorkerFrame { messages: first }));
        loop {
            match next {
                Ok(Some(frame)) => {
                    if let Err(status) = self.take(frame).await {
                        self.to.refuse(status).await;
                        break;
                    }
                }
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(%status, "a worker's stream ended");
                    break;
                }
            }
            next = loop {
                tokio::select! {
                    biased;
                    frame = frames.message() => break frame,
                    () = self.to.is_cut() => {
                        tracing::warn!(session = ?self.session, "a worker is cut off; it comes back");
                        break Ok(None);
                    }
                    // The dispatcher sends them: what it assigns must not overtake them.
                    changed = self.revisions.changed() => match changed {
                        Ok(()) => self.links.tell_dispatch(DispatchMessage::Define(self.session)),
                        Err(_) => break Ok(None),
                    },
                }
            };
        }
        self.links.tell_dispatch(DispatchMessage::Left(self.session));
    }

    /// table: one arm for each message.
    async fn take(&self, frame: v1::WorkerFrame) -> Result<(), Status> {
        let mut reports: Vec<(TaskKey, Command)> = Vec::new();
        for message in frame.messages {
            match message.kind {
                Some(worker_message::Kind::Report(report)) => reports.push(report_of(report)?),
                Some(worker_message::Kind::Tool(tool)) => self.tool(tool)?,
                Some(worker_message::Kind::Checkpoint(checkpoint)) => self.checkpoint(checkpoint)?,
                Some(worker_message::Kind::Heartbeat(heartbeat)) => {
                    self.links.tell_dispatch(DispatchMessage::Heard(self.session));
                    send(&self.to, vec![Kind::Heartbeat(heartbeat)]).await?;
                }
                Some(worker_message::Kind::Quarantine(quarantine)) => {
                    self.links.tell_dispatch(DispatchMessage::Quarantine {
                        session: self.session,
                        specialist: quarantine.specialist,
                        reason: quarantine.reason,
                    });
                }
                Some(worker_message::Kind::Holding(holding)) => {
                    let (shards, keys) = (shards(&holding.shards)?, tasks(&holding.tasks)?);
                    self.links.tell_dispatch(DispatchMessage::Holding(self.session, shards, keys));
                }
                Some(worker_message::Kind::Draining(_)) => {
                    self.links.tell_dispatch(DispatchMessage::Draining(self.session));
                }
                Some(worker_message::Kind::Hello(_)) => {
                    return Err(Status::invalid_argument("a hello may only come first"));
                }
                None => {
                    return Err(Status::invalid_argument(
                        "a message of a kind that this coordinator does not know",
                    ));
                }
            }
        }
        if !reports.is_empty() {
            self.report(reports).await;
        }
        Ok(())
    }

    fn tool(&self, request: v1::ToolRequest) -> Result<(), Status> {
        let task = TaskKey::from_proto(request.task.as_ref()).map_err(bad)?;
        let tool: ToolRef =
            request.tool.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        let args =
            Json::parse(&request.args).map_err(|error| Status::invalid_argument(format!("{error}")))?;
        let no = CallNo(request.no);
        self.links.tell_dispatch(DispatchMessage::Tool { session: self.session, task, no, tool, args });
        Ok(())
    }

    fn checkpoint(&self, checkpoint: v1::Checkpoint) -> Result<(), Status> {
        let task = TaskKey::from_proto(checkpoint.task.as_ref()).map_err(bad)?;
        let data =
            Json::parse(&checkpoint.data).map_err(|error| Status::invalid_argument(format!("{error}")))?;
        let (to, links, position) = (self.to.clone(), self.links.clone(), checkpoint.position);
        let acknowledge = move |result: Result<(), SubmitError>| match result {
            Ok(()) => {
                let ack = v1::CheckpointAck { task: Some(task.to_proto()), position };
                // A worker that is cut off asks again when it is back.
                drop(to.offer(frame([Kind::CheckpointAck(ack)])));
            }
            // It would wait for its acknowledgement until the attempt has taken too long, and then do the same again.
            Err(SubmitError::Rejected(
                error @ (kapell_kernel::Rejected::TooLarge { .. } | kapell_kernel::Rejected::TooMany { .. }),
            )) => {
                let error = TaskError::new(ErrorClass::Permanent, error.to_string());
                let (unit, attempt) = (task.unit, task.attempt);
                let failed = Command::FinishTask { unit, attempt, result: Err(error) };
                links.tell_run(task.run, failed, Box::new(|_| {}));
            }
            // The attempt is over.
            Err(_) => {}
        };
        let save = Command::SaveCheckpoint { unit: task.unit, attempt: task.attempt, position, data };
        self.links.tell_run(task.run, save, Box::new(acknowledge));
        Ok(())
    }

    /// All reports of a frame go to their shards together; each shard's are acknowledged in one frame.
    async fn report(&self, reports: Vec<(TaskKey, Command)>) {
        let keys = reports.iter().map(|(key, _)| *key).collect();
        self.links.tell_dispatch(DispatchMessage::Finished(self.session, keys));
        let mut by_shard: BTreeMap<ShardId, Vec<(TaskKey, Command)>> = BTreeMap::new();
        for (key, command) in reports {
            by_shard.entry(key.run.shard()).or_default().push((key, command));
        }
        for (shard, reports) in by_shard {
            let keys = reports.iter().map(|(key, _)| *key).collect();
            let (to, links) = (self.to.clone(), self.links.clone());
            let owed = Acknowledgement::new(self.session, keys, to, links);
            let Some(mailbox) = self.links.shard(shard) else {
                // A shard that no coordinator of this store has: the worker comes from another.
                owed.give();
                continue;
            };
            let commands = reports.into_iter().map(|(key, command)| (key.run, command)).collect();
            // Holds the stream back while the shard has no room.
            mailbox.submit(Request::Reports(commands, owed)).await;
        }
    }
}

fn tasks(held: &[v1::TaskRef]) -> Result<Vec<TaskKey>, Status> {
    held.iter().map(|task| TaskKey::from_proto(Some(task))).collect::<Result<_, BadRef>>().map_err(bad)
}

fn bad(error: BadRef) -> Status {
    Status::invalid_argument(error.to_string())
}

fn report_of(report: v1::TaskReport) -> Result<(TaskKey, Command), Status> {
    let key = TaskKey::from_proto(report.task.as_ref()).map_err(bad)?;
    let result = match report.result {
        Some(v1::task_report::Result::Output(text)) => Json::parse(&text).map_err(|error| {
            let class = kapell_kernel::ErrorClass::ContractBroken;
            kapell_kernel::TaskError::new(class, format!("the output is {error}"))
        }),
        Some(v1::task_report::Result::Error(error)) => Err(error_from(error).map_err(bad)?),
        None => return Err(Status::invalid_argument("a report needs an output or an error")),
    };
    Ok((key, Command::FinishTask { unit: key.unit, attempt: key.attempt, result }))
}
