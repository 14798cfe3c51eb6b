//! What expressions of a step see.
//!
//! Owns: building a scope from a run, with only what the expressions look at.
use kapell_model::expr::{References, Scope};
use serde_json::{Map, Value, json};

use crate::run::Run;

/// The variables of a step's expressions; `item`, `index` and `output` are set by the caller.
pub(crate) fn of_run(run: &Run, looks_at: &References) -> Scope {
    let mut scope = Scope::new();
    let sees = |name: &str| looks_at.variables.contains(name);
    if sees("event") {
        scope.set("event", &run.accepted.event.value());
    }
    if sees("key") {
        scope.set("key", &run.accepted.key.as_ref().map_or(Value::Null, |key| json!(**key)));
    }
    if sees("run") {
        scope.set("run", &about(run));
    }
    if sees("context") {
        scope.set("context", &run.context.value());
    }
    if sees("steps") {
        let mut outputs = Map::new();
        for name in &looks_at.steps {
            let output = run.plan.index_of(name).and_then(|index| run.output(index));
            outputs.insert(name.clone(), output.map_or(Value::Null, |output| output.value()));
        }
        scope.set("steps", &Value::Object(outputs));
    }
    scope
}

/// What `run` means in expressions.
pub(crate) fn about(run: &Run) -> Value {
    let workflow = &run.accepted.workflow;
    json!({
        "id": run.id.to_string(),
        "workflow": workflow.name.as_str(),
        "namespace": workflow.namespace.as_str(),
        "key": run.accepted.key.as_deref(),
    })
}
