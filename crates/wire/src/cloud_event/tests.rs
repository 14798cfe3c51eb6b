use kapell_model::limits::PAYLOAD_BYTES_MAX;
use kapell_proto::cloudevents::CloudEvent;
use kapell_proto::cloudevents::cloud_event::cloud_event_attribute_value::Attr;
use kapell_proto::cloudevents::cloud_event::{CloudEventAttributeValue, Data};
use serde_json::{Value, json};

use super::*;

fn structured(event: &Value) -> Result<Event, BadEvent> {
    Event::from_json(event.to_string().as_bytes())
}

fn with(change: Value) -> Value {
    let mut event = json!({"specversion": "1.0", "id": "7", "source": "/shop", "type": "com.example.sold"});
    for (name, value) in change.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

fn http(headers: &[(&str, &str)], content_type: Option<&str>, body: &[u8]) -> Result<Event, BadEvent> {
    let base =
        [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/shop"), ("ce-type", "com.example.sold")];
    let all = base.iter().chain(headers).map(|(name, value)| (*name, value.as_bytes()));
    Event::from_http(all, content_type, body)
}

fn sent() -> CloudEvent {
    CloudEvent {
        id: "7".into(),
        source: "/shop".into(),
        spec_version: "1.0".into(),
        r#type: "com.example.sold".into(),
        ..CloudEvent::default()
    }
}

fn attribute(attr: Attr) -> CloudEventAttributeValue {
    CloudEventAttributeValue { attr: Some(attr) }
}

#[test]
fn an_event_has_one_canonical_text_whatever_form_it_came_in() {
    let data = json!({"z": 1, "a": [true, null]});
    let rest = json!({"subject": "sku-1", "time": "2026-01-02T03:04:05Z", "datacontenttype": "application/json",
        "channel": "web", "data": data});
    let expected = structured(&with(rest)).unwrap();
    assert_eq!(
        expected.json.as_str(),
        r#"{"channel":"web","data":{"a":[true,null],"z":1},"datacontenttype":"application/json","id":"7","#
            .to_owned()
            + r#""source":"/shop","specversion":"1.0","subject":"sku-1","time":"2026-01-02T03:04:05Z","type":"com.example.sold"}"#
    );
    assert_eq!((&*expected.id, &*expected.source, &*expected.event_type), ("7", "/shop", "com.example.sold"));
    assert_eq!(expected.subject.as_deref(), Some("sku-1"));

    let headers =
        [("CE-Subject", "sku-1"), ("ce-time", "2026-01-02T03:04:05Z"), ("ce-channel", "web"), ("host", "x")];
    let binary = http(&headers, Some("application/json"), data.to_string().as_bytes()).unwrap();
    assert_eq!(binary, expected);

    for body in [Data::TextData(data.to_string()), Data::BinaryData(data.to_string().into_bytes())] {
        let mut event = sent();
        event.data = Some(body);
        let time = prost_types::Timestamp { seconds: 1_767_323_045, nanos: 0 };
        event.attributes.extend([
            ("subject".to_owned(), attribute(Attr::CeString("sku-1".into()))),
            ("time".to_owned(), attribute(Attr::CeTimestamp(time))),
            ("datacontenttype".to_owned(), attribute(Attr::CeString("application/json".into()))),
            ("channel".to_owned(), attribute(Attr::CeString("web".into()))),
        ]);
        assert_eq!(Event::from_proto(event).unwrap(), expected);
    }
    let again = Event::from_json(expected.json.as_str().as_bytes()).unwrap();
    assert_eq!(again, expected, "the canonical text is read as it is");
}

#[test]
fn data_is_shown_as_its_content_type_says() {
    let data = |event: Event| {
        let value = event.json.value();
        (value.get("data").cloned(), value.get("data_base64").cloned())
    };
    let text = |text: &str| (Some(json!(text)), None);
    // The JSON format.
    assert_eq!(data(structured(&with(json!({}))).unwrap()), (None, None));
    assert_eq!(data(structured(&with(json!({"data": null}))).unwrap()), (Some(Value::Null), None));
    let xml = with(json!({"datacontenttype": "text/xml", "data": "<a/>"}));
    assert_eq!(data(structured(&xml).unwrap()), text("<a/>"));
    let bytes = with(json!({"data_base64": "AAEC"}));
    assert_eq!(data(structured(&bytes).unwrap()), (None, Some(json!("AAEC"))));
    let hidden =
        with(json!({"datacontenttype": "application/vnd.api+json; v=2", "data_base64": "eyJhIjoxfQ=="}));
    assert_eq!(data(structured(&hidden).unwrap()), (Some(json!({"a": 1})), None));
    let words = with(json!({"datacontenttype": "application/json", "data": "{\"a\":1}"}));
    assert_eq!(data(structured(&words).unwrap()), text("{\"a\":1}"), "a JSON string stays a string");
    // Binary mode.
    assert_eq!(data(http(&[], None, b"").unwrap()), (None, None));
    assert_eq!(data(http(&[], None, b"abc").unwrap()), (None, Some(json!("YWJj"))));
    assert_eq!(data(http(&[], Some("text/plain; charset=utf-8"), "ä".as_bytes()).unwrap()), text("ä"));
    assert_eq!(data(http(&[], Some("text/plain"), &[0xff]).unwrap()), (None, Some(json!("/w=="))));
    assert_eq!(data(http(&[], Some("Text/JSON"), b"[1]").unwrap()), (Some(json!([1])), None));
    // Protobuf.
    let of = |data| Event::from_proto(CloudEvent { data: Some(data), ..sent() }).unwrap();
    assert_eq!(data(of(Data::TextData("[1]".into()))), text("[1]"), "no content type, so no JSON");
    assert_eq!(data(of(Data::BinaryData(vec![0, 1, 2]))), (None, Some(json!("AAEC"))));
}

#[test]
fn extensions_keep_their_types() {
    let event =
        structured(&with(json!({"flag": true, "count": -2_147_483_648_i64, "none": null, "text": ""})));
    let value = event.unwrap().json.value();
    assert_eq!(
        (&value["flag"], &value["count"], &value["text"]),
        (&json!(true), &json!(-2_147_483_648_i64), &json!(""))
    );
    assert_eq!(value.get("none"), None);
    let mut event = sent();
    event.attributes.extend([
        ("flag".to_owned(), attribute(Attr::CeBoolean(true))),
        ("count".to_owned(), attribute(Attr::CeInteger(5))),
        ("raw".to_owned(), attribute(Attr::CeBytes(vec![255]))),
        ("link".to_owned(), attribute(Attr::CeUri("https://example.com/a".into()))),
        ("unset".to_owned(), CloudEventAttributeValue { attr: None }),
    ]);
    let value = Event::from_proto(event).unwrap().json.value();
    assert_eq!((&value["flag"], &value["count"], &value["raw"]), (&json!(true), &json!(5), &json!("/w==")));
    assert_eq!((value["link"].as_str(), value.get("unset")), (Some("https://example.com/a"), None));
}

#[test]
fn header_values_are_unquoted_and_percent_decoded_once() {
    let told = |value| http(&[("ce-note", value)], None, b"").map(|event| event.json.value()["note"].clone());
    assert_eq!(told("Euro %E2%82%AC%20%F0%9F%98%80"), Ok(json!("Euro € 😀")));
    assert_eq!(told("100%"), Ok(json!("100%")));
    assert_eq!(told("%2541"), Ok(json!("%41")));
    assert_eq!(told(r#""a \"b\" %41""#), Ok(json!(r#"a "b" A"#)));
    assert_eq!(told("%ff"), Err(BadEvent::NotUtf8("note".into())));
    assert_eq!(told("%0a"), Err(BadEvent::Control("note".into())));
    assert_eq!(http(&[("ce-note", "a"), ("Ce-Note", "b")], None, b""), Err(BadEvent::Twice("note".into())));
    assert_eq!(http(&[("ce-datacontenttype", "a")], None, b""), Err(BadEvent::ContentTypeHeader));
    assert_eq!(http(&[("ce-data", "a")], None, b""), Err(BadEvent::Name("data".into())));
}

/// table: a change to a good event, and why it is refused.
#[test]
fn a_bad_event_is_refused_with_its_reason() {
    let long = "n".repeat(100);
    let refused = [
        (json!({"specversion": "0.3"}), BadEvent::SpecVersion("0.3".into())),
        (json!({"specversion": null}), BadEvent::Missing("specversion")),
        (json!({"id": null}), BadEvent::Missing("id")),
        (json!({"id": ""}), BadEvent::Empty("id".into())),
        (json!({"source": ""}), BadEvent::Empty("source".into())),
        (json!({"source": "a shop"}), BadEvent::Source("a shop".into())),
        (json!({"type": 5}), BadEvent::Value("type".into())),
        (json!({"subject": ""}), BadEvent::Empty("subject".into())),
        (json!({"id": "a\u{0}"}), BadEvent::Control("id".into())),
        (json!({"time": "yesterday"}), BadEvent::Time("yesterday".into())),
        (json!({"time": "2026-01-02T03:04:05"}), BadEvent::Time("2026-01-02T03:04:05".into())),
        (json!({"time": "2026-13-02T03:04:05Z"}), BadEvent::Time("2026-13-02T03:04:05Z".into())),
        (json!({"vendorId": "x"}), BadEvent::Name("vendorId".into())),
        (json!({"vendor_id": "x"}), BadEvent::Name("vendor_id".into())),
        (json!({"": "x"}), BadEvent::Name(String::new())),
        (json!({"Ä": "x", (long.to_uppercase()): "x"}), BadEvent::Name(long[..80].to_uppercase())),
        (json!({"list": [1]}), BadEvent::Value("list".into())),
        (json!({"object": {}}), BadEvent::Value("object".into())),
        (json!({"count": 2_147_483_648_i64}), BadEvent::Value("count".into())),
        (json!({"count": 1.5}), BadEvent::Value("count".into())),
        (json!({"data_base64": "%"}), BadEvent::Base64),
        (json!({"data_base64": 5}), BadEvent::Base64),
        (json!({"data_base64": "AAEC", "data": 1}), BadEvent::TwoData),
    ];
    for (change, why) in refused {
        assert_eq!(structured(&with(change.clone())), Err(why), "{change}");
    }
    assert!(matches!(Event::from_json(b"{"), Err(BadEvent::NotJson(_))));
    assert_eq!(Event::from_json(b"[]"), Err(BadEvent::NotAnObject));
    let told = http(&[], Some("application/json"), b"{").unwrap_err().to_string();
    assert!(told.contains("its content type `application/json` says that it is"), "{told}");
    assert_eq!(Event::from_proto(CloudEvent::default()), Err(BadEvent::Missing("specversion")));
    let mut event = sent();
    event.attributes.insert("id".to_owned(), attribute(Attr::CeString("8".into())));
    assert_eq!(Event::from_proto(event), Err(BadEvent::Twice("id".into())));
    let mut event = sent();
    let never = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
    event.attributes.insert("time".to_owned(), attribute(Attr::CeTimestamp(never)));
    assert!(matches!(Event::from_proto(event), Err(BadEvent::Time(_))));
}

#[test]
fn good_times_are_kept_as_they_were_written() {
    for time in ["2026-01-02T03:04:05Z", "1969-12-31T23:59:59.123456789+05:30", "2026-01-02t03:04:05z"] {
        let event = structured(&with(json!({ "time": time }))).unwrap();
        assert_eq!(event.json.value()["time"], json!(time));
    }
}

#[test]
fn an_event_may_be_as_large_as_the_limit_and_no_larger() {
    let around = structured(&with(json!({"data": ""}))).unwrap().json.bytes_len();
    let of = |bytes: usize| structured(&with(json!({"data": "x".repeat(bytes - around)})));
    assert_eq!(of(PAYLOAD_BYTES_MAX).unwrap().json.bytes_len(), PAYLOAD_BYTES_MAX);
    assert_eq!(of(PAYLOAD_BYTES_MAX + 1), Err(BadEvent::TooLarge { bytes: PAYLOAD_BYTES_MAX + 1 }));
    // Base64 makes it larger than what was sent.
    assert!(matches!(http(&[], None, &vec![0; PAYLOAD_BYTES_MAX]), Err(BadEvent::TooLarge { .. })));
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all() {
    let event = |id: usize| with(json!({"id": id.to_string()}));
    let batch = |events: Value| Event::batch_from_json(events.to_string().as_bytes());
    assert_eq!(batch(json!([])), Ok(vec![]));
    let both = batch(json!([event(1), event(2)])).unwrap();
    assert_eq!(both.iter().map(|event| &*event.id).collect::<Vec<_>>(), ["1", "2"]);
    let error = BadEvent::Missing("id");
    assert_eq!(batch(json!([event(1), with(json!({"id": null}))])), Err(BadBatch::Event { at: 1, error }));
    assert!(matches!(batch(event(1)), Err(BadBatch::NotAList(_))));
    let most = (0..BATCH_EVENTS_MAX).map(event).collect::<Vec<_>>();
    assert_eq!(batch(json!(most)).unwrap().len(), BATCH_EVENTS_MAX);
    let more = (0..=BATCH_EVENTS_MAX).map(event).collect::<Vec<_>>();
    assert_eq!(batch(json!(more)), Err(BadBatch::TooMany { events: BATCH_EVENTS_MAX + 1 }));
    let bytes = BATCH_BYTES_MAX + 1;
    assert_eq!(Event::batch_from_json(&vec![b' '; bytes]), Err(BadBatch::TooLarge { bytes }));
}

#[test]
fn the_content_type_says_the_mode() {
    let modes = [
        (None, Some(ContentMode::Binary)),
        (Some("application/json"), Some(ContentMode::Binary)),
        (Some("Application/CloudEvents+JSON; charset=utf-8"), Some(ContentMode::Structured)),
        (Some("application/cloudevents-batch+json"), Some(ContentMode::Batch)),
        (Some("application/cloudevents+avro"), None),
    ];
    for (content_type, mode) in modes {
        assert_eq!(ContentMode::of(content_type), mode, "{content_type:?}");
    }
}
