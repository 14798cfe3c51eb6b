//! What people do to runs: cancel, pause, resume, try again, and send the events that runs wait for.
//!
//! Owns: when it is done, and what may be answered. Never: gives up before it was answered.
use std::time::Duration;

use anyhow::{Context as _, bail};
use kapell_kernel::Rejected;
use kapell_proto::v1;
use kapell_proto::v1::run_service_client::RunServiceClient;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::client::{Client, PATIENCE};
use crate::company::{Happening, Kind};
use crate::world::{Stage, Steered};

/// After an event is accepted, its run is steered within this time.
const BEGIN_WITHIN_MS: u64 = 1_500;

impl Client {
    pub(crate) async fn steer_all(&self) {
        loop {
            // why: virtual time, and its passing is part of what is simulated
            sleep(Duration::from_millis(150)).await;
            for happening in self.happenings.iter() {
                let Some(run) = self.run_of(happening) else { continue };
                let Some(stage) = self.due(happening) else { continue };
                match timeout(PATIENCE, self.steer(happening, run, stage)).await {
                    Ok(Ok(next)) => self.next(happening, next),
                    Ok(Err(error)) => {
                        self.world.log("client", &format!("steer {}: {error:#}", happening.id));
                        self.elsewhere();
                    }
                    Err(_) => {
                        self.world.log("client", &format!("steer {}: no answer", happening.id));
                        self.elsewhere();
                    }
                }
            }
        }
    }

    /// What is to be done now.
    fn due(&self, happening: &Happening) -> Option<Stage> {
        let later = self.runtime.entropy.below(BEGIN_WITHIN_MS);
        let mut world = self.world.lock();
        let now_ms = world.elapsed_ms();
        let begin = Steered { at_ms: now_ms + later, stage: Stage::Begin };
        let steered = *world.steered.entry(happening.id.clone()).or_insert(begin);
        (steered.stage != Stage::Done && steered.at_ms <= now_ms).then_some(steered.stage)
    }

    fn next(&self, happening: &Happening, stage: Stage) {
        let later = self.runtime.entropy.below(BEGIN_WITHIN_MS);
        let mut world = self.world.lock();
        let at_ms = world.elapsed_ms() + later;
        world.steered.insert(happening.id.clone(), Steered { at_ms, stage });
    }

    /// Nobody tries the run again.
    pub(crate) fn is_given_up(&self, happening: &Happening) -> bool {
        let world = self.world.lock();
        let is_done = world.steered.get(&happening.id).is_some_and(|steered| steered.stage == Stage::Done);
        is_done && !world.fixed.contains(&format!("{}/second", happening.id))
    }

    async fn steer(&self, happening: &Happening, run: String, stage: Stage) -> anyhow::Result<Stage> {
        let mut runs = RunServiceClient::new(self.channel().await?);
        let (by, reason) = ("ada".to_owned(), "so it is".to_owned());
        // What was sent before may arrive still.
        let request_id = format!("{}/{stage:?}", happening.id);
        let words = v1::SteerRequest {
            run: run.clone(),
            by: by.clone(),
            reason: reason.clone(),
            request_id: request_id.clone(),
        };
        match happening.kind {
            Kind::Cancel | Kind::Leave => {
                let leave = happening.kind == Kind::Leave;
                let canceled = runs.cancel(v1::CancelRequest { run, by, reason, leave, request_id }).await;
                self.told(happening, "cancel", canceled)?;
                Ok(Stage::Done)
            }
            Kind::Halt if stage == Stage::Begin => {
                self.told(happening, "pause", runs.pause(words).await)?;
                Ok(Stage::Paused)
            }
            Kind::Halt => {
                self.told(happening, "resume", runs.resume(words).await)?;
                Ok(Stage::Done)
            }
            Kind::Fix => self.try_again(happening, words, &mut runs).await,
            Kind::Hold => self.release(happening, &run).await,
            // A run that has not failed is not tried again, and nothing comes of asking.
            Kind::Line | Kind::Trip => {
                if !self.world.lock().ended.contains_key(&run) {
                    return Ok(stage);
                }
                let told = runs.retry(words).await;
                self.told(happening, "retry", told)?;
                Ok(Stage::Done)
            }
            Kind::Order | Kind::Pause | Kind::Decide | Kind::Late | Kind::Slow | Kind::Park => {
                Ok(Stage::Done)
            }
        }
    }

