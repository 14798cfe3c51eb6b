//! `kapell event send`.
use std::collections::HashMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use kapell_client::cloudevents::CloudEvent;
use kapell_client::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use kapell_client::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use kapell_client::v1;
use kapell_runtime::{Entropy as _, SystemEntropy};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::connection::ClientSettings;
use super::failure::{Exit, Failure};
use super::given::{JsonArgument, json_or_empty, read_text};
use super::output::{Paint, visible};

/// What can be done with events.
#[derive(Subcommand, Debug)]
pub(crate) enum EventCommand {
    /// Send events; they start runs and wake steps that wait for them.
    ///
    /// The same source and id is the same event, however often it is sent.
    /// Example: kapell event send --type order.placed --source /shop --data '{"order": 7}'
    /// Example: kapell event send -f event.json
    #[command(verbatim_doc_comment)]
    Send(Send),
}

/// The event, or where it is written.
#[derive(Args, Debug)]
pub(crate) struct Send {
    /// CloudEvents in JSON: one, or an array of up to 1,000; - is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["event_type", "source", "id", "subject", "data"])]
    file: Option<PathBuf>,
    /// CloudEvents type.
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "file")]
    event_type: Option<String>,
    /// Where the event comes from, a URI reference such as /shop.
    #[arg(long, required_unless_present = "file")]
    source: Option<String>,
    /// Unique among the events of the source; left out: a new one.
    #[arg(long)]
    id: Option<String>,
    /// What it is about.
    #[arg(long)]
    subject: Option<String>,
    /// Data: JSON, @FILE, or @- for standard input.
    #[arg(long, value_name = "JSON|@FILE")]
    data: Option<JsonArgument>,
}

/// Largest file of events.
const FILE_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResultView {
    id: String,
    accepted: bool,
    runs: Vec<Value>,
    /// Waiting steps that it woke.
    delivered: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Value>,
}

impl EventCommand {
    pub(crate) async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        match self {
            EventCommand::Send(send) => send.run(to).await,
        }
    }
}

impl Send {
    async fn run(self, to: &ClientSettings) -> Result<(), Failure> {
        let events = match &self.file {
            Some(file) => from_json(&read_text(file, FILE_BYTES_MAX)?, &file.display().to_string())?,
            None => vec![self.event()?],
        };
        let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
        let request = v1::PublishRequest { namespace: to.namespace(), events };
        let answer = to.client().await?.events().publish(request).await?;
        let view = json!({ "results": ids.iter().zip(&answer.results).map(|(id, result)| view(id, result)).collect::<Vec<_>>() });
        to.output().show(&view, |paint| {
            ids.iter().zip(&answer.results).map(|(id, result)| text(id, result, paint)).collect()
        })?;
        judged(&answer.results)
    }

    fn event(self) -> Result<CloudEvent, Failure> {
        let mut event = CloudEvent {
            id: self.id.unwrap_or_else(|| format!("{:032x}", SystemEntropy.next_u128())),
            source: self.source.unwrap_or_default(),
            spec_version: "1.0".to_owned(),
            r#type: self.event_type.unwrap_or_default(),
            ..CloudEvent::default()
        };
        let data = json_or_empty(self.data.as_ref(), "--data")?;
        if !data.is_empty() {
            set(&mut event.attributes, "datacontenttype", Attr::CeString("application/json".to_owned()));
            event.data = Some(Data::TextData(data));
        }
        if let Some(subject) = self.subject {
            set(&mut event.attributes, "subject", Attr::CeString(subject));
        }
        Ok(event)
    }
}

fn set(attributes: &mut HashMap<String, CloudEventAttributeValue>, name: &str, value: Attr) {
    attributes.insert(name.to_owned(), CloudEventAttributeValue { attr: Some(value) });
}

/// One event or an array of them in the JSON format of CloudEvents. Whether they are valid is the coordinator's to say.
fn from_json(text: &str, file: &str) -> Result<Vec<CloudEvent>, Failure> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Failure::invalid(format!("{file}: this is no JSON: {error}")))?;
    let events = if let Value::Array(events) = value { events } else { vec![value] };
    let read = events.into_iter().map(|event| {
        let Value::Object(members) = event else {
            return Err(Failure::invalid(format!("{file}: an event is a JSON object")));
        };
        one_from_json(members, file)
    });
    read.collect()
}

