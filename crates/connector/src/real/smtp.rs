//! Mail.
//!
//! Owns: the dialogue with the mail server, so that it is known whether the mail may have been taken. Never: sends a
//! password in the clear to another machine.
use std::time::Duration;

use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::Timestamp;
use kapell_model::catalogue::CompiledSmtp;
use kapell_model::definition::Idempotency;
use kapell_model::expr::{Scope, Template};
use kapell_runtime::Runtime;
use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use reqwest::Url;

use super::secret::Login;
use crate::outside::{CallOutcome, OutsideRequest};

/// Longest time to reach a server.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

enum Failed {
    /// The mail was not taken.
    Certain(TaskError),
    /// The mail may have been taken.
    Lost(String),
}

impl From<TaskError> for Failed {
    fn from(error: TaskError) -> Failed {
        Failed::Certain(error)
    }
}

/// Sends one mail.
pub(crate) async fn call(
    runtime: &Runtime,
    login: &Login,
    request: &OutsideRequest,
    smtp: &CompiledSmtp,
) -> CallOutcome {
    let sent = async {
        let (message, id) = message(request, smtp, runtime.clock.now())?;
        let mut connection = connect(login, &request.tool.connection.endpoint).await?;
        let answer = send(&mut connection, request, &message).await?;
        // The mail is taken; whether the server says good-bye does not matter.
        drop(tokio::time::timeout(Duration::from_millis(200), connection.quit()).await);
        Ok::<_, Failed>(serde_json::json!({ "message_id": id, "answer": answer }))
    };
    match sent.await {
        Ok(output) => CallOutcome::succeeded(output),
        Err(Failed::Certain(error)) => CallOutcome::Failed(error),
        Err(Failed::Lost(why)) => CallOutcome::lost(&request.tool, why),
    }
}

/// The mail and its Message-ID, which is the same in every making of the call.
fn message(
    request: &OutsideRequest,
    smtp: &CompiledSmtp,
    now: Timestamp,
) -> Result<(Message, String), TaskError> {
    let mut scope = Scope::new();
    scope.set("args", &request.args);
    let from = mailbox("from", &smtp.from, &scope)?;
    let id = message_id(&request.key, from.email.domain());
    let mut builder = Message::builder()
        .message_id(Some(id.clone()))
        .date(std::time::UNIX_EPOCH + Duration::from_millis(now.0))
        .subject(text("subject", &smtp.subject, &scope)?)
        .header(ContentType::TEXT_PLAIN)
        .from(from);
    for receiver in &smtp.to {
        builder = builder.to(mailbox("to", receiver, &scope)?);
    }
    if let Idempotency::Key { carrier } = &request.tool.tool.idempotency
        && !carrier.eq_ignore_ascii_case("message-id")
    {
        let name = HeaderName::new_from_ascii(carrier.clone());
        let name = name.map_err(|_| bad(format!("`{carrier}` is no name of a header")))?;
        builder = builder.raw_header(HeaderValue::new(name, request.key.clone()));
    }
    let message =
        builder.body(text("text", &smtp.text, &scope)?).map_err(|error| bad(format!("the mail: {error}")))?;
    Ok((message, id))
}

/// `<key@domain>`, with what may not stand there as `%XX`.
fn message_id(key: &str, domain: &str) -> String {
    let mut id = String::from("<");
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_/+=".contains(&byte) {
            id.push(char::from(byte));
        } else {
            id.push_str(&format!("%{byte:02X}"));
        }
    }
    id.push('@');
    id.push_str(domain);
    id.push('>');
    id
}

fn text(field: &str, template: &Template, scope: &Scope) -> Result<String, TaskError> {
    template
        .eval_text(scope, &str::to_owned)
        .map_err(|error| TaskError::new(ErrorClass::Expression, format!("{field}: {error}")))
}

