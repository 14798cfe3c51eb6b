//! Events that Kapell makes itself: a run started by hand, a signal, a subworkflow.
use kapell_kernel::Rejected;
use kapell_model::Json;
use kapell_model::limits::PAYLOAD_BYTES_MAX;
use kapell_wire::cloud_event::Event;

/// A CloudEvent in canonical form (members sorted) around data that is JSON already.
pub(crate) fn own_event(
    event_type: &str,
    source: &str,
    id: &str,
    subject: Option<&str>,
    data: &Json,
) -> Result<Event, Rejected> {
    let subject_member =
        subject.map_or_else(String::new, |subject| format!(",\"subject\":{}", Json::string(subject)));
    let text = format!(
        "{{\"data\":{data},\"id\":{},\"source\":{},\"specversion\":\"1.0\"{subject_member},\"type\":{}}}",
        Json::string(id),
        Json::string(source),
        Json::string(event_type),
    );
    if text.len() > PAYLOAD_BYTES_MAX {
        return Err(Rejected::TooLarge { what: "the event", bytes: text.len(), most: PAYLOAD_BYTES_MAX });
    }
    Ok(Event {
        id: id.into(),
        source: source.into(),
        event_type: event_type.into(),
        subject: subject.map(Into::into),
        json: Json::trusted(&text),
    })
}
