//! JSON Schemas of the vocabulary's own types, for editors and for checking documents.
//!
//! Owns: how a name, a span and a tool reference look in a schema, and the published schema of each kind.
//! Never: checks a document (that is `validate`).
use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::definition::{Connection, Connector, Document, Kind, Policy, Schedule, Specialist, Workflow};

use crate::{Name, Span, ToolRef};

pub(crate) const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
pub(crate) const SPAN_PATTERN: &str = "^([0-9]+(ms|s|m|h|d))+$";
pub(crate) const TOOL_REF_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[^/]+$";

macro_rules! text_schema {
    ($type:ty, $name:literal, $pattern:expr, $about:literal) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern, "description": $about })
            }
        }
    };
}

text_schema!(Name, "Name", NAME_PATTERN, "1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends");
text_schema!(Span, "Span", SPAN_PATTERN, "A duration such as 250ms, 30s, 1h30m or 7d");
text_schema!(ToolRef, "ToolRef", TOOL_REF_PATTERN, "CONNECTION/TOOL, such as shop-north/set-price");

/// The JSON Schema of one kind of document, draft 2020-12, complete in itself.
#[must_use]
pub fn json_schema(kind: Kind) -> Value {
    let generator =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
    let (root, about) = match kind {
        Kind::Workflow => root::<Workflow>(generator),
        Kind::Specialist => root::<Specialist>(generator),
        Kind::Connector => root::<Connector>(generator),
        Kind::Connection => root::<Connection>(generator),
        Kind::Policy => root::<Policy>(generator),
        Kind::Schedule => root::<Schedule>(generator),
    };
    let mut schema = root.to_value();
    settle(&mut schema);
    schema["title"] = json!(kind.as_str());
    schema["description"] = about;
    schema["properties"]["kind"] = json!({ "const": kind.as_str(), "description": "Which kind of definition this is.", "type": "string" });
    if let Some(required) = schema["required"].as_array_mut() {
        required.insert(1, json!("kind"));
    }
    schema
}

fn root<S: JsonSchema>(generator: SchemaGenerator) -> (Schema, Value) {
    let about = S::json_schema(&mut generator.clone()).get("description").cloned().unwrap_or_default();
    (generator.into_root_schema_for::<Document<S>>(), about)
}

/// Makes the generated schema say what it means in the plainest keywords, so that editors complete and errors
/// name the field: members of flattened enums become ordinary members of which exactly one is required, and whole
/// numbers get the upper bound of their type.
fn settle(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(settle);
            fields
                .get_mut("oneOf")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
                .for_each(describe_members);
            fold_choice(fields);
            if fields.get("format").is_some_and(|format| format == "uint32") {
                fields.insert("maximum".to_owned(), json!(u32::MAX));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What is said of a branch is said of its only member, where nothing else is.
fn describe_members(branch: &mut Value) {
    let Some(about) = branch.get("description").cloned() else { return };
    let members = branch.get_mut("properties").and_then(Value::as_object_mut);
    for member in members.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        member.entry("description").or_insert_with(|| about.clone());
    }
}

fn fold_choice(fields: &mut Map<String, Value>) {
    if !(fields.contains_key("properties") && fields.contains_key("oneOf")) {
        return;
    }
    let Some(Value::Array(mut branches)) = fields.remove("oneOf") else { return };
    let mut choices = Vec::new();
    for branch in &mut branches {
        let Some(members) = branch.get_mut("properties").and_then(Value::as_object_mut) else { continue };
        for (name, member) in std::mem::take(members) {
            choices.push(json!({ "required": [&name] }));
            fields["properties"][&name] = member;
        }
    }
    fields.insert("oneOf".to_owned(), Value::Array(choices));
    fields.remove("unevaluatedProperties");
    fields.insert("additionalProperties".to_owned(), json!(false));
}

#[cfg(test)]
mod tests;
