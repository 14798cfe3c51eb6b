use serde_json::json;

use super::*;

fn scope() -> Scope {
    let mut scope = Scope::new();
    scope.set("event", &json!({"data": {"n": 3, "name": "Ada", "items": [1, 2, 3]}}));
    scope.set("steps", &json!({"first": {"sku": "A-1"}}));
    scope
}

#[test]
fn whole_holes_keep_their_type_and_mixed_ones_are_text() {
    let source = json!({
        "n": "${event.data.n + 1}", "greeting": "Hi ${event.data.name}, ${event.data.n}!",
        "list": ["${steps.first}", 1], "map": "${ {'a': event.data.n}.a }", "none": "plain"
    });
    let template = Template::compile(&source).unwrap();
    assert_eq!(
        template.eval(&scope()).unwrap(),
        json!({"n": 4, "greeting": "Hi Ada, 3!", "list": [{"sku": "A-1"}, 1], "map": 3, "none": "plain"})
    );
    assert!(template.constant().is_none());
    assert!(Template::compile(&json!({"a": [1, "b"]})).unwrap().constant().is_some());
}

#[test]
fn references_are_free_variables_and_named_steps() {
    let expr = Expr::compile("event.data.items.filter(x, x > steps.first.n).size() + item.n").unwrap();
    let found = expr.references();
    assert_eq!(found.variables.iter().map(String::as_str).collect::<Vec<_>>(), ["event", "item", "steps"]);
    assert_eq!(found.steps.iter().map(String::as_str).collect::<Vec<_>>(), ["first"]);
    assert!(!found.steps_as_a_whole);
    assert!(Expr::compile("size(steps)").unwrap().references().steps_as_a_whole);
}

#[test]
fn a_costly_expression_is_refused_before_it_runs() {
    let mut scope = Scope::new();
    let long: Vec<u32> = (0..1_000).collect();
    scope.set("event", &json!({ "data": long }));
    let nested = Expr::compile("event.data.all(a, event.data.all(b, a + b >= 0))").unwrap();
    assert!(matches!(nested.eval(&scope), Err(EvalError::TooCostly { iterations: 1_000_000, .. })));
    assert!(Expr::compile("event.data.all(a, a >= 0)").unwrap().eval_bool(&scope).unwrap());
}

#[test]
fn errors_name_the_expression() {
    let missing = Expr::compile("event.data.absent").unwrap().eval(&scope()).unwrap_err();
    assert!(missing.to_string().contains("event.data.absent"), "{missing}");
    assert!(matches!(Expr::compile("1 +"), Err(ExprError::Syntax { .. })));
    assert!(matches!(Template::compile(&json!("${event")), Err(ExprError::Unclosed { .. })));
    assert!(matches!(Expr::compile(&"1+".repeat(5_000)), Err(ExprError::TooLong { .. })));
    assert!(matches!(Expr::compile("1").unwrap().eval_bool(&scope()), Err(EvalError::WrongType { .. })));
    assert_eq!(Expr::compile("event.data.n").unwrap().eval_key(&scope()).unwrap(), "3");
}

/// The value of an expression over `event.data`.
fn value(source: &str, data: &serde_json::Value) -> Result<serde_json::Value, String> {
    let mut scope = Scope::new();
    scope.set("event", &json!({ "data": data }));
    Expr::compile(source).unwrap().eval(&scope).map_err(|error| error.to_string())
}

#[test]
fn text_is_taken_apart_and_put_together() {
    let data = json!({ "tags": ["a", "b"], "line": " Grün; 5 € ;x ", "name": "Ada Lovelace" });
    for (source, expected) in [
        ("event.data.tags.join(', ')", json!("a, b")),
        ("event.data.tags.join()", json!("ab")),
        ("[].join('-')", json!("")),
        ("event.data.line.split(';')", json!([" Grün", " 5 € ", "x "])),
        ("'a-b-c'.split('-', 2)", json!(["a", "b-c"])),
        ("'a-b'.split('-', 0)", json!([])),
        ("'a€'.split('')", json!(["a", "€"])),
        ("'a€b'.split('', 2)", json!(["a", "€b"])),
        ("''.split(',')", json!([""])),
        ("event.data.line.trim()", json!("Grün; 5 € ;x")),
        ("event.data.name.lowerAscii() + 'É'.lowerAscii()", json!("ada lovelaceÉ")),
        ("event.data.name.upperAscii()", json!("ADA LOVELACE")),
        ("event.data.name.replace('a', '')", json!("Ad Lovelce")),
        ("'aaa'.replace('a', 'bb', 2)", json!("bbbba")),
        ("'ab'.replace('', '-')", json!("-a-b-")),
        ("event.data.name.substring(4)", json!("Lovelace")),
        ("event.data.line.trim().substring(2, 4)", json!("ün")),
        ("'abc'.substring(3)", json!("")),
        ("event.data.name.charAt(0) + 'abc'.charAt(3)", json!("A")),
        ("event.data.line.indexOf('€')", json!(9)),
        ("[event.data.name.indexOf('z'), 'a€a'.indexOf('a', 1), 'abc'.indexOf('')]", json!([-1, 2, 0])),
        ("['a€a'.lastIndexOf('a'), ''.lastIndexOf('a')]", json!([2, -1])),
        (
            "event.data.line.split(';').map(part, part.trim()).filter(part, size(part) > 1)",
            json!(["Grün", "5 €"]),
        ),
    ] {
        assert_eq!(value(source, &data), Ok(expected), "{source}");
    }
}

