//! What the ledger is told of a run, and what the checkpoint holds of it.
use std::collections::BTreeMap;

use kapell_journal::RunImage;
use kapell_kernel::{ApprovalKey, Ending, Order, Phase, QuestionKind, Run, Status, outstanding};
use kapell_ledger::{ApprovalRow, LedgerBatch, Part, RunRow, RunState};
use kapell_model::definition::ContextQuery;
use kapell_model::expr::{Template, scope_of};
use kapell_model::{RunId, Seq, Timestamp};
use kapell_wire::{DefinitionsImage, Image, encode_image};

use super::state::ShardState;
use super::view::{approval_key_text, kind_text, outcome_text};
use crate::definitions::{Definitions, control_run};
use crate::own_event::Above;

/// Rows of one part.
const PART_ROWS_MAX: usize = 4_096;

/// What the ledger is being told, part by part.
pub(super) struct Telling {
    /// It contains all entries up to here.
    through: Seq,
    finished: BTreeMap<RunId, RunRow>,
    changed: std::vec::IntoIter<RunId>,
}

/// Where a run is, as far as lists tell.
pub(crate) fn run_state(run: &Run) -> RunState {
    match run.phase() {
        Phase::Queued => RunState::Queued,
        Phase::WindingUp { .. } => RunState::WindingUp,
        Phase::Ended(ended) => match ended.ending {
            Ending::Completed { .. } => RunState::Completed,
            Ending::Failed(_) => RunState::Failed,
            Ending::Canceled { .. } => RunState::Canceled,
        },
        Phase::Gathering | Phase::Planning | Phase::Running if run.is_paused() => RunState::Paused,
        Phase::Gathering | Phase::Planning => RunState::Running,
        Phase::Running => {
            let works = |status: &Status| {
                matches!(
                    status,
                    Status::Working { .. } | Status::Judging | Status::Cleared | Status::InChild { .. }
                )
            };
            let working = run.units().any(|(_, unit)| works(&unit.status));
            if working { RunState::Running } else { RunState::Waiting }
        }
    }
}

/// The run as the ledger keeps it.
pub(super) fn row(run: &Run) -> RunRow {
    let (accepted, ended) = (run.accepted(), run.ended());
    let (error, output) = match ended.map(|ended| &ended.ending) {
        Some(Ending::Failed(failure)) => {
            (Some((failure.error.class.to_string(), failure.error.message.clone())), None)
        }
        Some(Ending::Canceled { by, reason }) => {
            (Some(("canceled".to_owned(), format!("by {by}: {reason}"))), None)
        }
        Some(Ending::Completed { output }) => (None, Some(output.clone())),
        None => (None, None),
    };
    RunRow {
        run: run.id,
        namespace: accepted.workflow.namespace.clone(),
        workflow: accepted.workflow.name.clone(),
        version: accepted.workflow.digest.to_string(),
        key: accepted.key.as_deref().map(str::to_owned),
        state: run_state(run),
        accepted: accepted.at,
        ended: ended.map(|ended| ended.at),
        error,
        output,
        outcome: outcome_text(run).map(str::to_owned),
        parent: Above::of(accepted).run(),
        entities: entities(run),
        approvals: approvals(run),
    }
}

