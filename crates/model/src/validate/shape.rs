//! Whether one document has the shape of its kind.
//!
//! Owns: turning what the kind's JSON Schema says into reasons that name the field. Never: looks at another
//! document or compiles an expression.
use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::sync::LazyLock;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde::Deserialize as _;
use serde_json::Value;

use super::problem::ShapeError;
use crate::definition::{API_VERSION, Definition, Kind};
use crate::expr::shorten;
use crate::field::similar;
use crate::schema::{NAME_PATTERN, SPAN_PATTERN, TOOL_REF_PATTERN, json_schema};
use crate::{Name, Span, ToolRef, pointer};

/// Where in the document, and what.
pub(super) type Misshapen = Vec<(String, ShapeError)>;

struct Shape {
    schema: Value,
    /// `None` only if the schema that we generate ourselves were no schema; a test compiles each.
    validator: Option<Validator>,
}

static SHAPES: LazyLock<BTreeMap<Kind, Shape>> = LazyLock::new(|| {
    let shape = |kind| {
        let schema = json_schema(kind);
        let validator = jsonschema::validator_for(&schema).ok();
        (kind, Shape { schema, validator })
    };
    Kind::ALL.into_iter().map(shape).collect()
});

/// The kind that a document says it is of.
pub(super) fn kind_of(document: &Value) -> Option<Kind> {
    let kind = document.get("kind")?.as_str()?;
    Kind::ALL.into_iter().find(|known| known.as_str() == kind)
}

/// The document as a definition, or everything that is wrong with its shape.
pub(super) fn check(document: &Value) -> Result<Definition, Misshapen> {
    if !document.is_object() {
        return Err(vec![(String::new(), ShapeError::NoObject)]);
    }
    let mut wrong = Vec::new();
    check_version(document, &mut wrong);
    let Some(kind) = kind_of(document) else {
        wrong.push(unknown_kind(document));
        return Err(wrong);
    };
    if let Some(shape) = SHAPES.get(&kind)
        && let Some(validator) = &shape.validator
    {
        for error in validator.iter_errors(document) {
            explain(&shape.schema, &error, &mut wrong);
        }
    }
    if !wrong.is_empty() {
        wrong.sort_by(|a, b| a.0.cmp(&b.0));
        wrong.dedup();
        return Err(wrong);
    }
    Definition::deserialize(document)
        .map_err(|error| vec![("/spec".to_owned(), ShapeError::Other(error.to_string()))])
}

fn check_version(document: &Value, wrong: &mut Misshapen) {
    match document.get("apiVersion") {
        Some(Value::String(version)) if version != API_VERSION => {
            wrong.push(("/apiVersion".to_owned(), ShapeError::ApiVersion(version.clone())));
        }
        // A missing one and one of another type is what the schema says.
        Some(_) | None => {}
    }
}

fn unknown_kind(document: &Value) -> (String, ShapeError) {
    match document.get("kind") {
        None => (String::new(), ShapeError::MissingField("kind".to_owned())),
        Some(Value::String(got)) => {
            let near = similar(got, Kind::ALL.into_iter().map(Kind::as_str));
            let near = near.or_else(|| Kind::named(got).map(|kind| kind.to_string()));
            ("/kind".to_owned(), ShapeError::Kind { got: got.clone(), near })
        }
        Some(other) => ("/kind".to_owned(), of_type("string", other)),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum of forty keywords, most of them not ours")]
fn explain(schema: &Value, error: &ValidationError<'_>, wrong: &mut Misshapen) {
    let at = error.instance_path().to_string();
    let keyword_at = error.schema_path().to_string();
    // The schema object that holds the keyword.
    let here =
        keyword_at.rsplit_once('/').and_then(|(around, _)| schema.pointer(around)).unwrap_or(&Value::Null);
    let value = error.instance();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let known = members(here);
            for name in unexpected {
                let near = similar(name, known.iter().map(String::as_str));
                let unknown = ShapeError::UnknownField { name: name.clone(), near, known: known.clone() };
                wrong.push((pointer::join(&at, name), unknown));
            }
        }
        ValidationErrorKind::Required { property } => {
            wrong.push((at, ShapeError::MissingField(text_of(property))));
        }
        ValidationErrorKind::Type { kind } => wrong.push((at, of_type(&expected(kind), value))),
        ValidationErrorKind::OneOfNotValid { context } => {
            explain_choice(schema, here, context, &at, value, wrong)
        }
        ValidationErrorKind::OneOfMultipleValid { .. } => wrong.push((at, exactly_one(here, value))),
        ValidationErrorKind::Constant { .. } if at == "/apiVersion" => {}
        ValidationErrorKind::Constant { expected_value } => {
            wrong.push((at, ShapeError::Constant(text_of(expected_value))));
        }
        ValidationErrorKind::Pattern { pattern } => {
            let fallback = || ShapeError::Other(shorten(&error.to_string()));
            wrong.push((at, bad_text(pattern, value).unwrap_or_else(fallback)));
        }
        _ => wrong.push((at, ShapeError::Other(shorten(&error.to_string())))),
    }
}

