//! A definition that is written as JSON and read again is the same definition.
use std::collections::BTreeMap;

use kapell_model::definition::*;
use kapell_model::{Name, Span, ToolRef};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Value, json};

fn name() -> impl Strategy<Value = Name> {
    "[a-z][a-z0-9]{0,6}".prop_map(|text| Name::new(&text).expect("a name"))
}

fn text() -> impl Strategy<Value = String> {
    "[ -~äö€]{0,12}"
}

/// Not null: a field that says `null` is a field left out.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        text().prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            btree_map("[a-z]{1,4}", inner, 0..3).prop_map(|members| json!(members)),
        ]
    })
}

fn span() -> impl Strategy<Value = Span> {
    (0_u64..10_000_000_000).prop_map(Span::from_millis)
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        text().prop_map(|skill| Step { skill: Some(skill), ..Step::default() }),
        name().prop_map(|workflow| Step { workflow: Some(workflow), ..Step::default() }),
        (text(), of(value()), of(span())).prop_map(|(ask, show, expires)| Step {
            approval: Some(ApprovalStep { ask, show, expires, on_expire: OnExpire::Approve }),
            ..Step::default()
        }),
        (of(span()), of(text()), text(), of(text())).prop_map(|(span, until, correlate, by)| Step {
            wait: Some(WaitStep {
                span,
                until,
                event: Some(EventWait { event_type: "t".to_owned(), correlate, by })
            }),
            ..Step::default()
        }),
    ];
    (
        kind,
        text(),
        vec(text(), 0..3),
        of(text()),
        of(value()),
        of(value()),
        of(any::<u32>()),
        of(span()),
        of((of(any::<u32>()), of((span(), span())))),
    )
        .prop_map(|(kind, id, after, when, with, foreach, concurrency, timeout, retry)| Step {
            id,
            after,
            when,
            compensate: with.clone().map(|with| Compensation { skill: "u".to_owned(), with: Some(with) }),
            with,
            foreach,
            concurrency,
            timeout,
            retry: retry.map(|(attempts, backoff)| Retry {
                attempts,
                backoff: backoff.map(|(initial, max)| Backoff { initial, max }),
            }),
            ..kind
        })
}

fn workflow() -> impl Strategy<Value = Workflow> {
    let context = prop_oneof![
        (of(text()), any::<u32>()).prop_map(|(about, limit)| ContextQuery::Recall(Recall { about, limit })),
        (text(), vec(text(), 0..3), any::<u32>())
            .prop_map(|(from, via, depth)| ContextQuery::Related(Related { from, via, depth })),
    ];
    (of((text(), of(text()))), text(), of(value()), vec(context, 0..3), vec(step(), 0..4), of(span()))
        .prop_map(|(on, goal, input, context, steps, timeout)| Workflow {
            outcome: timeout.map(|within| Outcome {
                within,
                on: OutcomeEvent { event_type: goal.clone(), correlate: None },
                success: goal.clone(),
            }),
            key: on.as_ref().map(|(key, _)| key.clone()),
            on: on.map(|(event_type, when)| Trigger { event_type, source: when.clone(), when }),
            goal,
            input,
            context,
            steps,
            on_failure: OnFailure::Stop,
            timeout,
        })
}

fn effect() -> impl Strategy<Value = EffectClass> {
    prop_oneof![Just(EffectClass::Read), Just(EffectClass::Write), Just(EffectClass::Irreversible)]
}

fn tool_ref() -> impl Strategy<Value = ToolRef> {
    (name(), name())
        .prop_map(|(connection, tool)| format!("{connection}/{tool}").parse().expect("a reference"))
}