fn one_from_json(mut members: Map<String, Value>, file: &str) -> Result<CloudEvent, Failure> {
    let mut text = |name: &str| match members.remove(name) {
        // A missing one is the coordinator's to complain about, in its own words.
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Failure::invalid(format!("{file}: `{name}` of an event must be a text"))),
    };
    let mut event = CloudEvent {
        id: text("id")?,
        source: text("source")?,
        spec_version: text("specversion")?,
        r#type: text("type")?,
        ..CloudEvent::default()
    };
    let (data, bytes) = (members.remove("data"), members.remove("data_base64"));
    event.data = match (data, bytes) {
        (None, None) => None,
        (Some(data), None) => {
            let content_type = members.get("datacontenttype").and_then(Value::as_str);
            let is_text = content_type.is_some_and(|name| !name.contains("json"));
            if content_type.is_none() {
                members.insert("datacontenttype".to_owned(), "application/json".into());
            }
            let text = data.as_str().filter(|_| is_text).map_or_else(|| data.to_string(), str::to_owned);
            Some(Data::TextData(text))
        }
        (None, Some(bytes)) => {
            let bytes = bytes.as_str().and_then(|text| STANDARD.decode(text).ok());
            let wrong = || Failure::invalid(format!("{file}: `data_base64` of an event must be base64"));
            Some(Data::BinaryData(bytes.ok_or_else(wrong)?))
        }
        (Some(_), Some(_)) => {
            return Err(Failure::invalid(format!("{file}: an event has `data` or `data_base64`, not both")));
        }
    };
    for (name, value) in members {
        let value = match value {
            Value::Null => continue,
            Value::Bool(truth) => Attr::CeBoolean(truth),
            Value::String(text) => Attr::CeString(text),
            Value::Number(number) => match number.as_i64().and_then(|number| i32::try_from(number).ok()) {
                Some(number) => Attr::CeInteger(number),
                None => Attr::CeString(number.to_string()),
            },
            Value::Array(_) | Value::Object(_) => {
                return Err(Failure::invalid(format!(
                    "{file}: attribute `{name}` of an event must be a plain value"
                )));
            }
        };
        set(&mut event.attributes, &name, value);
    }
    Ok(event)
}

fn view(id: &str, result: &v1::PublishResult) -> ResultView {
    let runs = result.runs.iter().map(
        |started| json!({ "run": started.run, "workflow": started.workflow, "duplicate": started.duplicate }),
    );
    let refusal = result.refusal.as_ref().map(|refusal| {
        json!({ "code": refusal.code, "message": refusal.message, "retryAfterMs": refusal.retry_after_ms })
    });
    ResultView {
        id: id.to_owned(),
        accepted: refusal.is_none(),
        runs: runs.collect(),
        delivered: result.delivered,
        refusal,
    }
}

fn text(id: &str, result: &v1::PublishResult, paint: Paint) -> String {
    if let Some(refusal) = &result.refusal {
        return format!("{id}: {}: {}: {}\n", paint.bad("refused"), refusal.code, visible(&refusal.message));
    }
    let mut text = format!("{id}: {}", paint.good("accepted"));
    if result.delivered > 0 {
        text.push_str(&format!(", woke {}", result.delivered));
    }
    if result.runs.is_empty() && result.delivered == 0 {
        text.push_str(", nobody waits for it");
    }
    text.push('\n');
    for started in &result.runs {
        let before = if started.duplicate { " (the event had come before)" } else { "" };
        text.push_str(&format!("  {} {}{before}\n", started.run, started.workflow));
    }
    text
}

/// Every event must be accepted; what can be tried again is told apart from what cannot.
fn judged(results: &[v1::PublishResult]) -> Result<(), Failure> {
    let refusals: Vec<_> = results.iter().filter_map(|result| result.refusal.as_ref()).collect();
    match refusals.as_slice() {
        [] => Ok(()),
        refusals if refusals.iter().all(|refusal| refusal.retry_after_ms.is_some()) => {
            Err(Failure::Shown(Exit::RefusedForNow))
        }
        _ => Err(Failure::Shown(Exit::Invalid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_keeps_its_attributes_and_data() {
        let text = r#"[{"specversion":"1.0","id":"1","source":"/shop","type":"order","subject":"o-7","data":{"n":1}},
                       {"specversion":"1.0","id":"2","source":"/shop","type":"note","datacontenttype":"text/plain",
                        "data":"hello","hops":3}]"#;
        let events = from_json(text, "events.json").unwrap();
        assert_eq!(events[0].data, Some(Data::TextData("{\"n\":1}".to_owned())));
        let subject = &events[0].attributes["subject"];
        assert_eq!(subject.attr, Some(Attr::CeString("o-7".to_owned())));
        assert_eq!(events[1].data, Some(Data::TextData("hello".to_owned())));
        assert_eq!(events[1].attributes["hops"].attr, Some(Attr::CeInteger(3)));
    }

    #[test]
    fn one_final_refusal_makes_it_useless_to_try_again() {
        let refused = |retry_after_ms| v1::PublishResult {
            refusal: Some(v1::Refusal { code: "busy".to_owned(), message: String::new(), retry_after_ms }),
            ..v1::PublishResult::default()
        };
        let ends = |results: &[v1::PublishResult], wanted: Exit| matches!(judged(results), Err(Failure::Shown(exit)) if exit == wanted);
        assert!(ends(&[refused(Some(5))], Exit::RefusedForNow));
        assert!(ends(&[refused(Some(5)), refused(None)], Exit::Invalid));
        assert!(judged(&[v1::PublishResult::default()]).is_ok());
    }
}
