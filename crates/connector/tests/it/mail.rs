//! Mail to the company's mail server.
use kapell_company::{Company, CompanyOptions, Credentials, Faults, MailLogin};
use kapell_proto::v1::ErrorClass;
use serde_json::{Value, json};

use crate::rig::{Rig, definitions};

const TOOLS: &str = r#"
- name: send
  effect: irreversible
  timeout: 2s
  smtp:
    from: "Kapell <kapell@company.example>"
    to: ["${args.to}", "archive@company.example"]
    subject: "${args.subject}"
    text: "${args.text}"
- name: send-keyed
  effect: irreversible
  idempotency: { key: { carrier: X-Kapell-Key } }
  smtp: { from: kapell@company.example, to: ["${args.to}"], subject: s, text: t }
"#;

struct Post {
    rig: Rig,
    company: Company,
    _dir: tempfile::TempDir,
}

async fn post(options: CompanyOptions, connection: &str) -> Post {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), "hush\n").unwrap();
    let company = Company::start(dir.path(), options).await.unwrap();
    let connection = connection.replace("DIR", dir.path().to_str().unwrap());
    let endpoint = format!("smtp://{}", company.addresses().smtp);
    Post { rig: Rig::start(definitions("smtp", &endpoint, &connection, TOOLS)).await, company, _dir: dir }
}

fn mail(subject: &str) -> Value {
    json!({ "to": "Vendor <vendor@example.com>", "subject": subject, "text": "Größe\n.\nend" })
}

#[tokio::test]
async fn a_mail_arrives_with_an_id_made_of_the_calls_key() {
    let mut post = post(CompanyOptions::default(), "").await;
    let sent = post.rig.call("send", mail("Preisänderung")).await.output();
    assert_eq!(sent["message_id"], "<run/step/1@company.example>");
    post.rig.call("send-keyed", json!({ "to": "vendor@example.com" })).await.output();
    let mails = post.company.reality().unwrap().mails;
    assert_eq!(mails.len(), 2);
    assert_eq!(mails[0].message_id.as_deref(), Some("run/step/1@company.example"));
    assert_eq!(mails[0].subject, "Preisänderung");
    assert_eq!(mails[0].envelope_to, ["vendor@example.com", "archive@company.example"]);
    assert_eq!(mails[0].body_text.trim_end().replace("\r\n", "\n"), "Größe\n.\nend");
}

#[tokio::test]
async fn every_way_of_failing_has_its_meaning() {
    let mut post = post(CompanyOptions::default(), "").await;
    let knobs = post.company.smtp_knobs().clone();
    let count = |post: &Post| post.company.reality().unwrap().mails.len();
    knobs.set(Faults { throttle_next: 1, unavailable_next: 1, ..Faults::default() }).unwrap();
    post.rig.call("send", mail("a")).await.error(ErrorClass::RateLimited);
    post.rig.call("send", mail("a")).await.error(ErrorClass::Unavailable);
    assert_eq!(count(&post), 0);
    for (faults, there) in [
        (Faults { drop_before_next: 1, ..Faults::default() }, 0),
        (Faults { drop_after_next: 1, ..Faults::default() }, 1),
        (Faults { answer_delay_ms: 3_000, ..Faults::default() }, 2),
    ] {
        knobs.set(faults).unwrap();
        post.rig.call("send", mail("b")).await.unknown();
        assert_eq!(count(&post), there);
    }
    knobs.set(Faults::default()).unwrap();
    let message = post.rig.call("send", json!({ "to": "nobody", "subject": "", "text": "" })).await;
    assert!(message.error(ErrorClass::BadRequest).contains("no mail address"));
    assert_eq!(count(&post), 2);
}

#[tokio::test]
async fn line_ends_in_a_subject_or_an_address_begin_no_header() {
    let mut post = post(CompanyOptions::default(), "").await;
    let hostile = "hello\r\nBcc: spy@example.com\r\n\r\nbody";
    post.rig.call("send", mail(hostile)).await.output();
    let address = json!({ "to": "a@example.com>\r\nRCPT TO:<spy@example.com", "subject": "s", "text": "t" });
    post.rig.call("send", address).await.error(ErrorClass::BadRequest);
    let mails = post.company.reality().unwrap().mails;
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].envelope_to, ["vendor@example.com", "archive@company.example"]);
    assert_eq!(mails[0].body_text.trim_end().replace("\r\n", "\n"), "Größe\n.\nend");
}

#[tokio::test]
async fn nobody_there_is_certainly_not_sent() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("smtp://{}", closed.local_addr().unwrap());
    drop(closed);
    let mut rig = Rig::start(definitions("smtp", &endpoint, "", TOOLS)).await;
    rig.call("send", mail("a")).await.error(ErrorClass::Unavailable);
}

#[tokio::test]
async fn a_login_is_shown_and_a_wrong_one_refused() {
    let login = |password: &str| CompanyOptions {
        credentials: Credentials {
            mail: Some(MailLogin { user: "kapell".to_owned(), password: password.to_owned() }),
            ..Credentials::default()
        },
        ..CompanyOptions::default()
    };
    let credential = "credential: { basic: { user: kapell, password: { file: \"DIR/password\" } } }";
    let mut right = post(login("hush"), credential).await;
    right.rig.call("send", mail("a")).await.output();
    let mut wrong = post(login("other"), credential).await;
    let message = wrong.rig.call("send", mail("a")).await.error(ErrorClass::Auth);
    assert!(!message.contains("hush"), "{message}");
}
