//! Questions that people answer: approvals, approve, reject.
use clap::Args;
use kapell_client::v1;
use serde::Serialize;
use serde_json::{Value, json};

use super::connection::ClientSettings;
use super::failure::Failure;
use super::given::{JsonArgument, json_or_empty};
use super::output::Table;
use super::times::{age, now, rfc3339, short};
use super::view::embedded;

/// Which questions to show.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only of this run.
    #[arg(long, value_name = "RUN", default_value = "", hide_default_value = true)]
    run: String,
}

/// A yes.
#[derive(Args, Debug)]
pub(crate) struct Approve {
    #[command(flatten)]
    answer: Answer,
    /// What you did or know, for questions that ask for it: JSON, @FILE, or @- for standard input.
    #[arg(long, value_name = "JSON|@FILE")]
    result: Option<JsonArgument>,
}

/// Which question, who answers, why.
#[derive(Args, Debug)]
pub(crate) struct Answer {
    /// The question's id, from `kapell approvals`.
    id: String,
    #[command(flatten)]
    actor: super::runs::Actor,
    /// Why, for the run's story.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ApprovalView {
    id: String,
    run: String,
    workflow: String,
    step: String,
    kind: String,
    ask: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    show: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

/// Questions of one request.
const PAGE: u32 = 1_000;
/// Most questions that are shown.
const SHOWN_MAX: usize = 10_000;

impl List {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        let approvals = to.client().await?.approvals();
        let mut request = v1::ListApprovalsRequest {
            namespace: to.namespace(),
            run: self.run,
            cursor: String::new(),
            limit: PAGE,
        };
        let mut open = Vec::new();
        loop {
            let page = approvals.list(request.clone()).await?;
            open.extend(page.approvals);
            if page.next_cursor.is_empty() || open.len() >= SHOWN_MAX {
                break;
            }
            request.cursor = page.next_cursor;
        }
        let view = json!({ "approvals": open.iter().map(view).collect::<Vec<_>>() });
        to.output().show(&view, |paint| {
            let mut table = Table::new(&["ID", "WORKFLOW", "STEP", "KIND", "WAITS", "EXPIRES", "QUESTION"]);
            let now = now();
            for one in &open {
                table.row([
                    one.id.clone(),
                    one.workflow.clone(),
                    one.step.clone(),
                    one.kind.clone(),
                    age(one.asked_ms, now),
                    one.expires_ms.map(expires_in).unwrap_or_default(),
                    one.ask.clone(),
                ]);
            }
            table.text(paint)
        })
    }
}

fn expires_in(millis: i64) -> String {
    let left = u64::try_from(millis).unwrap_or(0).saturating_sub(now().0);
    format!("in {}", short(std::time::Duration::from_millis(left)))
}

fn view(approval: &v1::Approval) -> ApprovalView {
    ApprovalView {
        id: approval.id.clone(),
        run: approval.run.clone(),
        workflow: approval.workflow.clone(),
        step: approval.step.clone(),
        kind: approval.kind.clone(),
        ask: approval.ask.clone(),
        show: embedded(&approval.show).filter(|shown| !shown.is_null()),
        asked: rfc3339(approval.asked_ms),
        expires: approval.expires_ms.and_then(rfc3339),
    }
}

impl Approve {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        let result = json_or_empty(self.result.as_ref(), "--result")?;
        let Answer { id, actor, reason } = self.answer;
        decide(to, v1::DecideApprovalRequest { id, approved: true, by: actor.by, reason, result }).await
    }
}

impl Answer {
    /// A no.
    pub(crate) async fn reject(self, to: &ClientSettings) -> Result<(), Failure> {
        let Answer { id, actor, reason } = self;
        let result = String::new();
        decide(to, v1::DecideApprovalRequest { id, approved: false, by: actor.by, reason, result }).await
    }
}

async fn decide(to: &ClientSettings, request: v1::DecideApprovalRequest) -> Result<(), Failure> {
    let (id, approved) = (request.id.clone(), request.approved);
    let answer = to.client().await?.approvals().decide(request).await?;
    let view = json!({ "id": id, "run": answer.run, "approved": approved });
    to.output().show(&view, |paint| match approved {
        true => format!("{}; run {} goes on\n", paint.good("approved"), answer.run),
        false => format!("{}; run {} is told\n", paint.attention("rejected"), answer.run),
    })
}
