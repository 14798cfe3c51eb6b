//! HTTP against the example company, which does nothing idempotently and misbehaves on demand.
use kapell_company::{Company, CompanyOptions, Faults, Knobs, Reach};
use kapell_proto::v1::ErrorClass;
use serde_json::json;
use tempfile::TempDir;

use crate::rig::{Outcome, Rig, definitions, documents};

const POSTINGS: &str = r#"
- name: post
  effect: write
  idempotency: none
  timeout: 2s
  http: { method: POST, path: /entries, body: { ref: "${args.ref}", amount: "${args.amount}" }, result: { id: "${body.id}" } }
  output: { type: object, required: [id], properties: { id: { type: string } } }
  reconcile:
    tool: find
    with: { ref: "${args.ref}" }
    done: "size(result.entries) > 0"
    result: { id: "${result.entries[0].id}" }
- name: post-keyed
  effect: write
  idempotency: { key: { carrier: Idempotency-Key } }
  timeout: 2s
  http: { method: POST, path: /entries, body: { ref: "${args.ref}", amount: "${args.amount}" } }
- name: post-natural
  effect: write
  idempotency: natural
  timeout: 2s
  http: { method: POST, path: /entries, body: { ref: "${args.ref}", amount: "${args.amount}" } }
- name: post-odd
  effect: write
  idempotency: natural
  http: { method: POST, path: /entries, body: { ref: "${args.ref}", amount: 1 }, result: { id: "${body.no_such_field}" } }
- name: find
  timeout: 2s
  http: { method: GET, path: /entries, query: { ref: "${args.ref}" } }
- name: count
  timeout: 1s
  http: { method: GET, path: /entries/count, query: { ref: "${args.ref}" }, result: "${body.count}" }
  output: { type: integer }
- name: wrong-shape
  http: { method: GET, path: /entries/count }
  output: { type: array }
- name: not-json
  http: { method: GET, path: /admin/faults, result: "${body.nope}" }
"#;

struct Accounting {
    rig: Rig,
    company: Company,
    _dir: TempDir,
}

async fn accounting() -> Accounting {
    let dir = tempfile::tempdir().unwrap();
    let company = Company::start(dir.path(), CompanyOptions::default()).await.unwrap();
    let rig = Rig::start(definitions("http", &company.addresses().postings, "", POSTINGS)).await;
    Accounting { rig, company, _dir: dir }
}

impl Accounting {
    fn knobs(&self) -> &Knobs {
        self.company.postings_knobs()
    }

    fn fault(&self, faults: Faults) {
        self.knobs().set(faults).unwrap();
    }

    async fn post(&mut self, tool: &str, reference: &str) -> Outcome {
        self.rig.call(tool, json!({ "ref": reference, "amount": 5 })).await
    }

    fn posted(&self, reference: &str) -> usize {
        let postings = self.company.reality().unwrap().postings;
        postings.iter().filter(|posting| posting.reference == reference).count()
    }
}

#[tokio::test]
async fn a_write_is_made_once_and_its_result_is_mapped() {
    let mut site = accounting().await;
    assert_eq!(site.post("post", "a").await, Outcome::Output(json!({ "id": "JE-1" })));
    assert_eq!(site.rig.read("count", json!({ "ref": "a" })).await, Outcome::Output(json!(1)));
    assert_eq!(site.posted("a"), 1);
    site.rig.holding(0).await;
}

#[tokio::test]
async fn the_key_is_carried_in_the_declared_header() {
    let mut site = accounting().await;
    site.post("post-keyed", "a").await.output();
    let postings = site.company.reality().unwrap().postings;
    assert_eq!(postings[0].request_note.as_deref(), Some("run/step/1"));
}

#[tokio::test]
async fn a_lost_answer_of_a_write_is_unknown_and_is_found_by_its_reconcile() {
    let mut site = accounting().await;
    site.fault(Faults { drop_after_next: 1, ..Faults::default() });
    site.post("post", "done").await.unknown();
    assert_eq!(site.posted("done"), 1, "it was done and not repeated");
    let found = site.rig.reconcile("post", json!({ "ref": "done", "amount": 5 })).await;
    assert_eq!(found, Outcome::Output(json!({ "took_effect": true, "result": { "id": "JE-1" } })));

    site.fault(Faults { drop_before_next: 1, ..Faults::default() });
    site.post("post", "never").await.unknown();
    let found = site.rig.reconcile("post", json!({ "ref": "never", "amount": 5 })).await;
    assert_eq!(found, Outcome::Output(json!({ "took_effect": false })));
    assert_eq!(site.posted("never"), 0);
}