/// What the workflow recalls about is what its runs are about.
fn entities(run: &Run) -> Vec<String> {
    let about = run.workflow().context.iter().filter_map(|query| match query {
        ContextQuery::Recall(recall) => recall.about.as_ref(),
        ContextQuery::Related(related) => Some(&related.from),
    });
    let mut names: Vec<String> = about
        .filter_map(|source| Template::compile(&serde_json::Value::String(source.clone())).ok())
        .filter_map(|template| template.eval(&scope_of("event", &run.accepted().event)).ok())
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn approvals(run: &Run) -> Vec<ApprovalRow> {
    if run.ended().is_some() {
        return vec![];
    }
    outstanding(run)
        .into_iter()
        .filter_map(|order| {
            let Order::AskApproval { key, question, expires, .. } = order else { return None };
            let (ApprovalKey::Unit(unit, _) | ApprovalKey::Call(unit, ..)) = key;
            Some(ApprovalRow {
                key: approval_key_text(&key),
                step: run.plan_step(unit.step).map_or_else(String::new, |step| step.id.to_string()),
                kind: kind_text(question.kind).to_owned(),
                ask: question.ask.to_string(),
                show: question.show,
                expires: expires.filter(|_| question.kind != QuestionKind::CallOutcome),
            })
        })
        .collect()
}

impl ShardState {
    /// Rows of everything that changed since the ledger was told, the next part of them; `None`: nothing did.
    pub(super) fn project(&mut self) -> Option<LedgerBatch> {
        let mut telling = match self.telling.take() {
            Some(telling) => telling,
            None if self.last == self.projected => return None,
            None => Telling {
                through: self.last,
                finished: std::mem::take(&mut self.finished),
                changed: self.unprojected.take().into_iter(),
            },
        };
        let mut runs = Vec::new();
        while runs.len() < PART_ROWS_MAX
            && let Some((_, finished)) = telling.finished.pop_first()
        {
            runs.push(finished);
        }
        while runs.len() < PART_ROWS_MAX
            && let Some(id) = telling.changed.next()
        {
            // One that has ended since is not here any more; it is among the finished of the next telling.
            runs.extend(self.runs.get(&id).map(|run| row(run)));
        }
        let (shard, through) = (self.rules.shard, telling.through);
        let part =
            if telling.finished.is_empty() && telling.changed.len() == 0 { Part::Last } else { Part::More };
        self.telling = (part == Part::More).then_some(telling);
        Some(LedgerBatch { shard, through, runs, part })
    }

    /// Images of everything that changed since the last checkpoint.
    pub(super) fn images(&mut self, now: Timestamp, definitions: &Definitions) -> Vec<RunImage> {
        self.unsaved.extend(self.ended.expire(now));
        // From here on the images hold what was only in the journal.
        self.revived.clear();
        let changed = self.unsaved.take();
        changed.into_iter().map(|run| RunImage { run, state: self.image(run, definitions) }).collect()
    }

    /// What may be trimmed once a checkpoint through there is on disk; `None`: nothing more than was.
    pub(super) fn trim_to(&self, through: Seq) -> Option<Seq> {
        let by_rule = through.0.saturating_sub(self.rules.history_entries);
        let needed = self.revived.values().map(|first| first.0.saturating_sub(1)).min();
        let to = Seq(by_rule.min(needed.unwrap_or(u64::MAX)));
        (to > self.trimmed).then_some(to)
    }

    fn image(&self, id: RunId, definitions: &Definitions) -> Option<bytes::Bytes> {
        if id == control_run() {
            return Some(encode_image(&Image::Definitions(definitions_image(definitions))));
        }
        if let Some(state) = self.schedules.state(id) {
            return Some(encode_image(&Image::Schedule(Box::new(state.clone()))));
        }
        let image = match self.runs.get(&id) {
            Some(run) => Image::Run(Box::new(run.to_image())),
            None => Image::Ended { at: self.ended.at(id)? },
        };
        Some(encode_image(&image))
    }

    /// The next checkpoint must hold everything again.
    pub(super) fn save_everything(&mut self) {
        self.unsaved.extend(self.ids());
        self.unsaved.extend(self.ended.ids());
        self.unsaved.extend(self.schedules.ids());
        if self.rules.shard.0 == 0 {
            self.unsaved.insert(control_run());
        }
    }
}

fn definitions_image(definitions: &Definitions) -> DefinitionsImage {
    let in_force = definitions.in_force();
    DefinitionsImage {
        revision: in_force.revision,
        current: in_force.documents.clone(),
        former: definitions.former(),
        since: in_force.since().collect(),
    }
}