fn specialist() -> impl Strategy<Value = Specialist> {
    let row = (of(text()), value()).prop_map(|(when, output)| RuleRow { when, output });
    let runtime = prop_oneof![
        (tool_ref(), of(value()), of(value())).prop_map(|(tool, with, output)| Runtime::Call(ToolCall {
            tool,
            with,
            output
        })),
        (btree_map("[a-z]{1,4}", value(), 0..3), vec(row, 0..3))
            .prop_map(|(bindings, rows)| Runtime::Rules(Decision { bindings, rows })),
        btree_map("[a-z]{1,4}", value(), 0..3).prop_map(Runtime::Remote),
    ];
    let skill = (text(), text(), of(value()), of(value()), effect(), runtime, of(span())).prop_map(
        |(name, description, input, output, effect, runtime, timeout)| Skill {
            name,
            description,
            input,
            output,
            effect,
            runtime,
            timeout,
        },
    );
    (text(), vec(skill, 0..4), vec(tool_ref(), 0..3), any::<u32>(), any::<u32>()).prop_map(
        |(description, skills, tools, concurrency, restarts_per_minute)| Specialist {
            description,
            autonomy: AutonomyLevel::Suggest,
            skills,
            tools,
            limits: SpecialistLimits { concurrency, restarts_per_minute },
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (text(), btree_map("[a-z]{1,4}", value(), 0..3), btree_map("[a-z]{1,4}", text(), 0..3), of(value()))
            .prop_map(|(path, query, headers, body)| Operation::Http(HttpOperation {
                method: Method::Patch,
                path,
                query,
                headers,
                result: body.clone(),
                body,
                encoding: BodyEncoding::Form,
            })),
        (text(), btree_map("[a-z]{1,4}", value(), 0..3)).prop_map(|(statement, parameters)| Operation::Sql(
            SqlOperation { statement, parameters, mode: SqlMode::Affected }
        )),
        (text(), vec(text(), 0..3)).prop_map(|(from, to)| Operation::Smtp(SmtpOperation {
            subject: from.clone(),
            text: from.clone(),
            from,
            to
        })),
    ]
}

fn connector() -> impl Strategy<Value = Connector> {
    let idempotency = prop_oneof![
        Just(Idempotency::Natural),
        Just(Idempotency::None),
        text().prop_map(|carrier| Idempotency::Key { carrier })
    ];
    let reconcile = (text(), of(value()), text(), of(value()))
        .prop_map(|(tool, with, done, result)| Reconcile { tool, with, done, result });
    let tool =
        (text(), effect(), of(value()), of(value()), idempotency, of(reconcile), of(span()), operation())
            .prop_map(|(name, effect, input, output, idempotency, reconcile, timeout, operation)| Tool {
                description: name.clone(),
                name,
                effect,
                input,
                output,
                idempotency,
                reconcile,
                timeout,
                operation,
            });
    (text(), vec(tool, 0..4)).prop_map(|(description, tools)| Connector {
        description,
        protocol: Protocol::Sql,
        tools,
    })
}

fn connection() -> impl Strategy<Value = Connection> {
    let secret = || prop_oneof![text().prop_map(Secret::Env), text().prop_map(Secret::File)];
    let credential = prop_oneof![
        Just(Credential::None),
        (text(), secret()).prop_map(|(user, password)| Credential::Basic { user, password }),
        secret().prop_map(|token| Credential::Bearer { token }),
        (text(), secret()).prop_map(|(header, key)| Credential::ApiKey { header, key }),
    ];
    (name(), text(), credential, any::<u32>(), of(any::<u32>())).prop_map(
        |(connector, endpoint, credential, concurrency, per_second)| Connection {
            connector,
            endpoint,
            credential,
            limits: ConnectionLimits { concurrency, per_second },
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let effect_of = prop_oneof![
        Just(PolicyEffect::Deny(Always)),
        Just(PolicyEffect::Ask(Always)),
        (text(), any::<i64>()).prop_map(|(amount, max)| PolicyEffect::Cap { amount, max }),
    ];
    let rule = (of(text()), effect_of, text()).prop_map(|(when, effect, reason)| PolicyRule {
        when,
        effect,
        reason,
    });
    (vec(text(), 0..3), vec(text(), 0..3), vec(effect(), 0..3), vec(rule, 0..4)).prop_map(
        |(skills, workflows, effects, rules)| Policy {
            description: String::new(),
            matches: PolicyMatch { skills, workflows, effects },
            rules,
        },
    )
}

fn schedule() -> impl Strategy<Value = Schedule> {
    (text(), of(text()), name(), of(value()), any::<bool>()).prop_map(
        |(cron, time_zone, workflow, with, suspend)| Schedule {
            cron,
            time_zone,
            workflow,
            with,
            catchup: Catchup::All,
            overlap: Overlap::Queue,
            suspend,
        },
    )
}

fn document<S: std::fmt::Debug>(spec: impl Strategy<Value = S>) -> impl Strategy<Value = Document<S>> {
    let labels = || btree_map(text(), text(), 0..3);
    (name(), name(), labels(), labels(), spec).prop_map(
        |(name, namespace, labels, annotations, spec): (_, _, BTreeMap<_, _>, _, _)| {
            let metadata = Metadata { name, namespace, labels, annotations };
            Document { api_version: API_VERSION.to_owned(), metadata, spec }
        },
    )
}

fn definition() -> impl Strategy<Value = Definition> {
    prop_oneof![
        document(workflow()).prop_map(Definition::Workflow),
        document(specialist()).prop_map(Definition::Specialist),
        document(connector()).prop_map(Definition::Connector),
        document(connection()).prop_map(Definition::Connection),
        document(policy()).prop_map(Definition::Policy),
        document(schedule()).prop_map(Definition::Schedule),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn json_holds_all_of_a_definition(written in definition()) {
        let json = serde_json::to_value(&written).unwrap();
        prop_assert_eq!(&serde_json::from_value::<Definition>(json.clone()).unwrap(), &written);
        let schema = kapell_model::json_schema(written.kind());
        let validator = jsonschema::validator_for(&schema).unwrap();
        let wrong: Vec<String> = validator.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
        prop_assert!(wrong.is_empty(), "the published schema refuses what we write: {:?}", wrong);
    }

    #[test]
    fn a_field_that_does_not_exist_is_refused_wherever_it_stands(written in definition(), pick in any::<prop::sample::Index>()) {
        let mut json = serde_json::to_value(&written).unwrap();
        let mut objects = Vec::new();
        closed_objects("", &json, &serde_json::to_value(kapell_model::json_schema(written.kind())).unwrap(), &mut objects);
        let at = pick.get(&objects).clone();
        json.pointer_mut(&at).unwrap().as_object_mut().unwrap().insert("zz-unknown".to_owned(), json!(1));
        prop_assert!(serde_json::from_value::<Definition>(json).is_err(), "accepted at `{}`", at);
    }
}

/// Pointers to every object whose schema closes it.
fn closed_objects(at: &str, value: &Value, schema: &Value, found: &mut Vec<String>) {
    for branch in schema["oneOf"].as_array().into_iter().flatten() {
        if branch["required"].as_array().is_some_and(|needed| {
            needed.iter().all(|name| name.as_str().is_some_and(|name| value.get(name).is_some()))
        }) {
            closed_objects(at, value, branch, found);
        }
    }
    match value {
        Value::Object(members) => {
            if let Some(known) = schema["properties"].as_object() {
                if schema["additionalProperties"] == json!(false) {
                    found.push(at.to_owned());
                }
                for (name, member) in members {
                    if let Some(of) = known.get(name) {
                        closed_objects(&format!("{at}/{name}"), member, of, found);
                    }
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(place, item)| {
                closed_objects(&format!("{at}/{place}"), item, &schema["items"], found)
            });
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