    /// Done, or refused for good: both are answers. Nobody else steers the run: it is as the request before has left it.
    fn told(
        &self,
        happening: &Happening,
        what: &str,
        answer: Result<Response<v1::Run>, Status>,
    ) -> anyhow::Result<()> {
        let text = match answer {
            Ok(_) => "done".to_owned(),
            Err(status) if matches!(status.code(), Code::FailedPrecondition | Code::NotFound) => {
                let text = status.message().to_owned();
                if [Rejected::Paused, Rejected::NotPaused].iter().any(|wrong| wrong.to_string() == text) {
                    self.world.lock().broken.push(format!("{what} {}: {text}", happening.id));
                }
                text
            }
            Err(status) => return Err(status.into()),
        };
        self.world.log("client", &format!("{what} {}: {text}", happening.id));
        Ok(())
    }

    /// Removes what made the run fail, and tries again.
    async fn try_again(
        &self,
        happening: &Happening,
        words: v1::SteerRequest,
        runs: &mut RunServiceClient<Channel>,
    ) -> anyhow::Result<Stage> {
        let entry = format!("{}/second", happening.id);
        if !self.world.lock().fixed.contains(&entry) {
            match runs.get(v1::GetRunRequest { run: words.run.clone() }).await {
                Ok(run) if run.get_ref().state() == v1::RunState::Failed => {}
                Ok(_) => return Ok(Stage::Begin),
                // Its beginning was trimmed: it stays as it is.
                Err(status) if status.code() == Code::NotFound && self.mix.trims() => return Ok(Stage::Done),
                Err(status) => return Err(status.into()),
            }
            self.world.lock().fixed.insert(entry.clone());
        }
        match runs.retry(words).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::NotFound && self.mix.trims() => {
                // It may have been tried again, with the answer lost, and trimmed since.
                self.world.log("client", &format!("retry {}: {}", happening.id, status.message()));
                if !self.world.lock().posted.contains(&entry) {
                    self.world.lock().fixed.remove(&entry);
                }
            }
            Err(status) => return Err(status.into()),
        }
        self.world.log("client", &format!("{} is tried again", happening.id));
        Ok(Stage::Done)
    }

    /// Sends the event that a run waits for, until it has reached the run. One that comes too early reaches nobody.
    async fn release(&self, happening: &Happening, run: &str) -> anyhow::Result<Stage> {
        if self.world.lock().ended.contains_key(run) {
            return Ok(Stage::Done);
        }
        let id = format!("release-{:x}", self.runtime.entropy.next_u128());
        let sent = self.send(&id, "release", &json!({ "for": happening.id })).await?;
        if let Some(refusal) = sent.refusal {
            bail!("refused: {}", refusal.message);
        }
        let text = format!("{} is released: {}", happening.id, sent.delivered);
        self.world.log("client", &text);
        Ok(if sent.delivered > 0 { Stage::Done } else { Stage::Begin })
    }

    /// Holds one live run against its journal. They are not read at the same moment, so only a difference that stays
    /// the same is one.
    pub(crate) async fn replay_one(&self, runs: &mut RunServiceClient<Channel>) -> anyhow::Result<()> {
        let live: Vec<String> = {
            let world = self.world.lock();
            let all = world.accepted.values().flatten();
            all.filter(|run| !world.ended.contains_key(*run)).cloned().collect()
        };
        if live.is_empty() {
            return Ok(());
        }
        let run = live.get(self.runtime.entropy.below(live.len() as u64) as usize).context("no run")?;
        let replayed = match runs.replay(v1::GetRunRequest { run: run.clone() }).await {
            Ok(replayed) => replayed.into_inner(),
            Err(status) if status.code() == Code::NotFound && self.mix.trims() => return Ok(()),
            Err(status) => return Err(status.into()),
        };
        let mut world = self.world.lock();
        world.replays += 1;
        if replayed.same {
            world.differs.remove(run);
        } else if world.differs.get(run) == Some(&replayed.difference) {
            let text = format!("run {run} is not what its journal says: {}", replayed.difference);
            world.broken.push(text);
        } else {
            world.differs.insert(run.clone(), replayed.difference);
        }
        Ok(())
    }
}
