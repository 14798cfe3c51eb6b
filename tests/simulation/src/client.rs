//! The client: publishes every event until it is accepted, answers every question, and looks at the end.
//!
//! Owns: what was promised to it. Never: touches a part of Kapell but through its API.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use kapell_proto::cloudevents::CloudEvent;
use kapell_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use kapell_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use kapell_proto::v1;
use kapell_proto::v1::admin_service_client::AdminServiceClient;
use kapell_proto::v1::approval_service_client::ApprovalServiceClient;
use kapell_proto::v1::event_service_client::EventServiceClient;
use kapell_proto::v1::resource_service_client::ResourceServiceClient;
use kapell_proto::v1::run_service_client::RunServiceClient;
use kapell_runtime::{Runtime, channel};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use crate::company::{DEFINITIONS, Happening, Kind, SLOW_DEFINITIONS};
use crate::hosts::address_of;
use crate::mix::Mix;
use crate::ticks;
use crate::world::World;

/// A request that takes longer is given up and asked again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);

/// Where there are several coordinators, another one is asked for no reason so often.
const ROAMS_ONE_IN: u64 = 5;

/// One life of the client.
pub(crate) struct Client {
    pub(crate) world: World,
    pub(crate) runtime: Runtime,
    pub(crate) happenings: Arc<Vec<Happening>>,
    pub(crate) mix: Mix,
    /// Where coordinators listen.
    pub(crate) addresses: Vec<String>,
    /// Which of them is asked.
    pub(crate) at: AtomicUsize,
}

impl Client {
    /// Until the host ends.
    pub(crate) async fn run(self) {
        self.insist("apply", || self.apply(self.sources())).await;
        // Ticks start runs whoever the client asks.
        if self.mix.is_cluster() && self.mix.schedules == 0 && !self.world.lock().is_known {
            self.insist("tell everybody", || self.is_known()).await;
        }
        if self.mix.schedules > 0 {
            // A client that starts anew when they are stopped does not apply them again.
            if !self.world.lock().healed {
                let clock = ticks::Clock::EveryMinute;
                let schedules = || ticks::definitions(self.mix.schedules, clock);
                self.insist("schedule", || self.apply(vec![("schedules.yaml", schedules())])).await;
                let mut world = self.world.lock();
                let now = world.elapsed_ms();
                world.ticking_since.get_or_insert(now);
            }
            tokio::join!(self.keep_schedules(), self.look(), self.keep_ledger());
        } else if self.mix.is_wide {
            tokio::join!(
                self.publish_all(),
                self.answer(),
                self.look(),
                self.steer_all(),
                self.keep_ledger()
            );
        } else {
            tokio::join!(self.publish_all(), self.answer(), self.look());
        }
    }