/// A `oneOf` of which no branch fits: says which branch was meant, if that can be told.
fn explain_choice(
    schema: &Value,
    here: &Value,
    context: &[Vec<ValidationError<'static>>],
    at: &str,
    value: &Value,
    wrong: &mut Misshapen,
) {
    let branches = here["oneOf"].as_array().map_or(&[][..], Vec::as_slice);
    let named: Vec<Option<String>> = branches.iter().map(branch_name).collect();
    match value {
        // A flattened choice is checked beside the object's other members.
        Value::Object(_) if here.get("properties").is_some() => {
            wrong.push((at.to_owned(), exactly_one(here, value)))
        }
        Value::Object(members) => {
            let meant = (0_usize..).zip(&named).find(|(_, name)| {
                members.len() == 1 && name.as_ref().is_some_and(|name| members.contains_key(name))
            });
            match meant.and_then(|(branch, _)| context.get(branch)) {
                Some(errors) => errors.iter().for_each(|error| explain(schema, error, wrong)),
                None => wrong.push((at.to_owned(), exactly_one(here, value))),
            }
        }
        Value::String(got) if branches.iter().any(|branch| branch.get("const").is_some()) => {
            let allowed: Vec<String> = named.into_iter().flatten().collect();
            wrong.push((at.to_owned(), ShapeError::Choice { got: got.clone(), allowed }));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::String(_) => {
            let allowed: Vec<String> = named.into_iter().flatten().map(|name| format!("`{name}`")).collect();
            // A text is not repeated: where a secret's source belongs, it may be the secret.
            let found = if value.is_string() { "text".to_owned() } else { found(value) };
            let error = ShapeError::Type { expected: allowed.join(" or "), found, quotable: false };
            wrong.push((at.to_owned(), error));
        }
    }
}

/// The word or the only field by which people choose a branch.
fn branch_name(branch: &Value) -> Option<String> {
    let word = branch.get("const").or_else(|| branch.get("required")?.get(0))?;
    word.as_str().map(str::to_owned)
}

fn exactly_one(here: &Value, value: &Value) -> ShapeError {
    let branches = here["oneOf"].as_array().map_or(&[][..], Vec::as_slice);
    let of: Vec<String> = branches.iter().filter_map(branch_name).collect();
    let found = of.iter().filter(|name| value.get(name.as_str()).is_some()).cloned().collect();
    ShapeError::ExactlyOne { of, found }
}

fn members(schema: &Value) -> Vec<String> {
    schema["properties"].as_object().map(|members| members.keys().cloned().collect()).unwrap_or_default()
}

fn expected(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => one.to_string(),
        TypeKind::Multiple(several) => several
            .iter()
            .map(|one| one.to_string())
            .filter(|one| one != "null")
            .collect::<Vec<_>>()
            .join(" or "),
    }
}

fn of_type(expected: &str, value: &Value) -> ShapeError {
    let quotable = expected == "string" && (value.is_boolean() || value.is_number());
    let expected = match expected {
        "string" => "text".to_owned(),
        "integer" => "a whole number".to_owned(),
        "array" => "a list".to_owned(),
        "object" => "an object".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => other.to_owned(),
    };
    ShapeError::Type { expected, found: found(value), quotable }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) | Value::Number(_) => format!("`{value}`"),
        Value::String(text) => format!("the text `{}`", shorten(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn bad_text(pattern: &str, value: &Value) -> Option<ShapeError> {
    let text = value.as_str()?;
    match pattern {
        NAME_PATTERN => Name::new(text).err().map(ShapeError::Name),
        SPAN_PATTERN => Span::from_str(text).err().map(ShapeError::Span),
        TOOL_REF_PATTERN => ToolRef::from_str(text).err().map(ShapeError::ToolRef),
        _ => None,
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
