//! Workflows, and how they start each other.
//!
//! Owns: that what steps name exists and can take what it is given, and that no workflow starts itself. Never:
//! looks into expressions (that is `plan`).
use std::collections::{BTreeMap, BTreeSet};

use super::fit::{self, Target};
use super::index::Index;
use super::problem::{ReferenceError, What};
use super::report::{Findings, Report, Subject};
use super::schema;
use crate::Name;
use crate::definition::{Document, Kind, Step, Workflow};
use crate::limits::NESTING_MAX;
use crate::plan::{self, CompiledWorkflow};

/// The compiled workflow, unless it or what it names is not sound.
pub(super) fn workflow(
    findings: &mut Findings<'_>,
    document: &Document<Workflow>,
    index: &Index<'_>,
) -> Option<CompiledWorkflow> {
    let compiled = findings.take(plan::compile(document));
    schema(findings, "/spec/input", document.spec.input.as_ref());
    for (at, step) in document.spec.steps.iter().enumerate() {
        check_step(
            &mut findings.below(&format!("/spec/steps/{at}")),
            step,
            &document.metadata.namespace,
            index,
        );
    }
    compiled
}

fn check_step(findings: &mut Findings<'_>, step: &Step, namespace: &Name, index: &Index<'_>) {
    let nothing = fit::nothing();
    if let Some(skill) = &step.skill {
        let with = step.with.as_ref().unwrap_or(&nothing);
        check_skill(findings, "", skill, with, namespace, index);
    }
    if let Some(compensate) = &step.compensate {
        let with = compensate.with.as_ref().unwrap_or(&nothing);
        check_skill(findings, "/compensate", &compensate.skill, with, namespace, index);
    }
    if let Some(child) = &step.workflow {
        let found = index.workflows.get(namespace, child.as_str());
        let what = What::Document(Kind::Workflow);
        if let Some(found) = findings.resolve("/workflow", found, what, child.as_str(), namespace) {
            let with = step.with.as_ref().unwrap_or(&nothing);
            fit::check(&mut findings.below("/with"), with, &target(child, found));
        }
    }
}

fn check_skill(
    findings: &mut Findings<'_>,
    at: &str,
    skill: &str,
    with: &serde_json::Value,
    namespace: &Name,
    index: &Index<'_>,
) {
    let found = index.skills.get(namespace, skill);
    if let Some(offer) = findings.resolve(&format!("{at}/skill"), found, What::Skill, skill, namespace) {
        let target = Target { name: format!("skill `{skill}`"), schema: offer.skill.input.as_ref() };
        fit::check(&mut findings.below(&format!("{at}/with")), with, &target);
    }
}

/// A workflow as something to pass event data to.
pub(super) fn target<'a>(name: &Name, workflow: &'a Workflow) -> Target<'a> {
    Target { name: format!("workflow `{name}`"), schema: workflow.input.as_ref() }
}

type Key<'a> = (&'a Name, &'a Name);

/// A workflow with the document that it comes from.
pub(super) type Written<'a> = (&'a Subject, &'a Document<Workflow>);

/// Puts down workflows that start each other without end, or too deep.
pub(super) fn nesting(report: &mut Report, workflows: &[Written<'_>]) {
    let written: BTreeMap<Key<'_>, Written<'_>> = workflows
        .iter()
        .map(|(subject, document)| {
            ((&document.metadata.namespace, &document.metadata.name), (*subject, *document))
        })
        .collect();
    let starts: BTreeMap<Key<'_>, BTreeSet<Key<'_>>> = written
        .iter()
        .map(|(key, (_, document))| {
            let children =
                document.spec.steps.iter().filter_map(|step| Some((key.0, step.workflow.as_ref()?)));
            (*key, children.filter(|child| written.contains_key(child)).collect())
        })
        .collect();
    let depths = depths(&starts);
    for (key, depth) in depths.iter().filter(|(_, depth)| **depth == NESTING_MAX + 1) {
        put_down(report, &written, *key, None, ReferenceError::TooDeep(*depth));
    }
    let mut seen = BTreeSet::new();
    for key in starts.keys().filter(|key| !depths.contains_key(*key)) {
        if let Some(cycle) = cycle_from(*key, &starts, &depths, &mut seen) {
            let mut names: Vec<String> = cycle.iter().map(|(_, name)| name.to_string()).collect();
            names.extend(names.first().cloned());
            let next = cycle.get(1).or(cycle.first()).map(|(_, name)| *name);
            put_down(report, &written, cycle[0], next, ReferenceError::WorkflowCycle(names));
        }
    }
}

/// How deep subworkflows nest below each workflow that starts no cycle; leaves first.
fn depths<'a>(starts: &BTreeMap<Key<'a>, BTreeSet<Key<'a>>>) -> BTreeMap<Key<'a>, u32> {
    let mut parents: BTreeMap<Key<'a>, Vec<Key<'a>>> = BTreeMap::new();
    for (parent, children) in starts {
        children.iter().for_each(|child| parents.entry(*child).or_default().push(*parent));
    }
    let mut missing: BTreeMap<Key<'a>, usize> =
        starts.iter().map(|(key, children)| (*key, children.len())).collect();
    let mut free: Vec<Key<'a>> =
        missing.iter().filter(|(_, count)| **count == 0).map(|(key, _)| *key).collect();
    let mut depths = BTreeMap::new();
    while let Some(key) = free.pop() {
        let depth = starts[&key]
            .iter()
            .filter_map(|child| depths.get(child))
            .max()
            .map_or(0, |deepest: &u32| deepest + 1);
        depths.insert(key, depth);
        for parent in parents.get(&key).into_iter().flatten() {
            if let Some(count) = missing.get_mut(parent) {
                *count -= 1;
                if *count == 0 {
                    free.push(*parent);
                }
            }
        }
    }
    depths
}

/// The cycle that `from` leads to, unless it was seen before.
fn cycle_from<'a>(
    from: Key<'a>,
    starts: &BTreeMap<Key<'a>, BTreeSet<Key<'a>>>,
    depths: &BTreeMap<Key<'a>, u32>,
    seen: &mut BTreeSet<Key<'a>>,
) -> Option<Vec<Key<'a>>> {
    let (mut path, mut at) = (Vec::new(), from);
    while seen.insert(at) {
        path.push(at);
        at = *starts[&at].iter().find(|child| !depths.contains_key(*child))?;
    }
    let begin = path.iter().position(|key| *key == at)?;
    Some(path.split_off(begin))
}

fn put_down(
    report: &mut Report,
    written: &BTreeMap<Key<'_>, Written<'_>>,
    key: Key<'_>,
    child: Option<&Name>,
    error: ReferenceError,
) {
    let Some((subject, document)) = written.get(&key) else { return };
    let mut steps = document.spec.steps.iter();
    let step = steps.position(|step| {
        step.workflow.is_some() && child.is_none_or(|child| step.workflow.as_ref() == Some(child))
    });
    let at = step.map_or_else(|| "/spec/steps".to_owned(), |step| format!("/spec/steps/{step}/workflow"));
    report.about(subject).add(&at, error);
}
