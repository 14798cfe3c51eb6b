use serde_json::json;

use super::*;

fn decision(table: Value) -> Result<CompiledDecision, Vec<FieldError>> {
    CompiledDecision::compile(&serde_json::from_value(table).unwrap())
}

#[test]
fn the_first_row_that_holds_gives_the_output() {
    let table = decision(json!({
        "let": { "total": "${input.count * input.price}", "name": "order ${input.id}" },
        "rows": [
            { "when": "local.total > 100", "then": { "level": "board", "about": "${local.name}" } },
            { "when": "local.total > 10", "then": { "level": "lead", "total": "${local.total}" } },
            { "when": "input.count == 0", "then": null }
        ]
    }))
    .unwrap();
    let of = |count: u32| table.evaluate(&json!({"id": 7, "count": count, "price": 11}));
    assert_eq!(of(10).unwrap(), json!({"level": "board", "about": "order 7"}));
    assert_eq!(of(1).unwrap(), json!({"level": "lead", "total": 11}));
    assert_eq!(of(0).unwrap(), Value::Null);
    let free = table.evaluate(&json!({"id": 7, "count": 1, "price": 1})).unwrap_err();
    assert!(matches!(&free, DecisionError::NoRow { input } if input.contains("\"price\":1")), "{free}");
    let missing = table.evaluate(&json!({"id": 7})).unwrap_err();
    assert!(matches!(&missing, DecisionError::Binding { name, .. } if name == "total"), "{missing}");
}

#[test]
fn a_row_that_cannot_be_evaluated_says_which() {
    let table =
        decision(json!({ "rows": [{ "when": "false", "then": 1 }, { "when": "input.x", "then": 1 }] }))
            .unwrap();
    let wrong = table.evaluate(&json!({"x": 5})).unwrap_err();
    assert!(matches!(wrong, DecisionError::Row { row: 2, error: EvalError::WrongType { .. } }), "{wrong}");
    let table = decision(json!({ "rows": [{ "then": "${input.y}" }] })).unwrap();
    assert!(matches!(table.evaluate(&json!({})), Err(DecisionError::Row { row: 1, .. })));
}

#[test]
fn a_call_maps_its_input_and_its_result_or_passes_them_on() {
    let call = |value: Value| CompiledCall::compile(&serde_json::from_value(value).unwrap()).unwrap();
    let plain = call(json!({ "tool": "shop/read" }));
    assert_eq!(plain.arguments(&json!({"a": 1})).unwrap(), json!({"a": 1}));
    assert_eq!(plain.output(&json!({"a": 1}), &json!([2])).unwrap(), json!([2]));
    let mapped = call(json!({
        "tool": "shop/read", "with": { "sku": "${input.a}" }, "output": { "in": "${input.a}", "out": "${result[0]}" }
    }));
    assert_eq!(mapped.arguments(&json!({"a": 1})).unwrap(), json!({"sku": 1}));
    assert_eq!(mapped.output(&json!({"a": 1}), &json!([2])).unwrap(), json!({"in": 1, "out": 2}));
    assert!(mapped.arguments(&json!({})).is_err());
}

#[test]
fn what_does_not_compile_is_said_with_its_field() {
    let runtime = |value: Value| CompiledRuntime::compile(&serde_json::from_value(value).unwrap());
    let pointers = |wrong: Result<CompiledRuntime, Vec<FieldError>>| -> Vec<String> {
        wrong.unwrap_err().into_iter().map(|error| error.pointer).collect()
    };
    let call = json!({"call": {"tool": "a/b", "with": {"x": ["${result}"]}, "output": "${args}"}});
    assert_eq!(pointers(runtime(call)), ["/call/with/x/0", "/call/output"]);
    let rules =
        json!({"rules": {"let": {"a/b": "${local}"}, "rows": [{"when": "1 +", "then": {"a": "${x}"}}]}});
    assert_eq!(pointers(runtime(rules)), ["/rules/let/a~1b", "/rules/rows/0/when", "/rules/rows/0/then/a"]);
    assert_eq!(decision(json!({"rows": []})).unwrap_err()[0].error, CompileError::NoRows);
    let remote = runtime(json!({"remote": {"queue": "q"}})).unwrap();
    assert!(matches!(remote, CompiledRuntime::Remote(settings) if settings["queue"] == "q"));
}
