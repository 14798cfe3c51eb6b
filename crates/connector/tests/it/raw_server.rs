//! Servers that answer byte by byte what a test wants, which no HTTP library would.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kapell_proto::v1::ErrorClass;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{Outcome, Rig, definitions};

const TOOLS: &str = r#"
- name: do
  effect: write
  timeout: 3s
  http: { method: POST, path: /do, body: { a: 1 } }
- name: get
  timeout: 3s
  http: { method: GET, path: /get }
- name: status
  effect: write
  timeout: 3s
  http: { method: POST, path: /do, result: { ok: "${status == 200}" } }
"#;

/// What a server does with one connection, of which it is the nth.
type Conduct = fn(TcpStream, usize) -> futures::future::BoxFuture<'static, ()>;

struct Server {
    address: String,
    connections: Arc<AtomicUsize>,
}

async fn serve(conduct: Conduct) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(conduct(stream, count.fetch_add(1, Ordering::SeqCst)));
        }
    });
    Server { address, connections }
}

/// Reads one request, of which all fits in one read or a few.
async fn request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 8_192];
    loop {
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let body = text.split_once("\r\n\r\n").map(|(head, body)| (head.to_lowercase(), body.len()));
        let whole = body.is_some_and(|(head, len)| {
            let wanted =
                head.lines().find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
            wanted.is_none_or(|wanted| wanted.parse::<usize>().unwrap() <= len)
        });
        if read == 0 || whole {
            return text;
        }
    }
}

async fn rig(server: &Server) -> Rig {
    Rig::start(definitions("http", &server.address, "", TOOLS)).await
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Answers the first request of a connection, keeps it open as if for more, and closes it on the next.
fn one_request_each(mut stream: TcpStream, _: usize) -> futures::future::BoxFuture<'static, ()> {
    Box::pin(async move {
        if !request(&mut stream).await.is_empty() {
            stream.write_all(answer("{}").as_bytes()).await.unwrap();
            request(&mut stream).await;
        }
    })
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closes_hurts_nobody() {
    let server = serve(one_request_each).await;
    let mut rig = rig(&server).await;
    for _ in 0..3 {
        // Each read but the first finds the kept connection dead, and asks on another one.
        assert_eq!(rig.read("get", json!({})).await, Outcome::Output(json!({})));
    }
    let before = server.connections.load(Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(rig.call("do", json!({})).await, Outcome::Output(json!({})));
    }
    let used = server.connections.load(Ordering::SeqCst) - before;
    assert_eq!(used, 3, "each write has a connection of its own");
}

#[tokio::test]
async fn answers_that_break_off_are_lost() {
    fn half(mut stream: TcpStream, _: usize) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"a\":").await.unwrap();
        })
    }
    let mut rig = rig(&serve(half).await).await;
    let why = rig.call("do", json!({})).await.unknown();
    assert!(why.contains("broke off after 5 bytes"), "{why}");
    rig.read("get", json!({})).await.error(ErrorClass::Unavailable);
}

#[tokio::test]
async fn a_refusal_counts_even_when_its_body_breaks_off() {
    fn refuse(mut stream: TcpStream, _: usize) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            request(&mut stream).await;
            stream.write_all(b"HTTP/1.1 422 No\r\ncontent-length: 100\r\n\r\nno such thi").await.unwrap();
        })
    }
    let mut rig = rig(&serve(refuse).await).await;
    let message = rig.call("do", json!({})).await.error(ErrorClass::BadRequest);
    assert!(message.contains("422"), "{message}");
}

#[tokio::test]
async fn a_write_that_was_answered_has_taken_effect_whatever_the_answer_looks_like() {
    fn plain(mut stream: TcpStream, _: usize) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            request(&mut stream).await;
            stream.write_all(answer("thank you").as_bytes()).await.unwrap();
        })
    }
    let mut rig = rig(&serve(plain).await).await;
    let odd = rig.call("do", json!({})).await.output();
    assert_eq!((&odd["status"], &odd["body"]), (&json!(200), &json!("thank you")));
    assert!(odd["note"].as_str().unwrap().contains("no JSON"), "{odd}");
    assert_eq!(rig.call("status", json!({})).await, Outcome::Output(json!({ "ok": true })));
    rig.read("get", json!({})).await.error(ErrorClass::ContractBroken);
}

#[tokio::test]
async fn an_answer_has_a_limit() {
    fn flood(mut stream: TcpStream, _: usize) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            request(&mut stream).await;
            let body = format!("\"{}\"", "x".repeat(1 << 20));
            drop(stream.write_all(answer(&body).as_bytes()).await);
        })
    }
    let mut rig = rig(&serve(flood).await).await;
    let message = rig.read("get", json!({})).await.error(ErrorClass::ContractBroken);
    assert!(message.contains("1048576"), "{message}");
    let odd = rig.call("do", json!({})).await.output();
    assert!(odd["note"].as_str().unwrap().contains("more than 1048576 bytes"), "{odd}");
}

#[tokio::test]
async fn redirects_are_followed_by_reads_at_home_and_by_nobody_else() {
    fn redirect(mut stream: TcpStream, _: usize) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            let text = request(&mut stream).await;
            let answer = match text.split_whitespace().nth(1) {
                Some("/get") => {
                    "HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n".to_owned()
                }
                Some("/there") => answer("{\"there\":true}"),
                _ => {
                    "HTTP/1.1 307 Go\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_owned()
                }
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
    }
    let mut rig = rig(&serve(redirect).await).await;
    assert_eq!(rig.read("get", json!({})).await, Outcome::Output(json!({ "there": true })));
    let message = rig.call("do", json!({})).await.error(ErrorClass::BadRequest);
    assert!(message.contains("307 to http://127.0.0.1:1/"), "{message}");
}

#[tokio::test]
async fn see_other_after_a_write_is_unknown_and_a_foreign_redirect_of_a_read_is_no_answer() {
    fn elsewhere(mut stream: TcpStream, _: usize) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            request(&mut stream).await;
            let answer = "HTTP/1.1 303 See\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
    }
    let mut rig = rig(&serve(elsewhere).await).await;
    rig.call("do", json!({})).await.unknown();
    rig.read("get", json!({})).await.error(ErrorClass::ContractBroken);
}

#[tokio::test]
async fn silence_ends_at_the_tools_timeout() {
    fn silent(mut stream: TcpStream, _: usize) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            request(&mut stream).await;
            // why: silence is what is tested
            tokio::time::sleep(Duration::from_secs(60)).await;
        })
    }
    let mut rig = rig(&serve(silent).await).await;
    let begun = std::time::Instant::now();
    let why = rig.call("do", json!({})).await.unknown();
    assert!(why.contains("3000 ms"), "{why}");
    assert!((3_000..6_000).contains(&begun.elapsed().as_millis()));
}
