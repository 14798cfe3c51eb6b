//! Policies.
//!
//! Owns: that a policy compiles and looks at something that exists. Never: judges.
use std::sync::Arc;

use super::index::{Index, Table};
use super::problem::{Doubt, RuleError};
use super::report::Findings;
use crate::Name;
use crate::catalogue::CompiledPolicy;
use crate::definition::{Document, Policy};
use crate::field::similar;

/// The compiled policy, unless it is not sound.
pub(super) fn policy(
    findings: &mut Findings<'_>,
    document: &Document<Policy>,
    index: &Index<'_>,
) -> Option<Arc<CompiledPolicy>> {
    let (namespace, spec) = (&document.metadata.namespace, &document.spec);
    if spec.rules.is_empty() {
        findings.add("/spec/rules", RuleError::NoRules);
    }
    check_patterns(
        &mut findings.below("/spec/match/skills"),
        "skill",
        &spec.matches.skills,
        &index.skills,
        namespace,
    );
    let workflows = &mut findings.below("/spec/match/workflows");
    check_patterns(workflows, "workflow", &spec.matches.workflows, &index.workflows, namespace);
    findings.take(CompiledPolicy::compile(document)).map(Arc::new)
}

fn check_patterns<T: Copy>(
    findings: &mut Findings<'_>,
    what: &'static str,
    patterns: &[String],
    known: &Table<T>,
    namespace: &Name,
) {
    for (at, pattern) in patterns.iter().enumerate() {
        let at = format!("/{at}");
        let (stem, any_end) = match pattern.strip_suffix('*') {
            Some(stem) => (stem, true),
            None => (pattern.as_str(), false),
        };
        if stem.contains('*') {
            findings.add(&at, RuleError::Pattern(pattern.clone()));
            continue;
        }
        let names = known.names(namespace);
        let matched = names.iter().any(|name| if any_end { name.starts_with(stem) } else { *name == stem });
        if !matched && known.is_complete() {
            let near = similar(stem, names.into_iter()).filter(|_| !any_end);
            findings.add(&at, Doubt::MatchesNothing { what, pattern: pattern.clone(), near });
        }
    }
}
