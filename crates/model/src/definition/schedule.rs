//! The Schedule kind: a workflow that starts by the clock.
//!
//! Owns: its shape. Never: reads a clock.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Name;

/// When to start which workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// Five fields: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// IANA time zone; UTC when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// The workflow to start, in the same namespace.
    pub workflow: Name,
    /// `event.data` of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Value>,
    /// Ticks missed while nothing ran.
    #[serde(default)]
    pub catchup: Catchup,
    /// A tick while the last run is not over.
    #[serde(default)]
    pub overlap: Overlap,
    /// No ticks for now. Those that pass meanwhile are not missed: it goes on with the first tick after it is lifted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// What becomes of ticks that were missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Catchup {
    /// Only the latest is made up for.
    #[default]
    Latest,
    /// Every one.
    All,
    /// None.
    Skip,
}

/// What happens at a tick while the last run is not over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Overlap {
    /// The tick is left out.
    #[default]
    Skip,
    /// It starts when the last run is over.
    Queue,
    /// Both run.
    Allow,
}
