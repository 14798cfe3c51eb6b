//! The external scaler of KEDA: how many workers there should be.
//!
//! Owns: what a trigger's metadata mean. Never: counts workers, or knows of Kubernetes: KEDA divides and decides.
use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kapell_proto::externalscaler as keda;
use kapell_proto::externalscaler::external_scaler_server::ExternalScaler;
use tonic::{Request as GrpcRequest, Response, Status};

use super::{Parts, backlog};

/// What is measured.
const METRIC: &str = "kapell-tasks";
/// Tasks that a worker is meant for, unless the trigger says otherwise.
const TASKS_PER_WORKER: f64 = 10.0;
/// How often a stream looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The external scaler of KEDA.
pub(super) struct Scaler(pub(super) Parts);

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    async fn is_active(
        &self,
        request: GrpcRequest<keda::ScaledObjectRef>,
    ) -> Result<Response<keda::IsActiveResponse>, Status> {
        let trigger = Trigger::of(&request.into_inner().scaler_metadata)?;
        let result = trigger.tasks(&self.0).await? > 0;
        Ok(Response::new(keda::IsActiveResponse { result }))
    }

    type StreamIsActiveStream = Pin<Box<dyn Stream<Item = Result<keda::IsActiveResponse, Status>> + Send>>;

    async fn stream_is_active(
        &self,
        request: GrpcRequest<keda::ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let trigger = Trigger::of(&request.into_inner().scaler_metadata)?;
        let open = self.0.streams.open()?;
        let looks =
            futures::stream::unfold((self.0.clone(), trigger, None), |(parts, trigger, last)| async move {
                let result = change(&parts, &trigger, last).await;
                Some((Ok(keda::IsActiveResponse { result }), (parts, trigger, Some(result))))
            });
        Ok(Response::new(Box::pin(looks.inspect(move |_| {
            // Held as long as the stream is.
            let _counted = &open;
        }))))
    }

    async fn get_metric_spec(
        &self,
        request: GrpcRequest<keda::ScaledObjectRef>,
    ) -> Result<Response<keda::GetMetricSpecResponse>, Status> {
        let trigger = Trigger::of(&request.into_inner().scaler_metadata)?;
        let spec = keda::MetricSpec {
            metric_name: METRIC.to_owned(),
            target_size: trigger.tasks_per_worker.ceil() as i64,
            target_size_float: trigger.tasks_per_worker,
        };
        Ok(Response::new(keda::GetMetricSpecResponse { metric_specs: vec![spec] }))
    }

    async fn get_metrics(
        &self,
        request: GrpcRequest<keda::GetMetricsRequest>,
    ) -> Result<Response<keda::GetMetricsResponse>, Status> {
        let request = request.into_inner();
        let object = request.scaled_object_ref.unwrap_or_default();
        let tasks = Trigger::of(&object.scaler_metadata)?.tasks(&self.0).await?;
        let value = keda::MetricValue {
            metric_name: request.metric_name,
            metric_value: i64::try_from(tasks).unwrap_or(i64::MAX),
            metric_value_float: tasks as f64,
        };
        Ok(Response::new(keda::GetMetricsResponse { metric_values: vec![value] }))
    }
}

/// Whether there is something to do, when that is not what was told last. While nobody can say, nothing is told: KEDA
/// comes back to a stream that broke after up to a minute.
async fn change(parts: &Parts, trigger: &Trigger, last: Option<bool>) -> bool {
    let mut pause = last.map_or(Duration::ZERO, |_| LOOK_EVERY);
    loop {
        tokio::time::sleep(pause).await;
        match trigger.tasks(parts).await {
            Ok(tasks) if last != Some(tasks > 0) => return tasks > 0,
            Ok(_) | Err(_) => pause = LOOK_EVERY,
        }
    }
}

/// What a trigger's metadata say.
#[derive(Debug, PartialEq)]
struct Trigger {
    /// NAMESPACE/SPECIALIST.SKILL; `None`: all.
    skills: Option<BTreeSet<String>>,
    tasks_per_worker: f64,
}

impl Trigger {
    /// KEDA adds keys of its own, such as `scalerAddress`: what is not known here is left alone.
    fn of(metadata: &HashMap<String, String>) -> Result<Trigger, Status> {
        let skills = metadata.get("skills").map(|text| skills_of(text)).transpose()?;
        let tasks_per_worker = match metadata.get("tasksPerWorker") {
            None => TASKS_PER_WORKER,
            Some(text) => {
                let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
                number.ok_or_else(|| {
                    let what =
                        format!("tasksPerWorker: `{text}` is no number above 0, such as \"10\" or \"0.5\"");
                    Status::invalid_argument(what)
                })?
            }
        };
        Ok(Trigger { skills, tasks_per_worker })
    }

    /// Tasks that wait or are being done: whoever does one is still wanted.
    async fn tasks(&self, parts: &Parts) -> Result<u64, Status> {
        let backlog = backlog::of_all_nodes(parts).await?;
        let counts = |skill: &str| self.skills.as_ref().is_none_or(|skills| skills.contains(skill));
        let counted = backlog.iter().filter(|part| counts(&part.skill));
        Ok(counted.map(|part| part.queued + part.held).sum())
    }
}

fn skills_of(text: &str) -> Result<BTreeSet<String>, Status> {
    let skills: BTreeSet<String> = text.split(',').map(|skill| skill.trim().to_owned()).collect();
    match skills.iter().find(|skill| skill.split_once('/').is_none_or(|(_, skill)| !skill.contains('.'))) {
        Some(bad) => Err(Status::invalid_argument(format!(
            "skills: `{bad}` is no NAMESPACE/SPECIALIST.SKILL; give some with commas between, or leave it out for all"
        ))),
        None => Ok(skills),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(metadata: &[(&str, &str)]) -> Result<Trigger, String> {
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Trigger::of(&metadata.collect()).map_err(|status| {
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            status.message().to_owned()
        })
    }

    #[test]
    fn metadata_choose_skills_and_how_many_tasks_a_worker_is_for() {
        let all = Trigger { skills: None, tasks_per_worker: TASKS_PER_WORKER };
        assert_eq!(trigger(&[("scalerAddress", "kapell:7171")]), Ok(all));
        let some = trigger(&[("skills", "default/clerk.match, shop/clerk.price"), ("tasksPerWorker", "0.5")]);
        let skills = ["default/clerk.match", "shop/clerk.price"].map(str::to_owned);
        assert_eq!(some, Ok(Trigger { skills: Some(skills.into()), tasks_per_worker: 0.5 }));
    }

    #[test]
    fn metadata_that_mean_nothing_are_refused_by_name() {
        for bad in ["0", "-1", "NaN", "many", ""] {
            assert!(trigger(&[("tasksPerWorker", bad)]).unwrap_err().starts_with("tasksPerWorker"), "{bad}");
        }
        for bad in ["", "clerk.match", "default/clerk", "default/clerk.match,"] {
            assert!(trigger(&[("skills", bad)]).unwrap_err().starts_with("skills"), "{bad}");
        }
    }
}
