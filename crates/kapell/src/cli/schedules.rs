//! `kapell schedule`: what schedules have done and what comes next.
use clap::Subcommand;
use kapell_client::v1;
use serde::Serialize;
use serde_json::json;

use super::connection::ClientSettings;
use super::failure::Failure;
use super::output::Table;
use super::times::{age, now, rfc3339, short};

/// What can be asked of schedules.
#[derive(Subcommand, Debug)]
pub(crate) enum ScheduleCommand {
    /// List schedules: the next tick, the last one, and its run.
    ///
    /// Example: kapell schedule list -o json
    #[command(verbatim_doc_comment)]
    List,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ScheduleView {
    name: String,
    namespace: String,
    workflow: String,
    cron: String,
    time_zone: String,
    suspended: bool,
    /// None: it is suspended, or never comes.
    next: Option<String>,
    last: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_run: String,
    started: u32,
    running: u32,
    waiting: u32,
    left_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_left_out: Option<LeftOutView>,
}

#[derive(Debug, Serialize)]
struct LeftOutView {
    tick: String,
    reason: String,
}

impl ScheduleCommand {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        match self {
            ScheduleCommand::List => list(to).await,
        }
    }
}

async fn list(to: &ClientSettings) -> Result<(), Failure> {
    let answer = to.client().await?.schedules().list(&to.namespace()).await?;
    let view = json!({ "schedules": answer.schedules.iter().map(view).collect::<Vec<_>>() });
    to.output().show(&view, |paint| {
        let header = ["NAME", "WORKFLOW", "CRON", "ZONE", "STATE", "NEXT", "LAST", "LAST RUN", "LEFT OUT"];
        let mut table = Table::new(&header);
        for one in &answer.schedules {
            table.row([
                one.name.clone(),
                one.workflow.clone(),
                one.cron.clone(),
                one.time_zone.clone(),
                state(one),
                next(one.next_ms),
                ago(one.last_ms),
                one.last_run.clone(),
                one.left_out.to_string(),
            ]);
        }
        table.text(paint)
    })
}

fn state(one: &v1::Schedule) -> String {
    match (one.suspended, one.running, one.waiting) {
        (true, ..) => "suspended".to_owned(),
        (false, 0, 0) => "idle".to_owned(),
        (false, running, 0) => format!("{running} running"),
        (false, running, waiting) => format!("{running} running, {waiting} waiting"),
    }
}

fn next(millis: i64) -> String {
    match u64::try_from(millis) {
        Ok(0) | Err(_) => String::new(),
        Ok(at) => format!("in {}", short(std::time::Duration::from_millis(at.saturating_sub(now().0)))),
    }
}

fn ago(millis: i64) -> String {
    let age = age(millis, now());
    if age.is_empty() { age } else { format!("{age} ago") }
}

fn view(one: &v1::Schedule) -> ScheduleView {
    ScheduleView {
        name: one.name.clone(),
        namespace: one.namespace.clone(),
        workflow: one.workflow.clone(),
        cron: one.cron.clone(),
        time_zone: one.time_zone.clone(),
        suspended: one.suspended,
        next: rfc3339(one.next_ms),
        last: rfc3339(one.last_ms),
        last_run: one.last_run.clone(),
        started: one.started,
        running: one.running,
        waiting: one.waiting,
        left_out: one.left_out,
        last_left_out: rfc3339(one.last_left_out_ms)
            .map(|tick| LeftOutView { tick, reason: one.last_left_out_reason.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_schedule_is_doing_is_said_in_words() {
        let said = |suspended, running, waiting| {
            state(&v1::Schedule { suspended, running, waiting, ..v1::Schedule::default() })
        };
        assert_eq!(said(false, 0, 0), "idle");
        assert_eq!(said(false, 1, 0), "1 running");
        assert_eq!(said(false, 1, 3), "1 running, 3 waiting");
        assert_eq!(said(true, 1, 3), "suspended");
        assert_eq!(next(0), "");
    }
}
