//! A few connections for many requests, with a bounded queue in front.
//!
//! Owns: the queue and the jobs behind it. Never: knows what is asked.
use std::sync::Arc;

use futures::future::BoxFuture;
use kapell_runtime::{Job, OnDeath};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::database::Database;
use crate::link::{Link, Work};
use crate::trouble::Trouble;

/// Without it nothing could be read or acquired.
const LANE: Job = Job { name: "journal-lane", on_panic: OnDeath::StopNode };

type Task = Box<dyn for<'a> FnOnce(&'a mut Link) -> BoxFuture<'a, ()> + Send>;

/// Where requests wait. Dropped, its jobs finish what is queued and end.
pub(crate) struct Lane(mpsc::Sender<Task>);

impl Lane {
    pub(crate) fn start(database: &Arc<Database>, connections: usize) -> Lane {
        let (tasks, queued) = mpsc::channel::<Task>(database.options.jobs_waiting_max.max(1));
        let queued = Arc::new(Mutex::new(queued));
        for _ in 0..connections.max(1) {
            let (mut link, queued) = (Link::new(database), queued.clone());
            database.jobs.spawn(LANE, async move {
                loop {
                    let next = queued.lock().await.recv().await;
                    let Some(task) = next else { break };
                    task(&mut link).await;
                }
            });
        }
        Lane(tasks)
    }

    /// Does it on one of the connections.
    pub(crate) fn run<W: Work<Answer: 'static> + 'static>(
        &self,
        work: W,
    ) -> BoxFuture<'static, Result<W::Answer, Trouble>> {
        let (respond, answered) = oneshot::channel();
        let task: Task = Box::new(move |link| {
            Box::pin(async move {
                // Who no longer waits needs no answer, and no work either.
                if !respond.is_closed() {
                    drop(respond.send(link.run(&work).await));
                }
            })
        });
        let refusal = match self.0.try_send(task) {
            Ok(()) => {
                let ended = "the journal was closed, or its job has ended; see the log";
                return Box::pin(async move { answered.await.unwrap_or(Err(Trouble::Refused(ended))) });
            }
            Err(mpsc::error::TrySendError::Full(_)) => "too many requests wait for the journal",
            Err(mpsc::error::TrySendError::Closed(_)) => "the journal was closed",
        };
        Box::pin(std::future::ready(Err(Trouble::Refused(refusal))))
    }
}
