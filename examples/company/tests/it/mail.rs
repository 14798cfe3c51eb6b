//! The mail server, with a real client and with raw lines.

use std::time::Duration;

use kapell_company::{CompanyOptions, Credentials, Faults, MAIL_BYTES_MAX, MailLogin, SESSIONS_MAX};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::header::ContentType,
    transport::smtp::authentication::{Credentials as Login, Mechanism},
};
use reqwest::StatusCode;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::{Site, answer};

type Transport = AsyncSmtpTransport<Tokio1Executor>;

fn transport(site: &Site, login: Option<Login>) -> Transport {
    let address = site.company.addresses().smtp;
    let builder = Transport::builder_dangerous(address.ip().to_string())
        .port(address.port())
        .timeout(Some(Duration::from_secs(10)));
    match login {
        Some(login) => builder.credentials(login).authentication(vec![Mechanism::Plain]).build(),
        None => builder.build(),
    }
}

fn message(id: &str, body: &str) -> Message {
    Message::builder()
        .message_id(Some(format!("<{id}@kassa.example>")))
        .from("Kasse <kasse@company.example>".parse().unwrap())
        .to("Buchhaltung <accounting@company.example>".parse().unwrap())
        .subject("Preisänderung – V-100")
        .header(ContentType::TEXT_PLAIN)
        .body(body.to_owned())
        .unwrap()
}

#[tokio::test]
async fn a_mail_arrives_as_it_was_written() {
    let site = Site::open().await;
    let body = "PO-5001 für 12,90 €\r\n.\r\n..two dots\r\nend";
    transport(&site, None).send(message("m-1", body)).await.unwrap();
    let mails = site.company.reality().unwrap().mails;
    assert_eq!(mails.len(), 1);
    let mail = &mails[0];
    assert_eq!(mail.message_id.as_deref(), Some("m-1@kassa.example"));
    assert_eq!(mail.subject, "Preisänderung – V-100");
    assert_eq!(mail.envelope_from, "kasse@company.example");
    assert_eq!(mail.envelope_to, ["accounting@company.example"]);
    assert_eq!(
        (mail.from.as_slice(), mail.to.as_slice()),
        (&["kasse@company.example".to_owned()][..], &["accounting@company.example".to_owned()][..])
    );
    assert_eq!(mail.body_text.trim_end().replace("\r\n", "\n"), body.replace("\r\n", "\n"));
}

