//! Schedules.
//!
//! Owns: that a schedule's times and workflow exist. Never: reads a clock.
use jiff::tz::TimeZone;

use super::fit;
use super::index::Index;
use super::problem::{Doubt, RuleError, What};
use super::report::Findings;
use super::workflows::target;
use crate::Timestamp;
use crate::catalogue::CompiledSchedule;
use crate::cron::{self, Cron};
use crate::definition::{Document, Kind, Schedule};
use crate::field::similar;

/// The schedule with its ticks, or what is wrong with it put down.
pub(super) fn schedule(
    findings: &mut Findings<'_>,
    document: &Document<Schedule>,
    index: &Index<'_>,
) -> Option<CompiledSchedule> {
    let (namespace, spec) = (&document.metadata.namespace, &document.spec);
    let cron = ticks(findings, &spec.cron);
    let zone = spec.time_zone.as_deref().map_or(Some(TimeZone::UTC), |name| zone(findings, name));
    let name = spec.workflow.as_str();
    let found = index.workflows.get(namespace, name);
    let what = What::Document(Kind::Workflow);
    if let Some(workflow) = findings.resolve("/spec/workflow", found, what, name, namespace) {
        let with = spec.with.clone().unwrap_or_else(fit::nothing);
        fit::check(&mut findings.below("/spec/with"), &with, &target(&spec.workflow, workflow));
    }
    Some(CompiledSchedule { spec: spec.clone(), cron: cron?.in_zone(zone?) })
}

fn ticks(findings: &mut Findings<'_>, text: &str) -> Option<Cron> {
    match Cron::parse(text, TimeZone::UTC) {
        Ok(cron) => {
            // Days of the week fall on the same days of the year again after 28 years, so this is all of them.
            if cron.next(Timestamp(0)).is_none() {
                findings.add("/spec/cron", Doubt::NeverTicks(text.to_owned()));
            }
            Some(cron)
        }
        Err(cron::NotACron(reason)) => {
            findings.add("/spec/cron", RuleError::Cron { cron: text.to_owned(), reason });
            None
        }
    }
}

fn zone(findings: &mut Findings<'_>, name: &str) -> Option<TimeZone> {
    let zone = cron::zone(name);
    if zone.is_none() {
        let known = cron::zone_names();
        let near = similar(name, known.iter().map(String::as_str));
        findings.add("/spec/timeZone", RuleError::TimeZone { name: name.to_owned(), near });
    }
    zone
}