    /// Does something until it succeeds.
    pub(crate) async fn insist<F: Future<Output = anyhow::Result<()>>>(
        &self,
        what: &str,
        attempt: impl Fn() -> F,
    ) {
        loop {
            let failed = match timeout(PATIENCE, attempt()).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "no answer in time".to_owned(),
            };
            self.world.log("client", &format!("{what}: {failed}"));
            self.elsewhere();
            // why: virtual time, and its passing is part of what is simulated
            sleep(Duration::from_millis(100 + self.runtime.entropy.below(200))).await;
        }
    }

    pub(crate) async fn channel(&self) -> anyhow::Result<Channel> {
        if self.addresses.len() > 1 && self.runtime.entropy.below(ROAMS_ONE_IN) == 0 {
            self.elsewhere();
        }
        let survivor = self.world.lock().survivor.map(address_of);
        let at = self.at.load(Ordering::Relaxed) % self.addresses.len();
        let address = survivor.as_ref().unwrap_or(&self.addresses[at]);
        Ok(channel(Arc::clone(&self.runtime.net), address).await?)
    }

    /// From now on another coordinator is asked.
    pub(crate) fn elsewhere(&self) {
        self.at.fetch_add(1, Ordering::Relaxed);
    }

    fn sources(&self) -> Vec<(&'static str, String)> {
        let mut sources = vec![("company.yaml", DEFINITIONS.to_owned())];
        sources.extend(self.mix.is_slow.then(|| ("slow.yaml", SLOW_DEFINITIONS.to_owned())));
        sources
    }

    pub(crate) async fn apply(&self, sources: Vec<(&str, String)>) -> anyhow::Result<()> {
        let file = |(name, text): (&str, String)| v1::SourceFile { name: name.to_owned(), text };
        let files = sources.into_iter().map(file).collect();
        let request = v1::ApplyRequest { files, dry_run: false };
        let answer = ResourceServiceClient::new(self.channel().await?).apply(request).await?.into_inner();
        ensure!(answer.errors.is_empty(), "the definitions do not hold together: {:?}", answer.errors);
        self.world.lock().revision = answer.revision;
        Ok(())
    }

    /// Until every coordinator has heard of what was applied: one that has not takes an event for one that starts
    /// nothing.
    async fn is_known(&self) -> anyhow::Result<()> {
        let revision = self.world.lock().revision;
        for address in &self.addresses {
            let node = channel(Arc::clone(&self.runtime.net), address).await?;
            let status = AdminServiceClient::new(node).status(v1::StatusRequest {}).await?.into_inner();
            ensure!(status.revision >= revision, "{address} knows revision {} only", status.revision);
        }
        self.world.lock().is_known = true;
        Ok(())
    }

    async fn publish_all(&self) {
        for happening in self.happenings.iter() {
            if self.world.lock().accepted.contains_key(&happening.id) {
                continue;
            }
            // why: virtual time, and its passing is part of what is simulated
            sleep(Duration::from_millis(happening.after_ms)).await;
            self.insist("publish", || self.publish(happening)).await;
            if self.runtime.entropy.below(4) == 0 {
                // A sender that did not hear the answer sends it again: the same runs must come of it.
                self.insist("publish again", || self.publish(happening)).await;
            }
        }
    }

    /// Publishes one event.
    pub(crate) async fn send(
        &self,
        id: &str,
        kind: &str,
        data: &serde_json::Value,
    ) -> anyhow::Result<v1::PublishResult> {
        let json = CloudEventAttributeValue { attr: Some(Attr::CeString("application/json".to_owned())) };
        let event = CloudEvent {
            id: id.to_owned(),
            source: "/simulation".to_owned(),
            spec_version: "1.0".to_owned(),
            r#type: format!("sim.{kind}"),
            data: Some(Data::TextData(data.to_string())),
            attributes: [("datacontenttype".to_owned(), json)].into(),
        };
        let request = v1::PublishRequest { namespace: String::new(), events: vec![event] };
        let answer = EventServiceClient::new(self.channel().await?).publish(request).await?.into_inner();
        answer.results.into_iter().next().context("no result")
    }

    async fn publish(&self, happening: &Happening) -> anyhow::Result<()> {
        let operation = {
            let histories = &mut self.world.lock().histories;
            if self.mix.is_cluster() {
                histories.passes_on(&happening.id);
            }
            histories.sends(&happening.id)
        };
        let result = self.send(&happening.id, happening.kind.workflow(), &happening.data).await?;
        if let Some(refusal) = result.refusal {
            bail!("refused: {} {}", refusal.code, refusal.message);
        }
        let mut world = self.world.lock();
        if let [started] = result.runs.as_slice() {
            world.histories.accepted(operation, &happening.id, started.duplicate);
        }
        let runs: Vec<String> = result.runs.into_iter().map(|run| run.run).collect();
        world.log("client", &format!("{} is accepted as {runs:?}", happening.id));
        match world.accepted.get(&happening.id) {
            Some(before) if *before != runs => {
                let text = format!("event {} started {before:?} first and {runs:?} later", happening.id);
                world.broken.push(text);
            }
            Some(_) => {}
            None if runs.len() == 1 => drop(world.accepted.insert(happening.id.clone(), runs)),
            None => world.broken.push(format!("event {} started {runs:?}, not one run", happening.id)),
        }
        Ok(())
    }

    /// Says yes to whatever is asked, and the truth about calls that nobody could find out about.
    async fn answer(&self) {
        loop {
            // why: virtual time, and its passing is part of what is simulated
            sleep(Duration::from_millis(300)).await;
            match timeout(PATIENCE, self.answer_once()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.world.log("client", &format!("approvals: {error:#}"));
                    self.elsewhere();
                }
                Err(_) => self.elsewhere(),
            }
        }
    }

    async fn answer_once(&self) -> anyhow::Result<()> {
        let mut client = ApprovalServiceClient::new(self.channel().await?);
        for open in client.list(v1::ListApprovalsRequest::default()).await?.into_inner().approvals {
            self.world.log("client", &format!("is asked {} {} {}", open.kind, open.step, open.ask));
            let request = v1::DecideApprovalRequest {
                id: open.id.clone(),
                approved: true,
                by: "ada".to_owned(),
                reason: "it looks right".to_owned(),
                result: String::new(),
            };
            if let Err(status) = client.decide(request).await {
                self.world.log("client", &format!("decide {}: {}", open.id, status.message()));
            }
        }
        Ok(())
    }

    /// Looks whether everything has ended.
    async fn look(&self) {
        loop {
            // why: virtual time, and its passing is part of what is simulated
            sleep(Duration::from_millis(500)).await;
            let seen = timeout(PATIENCE, self.look_once()).await;
            if !matches!(seen, Ok(Ok(()))) {
                self.elsewhere();
            }
            let mut world = self.world.lock();
            match seen {
                Ok(Ok(())) => world.all_well = true,
                Ok(Err(error)) => (world.all_well, world.not_yet) = (false, format!("{error:#}")),
                Err(_) => (world.all_well, world.not_yet) = (false, "no answer in time".to_owned()),
            }
        }
    }

    async fn look_once(&self) -> anyhow::Result<()> {
        let channel = self.channel().await?;
        let mut runs = RunServiceClient::new(channel.clone());
        let (mut live, mut parked) = (Vec::new(), 0);
        for happening in self.happenings.iter() {
            let Some(run) = self.run_of(happening) else { continue };
            if self.world.lock().ended.contains_key(&run) {
                continue;
            }
            match runs.get(v1::GetRunRequest { run: run.clone() }).await {
                Ok(seen) => {
                    let seen = seen.into_inner();
                    let waits = format!("{} of {} waits for {:?}", seen.id, seen.workflow, seen.waiting_for);
                    match self.note(happening, &seen) {
                        Noted::Ended => {}
                        Noted::Parked => parked += 1,
                        Noted::Live => live.push(waits),
                    }
                }
                Err(status) if status.code() == tonic::Code::NotFound && self.mix.trims() => {
                    self.find(happening, &run).await?;
                }
                Err(status) => return Err(status.into()),
            }
        }
        let (accepted, count) = (self.world.lock().accepted.len(), self.happenings.len());
        if self.mix.is_wide {
            self.replay_one(&mut runs).await?;
        }
        if self.mix.schedules > 0 {
            self.look_at_schedules().await?;
        }
        ensure!(accepted == count, "{accepted} of {count} events are accepted");
        let mut admin = AdminServiceClient::new(channel);
        if !live.is_empty() && self.world.lock().healed {
            let doctor = admin.doctor(v1::DoctorRequest::default()).await?.into_inner();
            bail!("runs have not ended: {live:?}; the doctor finds {:?}", doctor.findings);
        }
        ensure!(live.is_empty(), "{} runs have not ended", live.len());
        let (live, behind) = self.statuses(&mut admin).await?;
        ensure!(live == parked, "the shards say that {live} runs are live, not {parked}");
        let doctor = admin.doctor(v1::DoctorRequest::default()).await?.into_inner();
        ensure!(doctor.findings.is_empty(), "the doctor finds {:?}", doctor.findings);
        if self.mix.is_wide && self.world.lock().restarted {
            ensure!(behind == 0, "the ledger is {behind} entries behind");
            self.audit().await?;
        }
        Ok(())
    }

    /// How many runs are live in all shards, and how many entries the ledger is behind.
    async fn statuses(&self, admin: &mut AdminServiceClient<Channel>) -> anyhow::Result<(u64, u64)> {
        let is_one = self.addresses.len() == 1 || self.world.lock().survivor.is_some();
        let mut statuses = Vec::new();
        if is_one {
            statuses.push(admin.status(v1::StatusRequest {}).await?.into_inner());
        } else {
            for address in &self.addresses {
                let node = channel(Arc::clone(&self.runtime.net), address).await?;
                let status = AdminServiceClient::new(node).status(v1::StatusRequest {}).await?;
                statuses.push(status.into_inner());
            }
        }
        let shards = statuses.iter().flat_map(|status| &status.shards);
        let live = shards.map(|shard| shard.live_runs).sum();
        Ok((live, statuses.iter().map(|status| status.ledger_behind).sum()))
    }

    /// The run of an event, if it was accepted.
    pub(crate) fn run_of(&self, happening: &Happening) -> Option<String> {
        self.world.lock().accepted.get(&happening.id).and_then(|runs| runs.first()).cloned()
    }

    fn note(&self, happening: &Happening, run: &v1::Run) -> Noted {
        match run.state() {
            v1::RunState::Completed | v1::RunState::Failed | v1::RunState::Canceled => {}
            v1::RunState::Waiting if happening.kind == Kind::Park && !run.waiting_for.is_empty() => {
                self.parked(run);
                return Noted::Parked;
            }
            v1::RunState::Unspecified
            | v1::RunState::Queued
            | v1::RunState::Running
            | v1::RunState::Waiting
            | v1::RunState::Paused
            | v1::RunState::WindingUp => return Noted::Live,
        }
        let ending = format!("{:?}", run.state());
        if happening.kind == Kind::Fix && ending == "Failed" && !self.is_given_up(happening) {
            return Noted::Live;
        }
        self.end(happening, &run.id, ending, &format!("{:?}", run.error));
        if self.mix.is_only_clocks {
            self.at_once(happening, run);
        }
        Noted::Ended
    }

    /// Where only clocks are wrong nobody is lost, so no attempt fails that was not refused.
    fn at_once(&self, happening: &Happening, run: &v1::Run) {
        let most = if happening.kind == Kind::Fix { 2 } else { 1 };
        for step in run.steps.iter().filter(|step| step.attempts > most) {
            let text = format!("{}: step {} took {} attempts", happening.id, step.id, step.attempts);
            self.world.lock().broken.push(text);
        }
    }

    /// Writes down how a run ended.
    pub(crate) fn end(&self, happening: &Happening, run: &str, ending: String, error: &str) {
        let mut world = self.world.lock();
        world.log("client", &format!("run {run} of {} is {ending}", happening.id));
        if ending != "Gone" && !happening.kind.may_end().contains(&ending.as_str()) {
            let text = format!("run {run} of {} ended as {ending}: {error}", happening.id);
            world.broken.push(text);
        }
        world.ended.insert(run.to_owned(), ending);
    }

    /// A run that waits for ever must wait for the same after the coordinator was started anew.
    fn parked(&self, run: &v1::Run) {
        let (seen, mut world) = (format!("{run:?}"), self.world.lock());
        if world.restarted
            && let Some(before) = world.parked.get(&run.id)
            && *before != seen
        {
            let text = format!("a parked run was {before} and is {seen}");
            world.broken.push(text);
        }
        world.parked.insert(run.id.clone(), seen);
    }
}

/// What was seen of a run.
enum Noted {
    Ended,
    /// It waits for ever, as it should.
    Parked,
    Live,
}
