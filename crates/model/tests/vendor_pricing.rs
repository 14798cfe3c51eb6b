//! The design's example workflow, with the specialists and systems that it needs.
use kapell_model::catalogue::{CompiledOperation, CompiledRuntime};
use kapell_model::definition::Kind;
use kapell_model::plan::{StepIndex, StepKind};
use kapell_model::source::SourceFile;
use kapell_model::validate::{Loaded, catalogue, load, load_over};
use kapell_model::{Name, ToolRef};
use serde_json::json;

fn loaded() -> Loaded {
    let text = include_str!("vendor-pricing.yaml").to_owned();
    load(&[SourceFile { name: "vendor-pricing.yaml".to_owned(), text }]).unwrap_or_else(|wrong| {
        panic!("{}", wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    })
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

#[test]
fn the_example_loads_and_its_plan_follows_from_what_steps_look_at() {
    let loaded = loaded();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.definitions.len(), 10);
    let retail = name("retail");
    let workflow = loaded.catalogue.workflow(&retail, &name("vendor-price-change")).unwrap();
    let needs: Vec<Vec<u32>> =
        workflow.plan.steps.iter().map(|step| step.needs.iter().map(|need| need.0).collect()).collect();
    assert_eq!(needs, [vec![], vec![0], vec![1], vec![1], vec![2, 3]]);
    let feeds: Vec<Vec<u32>> =
        workflow.plan.steps.iter().map(|step| step.feeds.iter().map(|fed| fed.0).collect()).collect();
    assert_eq!(feeds, [vec![1], vec![2, 3], vec![4], vec![4], vec![]]);
    assert!(
        matches!(&workflow.plan.step(StepIndex(4)).unwrap().kind, StepKind::Task { skill, .. } if &**skill == "accounting.alert")
    );
    assert_eq!(workflow.context.len(), 2);
    let triggered = loaded.catalogue.triggered_by(&retail, "com.example.vendor.pricing.changed", "anywhere");
    assert_eq!(triggered.map(|workflow| workflow.digest).collect::<Vec<_>>(), [workflow.digest]);
    assert!(loaded.catalogue.by_digest(workflow.digest).is_some());
}

#[test]
fn the_catalogue_holds_what_workers_and_connectors_run() {
    let loaded = loaded();
    let (retail, catalogue) = (name("retail"), &loaded.catalogue);
    let skill = catalogue.skill(&retail, "catalog.find-products").unwrap();
    let CompiledRuntime::Call(call) = &skill.runtime else { panic!("{:?}", skill.runtime) };
    assert_eq!(call.arguments(&json!({"vendor": "v"})).unwrap(), json!({"vendor": "v"}));
    assert_eq!(call.output(&json!({}), &json!({"rows": [1]})).unwrap(), json!({"products": [1]}));
    let skill = catalogue.skill(&retail, "pricing.recalculate-margin").unwrap();
    let CompiledRuntime::Rules(rules) = &skill.runtime else { panic!("{:?}", skill.runtime) };
    let output =
        rules.evaluate(&json!({"product": {"sku": "a", "price": 1.0}, "change": {"price": 2.0}})).unwrap();
    assert_eq!(output, json!({"sku": "a", "price": 2.4, "old_price": 1.0}));
    let tool: ToolRef = "shop-north/set-price".parse().unwrap();
    let tool = catalogue.tool(&retail, &tool).unwrap();
    assert!(
        matches!(&tool.operation, CompiledOperation::Http(http) if http.headers.len() == 1 && http.body.is_some())
    );
    assert_eq!(&*tool.reconcile.as_ref().unwrap().tool, "product");
    assert!(tool.input.check_value(&json!({"sku": "a"})).is_err());
    assert_eq!(catalogue.policies(&retail).len(), 1);
    let namespace = catalogue.namespace(&retail).unwrap();
    assert_eq!((namespace.schedules.len(), namespace.tools.len(), namespace.definitions.len()), (1, 4, 10));
    assert_eq!(catalogue.namespaces().count(), 1);
}

#[test]
fn stored_definitions_give_the_same_catalogue_and_new_ones_replace_them() {
    let loaded = loaded();
    let again = catalogue(loaded.definitions.clone()).unwrap();
    let retail = name("retail");
    let (before, after) = (
        loaded.catalogue.workflow(&retail, &name("vendor-price-change")).unwrap().digest,
        again.workflow(&retail, &name("vendor-price-change")).unwrap().digest,
    );
    assert_eq!(before, after);

    let text = "apiVersion: kapell.dev/v1\nkind: Connector\nmetadata: { name: smtp, namespace: retail }\n\
                spec: { protocol: smtp, tools: [] }\n";
    let change = SourceFile { name: "smtp.yaml".to_owned(), text: text.to_owned() };
    let wrong = load_over(std::slice::from_ref(&change), loaded.definitions.clone()).unwrap_err();
    let said: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "Specialist retail/back-office: spec.skills[1].call.tool: connection `mail` (connector `smtp`) has no tool `send`"
        ]
    );
    let kept: Vec<_> = loaded
        .definitions
        .into_iter()
        .filter(|definition| definition.kind() != Kind::Specialist && definition.kind() != Kind::Workflow)
        .filter(|definition| definition.kind() != Kind::Schedule && definition.kind() != Kind::Policy)
        .collect();
    let loaded = load_over(&[change], kept).unwrap();
    assert_eq!(loaded.definitions.len(), 4);
    assert_eq!(loaded.catalogue.namespace(&retail).unwrap().tools.len(), 3);
}
