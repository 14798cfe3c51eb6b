//! What the simulated company does: its definitions, its events, and what must have come of each.
//!
//! Owns: the scenario. Never: runs it.
use kapell_kernel::TaskError;
use kapell_model::Json;
use kapell_runtime::{Entropy as _, SeededEntropy};
use kapell_worker::{Agent, TaskContext};
use serde_json::{Value, json};

use crate::mix::Mix;

/// Everything that runs, as one file.
pub(crate) const DEFINITIONS: &str = include_str!("company.yaml");
/// What runs beside it where subworkflows take too long.
pub(crate) const SLOW_DEFINITIONS: &str = include_str!("slow.yaml");

/// How much happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Several events of every kind.
    Whole,
    /// One event of every kind: for a crash at every operation of the disk.
    Short,
    /// No events; schedules start everything.
    Nothing,
}

/// One event and what must have come of it when its run is over.
#[derive(Clone, Debug)]
pub(crate) struct Happening {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) data: Value,
    /// Virtual time between the event before and this one.
    pub(crate) after_ms: u64,
}

/// What an event starts, and what people do to its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everything at once: tasks, fan-out, approval, subworkflow, an agent in code.
    Order,
    /// In order of its key.
    Line,
    /// A timer.
    Pause,
    /// An approval.
    Decide,
    /// The third write is refused for good; the two before are undone.
    Trip,
    /// The second write is refused until somebody tries again.
    Fix,
    /// Waits for an event, which comes.
    Hold,
    /// Waits for an event, which never comes, until a timer; what was done is undone.
    Late,
    /// Waits for ever.
    Park,
    /// Its subworkflow takes too long, twice; each time what that did is undone, and in the end all is.
    Slow,
    /// Somebody cancels it, and what was done is undone.
    Cancel,
    /// Somebody cancels it, and what was done stays.
    Leave,
    /// Somebody pauses and resumes it.
    Halt,
}

/// The kinds of the first mix.
const FIRST: [Kind; 5] = [Kind::Order, Kind::Line, Kind::Line, Kind::Pause, Kind::Decide];
/// All kinds, those that make the most trouble more than once.
const ALL: [Kind; 14] = [
    Kind::Park,
    Kind::Order,
    Kind::Line,
    Kind::Trip,
    Kind::Cancel,
    Kind::Fix,
    Kind::Hold,
    Kind::Line,
    Kind::Pause,
    Kind::Decide,
    Kind::Late,
    Kind::Halt,
    Kind::Leave,
    Kind::Cancel,
];
/// Events beside one of each, drawn from the seed.
const MORE: usize = 4;

impl Kind {
    /// As it stands in ids.
    fn name(self) -> &'static str {
        match self {
            Kind::Order => "order",
            Kind::Line => "line",
            Kind::Pause => "pause",
            Kind::Decide => "decide",
            Kind::Trip => "trip",
            Kind::Fix => "fix",
            Kind::Hold => "hold",
            Kind::Late => "late",
            Kind::Park => "park",
            Kind::Slow => "slow",
            Kind::Cancel => "cancel",
            Kind::Leave => "leave",
            Kind::Halt => "halt",
        }
    }

    /// The workflow that the event starts.
    pub(crate) fn workflow(self) -> &'static str {
        match self {
            Kind::Cancel | Kind::Leave | Kind::Halt => "steer",
            Kind::Order
            | Kind::Line
            | Kind::Pause
            | Kind::Decide
            | Kind::Trip
            | Kind::Fix
            | Kind::Hold
            | Kind::Late
            | Kind::Slow
            | Kind::Park => self.name(),
        }
    }

    /// How its run may end.
    pub(crate) fn may_end(self) -> &'static [&'static str] {
        match self {
            Kind::Order | Kind::Line | Kind::Pause | Kind::Decide | Kind::Hold | Kind::Halt => &["Completed"],
            // One that cannot be tried again, because its beginning was trimmed, stays as it is.
            Kind::Fix => &["Completed", "Failed"],
            Kind::Trip | Kind::Late | Kind::Slow => &["Failed"],
            Kind::Park => &[],
            // Somebody may come too late.
            Kind::Cancel | Kind::Leave => &["Completed", "Canceled"],
        }
    }
}