#[tokio::test]
async fn a_mail_that_is_sent_twice_is_there_twice_and_can_be_looked_up() {
    let site = Site::open().await;
    let transport = transport(&site, None);
    for id in ["m-1", "m-2", "m-1"] {
        transport.send(message(id, "text")).await.unwrap();
    }
    let site = site.reopen().await;
    let url = format!("{}/mails", site.company.addresses().webmail);
    let count = async |query: &str| {
        let (status, found) = answer(site.http.get(format!("{url}{query}"))).await;
        assert_eq!(status, StatusCode::OK);
        found["mails"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 3);
    assert_eq!(count("?message_id=m-1@kassa.example").await, 2);
    assert_eq!(count("?message_id=%3Cm-2@kassa.example%3E").await, 1);
    assert_eq!(count("?message_id=m-3@kassa.example").await, 0);
    transport_order_is_kept(&site);
}

fn transport_order_is_kept(site: &Site) {
    let mails = site.company.reality().unwrap().mails;
    let ids: Vec<_> = mails.iter().filter_map(|mail| mail.message_id.as_deref()).collect();
    assert_eq!(ids, ["m-1@kassa.example", "m-2@kassa.example", "m-1@kassa.example"]);
}

#[tokio::test]
async fn the_knobs_stand_at_the_end_of_a_mail() {
    let site = Site::open().await;
    let set = async |faults: serde_json::Value| {
        let url = format!("{}/admin/faults", site.company.addresses().webmail);
        assert_eq!(answer(site.http.put(url).json(&faults)).await.0, StatusCode::OK);
    };
    let count = || site.company.reality().unwrap().mails.len();
    let code = |error: lettre::transport::smtp::Error| error.status().map(u16::from);
    set(json!({ "throttle_next": 1, "unavailable_next": 1, "drop_before_next": 1 })).await;
    for want in [Some(450), Some(451), None] {
        let error = transport(&site, None).send(message("m-1", "text")).await.unwrap_err();
        assert_eq!(code(error), want);
    }
    assert_eq!(count(), 0);
    set(json!({ "error_after_next": 1, "drop_after_next": 1 })).await;
    for (want, kept) in [(Some(451), 1), (None, 2)] {
        let error = transport(&site, None).send(message("m-1", "text")).await.unwrap_err();
        assert_eq!((code(error), count()), (want, kept));
    }
    transport(&site, None).send(message("m-1", "text")).await.unwrap();
    assert_eq!(site.company.smtp_knobs().get(), Faults::default());
}

#[tokio::test]
async fn a_login_is_needed_when_one_is_set() {
    let login = MailLogin { user: "kasse".into(), password: "geheim".into() };
    let credentials = Credentials { mail: Some(login), ..Credentials::default() };
    let site = Site::open_with(CompanyOptions { credentials, ..CompanyOptions::default() }).await;
    assert!(transport(&site, None).send(message("m-1", "text")).await.is_err());
    let wrong = Login::new("kasse".into(), "falsch".into());
    assert!(transport(&site, Some(wrong)).send(message("m-1", "text")).await.is_err());
    let right = Login::new("kasse".into(), "geheim".into());
    transport(&site, Some(right)).send(message("m-1", "text")).await.unwrap();
    assert_eq!(site.company.reality().unwrap().mails.len(), 1);
}

/// A dialogue by hand.
struct Dialogue(BufReader<TcpStream>);

impl Dialogue {
    async fn begin(site: &Site) -> Self {
        let mut dialogue =
            Self(BufReader::new(TcpStream::connect(site.company.addresses().smtp).await.unwrap()));
        assert_eq!(dialogue.code().await, 220);
        dialogue
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The code of the next whole reply; 0 when the connection has ended.
    async fn code(&mut self) -> u16 {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await.unwrap_or(0) == 0 {
                return 0;
            }
            if line.as_bytes().get(3) == Some(&b' ') {
                return line[..3].parse().unwrap();
            }
        }
    }
}

#[tokio::test]
async fn commands_in_one_piece_are_answered_one_by_one() {
    let site = Site::open().await;
    let mut dialogue = Dialogue::begin(&site).await;
    let all =
        b"EHLO c\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nDATA\r\n\
        Subject: hi\r\n\r\n..dot\r\n.\r\nNOOP\r\nQUIT\r\n";
    dialogue.send(all).await;
    for want in [250, 250, 250, 250, 354, 250, 250, 221, 0] {
        assert_eq!(dialogue.code().await, want);
    }
    let mails = site.company.reality().unwrap().mails;
    assert_eq!(mails[0].envelope_to, ["c@d.example", "e@f.example"]);
    assert_eq!((mails[0].message_id.as_deref(), mails[0].body_text.trim_end()), (None, ".dot"));
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_the_session_goes_on() {
    let site = Site::open().await;
    let mut dialogue = Dialogue::begin(&site).await;
    dialogue.send(&[b"NOOP ".as_slice(), &vec![b'x'; 10_000], b"\r\nEHLO c\r\n"].concat()).await;
    assert_eq!([dialogue.code().await, dialogue.code().await], [500, 250]);
    dialogue.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n").await;
    assert_eq!([dialogue.code().await, dialogue.code().await, dialogue.code().await], [250, 250, 354]);
    let (mut chunk, mut sent) = (vec![b'x'; 1022], 0);
    chunk.extend_from_slice(b"\r\n");
    while sent <= MAIL_BYTES_MAX {
        dialogue.send(&chunk).await;
        sent += chunk.len();
    }
    dialogue.send(b".\r\nMAIL FROM:<a@b.example>\r\n").await;
    assert_eq!([dialogue.code().await, dialogue.code().await], [552, 250]);
    assert_eq!(site.company.reality().unwrap().mails, []);
}

#[tokio::test]
async fn a_mail_without_its_end_is_no_mail() {
    let site = Site::open().await;
    let mut dialogue = Dialogue::begin(&site).await;
    dialogue.send(b"HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nSubject: half\r\n").await;
    for want in [250, 250, 250, 354] {
        assert_eq!(dialogue.code().await, want);
    }
    drop(dialogue);
    transport(&site, None).send(message("m-1", "whole")).await.unwrap();
    assert_eq!(site.company.reality().unwrap().mails.len(), 1);
}

#[tokio::test]
async fn one_session_too_many_is_sent_away() {
    let site = Site::open().await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS_MAX {
        sessions.push(Dialogue::begin(&site).await);
    }
    let mut late = Dialogue(BufReader::new(TcpStream::connect(site.company.addresses().smtp).await.unwrap()));
    assert_eq!([late.code().await, late.code().await], [421, 0]);
    sessions[0].send(b"QUIT\r\n").await;
    assert_eq!([sessions[0].code().await, sessions[0].code().await], [221, 0]);
    let mut tries = 0;
    loop {
        let mut next =
            Dialogue(BufReader::new(TcpStream::connect(site.company.addresses().smtp).await.unwrap()));
        if next.code().await == 220 {
            break;
        }
        tries += 1;
        assert!(tries < 50, "the place is never free again");
        // why: the place is freed by a task of the server, which tells nobody
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
