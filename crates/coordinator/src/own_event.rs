//! Events that Kapell makes itself: a run started by hand or by a schedule, a signal, a subworkflow.
use kapell_kernel::{Accepted, Rejected};
use kapell_model::limits::PAYLOAD_BYTES_MAX;
use kapell_model::{Json, Name, RunId, Timestamp};
use kapell_wire::cloud_event::Event;

/// `type` of the event with which a schedule starts a run.
const TICK: &str = "kapell.schedule.tick";
/// `source` of such an event, before the schedule's name.
const SCHEDULES: &str = "/kapell/schedules/";

/// What an event of our own says.
pub(crate) struct OwnEvent<'a> {
    pub(crate) event_type: &'a str,
    pub(crate) source: &'a str,
    pub(crate) id: &'a str,
    pub(crate) subject: Option<&'a str>,
    /// When it happened, where that is not the moment in which it is made.
    pub(crate) time: Option<Timestamp>,
    pub(crate) data: &'a Json,
}

impl OwnEvent<'_> {
    /// The CloudEvent in canonical form: members sorted, around data that is JSON already.
    pub(crate) fn make(&self) -> Result<Event, Rejected> {
        let member = |name: &str, text: Option<Json>| {
            text.map_or_else(String::new, |text| format!(",\"{name}\":{text}"))
        };
        let text = format!(
            "{{\"data\":{},\"id\":{},\"source\":{},\"specversion\":\"1.0\"{}{},\"type\":{}}}",
            self.data,
            Json::string(self.id),
            Json::string(self.source),
            member("subject", self.subject.map(Json::string)),
            member("time", self.time.map(|time| Json::string(&time.to_string()))),
            Json::string(self.event_type),
        );
        if text.len() > PAYLOAD_BYTES_MAX {
            return Err(Rejected::TooLarge { what: "the event", bytes: text.len(), most: PAYLOAD_BYTES_MAX });
        }
        Ok(Event {
            id: self.id.into(),
            source: self.source.into(),
            event_type: self.event_type.into(),
            subject: self.subject.map(Into::into),
            json: Json::trusted(&text),
        })
    }
}

/// The event with which a schedule starts a run.
pub(crate) fn tick_event(schedule: &Name, tick: Timestamp, with: &Json) -> Result<Event, Rejected> {
    let (source, id) = (format!("{SCHEDULES}{schedule}"), tick.to_string());
    OwnEvent { event_type: TICK, source: &source, id: &id, subject: None, time: Some(tick), data: with }
        .make()
}

/// What stands above a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Above {
    /// Nothing: an event started it, or somebody by hand.
    Nothing,
    /// The run of which it is a step.
    Run(RunId),
    /// The schedule of this name, in the run's namespace, for this tick.
    Schedule(String, String),
}

impl Above {
    /// Only we make an event for a run that has something above it, so its type can be trusted. It stands last.
    pub(crate) fn of(accepted: &Accepted) -> Above {
        let Some(parent) = accepted.parent else { return Above::Nothing };
        if !accepted.event.as_str().ends_with(&format!("\"type\":\"{TICK}\"}}")) {
            return Above::Run(parent.run);
        }
        let event = accepted.event.value();
        let text = |member: &str| event[member].as_str().unwrap_or_default().to_owned();
        Above::Schedule(text("source").trim_start_matches(SCHEDULES).to_owned(), text("time"))
    }

    /// The run above it.
    pub(crate) fn run(&self) -> Option<RunId> {
        match self {
            Above::Run(run) => Some(*run),
            Above::Nothing | Above::Schedule(..) => None,
        }
    }

    /// The schedule above it.
    pub(crate) fn schedule(&self) -> Option<&str> {
        match self {
            Above::Schedule(name, _) => Some(name),
            Above::Nothing | Above::Run(_) => None,
        }
    }
}
