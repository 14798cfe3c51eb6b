//! The story: what happens in which order, and who is killed when.
//!
//! Owns: the sequence and its time limit. Never: does the company's work, or knows what must come of it.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use kapell_company::{
    Company, CompanyOptions, Expected, Faults, MINIMUM_MARGIN, Reality, ServiceFaults,
    VENDOR_PRICE_CHANGE_EVENT, vendor_price_change,
};
use kapell_proto::v1;
use kapell_runtime::Runtime;
use tokio::time::Instant;

use super::DemoSettings;
use super::api::Api;
use super::children::{Coordinators, Role, RoleProcess, Troupe};
use super::definitions;
use super::questions::{self, Person};
use super::screen::Screen;
use super::table::{Death, Table};

/// All of it, without the time that a person takes to answer.
const ALL_WITHIN: Duration = Duration::from_secs(60);
/// How often is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long one question to the coordinator may take: it may be dead.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Shops and mail take their time, so that there is a middle to be killed in.
const LATENCY_MS: u64 = 150;
/// The id of the vendor's event.
const VENDOR_PRICE_CHANGE_ID: &str = "nordlicht-2026-12";
/// Writes that the two shops may still do for a worker that is dead: one each was under way.
const UNDER_WAY: usize = 2;

/// How it ended.
pub(super) struct Ending {
    pub(super) table: Table,
    pub(super) run: String,
    /// What happened, if that was wanted.
    pub(super) story: Vec<String>,
}

/// Everything that runs.
struct Stage<'a> {
    screen: &'a Screen,
    runtime: Runtime,
    person: Person,
    troupe: Troupe,
    /// `None`: others run it.
    coordinator: Option<RoleProcess>,
    worker: RoleProcess,
    connector: RoleProcess,
    api: Api,
    company: PathBuf,
    until: Instant,
    /// The state of each step as it was told last.
    told: BTreeMap<String, String>,
}

/// What can be seen from outside.
struct Seen {
    /// Price writes that the shops have taken.
    writes: usize,
    /// Absent while the coordinator does not answer.
    run: Option<v1::Run>,
}

impl Seen {
    fn has_ended(&self) -> bool {
        use v1::RunState::{Canceled, Completed, Failed};
        self.run.as_ref().is_some_and(|run| matches!(run.state(), Completed | Failed | Canceled))
    }
}

/// Plays it from the first day of the company to the checked table.
pub(super) async fn play(folder: &Path, settings: &DemoSettings, screen: &Screen) -> anyhow::Result<Ending> {
    let runtime = Runtime::system();
    let home = folder.join("company");
    let options = company_options();
    let credentials = options.credentials.clone();
    let company = Company::start(&home, options).await.context("the example company cannot start")?;
    screen.say("company: two web shops, an ERP and a mail server are open");
    let before = read(&runtime, &home).await?;
    let expected = Expected::after(&before.books, &vendor_price_change()?, MINIMUM_MARGIN);

    let troupe = Troupe::new(folder, Coordinators::of(&settings.cluster)?, credentials)?;
    let event = event_for(troupe.coordinators(), &runtime);
    let mut stage = Stage::set(&home, troupe, settings, screen).await?;
    let count = stage.api.apply(definitions::of(company.addresses())?).await?;
    screen.say(&format!("applied {count} definitions of examples/vendor-pricing"));
    let run = stage.api.publish(&event).await?;
    screen.say(&format!("event: vendor V-100 changes its prices; accepted, run {run}"));

    let worker = stage.kill_worker(&run).await?;
    let all_writes = 2 * expected.price_moves.len();
    let enough = (worker.writes + UNDER_WAY + 1).min(all_writes);
    let coordinator = stage.kill_coordinator(&run, enough).await?;
    let deaths = [Some(worker), coordinator].into_iter().flatten().collect::<Vec<_>>();
    let ended = stage.finish(&run).await?;
    screen.say(&format!("run {}", in_words(&ended)));

    let after = read(&runtime, &home).await?;
    let story = if settings.story { stage.story(&run).await? } else { vec![] };
    drop(stage);
    company.stop().await;
    let table = Table::of(&before, &after, &expected, &ended, &deaths);
    Ok(Ending { table, run, story })
}

