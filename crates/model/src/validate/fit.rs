//! Whether what is passed on can fit the schema of where it goes, as far as that is known before a run.
//!
//! Owns: constants against schemas, and which properties an object of templates passes. Never: evaluates an
//! expression; what only a run knows is checked in the run.
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value, json};

use super::problem::FitError;
use super::report::Findings;
use crate::expr::shorten;
use crate::field::similar;
use crate::pointer;

/// Where something is passed to.
pub(super) struct Target<'a> {
    /// For people, such as ``skill `pricing.recalculate` ``.
    pub(super) name: String,
    /// Its input schema.
    pub(super) schema: Option<&'a Value>,
}

/// Puts down everything in `source` (a template) that cannot fit the target.
pub(super) fn check(findings: &mut Findings<'_>, source: &Value, target: &Target<'_>) {
    if let Some(root) = target.schema {
        Fit { findings, target: &target.name, root }.value("", source, root);
    }
}

struct Fit<'f, 'r, 'a> {
    findings: &'f mut Findings<'r>,
    target: &'a str,
    root: &'a Value,
}

impl<'a> Fit<'_, '_, 'a> {
    fn value(&mut self, at: &str, source: &Value, schema: &'a Value) {
        let schema = self.resolve(schema);
        if is_constant(source) {
            self.constant(at, source, schema);
            return;
        }
        match source {
            Value::Object(members) => {
                if self.allows(at, schema, "object", "an object") {
                    self.object(at, members, schema);
                }
            }
            Value::Array(items) => {
                if self.allows(at, schema, "array", "a list") {
                    self.list(at, items, schema);
                }
            }
            // One whole hole takes the type of its value, which only the run knows.
            Value::String(text) if !is_one_hole(text) => {
                self.allows(at, schema, "string", "text");
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn object(&mut self, at: &str, members: &Map<String, Value>, schema: &'a Value) {
        let known = schema["properties"].as_object();
        for property in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(property) {
                let error =
                    FitError::Missing { target: self.target.to_owned(), property: property.to_owned() };
                self.findings.add(at, error);
            }
        }
        let closed =
            schema["additionalProperties"] == Value::Bool(false) && schema.get("patternProperties").is_none();
        for (name, member) in members {
            let inside = pointer::join(at, name);
            match known.and_then(|known| known.get(name)) {
                Some(property) => self.value(&inside, member, property),
                None if closed => self.unknown(&inside, name, schema),
                None if schema["additionalProperties"].is_object() => {
                    self.value(&inside, member, &schema["additionalProperties"]);
                }
                None => {}
            }
        }
    }

    fn list(&mut self, at: &str, items: &[Value], schema: &'a Value) {
        let of = &schema["items"];
        if of.is_object() {
            items.iter().enumerate().for_each(|(place, item)| self.value(&format!("{at}/{place}"), item, of));
        }
    }

    fn constant(&mut self, at: &str, source: &Value, schema: &'a Value) {
        // What is no schema is reported where it is defined.
        let Ok(validator) = jsonschema::validator_for(&self.complete(schema)) else { return };
        for error in validator.iter_errors(source) {
            let at = format!("{at}{}", error.instance_path());
            if let ValidationErrorKind::Required { property } = error.kind() {
                let property = property.as_str().unwrap_or_default().to_owned();
                self.findings.add(&at, FitError::Missing { target: self.target.to_owned(), property });
            } else if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
                unexpected.iter().for_each(|name| self.unknown(&pointer::join(&at, name), name, schema));
            } else {
                let reason = shorten(&error.to_string());
                self.findings.add(&at, FitError::Value { target: self.target.to_owned(), reason });
            }
        }
    }

    fn unknown(&mut self, at: &str, property: &str, schema: &Value) {
        let known = schema["properties"].as_object().into_iter().flat_map(Map::keys);
        let near = similar(property, known.map(String::as_str));
        let (target, property) = (self.target.to_owned(), property.to_owned());
        self.findings.add(at, FitError::Unknown { target, property, near });
    }

    fn allows(&mut self, at: &str, schema: &Value, kind: &str, passed: &str) -> bool {
        let allowed = match &schema["type"] {
            Value::String(one) => one == kind,
            Value::Array(several) => several.iter().any(|one| one == kind),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
        };
        if !allowed {
            let reason = format!("{passed} is passed, the type must be {}", schema["type"]);
            self.findings.add(at, FitError::Value { target: self.target.to_owned(), reason });
        }
        allowed
    }

    /// Follows a reference within the schema, once: schemas that refer to references are left to the run.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let target =
            schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
        target.and_then(|target| self.root.pointer(target)).unwrap_or(schema)
    }

    /// A part of the schema that can be compiled alone.
    fn complete(&self, schema: &Value) -> Value {
        let mut complete = schema.clone();
        if let (Some(complete), Some(root)) = (complete.as_object_mut(), self.root.as_object()) {
            for shared in ["$schema", "$defs", "definitions"] {
                if let Some(value) = root.get(shared) {
                    complete.entry(shared).or_insert_with(|| value.clone());
                }
            }
        }
        complete
    }
}

fn is_constant(source: &Value) -> bool {
    match source {
        Value::String(text) => !text.contains("${"),
        Value::Array(items) => items.iter().all(is_constant),
        Value::Object(members) => members.values().all(is_constant),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

fn is_one_hole(text: &str) -> bool {
    text.starts_with("${") && text.ends_with('}') && text.matches("${").count() == 1
}

/// What a step without `with` passes.
pub(super) fn nothing() -> Value {
    json!({})
}
