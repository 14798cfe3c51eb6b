//! From a written workflow to a plan.
//!
//! Owns: every reason why a single workflow does not compile, each with the field it is about; all are
//! reported at once. Never: looks at other definitions.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    CompensateRule, CompileError, CompiledOutcome, CompiledTrigger, CompiledWorkflow, DefinitionDigest,
    FieldError, Foreach, Plan, PlanStep, RetryRule, StepIndex, StepKind,
};
use crate::definition::{ContextQuery, Document, Retry, Step, WaitStep, Workflow};
use crate::expr::{References, Template};
use crate::field::FieldCompiler;
use crate::limits::{
    APPROVAL_EXPIRES_DEFAULT, ATTEMPTS_DEFAULT, ATTEMPTS_MAX, BACKOFF_INITIAL_DEFAULT, BACKOFF_MAX_DEFAULT,
    FOREACH_CONCURRENCY_DEFAULT, FOREACH_ITEMS_MAX, PLAN_STEPS_MAX,
};
use crate::{Json, Timestamp};

const TRIGGER_SCOPE: [&str; 1] = ["event"];
const CONTEXT_SCOPE: [&str; 3] = ["event", "key", "run"];
const STEP_SCOPE: [&str; 5] = ["event", "key", "run", "context", "steps"];
const ITEM_SCOPE: [&str; 7] = ["event", "key", "run", "context", "steps", "item", "index"];
const UNDO_SCOPE: [&str; 8] = ["event", "key", "run", "context", "steps", "item", "index", "output"];

/// Compiles a workflow, or says everything that is wrong with it.
pub fn compile(document: &Document<Workflow>) -> Result<CompiledWorkflow, Vec<FieldError>> {
    let spec = &document.spec;
    let mut compiler = Compiler { fields: FieldCompiler::of_workflow(&spec.steps), written: &spec.steps };
    let trigger = spec.on.as_ref().map(|on| CompiledTrigger {
        event_type: on.event_type.clone(),
        source: on.source.clone(),
        when: on.when.as_ref().and_then(|when| compiler.fields.expr("/spec/on/when", when, &TRIGGER_SCOPE)),
    });
    let key = spec.key.as_ref().and_then(|key| compiler.fields.expr("/spec/key", key, &TRIGGER_SCOPE));
    let outcome = compiler.outcome(spec);
    compiler.context(spec);
    let steps = compiler.steps();
    let source = Json::of(&serde_json::to_value(spec).unwrap_or(Value::Null));
    let compiled = CompiledWorkflow {
        namespace: document.metadata.namespace.clone(),
        name: document.metadata.name.clone(),
        digest: digest(document, &source),
        goal: spec.goal.clone(),
        trigger,
        key,
        input: spec.input.as_ref().map(Json::of),
        context: spec.context.clone(),
        plan: Arc::new(Plan { steps, on_failure: spec.on_failure }),
        timeout: spec.timeout.map(crate::Span::get),
        outcome,
        source,
    };
    compiler.fields.finish(Some(compiled))
}