/// The event that the company's vendor sends. A cluster may have seen it in an earlier demonstration and would answer
/// with the run of that one: there it gets an id of its own.
fn event_for(coordinators: &Coordinators, runtime: &Runtime) -> String {
    match coordinators {
        Coordinators::Own(_) => VENDOR_PRICE_CHANGE_EVENT.to_owned(),
        Coordinators::Running(_) => {
            let id = format!("{VENDOR_PRICE_CHANGE_ID}-{:032x}", runtime.entropy.next_u128());
            VENDOR_PRICE_CHANGE_EVENT.replace(VENDOR_PRICE_CHANGE_ID, &id)
        }
    }
}

fn company_options() -> CompanyOptions {
    let slow = Faults { latency_ms: LATENCY_MS, ..Faults::default() };
    let faults = ServiceFaults {
        shop_north: slow.clone(),
        shop_south: slow.clone(),
        smtp: slow,
        ..ServiceFaults::default()
    };
    CompanyOptions { faults, ..CompanyOptions::default() }
}

async fn read(runtime: &Runtime, home: &Path) -> anyhow::Result<Reality> {
    let home = home.to_owned();
    runtime.blocking(move || Reality::read(&home)).await?.context("the company cannot be read back")
}

impl<'a> Stage<'a> {
    /// Starts the three roles and waits until they know each other.
    async fn set(
        home: &Path,
        troupe: Troupe,
        settings: &DemoSettings,
        screen: &'a Screen,
    ) -> anyhow::Result<Stage<'a>> {
        let until = Instant::now() + ALL_WITHIN;
        let mut coordinator = troupe.start_coordinator()?;
        let (worker, connector) = (troupe.start(Role::Worker)?, troupe.start(Role::Connector)?);
        let api = reach(&troupe, &mut coordinator, until).await?;
        let person = if settings.yes { Person::AgreesToAll } else { Person::AtTerminal };
        let mut stage = Stage {
            screen,
            runtime: Runtime::system(),
            person,
            troupe,
            coordinator,
            worker,
            connector,
            api,
            company: home.to_owned(),
            until,
            told: BTreeMap::new(),
        };
        stage.everybody_is_here().await?;
        let pid = |process: &RoleProcess| process.pid().unwrap_or_default();
        let coordinators = match &stage.coordinator {
            Some(own) => format!("coordinator (process {})", pid(own)),
            None => format!("the cluster at {}", stage.troupe.coordinators().addresses().join(", ")),
        };
        let (worker, connector) = (pid(&stage.worker), pid(&stage.connector));
        screen.say(&format!("{coordinators}, worker ({worker}) and connector ({connector}) are ready"));
        Ok(stage)
    }

    async fn everybody_is_here(&mut self) -> anyhow::Result<()> {
        loop {
            let status = tokio::time::timeout(ANSWER_WITHIN, self.api.status()).await;
            if let Ok(Ok(status)) = status
                && !status.workers.is_empty()
                && !status.connectors.is_empty()
            {
                return Ok(());
            }
            self.wait("worker and connector connect").await?;
        }
    }

    /// One pause between two looks; an error when a role has died by itself or the time is over.
    async fn wait(&mut self, what: &str) -> anyhow::Result<()> {
        self.coordinator.as_mut().map_or(Ok(()), RoleProcess::check)?;
        self.worker.check()?;
        self.connector.check()?;
        if Instant::now() > self.until {
            bail!("waited too long until {what}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(())
    }

    async fn look(&mut self, run: &str) -> anyhow::Result<Seen> {
        let reality = read(&self.runtime, &self.company).await?;
        let writes = reality.north.writes.len() + reality.south.writes.len();
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.api.run(run)).await;
        let seen = Seen { writes, run: answer.ok().and_then(Result::ok) };
        self.narrate(&seen);
        Ok(seen)
    }

    /// Says what is new about the steps.
    fn narrate(&mut self, seen: &Seen) {
        let Some(run) = &seen.run else { return };
        let mut going_on = Vec::new();
        for step in &run.steps {
            let count =
                if step.items > 0 { format!(" {}/{}", step.items_done, step.items) } else { String::new() };
            if step.state == "running" || step.state == "asking" {
                going_on.push(format!("{}{count}", step.id));
            }
            let over = matches!(step.state.as_str(), "done" | "failed" | "skipped" | "canceled");
            if over && self.told.get(&step.id) != Some(&step.state) {
                let why =
                    step.error.as_ref().map_or_else(String::new, |error| format!(": {}", error.message));
                self.screen.say(&format!("step {}{count} {}{why}", step.id, step.state));
                self.told.insert(step.id.clone(), step.state.clone());
            }
        }
        self.screen.progress(&format!(
            "          {} price writes; now: {}",
            seen.writes,
            going_on.join(", ")
        ));
    }

    /// Kills the worker as soon as a shop has taken a price, and starts another one.
    async fn kill_worker(&mut self, run: &str) -> anyhow::Result<Death> {
        let seen = loop {
            let seen = self.look(run).await?;
            if seen.writes > 0 || seen.has_ended() {
                break seen;
            }
            self.wait("a shop takes a price").await?;
        };
        let pid = self.worker.pid().unwrap_or_default();
        let by_signal = self.worker.kill().await?;
        self.worker = self.troupe.start(Role::Worker)?;
        self.screen.say(&format!("kill -9 {pid} (worker) after {} price writes; started again", seen.writes));
        Ok(Death { who: "worker", by_signal, unfinished: !seen.has_ended(), writes: seen.writes })
    }

    /// Kills the coordinator once the shops have taken so many prices, and starts another one. The run has not ended
    /// by then: nobody has answered its question yet. A coordinator that others run is left alone.
    async fn kill_coordinator(&mut self, run: &str, writes: usize) -> anyhow::Result<Option<Death>> {
        let seen = loop {
            let seen = self.look(run).await?;
            if seen.writes >= writes || seen.has_ended() {
                break seen;
            }
            self.wait("the new worker goes on").await?;
        };
        let Some(coordinator) = &mut self.coordinator else { return Ok(None) };
        let pid = coordinator.pid().unwrap_or_default();
        let by_signal = coordinator.kill().await?;
        self.coordinator = self.troupe.start_coordinator()?;
        self.screen
            .say(&format!("kill -9 {pid} (coordinator) after {} price writes; started again", seen.writes));
        self.api = reach(&self.troupe, &mut self.coordinator, self.until).await?;
        self.everybody_is_here().await?;
        self.screen.say("worker and connector have found the new coordinator");
        let unfinished = !seen.has_ended();
        Ok(Some(Death { who: "coordinator", by_signal, unfinished, writes: seen.writes }))
    }

    /// Answers what is asked until the run has ended.
    async fn finish(&mut self, run: &str) -> anyhow::Result<v1::Run> {
        loop {
            let seen = self.look(run).await?;
            if seen.has_ended()
                && let Some(ended) = seen.run
            {
                return Ok(ended);
            }
            let asked = tokio::time::timeout(ANSWER_WITHIN, self.api.questions(run)).await;
            for question in asked.ok().and_then(Result::ok).unwrap_or_default() {
                if self.told.insert(question.id.clone(), "asked".to_owned()).is_some() {
                    continue;
                }
                let since = Instant::now();
                questions::answer(&self.api, &question, self.person, self.screen, &self.runtime).await?;
                self.until += since.elapsed();
            }
            self.wait("the run ends").await?;
        }
    }

    async fn story(&self, run: &str) -> anyhow::Result<Vec<String>> {
        let answer = self.api.explain(run).await?;
        let mut lines = vec![String::new(), "What happened:".to_owned()];
        for line in answer.lines {
            let step = if line.step.is_empty() { String::new() } else { format!("[{}] ", line.step) };
            lines.push(format!("{:5}  {step}{}", line.seq, line.text));
            lines.extend(line.reasons.iter().map(|reason| format!("         because {reason}")));
        }
        Ok(lines)
    }
}

/// Connects once a coordinator answers.
async fn reach(troupe: &Troupe, own: &mut Option<RoleProcess>, until: Instant) -> anyhow::Result<Api> {
    let addresses = troupe.coordinators().addresses();
    for address in addresses.iter().cycle() {
        let refused = match tokio::time::timeout(ANSWER_WITHIN, try_to_reach(address)).await {
            Ok(Ok(api)) => return Ok(api),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("it does not answer"),
        };
        own.as_mut().map_or(Ok(()), RoleProcess::check)?;
        if Instant::now() > until {
            return Err(
                refused.context(format!("waited too long until the coordinator at {address} answers"))
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("no coordinator is named")
}

async fn try_to_reach(address: &str) -> anyhow::Result<Api> {
    let api = Api::connect(address).await?;
    api.status().await?;
    Ok(api)
}

fn in_words(run: &v1::Run) -> String {
    let why = run.error.as_ref().map_or_else(String::new, |error| format!(": {}", error.message));
    format!("{}{why}", run.state().as_str_name().trim_start_matches("RUN_STATE_").to_ascii_lowercase())
}
