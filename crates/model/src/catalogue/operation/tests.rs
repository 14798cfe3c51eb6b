use serde_json::{Value, json};

use super::*;
use crate::expr::Scope;

fn tool(value: Value) -> Tool {
    let mut tool = json!({"name": "t"});
    tool.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
    serde_json::from_value(tool).unwrap()
}

fn compile(value: Value) -> Result<CompiledOperation, Vec<FieldError>> {
    CompiledOperation::compile(&tool(value))
}

fn wrong(value: Value) -> Vec<(String, CompileError)> {
    compile(value).unwrap_err().into_iter().map(|error| (error.pointer, error.error)).collect()
}

fn args(value: Value) -> Scope {
    let mut scope = Scope::new();
    scope.set("args", &value);
    scope
}

#[test]
fn http_paths_escape_values_and_nothing_else() {
    let made = compile(json!({"http": {
        "method": "PUT", "path": "/a b/${args.id}/${args.n}", "query": {"q": "${args.q}"}, "headers": {"X-Id": "${args.id}"},
        "body": {"id": "${args.id}"}, "encoding": "form", "result": "${body.x + status}"
    }}))
    .unwrap();
    assert_eq!(made.protocol(), Protocol::Http);
    let CompiledOperation::Http(http) = made else { panic!() };
    let scope = args(json!({"id": "x/y", "n": 5, "q": null}));
    let escape = |text: &str| text.replace('/', "%2F");
    assert_eq!(http.path.eval_text(&scope, &escape).unwrap(), "/a b/x%2Fy/5");
    assert_eq!(http.query[0].1.eval(&scope).unwrap(), Value::Null);
    assert_eq!((http.headers[0].0.as_str(), http.encoding), ("X-Id", BodyEncoding::Form));
    assert!(http.body.is_some() && http.result.is_some());
}

#[test]
fn a_text_template_gives_text_whatever_it_holds() {
    let text = |source: Value| {
        let template = Template::compile(&source).unwrap();
        template.eval_text(&args(json!({"a": [1], "s": "x"})), &|text| format!("<{text}>")).unwrap()
    };
    assert_eq!(text(json!("plain")), "plain");
    assert_eq!(text(json!("${args.s}")), "<x>");
    assert_eq!(text(json!("${args.a}")), "<[1]>");
    assert_eq!(text(json!("a${null}b")), "a<>b");
    assert_eq!(text(json!({"a": "${args.s}"})), "{\"a\":\"x\"}");
    assert_eq!(text(json!(5)), "5");
}

#[test]
fn sql_parameters_have_the_order_of_their_numbers() {
    let made = compile(json!({
        "idempotency": {"key": {"carrier": "k"}},
        "sql": {
            "statement": "insert into t values (:b, :k, :a, :b)", "mode": "affected",
            "parameters": {"a": "${args.a}", "b": 1}
        }
    }))
    .unwrap();
    assert_eq!(made.protocol(), Protocol::Sql);
    let CompiledOperation::Sql(sql) = made else { panic!() };
    let names: Vec<&str> = sql.parameters.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["b", "k", "a"]);
    assert_eq!(sql.statement.numbered(), "insert into t values ($1, $2, $3, $1)");
    assert!(matches!(sql.parameters[1].1, SqlArgument::CallKey));
    assert!(
        matches!(&sql.parameters[2].1, SqlArgument::Value(template) if template.source().as_str() == "\"${args.a}\"")
    );
    assert_eq!(sql.mode, SqlMode::Affected);
}

#[test]
fn parameters_are_all_filled_and_all_named() {
    let found = wrong(json!({
        "idempotency": {"key": {"carrier": "key"}},
        "sql": {"statement": "select :a, :other", "parameters": {"othr": 1, "a": "${body}"}}
    }));
    assert_eq!(
        found.iter().map(|(at, _)| at.as_str()).collect::<Vec<_>>(),
        ["/sql/parameters/a", "/sql/parameters/othr", "/idempotency/key/carrier", "/sql/statement"]
    );
    assert!(matches!(&found[1].1, CompileError::ParameterUnused { near: Some(near), .. } if near == "other"));
    assert!(found[2].1.hint().unwrap().contains("remove `key`"));
    assert_eq!(found[3].1, CompileError::ParameterUnfilled("other".to_owned()));
}

#[test]
fn mails_and_headers_are_checked_field_by_field() {
    let mail =
        json!({"smtp": {"from": "${a}", "to": ["x@example.com", "${b}"], "subject": "${c}", "text": "${d"}});
    assert_eq!(
        wrong(mail).into_iter().map(|(at, _)| at).collect::<Vec<_>>(),
        ["/smtp/from", "/smtp/to/1", "/smtp/subject", "/smtp/text"]
    );
    let sound = compile(json!({
        "idempotency": {"key": {"carrier": "Message-ID"}},
        "smtp": {"from": "a", "to": ["${args.to}"], "subject": "s", "text": "t"}
    }))
    .unwrap();
    assert_eq!(sound.protocol(), Protocol::Smtp);
    let header = json!({"idempotency": {"key": {"carrier": "a b"}}, "http": {"method": "GET", "path": "/", "headers": {"": "x"}}});
    assert_eq!(wrong(header).len(), 2);
}

#[test]
fn a_reconciling_read_sees_the_lost_call_and_what_was_read() {
    let read = |value: Value| CompiledReconcile::compile(&serde_json::from_value(value).unwrap());
    let sound = read(json!({
        "tool": "look", "with": {"id": "${args.id}", "key": "${call.key}"}, "done": "result.id == args.id",
        "result": "${result.order}"
    }))
    .unwrap();
    let mut scope = args(json!({"id": 1}));
    scope.set("call", &json!({"key": "k"}));
    assert_eq!(sound.with.unwrap().eval(&scope).unwrap(), json!({"id": 1, "key": "k"}));
    scope.set("result", &json!({"id": 1, "order": 9}));
    assert!(sound.done.eval_bool(&scope).unwrap());
    assert_eq!(sound.result.unwrap().eval(&scope).unwrap(), json!(9));
    let wrong =
        read(json!({"tool": "look", "with": "${result}", "done": "done(", "result": "${x}"})).unwrap_err();
    assert_eq!(wrong.len(), 3);
}
