//! What the simulated company does: its definitions, its events, and what must have come of each.
//!
//! Owns: the scenario. Never: runs it.
use kapell_kernel::TaskError;
use kapell_model::Json;
use kapell_runtime::{Entropy as _, SeededEntropy};
use kapell_worker::{Agent, TaskContext};
use serde_json::{Value, json};

/// Everything that runs, as one file.
pub(crate) const DEFINITIONS: &str = include_str!("company.yaml");

/// How much happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Several events of every kind.
    Whole,
    /// One event of every kind: for a crash at every operation of the disk.
    Short,
}

/// One event and what must have been posted when its runs are over.
#[derive(Clone, Debug)]
pub(crate) struct Happening {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) data: Value,
    pub(crate) postings: Vec<String>,
    /// Virtual time between the event before and this one.
    pub(crate) after_ms: u64,
}

/// The events of a scenario.
pub(crate) fn happenings(seed: u64, scenario: Scenario) -> Vec<Happening> {
    let dice = SeededEntropy::new(seed ^ 0xe0e0);
    let rounds = match scenario {
        Scenario::Whole => 4,
        Scenario::Short => 1,
    };
    let mut all = Vec::new();
    for round in 0..rounds {
        for kind in ["order", "line", "line", "pause", "decide"] {
            let id = format!("{kind}-{}", all.len());
            let names = |suffixes: &[&str]| suffixes.iter().map(|suffix| format!("{id}/{suffix}")).collect();
            let postings = match kind {
                "order" => names(&["post", "item-a", "item-b", "item-c", "agent-1", "agent-2", "ship"]),
                "line" => names(&["line"]),
                "pause" => names(&["pause"]),
                _decide => names(&["decide"]),
            };
            let key = format!("k{}", if scenario == Scenario::Whole { round % 2 } else { 0 });
            let data = json!({ "id": id, "key": key, "items": ["a", "b", "c"] });
            let after_ms = match scenario {
                Scenario::Whole => dice.below(900),
                Scenario::Short => 1,
            };
            all.push(Happening { kind, data, postings, after_ms, id });
        }
    }
    all
}

/// An agent in code: two tool calls with a checkpoint between.
pub(crate) struct Thinker;

impl Agent for Thinker {
    async fn run(&self, task: TaskContext) -> Result<Json, TaskError> {
        let id = task.input().value()["id"].as_str().unwrap_or_default().to_owned();
        let call = |no: u32| Json::of(&json!({ "id": format!("{id}/agent-{no}") }));
        if task.checkpoints().is_empty() {
            task.call_tool("bank/post", &call(1)).await?;
            // why: virtual time, and its passing is part of what is simulated
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            let kept = Json::of(&json!({ "next": task.next_call() }));
            task.checkpoint(&kept).await?;
        } else {
            let next = task.checkpoints()[0].value()["next"].as_u64().unwrap_or_default();
            task.skip_calls_to(u32::try_from(next).unwrap_or_default());
        }
        task.call_tool("bank/post", &call(2)).await?;
        Ok(Json::of(&json!({ "thought": true })))
    }
}