#[tokio::test]
async fn a_reconcile_that_cannot_read_says_nothing_about_the_call() {
    let mut site = accounting().await;
    site.fault(Faults { drop_after_next: 1, ..Faults::default() });
    site.post("post", "a").await.unknown();
    site.fault(Faults { unavailable_next: 1, reach: Reach::All, ..Faults::default() });
    let args = json!({ "ref": "a", "amount": 5 });
    site.rig.reconcile("post", args.clone()).await.error(ErrorClass::Unavailable);
    assert_eq!(site.rig.reconcile("post", args).await.output()["took_effect"], true);
    let message =
        site.rig.reconcile("post-natural", json!({ "ref": "a" })).await.error(ErrorClass::BadRequest);
    assert!(message.contains("no way to find"), "{message}");
}

/// What each way of failing means, by how often the tool may be made.
#[tokio::test]
async fn every_way_of_failing_has_its_meaning() {
    let mut site = accounting().await;
    let ask = |tool: &str| (tool.to_owned(), if tool == "count" { Reach::All } else { Reach::Writes });
    let cases: [(&str, Faults, [&str; 4]); 5] = [
        ("503", Faults { unavailable_next: 1, ..Faults::default() }, ["unavailable"; 4]),
        ("429", Faults { throttle_next: 1, retry_after_s: 7, ..Faults::default() }, ["rate-limited 7000"; 4]),
        (
            "500 after the work",
            Faults { error_after_next: 1, ..Faults::default() },
            ["unknown", "unknown", "unavailable", "unavailable"],
        ),
        (
            "cut before the work",
            Faults { drop_before_next: 2, ..Faults::default() },
            ["unknown", "unknown", "unavailable", "unavailable"],
        ),
        (
            "no answer in time",
            Faults { answer_delay_ms: 2_600, ..Faults::default() },
            ["unknown", "unknown", "unavailable", "unavailable"],
        ),
    ];
    for (what, faults, wanted) in cases {
        for (at, tool) in ["post", "post-keyed", "post-natural", "count"].into_iter().enumerate() {
            let (tool, reach) = ask(tool);
            site.fault(Faults { reach, ..faults.clone() });
            let args = json!({ "ref": format!("{what}/{tool}"), "amount": 1 });
            let outcome = site.rig.call(&tool, args).await;
            assert_eq!(named(&outcome), wanted[at], "{what}, {tool}: {outcome:?}");
            site.fault(Faults::default());
            if tool != "count" {
                assert!(site.posted(&format!("{what}/{tool}")) <= 1, "{what}, {tool}: never repeated here");
            }
        }
    }
}

fn named(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Output(_) => "output".to_owned(),
        Outcome::Unknown(_) => "unknown".to_owned(),
        Outcome::Error { class: ErrorClass::RateLimited, retry_after_ms, .. } => {
            format!("rate-limited {}", retry_after_ms.unwrap())
        }
        Outcome::Error { class: ErrorClass::Unavailable, .. } => "unavailable".to_owned(),
        Outcome::Error { class, .. } => format!("{class:?}"),
    }
}

#[tokio::test]
async fn nobody_there_is_certainly_not_done() {
    let mut site = accounting().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    for endpoint in [endpoint.as_str(), "http://no-such-host.invalid"] {
        let definitions = definitions("http", endpoint, "", POSTINGS);
        let kind = kapell_proto::v1::Definitions { revision: 2, documents: definitions };
        site.rig.session.say(kapell_proto::v1::call_message::Kind::Definitions(kind)).await;
        let message = site.post("post", "a").await.error(ErrorClass::Unavailable);
        assert!(!message.is_empty());
    }
    assert_eq!(site.posted("a"), 0);
}

