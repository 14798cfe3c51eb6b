//! Schedules.
//!
//! Owns: that a schedule's times and workflow exist. Never: reads a clock.
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZoneDatabase;

use super::fit;
use super::index::Index;
use super::problem::{RuleError, What};
use super::report::Findings;
use super::workflows::target;
use crate::definition::{Document, Kind, Schedule};
use crate::field::similar;

/// Puts down what is wrong with a schedule.
pub(super) fn schedule(findings: &mut Findings<'_>, document: &Document<Schedule>, index: &Index<'_>) {
    let (namespace, spec) = (&document.metadata.namespace, &document.spec);
    if let Err(reason) = check_cron(&spec.cron) {
        findings.add("/spec/cron", RuleError::Cron { cron: spec.cron.clone(), reason });
    }
    if let Some(zone) = &spec.time_zone {
        check_zone(findings, zone);
    }
    let name = spec.workflow.as_str();
    let found = index.workflows.get(namespace, name);
    let what = What::Document(Kind::Workflow);
    if let Some(workflow) = findings.resolve("/spec/workflow", found, what, name, namespace) {
        let with = spec.with.clone().unwrap_or_else(fit::nothing);
        fit::check(&mut findings.below("/spec/with"), &with, &target(&spec.workflow, workflow));
    }
}

fn check_cron(cron: &str) -> Result<(), String> {
    let fields = cron.split_whitespace().count();
    if fields != 5 {
        return Err(format!("it has {fields}"));
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(cron).map(drop).map_err(|error| {
        let text = error.to_string();
        text.rsplit(": ").next().unwrap_or(&text).trim_end_matches('.').to_owned()
    })
}

fn check_zone(findings: &mut Findings<'_>, zone: &str) {
    // The zones that are compiled in, so that the answer does not depend on the machine.
    let zones = TimeZoneDatabase::bundled();
    if zones.get(zone).is_err() {
        let known: Vec<String> = zones.available().map(|name| name.as_str().to_owned()).collect();
        let near = similar(zone, known.iter().map(String::as_str));
        findings.add("/spec/timeZone", RuleError::TimeZone { name: zone.to_owned(), near });
    }
}