fn digest(document: &Document<Workflow>, source: &Json) -> DefinitionDigest {
    let mut hash = Sha256::new();
    for part in [document.metadata.namespace.as_str(), document.metadata.name.as_str(), source.as_str()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut short = [0_u8; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    DefinitionDigest(short)
}

struct Compiler<'a> {
    fields: FieldCompiler<'a>,
    written: &'a [Step],
}

impl Compiler<'_> {
    fn outcome(&mut self, spec: &Workflow) -> Option<CompiledOutcome> {
        let outcome = spec.outcome.as_ref()?;
        let success = self.fields.expr("/spec/outcome/success", &outcome.success, &["event", "run"])?;
        let correlate = match &outcome.on.correlate {
            Some(source) => {
                Some(self.fields.text("/spec/outcome/on/correlate", source, &["event", "key", "run"])?)
            }
            None => None,
        };
        let event_type = outcome.on.event_type.clone();
        Some(CompiledOutcome { within: outcome.within.get(), event_type, correlate, success })
    }

    fn context(&mut self, spec: &Workflow) {
        for (at, query) in spec.context.iter().enumerate() {
            let (field, source) = match query {
                ContextQuery::Recall(recall) => ("recall/about", recall.about.as_ref()),
                ContextQuery::Related(related) => ("related/from", Some(&related.from)),
            };
            if let Some(source) = source {
                self.fields.text(&format!("/spec/context/{at}/{field}"), source, &CONTEXT_SCOPE);
            }
        }
    }

    fn steps(&mut self) -> Vec<PlanStep> {
        let written = self.written;
        match written.len() {
            0 => self.fields.fail("/spec/steps", CompileError::NoSteps),
            n if n > PLAN_STEPS_MAX => self.fields.fail("/spec/steps", CompileError::TooManySteps(n)),
            _ => {}
        }
        let mut index = BTreeMap::new();
        for (at, step) in written.iter().enumerate() {
            let pointer = format!("/spec/steps/{at}/id");
            if !is_step_id(&step.id) {
                self.fields.fail(&pointer, CompileError::StepId(step.id.clone()));
            }
            if index.insert(step.id.as_str(), StepIndex(at as u32)).is_some() {
                self.fields.fail(&pointer, CompileError::DuplicateStep(step.id.clone()));
            }
        }
        let mut steps: Vec<PlanStep> =
            written.iter().enumerate().filter_map(|(at, step)| self.step(at, step, &index)).collect();
        if self.fields.is_sound() {
            connect(&mut steps);
            if let Some(cycle) = find_cycle(&steps) {
                let names = cycle.iter().map(|at| steps[*at].id.to_string()).collect();
                self.fields.fail(&format!("/spec/steps/{}", cycle[0]), CompileError::Cycle(names));
            }
        }
        steps
    }

    fn step(&mut self, at: usize, step: &Step, index: &BTreeMap<&str, StepIndex>) -> Option<PlanStep> {
        let pointer = format!("/spec/steps/{at}");
        let scope: &[&'static str] = if step.foreach.is_some() { &ITEM_SCOPE } else { &STEP_SCOPE };
        let mut looks_at = References::default();
        let when = step
            .when
            .as_ref()
            .and_then(|when| self.fields.expr(&format!("{pointer}/when"), when, &STEP_SCOPE));
        if let Some(when) = &when {
            looks_at.extend(when.references());
        }
        let foreach = self.foreach(&pointer, step);
        if let Some(foreach) = &foreach {
            looks_at.extend(foreach.over.references());
        }
        let kind = self.kind(&pointer, step, scope);
        kind.iter().flat_map(templates).for_each(|template| looks_at.extend(template.references()));
        let compensate = self.compensate(&pointer, step);
        if let Some(compensate) = &compensate {
            // What is undone is over by then, so looking at it is no cycle.
            let mut undo = compensate.input.references().clone();
            undo.steps.remove(&step.id);
            looks_at.extend(&undo);
        }
        let retry = self.retry(&format!("{pointer}/retry"), step.retry.unwrap_or_default());
        let needs = self.needs(&pointer, step, &looks_at, index);
        Some(PlanStep {
            id: Arc::from(step.id.as_str()),
            kind: kind?,
            needs,
            feeds: Vec::new(),
            when,
            foreach,
            timeout: step.timeout.map(crate::Span::get),
            retry,
            compensate,
        })
    }

    fn needs(
        &mut self,
        pointer: &str,
        step: &Step,
        looks_at: &References,
        index: &BTreeMap<&str, StepIndex>,
    ) -> Vec<StepIndex> {
        let mut needs = BTreeSet::new();
        for (at, name) in step.after.iter().enumerate() {
            match index.get(name.as_str()) {
                Some(found) => {
                    needs.insert(*found);
                }
                None => self.fields.unknown_step(&format!("{pointer}/after/{at}"), name),
            }
        }
        needs.extend(looks_at.steps.iter().filter_map(|name| index.get(name.as_str())));
        needs.into_iter().collect()
    }

    fn foreach(&mut self, pointer: &str, step: &Step) -> Option<Foreach> {
        let concurrency = step.concurrency.unwrap_or(FOREACH_CONCURRENCY_DEFAULT);
        if step.concurrency.is_some() && step.foreach.is_none() {
            let error = CompileError::Meaningless { field: "concurrency", kind: "no `foreach`" };
            self.fields.fail(&format!("{pointer}/concurrency"), error);
        }
        self.range(
            &format!("{pointer}/concurrency"),
            "concurrency",
            concurrency.into(),
            FOREACH_ITEMS_MAX as u64,
        );
        let source = step.foreach.as_ref()?;
        let over = self.fields.template(&format!("{pointer}/foreach"), source, &STEP_SCOPE)?;
        if over.constant().is_some() && !source.is_array() {
            self.fields.fail(&format!("{pointer}/foreach"), CompileError::ForeachConstant);
        }
        Some(Foreach { over, concurrency })
    }

    fn range(&mut self, pointer: &str, field: &'static str, got: u64, most: u64) {
        if !(1..=most).contains(&got) {
            self.fields.fail(pointer, CompileError::OutOfRange { field, got, least: 1, most });
        }
    }

    fn retry(&mut self, pointer: &str, retry: Retry) -> RetryRule {
        let attempts_max = retry.attempts.unwrap_or(ATTEMPTS_DEFAULT);
        self.range(&format!("{pointer}/attempts"), "attempts", attempts_max.into(), ATTEMPTS_MAX.into());
        match retry.backoff {
            Some(backoff) => {
                RetryRule { attempts_max, initial: backoff.initial.get(), max: backoff.max.get() }
            }
            None => RetryRule { attempts_max, initial: BACKOFF_INITIAL_DEFAULT, max: BACKOFF_MAX_DEFAULT },
        }
    }

    fn compensate(&mut self, pointer: &str, step: &Step) -> Option<CompensateRule> {
        let written = step.compensate.as_ref()?;
        if step.skill.is_none() {
            let error = CompileError::Meaningless { field: "compensate", kind: "no `skill`" };
            self.fields.fail(&format!("{pointer}/compensate"), error);
        }
        let input = self.fields.template(
            &format!("{pointer}/compensate/with"),
            &with(written.with.as_ref()),
            &UNDO_SCOPE,
        )?;
        Some(CompensateRule { skill: Arc::from(written.skill.as_str()), input })
    }

    fn kind(&mut self, pointer: &str, step: &Step, scope: &[&'static str]) -> Option<StepKind> {
        let found =
            [step.skill.is_some(), step.approval.is_some(), step.wait.is_some(), step.workflow.is_some()]
                .into_iter()
                .filter(|is| *is)
                .count();
        if found != 1 {
            self.fields.fail(pointer, CompileError::StepKind { id: step.id.clone(), found });
            return None;
        }
        let input_pointer = format!("{pointer}/with");
        if let Some(skill) = &step.skill {
            let input = self.fields.template(&input_pointer, &with(step.with.as_ref()), scope)?;
            return Some(StepKind::Task { skill: Arc::from(skill.as_str()), input });
        }
        if let Some(workflow) = &step.workflow {
            let input = self.fields.template(&input_pointer, &with(step.with.as_ref()), scope)?;
            return Some(StepKind::Subworkflow { workflow: workflow.clone(), input });
        }
        if step.with.is_some() {
            self.fields.fail(
                &input_pointer,
                CompileError::Meaningless { field: "with", kind: "`approval` or `wait`" },
            );
        }
        if let Some(approval) = &step.approval {
            let ask = self.fields.text(&format!("{pointer}/approval/ask"), &approval.ask, scope)?;
            let show = approval.show.clone().unwrap_or(Value::Null);
            let show = self.fields.template(&format!("{pointer}/approval/show"), &show, scope)?;
            let expires = approval.expires.map_or(APPROVAL_EXPIRES_DEFAULT, crate::Span::get);
            return Some(StepKind::Approval { ask, show, expires, on_expire: approval.on_expire });
        }
        self.wait(&format!("{pointer}/wait"), step.wait.as_ref()?, scope)
    }

    fn wait(&mut self, pointer: &str, wait: &WaitStep, scope: &[&'static str]) -> Option<StepKind> {
        match (wait.span, &wait.until, &wait.event) {
            (Some(span), None, None) => Some(StepKind::Sleep { span: span.get() }),
            (None, Some(until), None) => {
                let at = self.fields.text(&format!("{pointer}/until"), until, scope)?;
                if at.constant().is_some() && Timestamp::from_rfc3339(until).is_none() {
                    self.fields.fail(&format!("{pointer}/until"), CompileError::NotATime(until.clone()));
                }
                Some(StepKind::Until { at })
            }
            (None, None, Some(event)) => {
                let correlate =
                    self.fields.text(&format!("{pointer}/event/correlate"), &event.correlate, scope)?;
                let by = match &event.by {
                    Some(by) => Some(self.fields.expr(&format!("{pointer}/event/by"), by, &TRIGGER_SCOPE)?),
                    None => None,
                };
                Some(StepKind::Event { event_type: Arc::from(event.event_type.as_str()), correlate, by })
            }
            (span, until, event) => {
                let found =
                    usize::from(span.is_some()) + usize::from(until.is_some()) + usize::from(event.is_some());
                self.fields.fail(pointer, CompileError::WaitKind(found));
                None
            }
        }
    }
}

fn with(written: Option<&Value>) -> Value {
    written.cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()))
}

fn templates(kind: &StepKind) -> Vec<&Template> {
    match kind {
        StepKind::Task { input, .. } | StepKind::Subworkflow { input, .. } => vec![input],
        StepKind::Approval { ask, show, .. } => vec![ask, show],
        StepKind::Sleep { .. } => vec![],
        StepKind::Until { at } => vec![at],
        StepKind::Event { correlate, .. } => vec![correlate],
    }
}

fn is_step_id(id: &str) -> bool {
    let mut bytes = id.bytes();
    id.len() <= 63
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn connect(steps: &mut [PlanStep]) {
    let edges: Vec<(StepIndex, StepIndex)> = steps
        .iter()
        .enumerate()
        .flat_map(|(at, step)| step.needs.iter().map(move |need| (*need, StepIndex(at as u32))))
        .collect();
    for (need, step) in edges {
        steps[need.0 as usize].feeds.push(step);
    }
}

/// Kahn's algorithm; what is left over lies on or behind a cycle.
fn find_cycle(steps: &[PlanStep]) -> Option<Vec<usize>> {
    let mut missing: Vec<usize> = steps.iter().map(|step| step.needs.len()).collect();
    let mut free: Vec<usize> = (0..steps.len()).filter(|at| missing[*at] == 0).collect();
    while let Some(at) = free.pop() {
        for fed in &steps[at].feeds {
            let fed = fed.0 as usize;
            missing[fed] -= 1;
            if missing[fed] == 0 {
                free.push(fed);
            }
        }
    }
    let mut at = missing.iter().position(|count| *count > 0)?;
    let mut path = Vec::new();
    loop {
        if let Some(from) = path.iter().position(|seen| *seen == at) {
            path.push(at);
            return Some(path.split_off(from));
        }
        path.push(at);
        at = steps[at].needs.iter().map(|need| need.0 as usize).find(|need| missing[*need] > 0)?;
    }
}
