//! Jobs: futures that run in the background, each of which says what its death means.
use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::watch;

/// One kind of job. Declared as a constant beside the code that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// For logs.
    pub name: &'static str,
    /// What follows when it panics.
    pub on_panic: OnDeath,
}

/// What the death of a job means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeath {
    /// The node cannot go on: it stops, and whoever supervises the process starts it anew.
    StopNode,
    /// Only what the job did is lost; somebody else notices and does it again.
    Log,
}

/// The node is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub struct NodeStopped;

/// Starts jobs and ends them together.
#[derive(Clone, Debug)]
pub struct Jobs {
    stop: Arc<watch::Sender<Option<&'static str>>>,
}

impl Default for Jobs {
    fn default() -> Jobs {
        Jobs::new()
    }
}

impl Jobs {
    /// Nothing runs yet.
    #[must_use]
    pub fn new() -> Jobs {
        Jobs { stop: Arc::new(watch::channel(None).0) }
    }

    /// Runs a future until it ends or the node stops.
    pub fn spawn(&self, job: Job, work: impl Future<Output = ()> + Send + 'static) {
        let jobs = self.clone();
        let guarded = async move {
            let stopped = jobs.stopped();
            tokio::select! {
                biased;
                _ = stopped => {}
                died = AssertUnwindSafe(work).catch_unwind() => {
                    if let Err(panic) = died {
                        jobs.died(job, panic);
                    }
                }
            }
        };
        #[expect(clippy::disallowed_methods, reason = "this is the one place that others are sent to")]
        drop(tokio::spawn(guarded));
    }

    fn died(&self, job: Job, panic: Box<dyn Any + Send>) {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(job = job.name, panic = text, "a job panicked");
        match job.on_panic {
            OnDeath::StopNode => self.stop(job.name),
            OnDeath::Log => {}
        }
    }

    /// Ends all jobs. `why` is the job that died, or `shutdown`.
    pub fn stop(&self, why: &'static str) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            if first {
                *stop = Some(why);
            }
            first
        });
    }

    /// Whether [`Jobs::stop`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Waits until the node stops; says why.
    pub async fn stopped(&self) -> &'static str {
        let mut stop = self.stop.subscribe();
        match stop.wait_for(Option::is_some).await {
            Ok(why) => why.unwrap_or("shutdown"),
            Err(_) => "shutdown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VITAL: Job = Job { name: "vital", on_panic: OnDeath::StopNode };
    const MINOR: Job = Job { name: "minor", on_panic: OnDeath::Log };

    #[tokio::test]
    async fn the_death_of_a_vital_job_stops_the_node_and_that_of_a_minor_one_does_not() {
        let jobs = Jobs::new();
        jobs.spawn(MINOR, async { panic!("minor dies") });
        tokio::task::yield_now().await;
        assert!(!jobs.is_stopped());
        jobs.spawn(VITAL, async { panic!("vital dies") });
        assert_eq!(jobs.stopped().await, "vital");
    }

    #[tokio::test]
    async fn stopping_ends_jobs() {
        let jobs = Jobs::new();
        let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        jobs.spawn(MINOR, async move {
            let _keep = alive;
            std::future::pending::<()>().await;
        });
        jobs.stop("shutdown");
        assert!(ended.recv().await.is_none());
    }
}