#[tokio::test]
async fn refusals_and_broken_contracts_say_what_was_answered() {
    let mut site = accounting().await;
    let message =
        site.rig.call("post", json!({ "ref": "", "amount": 1 })).await.error(ErrorClass::BadRequest);
    assert!(message.contains("422") && message.contains("bad_reference"), "{message}");
    let message = site.rig.read("wrong-shape", json!({})).await.error(ErrorClass::ContractBroken);
    assert!(message.contains("does not fit"), "{message}");
    site.rig.read("not-json", json!({})).await.error(ErrorClass::ContractBroken);
    site.rig.read("count", json!({})).await.error(ErrorClass::Expression);
    let message = site.rig.read("post", json!({ "ref": "a" })).await.error(ErrorClass::BadRequest);
    assert!(message.contains("cannot be ordered as a read"), "{message}");
    let message = site.rig.call("nothing", json!({})).await.error(ErrorClass::BadRequest);
    assert!(message.contains("defines no tool `c/nothing`"), "{message}");
    let odd = site.rig.call("post-odd", json!({ "ref": "odd" })).await.output();
    assert_eq!(
        (&odd["status"], &odd["body"]["id"]),
        (&json!(201), &json!("JE-1")),
        "the effect happened: {odd}"
    );
    assert!(odd["note"].as_str().unwrap().contains("no_such_field"), "{odd}");
    assert_eq!(site.posted("odd"), 1);
}

fn shops(company: &Company, north_token: &std::path::Path) -> Vec<String> {
    documents(&format!(
        r#"
apiVersion: kapell.dev/v1
kind: Connector
metadata: {{ name: north }}
spec:
  protocol: http
  tools:
    - name: set-price
      effect: write
      idempotency: natural
      http: {{ method: PUT, path: "/products/${{args.sku}}/price", body: {{ price: "${{args.price}}" }}, result: "${{body.price}}" }}
    - name: list
      http: {{ method: GET, path: /products }}
---
apiVersion: kapell.dev/v1
kind: Connection
metadata: {{ name: c }}
spec:
  connector: north
  endpoint: "{}"
  credential: {{ bearer: {{ token: {{ file: "{}" }} }} }}
---
apiVersion: kapell.dev/v1
kind: Connector
metadata: {{ name: south }}
spec:
  protocol: http
  tools:
    - name: update
      effect: write
      idempotency: natural
      http: {{ method: POST, path: /api/updatePrice, encoding: form, body: {{ item_code: "${{args.code}}", price_cents: "${{args.cents}}" }} }}
---
apiVersion: kapell.dev/v1
kind: Connection
metadata: {{ name: s }}
spec:
  connector: south
  endpoint: "{}"
  credential: {{ apiKey: {{ header: X-Api-Key, key: {{ file: "{}.south" }} }} }}
"#,
        company.addresses().shop_north,
        north_token.display(),
        company.addresses().shop_south,
        north_token.display(),
    ))
}

#[tokio::test]
async fn secrets_are_read_when_first_used_and_again_after_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let company = Company::start(dir.path(), CompanyOptions::default()).await.unwrap();
    let secret = dir.path().join("token");
    let mut rig = Rig::start(shops(&company, &secret)).await;
    let missing = rig.read("list", json!({})).await.error(ErrorClass::Auth);
    assert!(missing.contains("cannot be read"), "{missing}");
    std::fs::write(&secret, "wrong-token").unwrap();
    let refused = rig.read("list", json!({})).await.error(ErrorClass::Auth);
    assert!(refused.contains("401") && !refused.contains("wrong-token"), "{refused}");
    std::fs::write(&secret, "north-demo-token\n").unwrap();
    let products = rig.read("list", json!({})).await.output()["products"].clone();
    // Kept: a file that changes is not read before the secret is refused.
    std::fs::write(&secret, "not-read").unwrap();
    let sku = products[0]["sku"].as_str().unwrap();
    let price = rig.call("set-price", json!({ "sku": sku, "price": "21.50" })).await;
    assert_eq!(price, Outcome::Output(json!("21.50")));
}

#[tokio::test]
async fn forms_and_api_keys_reach_the_other_shop() {
    let dir = tempfile::tempdir().unwrap();
    let company = Company::start(dir.path(), CompanyOptions::default()).await.unwrap();
    let secret = dir.path().join("token");
    std::fs::write(&secret, "north-demo-token").unwrap();
    std::fs::write(dir.path().join("token.south"), "south-demo-key").unwrap();
    let mut rig = Rig::start(shops(&company, &secret)).await;
    let products = rig.read("list", json!({})).await.output()["products"].clone();
    let sku = products[0]["sku"].as_str().unwrap().to_owned();
    let order = crate::rig::call_order(50, "update", &json!({ "code": sku, "cents": 4_321 }));
    rig.session.order(kapell_proto::v1::CallOrder { tool: "s/update".to_owned(), ..order }).await;
    let outcome = Outcome::of(&rig.session.report().await);
    outcome.output();
    let there = format!("{:?}", company.reality().unwrap());
    assert!(there.contains("4321"), "the price is in the shop: {there}");
}
