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
