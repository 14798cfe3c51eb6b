//! `docs/reference/definitions.md` says what the published schemas say.
//!
//! `KAPELL_BLESS=1 cargo test -p kapell-model --test reference` writes it anew.
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use kapell_model::definition::Kind;
use kapell_model::json_schema;
use serde_json::Value;

const BEGIN: &str = "<!-- from here on written from the schemas; see crates/model/tests/reference.rs -->";

fn rows(into: &mut String, at: &str, schema: &Value, needed: &str) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let choices: Vec<&str> = schema["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|branch| branch["required"][0].as_str())
        .collect();
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        let need = if required.contains(&name.as_str()) {
            needed
        } else if choices.contains(&name.as_str()) {
            "one of"
        } else {
            ""
        };
        let about = member["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        writeln!(into, "| `{path}` | {} | {need} | {about}{} |", kind_of(member), default_of(member))
            .expect("text can be written");
        let inside = if member["items"]["properties"].is_object() { &member["items"] } else { member };
        let mark = if member["items"].is_object() { "[]" } else { "" };
        rows(into, &format!("{path}{mark}"), inside, "yes");
        for branch in
            inside["oneOf"].as_array().into_iter().flatten().filter(|_| inside["properties"].is_null())
        {
            rows(into, &format!("{path}{mark}"), branch, "one of");
        }
        for branch in member["items"]["oneOf"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|_| inside["properties"].is_null())
        {
            rows(into, &format!("{path}[]"), branch, "one of");
        }
    }
}

fn kind_of(schema: &Value) -> String {
    if let Some(word) = schema.get("const") {
        return format!("`{}`", word.as_str().map_or_else(|| word.to_string(), str::to_owned));
    }
    if let (Some(branches), true) = (schema["oneOf"].as_array(), schema["properties"].is_null()) {
        let words =
            branches.iter().filter_map(|branch| branch["const"].as_str().or(branch["required"][0].as_str()));
        return words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    match &schema["type"] {
        Value::String(one) => one.clone(),
        Value::Array(several) => {
            several.iter().filter_map(Value::as_str).filter(|one| *one != "null").collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => "any".to_owned(),
    }
}

fn default_of(schema: &Value) -> String {
    match schema.get("default") {
        None | Some(Value::Object(_)) => String::new(),
        Some(Value::String(text)) if text.is_empty() => String::new(),
        Some(Value::String(text)) => format!(" Default: `{text}`."),
        Some(other) => format!(" Default: `{other}`."),
    }
}

#[test]
fn the_reference_page_says_what_the_schemas_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/definitions.md");
    let page = fs::read_to_string(&path).expect("the page exists");
    let (written, _) = page.split_once(BEGIN).expect("the page has a generated part");
    let mut expected = format!("{written}{BEGIN}\n");
    for kind in Kind::ALL {
        let schema = json_schema(kind);
        write!(expected, "\n## {kind}\n\n{}\n\n", schema["description"].as_str().unwrap()).unwrap();
        expected.push_str("| field | type | required | meaning |\n| --- | --- | --- | --- |\n");
        rows(&mut expected, "spec", &schema["properties"]["spec"], "yes");
    }
    if std::env::var_os("KAPELL_BLESS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    assert!(
        page == expected || std::env::var_os("KAPELL_BLESS").is_some(),
        "run with KAPELL_BLESS=1 and look at the difference"
    );
}