fn mailbox(field: &str, template: &Template, scope: &Scope) -> Result<Mailbox, TaskError> {
    let text = text(field, template, scope)?;
    text.parse().map_err(|error| bad(format!("{field}: `{text}` is no mail address: {error}")))
}

async fn connect(login: &Login, endpoint: &str) -> Result<AsyncSmtpConnection, TaskError> {
    let url = Url::parse(endpoint).map_err(|error| bad(format!("endpoint `{endpoint}`: {error}")))?;
    let encrypted = url.scheme() == "smtps";
    let host = url.host_str().ok_or_else(|| bad(format!("endpoint `{endpoint}` names no host")))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port().unwrap_or(if encrypted { 465 } else { 25 });
    let hello = ClientId::default();
    let tls = if encrypted { Some(tls_of(&host)?) } else { None };
    let address = (host.as_str(), port);
    let mut connection =
        AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT_WITHIN), &hello, tls, None)
            .await
            .map_err(|error| classify(&error))?;
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let secret = match login {
        Login::Basic { user, password } => Some(Credentials::new(user.clone(), password.reveal().to_owned())),
        Login::None | Login::Bearer { .. } | Login::ApiKey { .. } => None,
    };
    if !here && !connection.is_encrypted() && (connection.can_starttls() || secret.is_some()) {
        connection.starttls(tls_of(&host)?, &hello).await.map_err(|error| classify(&error))?;
    }
    if let Some(secret) = secret {
        connection.auth(DEFAULT_MECHANISMS, &secret).await.map_err(|error| {
            let class = if error.is_permanent() { ErrorClass::Auth } else { ErrorClass::Unavailable };
            TaskError::new(class, describe(&error))
        })?;
    }
    Ok(connection)
}

fn tls_of(host: &str) -> Result<TlsParameters, TaskError> {
    TlsParameters::new(host.to_owned())
        .map_err(|error| TaskError::new(ErrorClass::Unavailable, describe(&error)))
}

/// Sends the mail; gives what the server said when it took it.
async fn send(
    connection: &mut AsyncSmtpConnection,
    request: &OutsideRequest,
    message: &Message,
) -> Result<String, Failed> {
    let envelope = message.envelope();
    let mut parameters = Vec::new();
    if connection.server_info().supports_feature(Extension::EightBitMime) {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    let refused = |error: Error| Failed::Certain(classify(&error));
    connection.command(Mail::new(envelope.from().cloned(), parameters)).await.map_err(refused)?;
    for receiver in envelope.to() {
        connection.command(Rcpt::new(receiver.clone(), Vec::new())).await.map_err(refused)?;
    }
    connection.command(Data).await.map_err(refused)?;
    if !request.fence.pass() {
        return Err(
            TaskError::new(ErrorClass::Unavailable, "the call was given up before it was sent").into()
        );
    }
    match connection.message(&message.formatted()).await {
        Ok(answer) => Ok(answer.message().collect::<Vec<_>>().join(" ")),
        // The server says that it did not take it.
        Err(error) if error.status().is_some() => Err(Failed::Certain(classify(&error))),
        Err(error) => Err(Failed::Lost(format!("the mail was sent and not answered: {}", describe(&error)))),
    }
}

/// What an error means that came before the mail was sent, or with the server's word that it was not taken.
fn classify(error: &Error) -> TaskError {
    let code = error.status().map(u16::from);
    let class = match code {
        // "Mailbox busy", "too much": what servers say who want mail more slowly.
        Some(450 | 452) => ErrorClass::RateLimited,
        Some(530 | 534 | 535 | 538) => ErrorClass::Auth,
        Some(500..) => ErrorClass::BadRequest,
        Some(_) | None => ErrorClass::Unavailable,
    };
    TaskError::new(class, describe(error))
}

fn describe(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(reason) => format!("SMTP: {error}: {reason}"),
        None => format!("SMTP: {error}"),
    }
}

fn bad(message: String) -> TaskError {
    TaskError::new(ErrorClass::BadRequest, message)
}
