//! Agents: `remote` skills that are code of this process.
//!
//! Owns: the trait that they implement and how their skills are named. Never: runs them.
use std::fmt;
use std::future::Future;
use std::str::FromStr;

use futures::future::BoxFuture;
use kapell_kernel::TaskError;
use kapell_model::{Json, Name};

use crate::TaskContext;

/// One `remote` skill as code of this process. Write it as `async fn run(..)`.
///
/// A panic is a failed attempt. The future is dropped when the task is canceled, takes longer than it may, or the
/// coordinator is lost, so an agent that never awaits cannot be stopped.
pub trait Agent: Send + Sync + 'static {
    /// Does one task; the result is the output of the skill.
    fn run(&self, task: TaskContext) -> impl Future<Output = Result<Json, TaskError>> + Send;
}

/// Any agent, whatever its future.
pub(crate) trait AnyAgent: Send + Sync {
    fn run_boxed(&self, task: TaskContext) -> BoxFuture<'_, Result<Json, TaskError>>;
}

impl<A: Agent> AnyAgent for A {
    fn run_boxed(&self, task: TaskContext) -> BoxFuture<'_, Result<Json, TaskError>> {
        Box::pin(self.run(task))
    }
}

/// `NAMESPACE/SKILL`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SkillName {
    /// Tenant.
    pub namespace: Name,
    /// The skill, such as `pricing.suggest-price`.
    pub skill: String,
}

/// Why a text names no skill.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no skill: write NAMESPACE/SKILL, such as retail/pricing.suggest-price")]
pub struct NotASkill(String);

impl FromStr for SkillName {
    type Err = NotASkill;

    fn from_str(text: &str) -> Result<SkillName, NotASkill> {
        let wrong = || NotASkill(text.chars().take(120).collect());
        let (namespace, skill) = text.split_once('/').ok_or_else(wrong)?;
        if skill.is_empty() || skill.contains('/') {
            return Err(wrong());
        }
        Ok(SkillName { namespace: Name::new(namespace).map_err(|_| wrong())?, skill: skill.to_owned() })
    }
}

impl fmt::Display for SkillName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.skill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skill_is_named_with_its_namespace() {
        let skill: SkillName = "retail/pricing.suggest".parse().unwrap();
        assert_eq!((skill.namespace.as_str(), skill.skill.as_str()), ("retail", "pricing.suggest"));
        assert_eq!(skill.to_string(), "retail/pricing.suggest");
        for bad in ["", "retail", "retail/", "/x", "Retail/x", "a/b/c"] {
            assert!(bad.parse::<SkillName>().is_err(), "{bad}");
        }
    }
}
