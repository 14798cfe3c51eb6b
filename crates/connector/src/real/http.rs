//! HTTP.
//!
//! Owns: which connections may be used again, which redirects are followed, what a lost answer means. Never: decides
//! what a status means (that is `answer`).
mod answer;
mod request;

use std::sync::OnceLock;
use std::time::Duration;

use kapell_kernel::ErrorClass;
use kapell_model::catalogue::CompiledHttp;
use kapell_runtime::Clock;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Request, Response};

use super::ANSWER_BYTES_MAX;
use super::secret::Login;
use crate::outside::{CallOutcome, OutsideRequest, is_read};
use answer::Answer;

/// Longest time to reach a server; then it is certain that nothing was sent.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Connections are closed by us before servers and middleboxes commonly do.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// Idle connections that are kept for one server.
const IDLE_MAX: usize = 16;
/// Redirects that a read follows, within one origin.
const REDIRECTS_MAX: usize = 5;

/// The clients of one connection, made when they are first needed.
#[derive(Debug, Default)]
pub(crate) struct HttpClients {
    pooled: OnceLock<Client>,
    fresh: OnceLock<Client>,
}

impl HttpClients {
    /// For what may be repeated: connections are used again.
    fn pooled(&self) -> Result<&Client, reqwest::Error> {
        get_or_make(&self.pooled, || {
            base()
                .redirect(Policy::custom(follow))
                .pool_idle_timeout(IDLE_FOR)
                .pool_max_idle_per_host(IDLE_MAX)
        })
    }

    /// For what must not: each request has a connection of its own. A connection that is used again may have been
    /// closed by the server at the moment of sending, and then nobody knows whether the request arrived.
    fn fresh(&self) -> Result<&Client, reqwest::Error> {
        get_or_make(&self.fresh, || base().redirect(Policy::none()).pool_max_idle_per_host(0).http1_only())
    }
}

fn get_or_make(
    place: &OnceLock<Client>,
    builder: impl FnOnce() -> reqwest::ClientBuilder,
) -> Result<&Client, reqwest::Error> {
    if let Some(client) = place.get() {
        return Ok(client);
    }
    let made = builder().build()?;
    Ok(place.get_or_init(|| made))
}

fn base() -> reqwest::ClientBuilder {
    // Proxies would come from the environment, which only the binary reads; retrying is decided here.
    Client::builder()
        .no_proxy()
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_WITHIN)
        .user_agent(concat!("kapell/", env!("CARGO_PKG_VERSION")))
}

/// Credentials go to the origin that they are for and nowhere else.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let same = attempt.previous().first().is_some_and(|from| from.origin() == attempt.url().origin());
    if same && attempt.previous().len() <= REDIRECTS_MAX { attempt.follow() } else { attempt.stop() }
}

/// Makes one call.
pub(crate) async fn call(
    clients: &HttpClients,
    clock: &dyn Clock,
    login: &Login,
    request: &OutsideRequest,
    http: &CompiledHttp,
) -> CallOutcome {
    let client = if is_read(&request.tool) { clients.pooled() } else { clients.fresh() };
    let client = match client {
        Ok(client) => client,
        Err(error) => return CallOutcome::failed(ErrorClass::Unavailable, describe(&error)),
    };
    let rendered = match request::render(client, login, request, http) {
        Ok(rendered) => rendered,
        Err(error) => return CallOutcome::Failed(error),
    };
    if !request.fence.pass() {
        return CallOutcome::failed(ErrorClass::Unavailable, "the call was given up before it was sent");
    }
    // A connection from the pool may turn out to be dead: a read is asked once more, on another one.
    let again = if is_read(&request.tool) { rendered.try_clone() } else { None };
    let mut sent = exchange(client, rendered).await;
    if let (Err(Broken::Lost(_)), Some(again)) = (&sent, again) {
        sent = exchange(client, again).await;
    }
    match sent {
        Ok(answer) => answer.judge(clock, request, http),
        Err(Broken::NotSent(why)) => CallOutcome::failed(ErrorClass::Unavailable, why),
        Err(Broken::Unsendable(why)) => CallOutcome::failed(ErrorClass::BadRequest, why),
        Err(Broken::Lost(why)) => CallOutcome::lost(&request.tool, why),
        Err(Broken::TooLarge(status)) => too_large(status, request),
    }
}

/// Why there is no whole answer.
enum Broken {
    /// The server was not reached.
    NotSent(String),
    /// It is no request.
    Unsendable(String),
    /// The request may have arrived.
    Lost(String),
    /// A success with this status whose answer is larger than is read.
    TooLarge(u16),
}

async fn exchange(client: &Client, request: Request) -> Result<Answer, Broken> {
    let response = client.execute(request).await.map_err(|error| {
        let why = describe(&error);
        match (error.is_builder(), error.is_connect()) {
            (true, _) => Broken::Unsendable(why),
            (false, true) => Broken::NotSent(why),
            (false, false) => Broken::Lost(why),
        }
    })?;
    read(response).await
}

/// The whole answer. One that is no success says enough by its status: what can be had of its body will do.
async fn read(mut response: Response) -> Result<Answer, Broken> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let is_success = response.status().is_success();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > ANSWER_BYTES_MAX => {
                let part = Answer { status, headers, body };
                return if is_success { Err(Broken::TooLarge(status)) } else { Ok(part) };
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(Answer { status, headers, body }),
            Err(_) if !is_success => return Ok(Answer { status, headers, body }),
            Err(error) => {
                let read = body.len();
                return Err(Broken::Lost(format!(
                    "the answer broke off after {read} bytes: {}",
                    describe(&error)
                )));
            }
        }
    }
}

fn too_large(status: u16, request: &OutsideRequest) -> CallOutcome {
    let why = format!("status {status} with an answer of more than {ANSWER_BYTES_MAX} bytes");
    if is_read(&request.tool) {
        return CallOutcome::failed(ErrorClass::ContractBroken, why);
    }
    let output = serde_json::json!({ "status": status, "note": why });
    CallOutcome::Succeeded { output, note: Some(why) }
}

/// The error with its reasons, without the address: a query may hold what is nobody's business.
fn describe(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "timed out".to_owned() } else { String::new() };
    let mut source = std::error::Error::source(error);
    while let Some(reason) = source {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&reason.to_string());
        source = reason.source();
    }
    if text.is_empty() { "the request could not be made".to_owned() } else { text }
}
