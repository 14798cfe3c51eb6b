//! What operators ask: status, doctor, ledger.
use clap::Subcommand;
use kapell_client::v1;
use serde_json::{Value, json};
use std::time::Duration;

use super::connection::ClientSettings;
use super::failure::{Exit, Failure};
use super::output::{Paint, Table, visible};
use super::times::short;

/// What can be done with the ledger.
#[derive(Subcommand, Debug)]
pub(crate) enum LedgerCommand {
    /// Build the ledger anew from the journal, while work goes on.
    ///
    /// Every node does it for its own shards, one after the other; a shard whose journal cannot be read keeps the rows
    /// that it had. Runs that have ended and that the journal does not hold any more leave the lists.
    ///
    /// Example: kapell ledger rebuild
    #[command(verbatim_doc_comment)]
    Rebuild,
}

impl LedgerCommand {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        match self {
            LedgerCommand::Rebuild => rebuild(to).await,
        }
    }
}

/// A rebuild reads the whole journal.
const REBUILD_WITHIN: Duration = Duration::from_secs(3_600);

async fn rebuild(to: &ClientSettings) -> Result<(), Failure> {
    let answer = to.client().await?.with_deadline(REBUILD_WITHIN).admin().rebuild_ledger().await?;
    let view = json!({ "entries": answer.entries, "runs": answer.runs });
    let text = |_| format!("the ledger holds {} runs from {} entries\n", answer.runs, answer.entries);
    to.output().show(&view, text)
}

/// Says who is connected and how much is going on.
pub(crate) async fn status(to: &ClientSettings) -> Result<(), Failure> {
    let answer = to.client().await?.admin().status().await?;
    let shards = answer.shards.iter().map(|shard| {
        json!({
            "shard": shard.shard, "epoch": shard.epoch, "lastSeq": shard.last_seq, "liveRuns": shard.live_runs,
            "queuedCommands": shard.queued_commands, "checkpointedSeq": shard.checkpointed_seq,
        })
    });
    let view = json!({
        "version": answer.version,
        "node": answer.node,
        "uptimeMs": answer.uptime_ms,
        "shards": shards.collect::<Vec<_>>(),
        "workers": answer.workers.iter().map(session).collect::<Vec<_>>(),
        "connectors": answer.connectors.iter().map(session).collect::<Vec<_>>(),
        "queuedTasks": answer.queued_tasks,
        "openApprovals": answer.open_approvals,
        "ledgerBehind": answer.ledger_behind,
        "revision": answer.revision,
        "sources": answer.sources.iter().map(source).collect::<Vec<_>>(),
    });
    to.output().show(&view, |paint| status_text(&answer, paint))
}

fn session(session: &v1::SessionStatus) -> Value {
    json!({
        "name": session.name, "instance": session.instance, "capacity": session.capacity, "busy": session.busy,
        "silentMs": session.silent_ms, "quarantined": session.quarantined,
    })
}

fn source(source: &v1::SourceStatus) -> Value {
    json!({
        "name": source.name, "taken": source.taken, "putOff": source.put_off, "refused": source.refused,
        "trouble": (!source.trouble.is_empty()).then_some(&source.trouble),
    })
}

fn status_text(answer: &v1::StatusResponse, paint: Paint) -> String {
    let live: u64 = answer.shards.iter().map(|shard| shard.live_runs).sum();
    let uptime = short(Duration::from_millis(answer.uptime_ms));
    let mut text = String::new();
    let mut field = |name: &str, value: String| {
        text.push_str(&format!("{} {value}\n", paint.faint(&format!("{name:<14}"))));
    };
    field("node", format!("{} {}, up {uptime}", answer.node, answer.version));
    field("definitions", format!("revision {}", answer.revision));
    field("live runs", live.to_string());
    field("queued tasks", answer.queued_tasks.to_string());
    field("open approvals", answer.open_approvals.to_string());
    field("ledger", format!("{} entries behind", answer.ledger_behind));
    for source in &answer.sources {
        let v1::SourceStatus { name, taken, put_off, refused, trouble } = source;
        let counts = format!("{name}: {taken} taken, {put_off} put off, {refused} refused");
        let trouble = if trouble.is_empty() { String::new() } else { format!("; {}", visible(trouble)) };
        field("events from", counts + &trouble);
    }
    let mut shards = Table::new(&["SHARD", "EPOCH", "ENTRIES", "LIVE", "QUEUED"]);
    for shard in &answer.shards {
        let numbers =
            [shard.shard.into(), shard.epoch, shard.last_seq, shard.live_runs, shard.queued_commands];
        shards.row(numbers.map(|number: u64| number.to_string()));
    }
    let mut sessions = Table::new(&["ROLE", "NAME", "BUSY", "SILENT", "QUARANTINED"]);
    let workers = answer.workers.iter().map(|session| ("worker", session));
    let connectors = answer.connectors.iter().map(|session| ("connector", session));
    for (role, session) in workers.chain(connectors) {
        sessions.row([
            role.to_owned(),
            session.name.clone(),
            format!("{}/{}", session.busy, session.capacity),
            short(Duration::from_millis(u64::try_from(session.silent_ms).unwrap_or(0))),
            session.quarantined.join(", "),
        ]);
    }
    format!("{text}\n{}\n{}", shards.text(paint), sessions.text(paint))
}

/// Checks that no work is stuck.
pub(crate) async fn doctor(to: &ClientSettings) -> Result<(), Failure> {
    let answer = to.client().await?.admin().doctor().await?;
    let findings = answer.findings.iter().map(|finding| {
        json!({ "kind": finding.kind, "run": finding.run, "text": finding.text, "hint": finding.hint })
    });
    let view = json!({
        "findings": findings.collect::<Vec<_>>(),
        "runsChecked": answer.runs_checked,
        "ordersChecked": answer.orders_checked,
    });
    to.output().show(&view, |paint| doctor_text(&answer, paint))?;
    if answer.findings.is_empty() { Ok(()) } else { Err(Failure::Shown(Exit::Unsuccessful)) }
}

fn doctor_text(answer: &v1::DoctorResponse, paint: Paint) -> String {
    let checked = format!("{} live runs and {} orders checked", answer.runs_checked, answer.orders_checked);
    if answer.findings.is_empty() {
        return format!("{}: {checked}, nothing is stuck\n", paint.good("well"));
    }
    let mut text = String::new();
    for finding in &answer.findings {
        let run = if finding.run.is_empty() { String::new() } else { format!(" run {}:", finding.run) };
        text.push_str(&format!("{}:{run} {}\n", paint.bad(&finding.kind), visible(&finding.text)));
        if !finding.hint.is_empty() {
            text.push_str(&format!("  {} {}\n", paint.strong("hint:"), visible(&finding.hint)));
        }
    }
    text.push_str(&format!("{} findings; {checked}\n", answer.findings.len()));
    text
}