#[test]
fn text_that_is_not_there_is_an_error_that_says_where() {
    for (source, wrong) in [
        ("'abc'.charAt(4)", "position 4 is outside of a text of 3 characters"),
        ("'abc'.substring(-1)", "position -1 is outside"),
        ("'abc'.substring(2, 1)", "begins at 2 and ends before, at 1"),
        ("'abc'.indexOf('a', 4)", "position 4"),
        ("[1, 2].join(',')", "its items must be text, one is int"),
        ("event.data.join(',')", "join"),
    ] {
        let said = value(source, &json!(5)).unwrap_err();
        assert!(said.contains(wrong), "{source}: {said}");
    }
}

#[test]
fn what_text_functions_make_and_go_through_has_limits() {
    use crate::limits::{EXPRESSION_TEXT_BYTES_MAX, PAYLOAD_BYTES_MAX};
    let half = "x".repeat(PAYLOAD_BYTES_MAX / 2);
    let data = json!({ "half": half, "list": vec!["x"; 1_000] });
    let len = |source: &str| value(&format!("size({source})"), &data);
    assert_eq!(
        len("event.data.half.replace('x', 'yy')"),
        Ok(json!(PAYLOAD_BYTES_MAX)),
        "as large as allowed"
    );
    let large = len("event.data.half.replace('x', 'yyy')").unwrap_err();
    assert!(large.contains("the text would have 1572864 bytes, at most 1048576 are allowed"), "{large}");
    let large = len("event.data.half.replace('x', event.data.half)").unwrap_err();
    assert!(large.contains("bytes"), "counted and never made: {large}");
    assert_eq!(len("[event.data.half, event.data.half].join()"), Ok(json!(PAYLOAD_BYTES_MAX)));
    assert!(len("[event.data.half, event.data.half].join('-')").is_err());

    // Each time around costs half a mebibyte.
    let times = EXPRESSION_TEXT_BYTES_MAX / (PAYLOAD_BYTES_MAX / 2);
    let mut busy = json!({ "half": half, "list": vec!["x"; times - 1] });
    let all = "event.data.list.all(x, event.data.half.indexOf('y') < 0)";
    assert_eq!(value(all, &busy), Ok(json!(true)));
    busy["list"] = json!(vec!["x"; times + 1]);
    let spent = value(all, &busy).unwrap_err();
    assert!(spent.contains("may handle 67108864 bytes"), "{spent}");
    assert_eq!(value("event.data.half.indexOf('y')", &busy), Ok(json!(-1)), "the next one begins anew");
}

#[test]
fn a_split_gives_no_more_than_the_macros_around_it_may_go_through() {
    let commas = |count: usize| json!(",".repeat(count - 1));
    let once = "event.data.split(',').all(a, true)";
    assert_eq!(value(once, &commas(100_000)), Ok(json!(true)));
    assert!(value(once, &commas(100_001)).unwrap_err().contains("more than 100000 parts"));
    let twice = "event.data.split(',').all(a, event.data.split(',').all(b, true))";
    assert_eq!(value(twice, &commas(316)), Ok(json!(true)));
    assert!(value(twice, &commas(317)).unwrap_err().contains("more than 316 parts"));
    assert!(value("size(event.data.split(','))", &commas(100_001)).is_err(), "and never more than that");
}

#[test]
fn lists_that_are_written_or_put_together_count_as_those_that_are_seen() {
    let list = format!("[{}]", vec!["1"; 400].join(","));
    let nested = format!("{list}.all(a, {list}.all(b, true))");
    assert!(value(&nested, &json!(null)).unwrap_err().contains("160000 iterations"));
    let data = json!(vec![1; 200]);
    let twice = "event.data.all(a, event.data.all(b, a + b > 0))";
    assert_eq!(value(twice, &data), Ok(json!(true)), "sums of numbers cost nothing");
    let doubled = "event.data.all(a, (event.data + event.data).all(b, a + b > 0))";
    assert!(value(doubled, &data).unwrap_err().contains("160000 iterations"));
    let chained = "event.data.map(a, a + 1).filter(a, a > 1).all(a, event.data.exists(b, b < a))";
    assert_eq!(value(chained, &data), Ok(json!(true)), "a macro's own sums are no lists put together");
}

#[test]
fn a_value_that_is_there_many_times_is_not_written_many_times() {
    use crate::limits::EXPRESSION_VALUE_BYTES_MAX;
    let text = "x".repeat(1_000);
    let times = EXPRESSION_VALUE_BYTES_MAX / 1_010;
    let data = |count: usize| json!({ "text": text, "list": vec![0; count] });
    let repeat = "event.data.list.map(x, event.data.text)";
    assert!(value(repeat, &data(times)).is_ok());
    let large = value(repeat, &data(times + 200)).unwrap_err();
    assert!(large.contains("gave more than 16777216 bytes; pass a reference instead"), "{large}");
    assert!(value("1.0 / 0.0", &json!(null)).is_err(), "no JSON for it");
}
