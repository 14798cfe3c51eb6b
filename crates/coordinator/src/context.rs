//! Gathering context: earlier runs about the same thing, from the ledger.
//!
//! Owns: the small implementation behind the `GatherContext` order. A graph of the business may take its place.
use std::sync::Arc;

use kapell_kernel::{Command, Run};
use kapell_ledger::{Ledger, RunQuery, RunRow};
use kapell_model::definition::{ContextQuery, Recall};
use kapell_model::expr::{Template, scope_of};
use kapell_model::limits::PAYLOAD_BYTES_MAX;
use kapell_model::{Json, RunId};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::answer::answer;
use crate::links::Links;
use crate::shard::{Reply, Request};

/// What is asked about one run.
struct Questions {
    queries: Vec<RunQuery>,
}

/// Answers the order of one run. A ledger that cannot be asked leaves the context empty and says so: context helps
/// judgement, and work must not stand still for it.
pub(crate) async fn gather(links: &Arc<Links>, ledger: Arc<dyn Ledger>, run: RunId) {
    let Some(mailbox) = links.of_run(run) else { return };
    let (reply, asked) = oneshot::channel();
    let look = Box::new(move |found: Option<&Run>| -> Reply<()> {
        let questions = found.map(questions_of);
        Box::new(move |()| answer(reply, questions))
    });
    mailbox.submit(Request::Read(run, look)).await;
    let Ok(Some(questions)) = asked.await else { return };
    let (mut recalled, mut reasons) = (Vec::new(), Vec::<Arc<str>>::new());
    for query in questions.queries {
        let about = query.entity.clone().or_else(|| query.key.clone()).unwrap_or_default();
        match ledger.runs(query).await {
            Ok(page) => {
                reasons.push(
                    format!("{} earlier runs about `{about}`, from the ledger", page.rows.len()).into(),
                );
                recalled.extend(page.rows.iter().filter(|row| row.run != run).map(summary));
            }
            Err(error) => reasons.push(format!("earlier runs about `{about}` are not known: {error}").into()),
        }
    }
    let context = within_limit(recalled, &mut reasons);
    links.tell_run(run, Command::SupplyContext { context, reasons }, Box::new(|_| {}));
}

/// What fits; the last ones are left out, and the reasons say so.
fn within_limit(mut recalled: Vec<Value>, reasons: &mut Vec<Arc<str>>) -> Json {
    let all = recalled.len();
    loop {
        let context = Json::of(&json!({ "recalled": recalled }));
        if context.bytes_len() <= PAYLOAD_BYTES_MAX || recalled.is_empty() {
            let left_out = all - recalled.len();
            if left_out > 0 {
                let most = PAYLOAD_BYTES_MAX;
                reasons.push(
                    format!("{left_out} of {all} earlier runs left out: more than {most} bytes").into(),
                );
            }
            return context;
        }
        // A tenth at a time: measuring costs as much as writing.
        recalled.truncate(recalled.len() - recalled.len().div_ceil(10));
    }
}

fn questions_of(run: &Run) -> Questions {
    let recalls = run.workflow().context.iter().filter_map(|query| match query {
        ContextQuery::Recall(recall) => query_of(run, recall),
        // The graph of the business has no small implementation yet; it answers nothing.
        ContextQuery::Related(_) => None,
    });
    Questions { queries: recalls.collect() }
}

fn query_of(run: &Run, recall: &Recall) -> Option<RunQuery> {
    let namespace = Some(run.workflow().namespace.clone());
    // One more than asked for: the run itself may be among them.
    let limit = recall.limit.clamp(1, 100) as usize + 1;
    match &recall.about {
        Some(source) => {
            let template = Template::compile(&Value::String(source.clone())).ok()?;
            let value = template.eval(&scope_of("event", &run.accepted().event)).ok()?;
            Some(RunQuery {
                namespace,
                entity: value.as_str().map(str::to_owned),
                limit,
                ..RunQuery::default()
            })
        }
        None => {
            let key = run.accepted().key.as_deref()?.to_owned();
            let workflow = Some(run.workflow().name.clone());
            Some(RunQuery { namespace, workflow, key: Some(key), limit, ..RunQuery::default() })
        }
    }
}

fn summary(row: &RunRow) -> Value {
    json!({
        "run": row.run.to_string(),
        "workflow": row.workflow.as_str(),
        "state": row.state.as_str(),
        "accepted": row.accepted.to_string(),
        "ended": row.ended.map(|at| at.to_string()),
        "outcome": row.outcome,
        "error": row.error.as_ref().map(|(class, message)| format!("{class}: {message}")),
        "output": row.output.as_ref().map(Json::value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_is_cut_to_what_a_payload_may_be_and_says_so() {
        // `{"recalled":[""]}` is 17 bytes.
        let one = |bytes: usize| vec![Value::from("x".repeat(bytes - 17))];
        let mut reasons = Vec::new();
        assert_eq!(within_limit(one(PAYLOAD_BYTES_MAX), &mut reasons).bytes_len(), PAYLOAD_BYTES_MAX);
        assert!(reasons.is_empty());
        let cut = within_limit(one(PAYLOAD_BYTES_MAX + 1), &mut reasons);
        assert_eq!(cut.as_str(), r#"{"recalled":[]}"#);
        assert!(reasons[0].starts_with("1 of 1 earlier runs left out"), "{reasons:?}");
        let many = within_limit((0..40).map(|_| Value::from("x".repeat(64 << 10))).collect(), &mut reasons);
        assert!(many.bytes_len() <= PAYLOAD_BYTES_MAX && many.bytes_len() > PAYLOAD_BYTES_MAX * 8 / 10);
    }
}
