//! What a worker is started with.
//!
//! Owns: the proof that the options make sense together. Never: reads files or the environment.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::{Agent, AnyAgent, NotASkill, SkillName};
use crate::limits::QUARANTINE_DEFAULT;
use crate::worker::StartError;

/// Which specialists the worker hosts beside its own agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosted {
    /// Every specialist whose skills run by `call` or `rules`.
    Everything,
    /// Only the skills of the agents that are given.
    AgentsOnly,
}

/// What a worker is started with.
#[derive(Clone)]
pub struct WorkerOptions {
    /// Name, for people.
    pub name: String,
    /// `HOST:PORT` of every coordinator.
    pub coordinators: Vec<String>,
    /// Tasks of one coordinator at once, waiting ones included. At least 1.
    pub capacity: u32,
    /// What it hosts beside its own agents.
    pub hosted: Hosted,
    /// Time that a specialist stays in quarantine after it died too often.
    pub quarantine: Duration,
    pub(crate) agents: BTreeMap<SkillName, Arc<dyn AnyAgent>>,
}

impl WorkerOptions {
    /// A worker of this name without coordinators, with room for 1,000 tasks.
    #[must_use]
    pub fn new(name: impl Into<String>) -> WorkerOptions {
        WorkerOptions {
            name: name.into(),
            coordinators: Vec::new(),
            capacity: 1_000,
            hosted: Hosted::Everything,
            quarantine: QUARANTINE_DEFAULT,
            agents: BTreeMap::new(),
        }
    }

    /// Also runs a `remote` skill, named `NAMESPACE/SKILL`, by code of this process.
    pub fn with_agent(mut self, skill: &str, agent: impl Agent) -> Result<WorkerOptions, NotASkill> {
        self.agents.insert(skill.parse()?, Arc::new(agent));
        Ok(self)
    }

    pub(crate) fn prove(&self) -> Result<(), StartError> {
        if self.capacity == 0 {
            return Err(StartError::NoCapacity);
        }
        if self.coordinators.is_empty() {
            return Err(StartError::NoCoordinator);
        }
        let mut seen = std::collections::BTreeSet::new();
        match self.coordinators.iter().find(|address| !seen.insert(address.as_str())) {
            Some(twice) => Err(StartError::SameCoordinatorTwice(twice.clone())),
            None => Ok(()),
        }
    }
}