/// Which postings are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Each of these once, in any order.
    Each(&'static [&'static str]),
    /// Exactly these, in this order.
    InOrder(&'static [&'static str]),
    /// As far as it came, and backwards again when it was undone.
    Steps(&'static [&'static str]),
    /// First and last these, and between them at most so many pairs of something and its undoing.
    Rounds(&'static str, usize),
}

impl Happening {
    /// What must have been posted, below the event's id, by the end.
    pub(crate) fn promise(&self, ending: Option<&str>) -> Promise {
        match self.kind {
            Kind::Order => {
                Promise::Each(&["post", "item-a", "item-b", "item-c", "agent-1", "agent-2", "ship"])
            }
            Kind::Line => Promise::InOrder(&["line"]),
            Kind::Pause => Promise::InOrder(&["pause"]),
            Kind::Decide => Promise::InOrder(&["decide"]),
            Kind::Trip => Promise::InOrder(&["a", "b", "undo-b", "undo-a"]),
            Kind::Fix if ending == Some("Completed") => Promise::InOrder(&["first", "second"]),
            Kind::Fix if ending == Some("Failed") => Promise::InOrder(&["first"]),
            Kind::Fix => Promise::Steps(&["first", "second"]),
            Kind::Hold => Promise::InOrder(&["held"]),
            Kind::Late => Promise::InOrder(&["began", "undo-began"]),
            Kind::Slow => Promise::Rounds("before", 2),
            Kind::Park => Promise::InOrder(&[]),
            Kind::Halt => Promise::InOrder(&["a", "b", "c"]),
            Kind::Cancel | Kind::Leave if ending == Some("Completed") => Promise::InOrder(&["a", "b", "c"]),
            Kind::Cancel | Kind::Leave => Promise::Steps(&["a", "b", "c"]),
        }
    }
}

/// The events of a scenario.
pub(crate) fn happenings(seed: u64, scenario: Scenario, mix: &Mix) -> Vec<Happening> {
    let is_wide = mix.is_wide;
    let dice = SeededEntropy::new(seed ^ 0xe0e0);
    let kinds: Vec<Kind> = match (scenario, is_wide) {
        (Scenario::Whole, true) => {
            let more = (0..MORE).map(|_| ALL[dice.below(ALL.len() as u64) as usize]).collect::<Vec<_>>();
            let slow: &[Kind] = if mix.is_slow { &[Kind::Slow, Kind::Slow] } else { &[] };
            let mut kinds = [&ALL[..], &more, slow].concat();
            // Which comes after which decides what meets which trouble.
            for at in (1..kinds.len()).rev() {
                kinds.swap(at, dice.below(at as u64 + 1) as usize);
            }
            kinds
        }
        (Scenario::Short, true) => vec![Kind::Order, Kind::Line, Kind::Trip, Kind::Park, Kind::Line],
        (Scenario::Nothing, _) => vec![],
        (Scenario::Whole, false) => FIRST.repeat(4),
        (Scenario::Short, false) => FIRST.to_vec(),
    };
    let mut all = Vec::new();
    for (at, kind) in kinds.into_iter().enumerate() {
        let id = format!("{}-{at}", kind.name());
        let key = match (scenario, is_wide) {
            (Scenario::Short | Scenario::Nothing, _) => 0,
            (Scenario::Whole, false) => at / FIRST.len() % 2,
            (Scenario::Whole, true) => at % 2,
        };
        let data = json!({ "id": id, "key": format!("k{key}"), "items": ["a", "b", "c"] });
        let after_ms = match scenario {
            Scenario::Whole => dice.below(900),
            Scenario::Short | Scenario::Nothing => 1,
        };
        all.push(Happening { kind, data, after_ms, id });
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
