use super::*;

#[test]
fn every_kind_has_a_schema_of_the_newest_draft() {
    for kind in Kind::ALL {
        let schema = json_schema(kind);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["title"], kind.as_str());
        assert_eq!(schema["properties"]["kind"]["const"], kind.as_str());
        assert_eq!(schema["properties"]["apiVersion"]["const"], "kapell.dev/v1");
        assert_eq!(schema["required"], json!(["apiVersion", "kind", "metadata", "spec"]));
        assert!(schema["description"].as_str().is_some_and(|about| about.len() > 10), "{kind}");
        assert!(jsonschema::meta::is_valid(&schema), "{kind}");
        assert!(jsonschema::validator_for(&schema).is_ok(), "{kind}");
    }
}

#[test]
fn every_object_is_closed_and_every_member_described() {
    fn walk(at: &str, schema: &Value) {
        if let Some(members) = schema.get("properties").and_then(Value::as_object) {
            assert!(schema["additionalProperties"] == json!(false), "{at} is open: {schema}");
            assert!(schema.get("unevaluatedProperties").is_none(), "{at}");
            for (name, member) in members {
                // Fields of struct variants are described by the variant.
                assert!(
                    member.get("description").is_some() || at.contains("oneOf"),
                    "{at}/{name} says nothing"
                );
                walk(&format!("{at}/{name}"), member);
            }
        }
        if let Some(items) = schema.get("items") {
            walk(&format!("{at}/items"), items);
        }
        for (place, branch) in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            walk(&format!("{at}/oneOf/{place}"), branch);
        }
    }
    Kind::ALL.into_iter().for_each(|kind| walk(kind.as_str(), &json_schema(kind)));
}

#[test]
fn a_flattened_choice_is_members_of_which_one_is_required() {
    let schema = json_schema(Kind::Policy);
    let rule = &schema["properties"]["spec"]["properties"]["rules"]["items"];
    assert_eq!(rule["oneOf"], json!([{"required": ["deny"]}, {"required": ["ask"]}, {"required": ["cap"]}]));
    assert_eq!(rule["required"], json!(["reason"]));
    let members: Vec<&String> = rule["properties"].as_object().unwrap().keys().collect();
    assert_eq!(members, ["ask", "cap", "deny", "reason", "when"]);
    assert_eq!(rule["properties"]["deny"]["const"], true);
    let limits = &json_schema(Kind::Connection)["properties"]["spec"]["properties"]["limits"];
    assert_eq!(limits["properties"]["concurrency"]["maximum"], u32::MAX);
}
