//! JSON Schemas of the vocabulary's own types, for editors and for checking documents.
//!
//! Owns: how a name, a span and a tool reference look in a schema.
use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{Name, Span, ToolRef};

macro_rules! text_schema {
    ($type:ty, $name:literal, $pattern:literal, $about:literal) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $about })
            }
        }
    };
}

text_schema!(
    Name,
    "Name",
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    "1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends"
);
text_schema!(Span, "Span", "^([0-9]+(ms|s|m|h|d))+$", "A duration such as 250ms, 30s, 1h30m or 7d");
text_schema!(ToolRef, "ToolRef", "^[a-z0-9-]+/[^/]+$", "CONNECTION/TOOL, such as shop-north/set-price");
