//! Specialists and their skills.
//!
//! Owns: what must hold within a skill, and between a skill and the tools of its specialist. Never: runs one.
use std::sync::Arc;

use super::connectors::{is_part_name, target};
use super::fit;
use super::index::{Index, Lookup};
use super::problem::{ReferenceError, RuleError, What};
use super::report::Findings;
use super::schema;
use crate::catalogue::{CompiledRuntime, SkillEntry};
use crate::definition::{Document, Kind, Runtime, Skill, Specialist, ToolCall};
use crate::field::similar;
use crate::limits::ATTEMPT_TIMEOUT_DEFAULT;
use crate::{Name, Span, ToolRef};

/// Compiles every skill; those that are not sound are put down and left out.
pub(super) fn specialist(
    findings: &mut Findings<'_>,
    document: &Document<Specialist>,
    index: &Index<'_>,
) -> Vec<Arc<SkillEntry>> {
    let (namespace, specialist) = (&document.metadata.namespace, &document.spec);
    if specialist.limits.concurrency == 0 {
        findings.add("/spec/limits/concurrency", RuleError::Zero("concurrency"));
    }
    for (at, tool) in specialist.tools.iter().enumerate() {
        check_tool(findings, &format!("/spec/tools/{at}"), tool, namespace, index);
    }
    let mut entries = Vec::new();
    for (at, skill) in specialist.skills.iter().enumerate() {
        let mut findings = findings.below(&format!("/spec/skills/{at}"));
        check_name(&mut findings, skill, namespace, index);
        let input = schema(&mut findings, "/input", skill.input.as_ref());
        let output = schema(&mut findings, "/output", skill.output.as_ref());
        let runtime = findings.take(CompiledRuntime::compile(&skill.runtime));
        if let Runtime::Call(call) = &skill.runtime {
            check_call(&mut findings, skill, call, namespace, index);
        }
        if let (Some(input), Some(output), Some(runtime)) = (input, output, runtime) {
            entries.push(Arc::new(SkillEntry {
                specialist: document.metadata.name.clone(),
                autonomy: specialist.autonomy,
                limits: specialist.limits,
                mandate: specialist.mandate().cloned().collect(),
                skill: skill.clone(),
                effect: skill.effect,
                timeout: skill.timeout.map_or(ATTEMPT_TIMEOUT_DEFAULT, Span::get),
                input,
                output,
                runtime,
            }));
        }
    }
    entries
}

fn check_name(findings: &mut Findings<'_>, skill: &Skill, namespace: &Name, index: &Index<'_>) {
    if !is_part_name(&skill.name) {
        findings.add("/name", RuleError::PartName(skill.name.clone()));
    }
    if let Lookup::Found(first) = index.skills.get(namespace, &skill.name)
        && !std::ptr::eq(first.skill, skill)
    {
        let (skill, specialist) = (skill.name.clone(), first.specialist.clone());
        findings.add("/name", ReferenceError::DuplicateSkill { skill, specialist });
    }
}

fn check_call(
    findings: &mut Findings<'_>,
    skill: &Skill,
    call: &ToolCall,
    namespace: &Name,
    index: &Index<'_>,
) {
    check_tool(findings, "/call/tool", &call.tool, namespace, index);
    let Some(tool) = index.tool(namespace, &call.tool) else { return };
    if skill.effect < tool.effect {
        let error =
            RuleError::EffectTooSmall { skill: skill.effect, tool: call.tool.clone(), is: tool.effect };
        findings.add("/effect", error);
    }
    if let Some(with) = &call.with {
        fit::check(&mut findings.below("/call/with"), with, &target(tool));
    }
}

fn check_tool(findings: &mut Findings<'_>, at: &str, wanted: &ToolRef, namespace: &Name, index: &Index<'_>) {
    let name = wanted.connection.as_str();
    let found = index.connections.get(namespace, name);
    let what = What::Document(Kind::Connection);
    let Some(connection) = findings.resolve(at, found, what, name, namespace) else { return };
    // That the connector exists is the connection's business.
    let Lookup::Found(connector) = index.connectors.get(namespace, connection.connector.as_str()) else {
        return;
    };
    if connector.tool(&wanted.tool).is_none() {
        let near = similar(&wanted.tool, connector.tools.iter().map(|tool| tool.name.as_str()))
            .map(|near| format!("{}/{near}", wanted.connection));
        let owner = format!("connection `{name}` (connector `{}`)", connection.connector);
        findings.add(at, ReferenceError::UnknownTool { owner, tool: wanted.tool.to_string(), near });
    }
}
