//! Requests: from templates and arguments to one HTTP request.
//!
//! Owns: that a value stays where its template puts it: in one path segment, one parameter, one header, one field.
//! Never: sends.
use std::cell::Cell;

use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::catalogue::CompiledHttp;
use kapell_model::definition::{BodyEncoding, Idempotency, Method};
use kapell_model::expr::{EvalError, Scope, Template};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, Request, RequestBuilder, Url};
use serde_json::Value;

use super::super::secret::{Hidden, Login};
use crate::outside::OutsideRequest;

/// The request, with the credential and the key.
pub(super) fn render(
    client: &Client,
    login: &Login,
    request: &OutsideRequest,
    http: &CompiledHttp,
) -> Result<Request, TaskError> {
    let mut scope = Scope::new();
    scope.set("args", &request.args);
    let url = url(&request.tool.connection.endpoint, http, &scope)?;
    let mut builder = client.request(method(http.method), url);
    if let Some(body) = &http.body {
        builder = with_body(builder, http.encoding, body.eval(&scope).map_err(expression)?)?;
    }
    let mut rendered = builder.build().map_err(|error| bad(super::describe(&error)))?;
    for (name, template) in &http.headers {
        let value = template.eval_text(&scope, &str::to_owned).map_err(expression)?;
        put(&mut rendered, name, header(name, &value)?)?;
    }
    if let Idempotency::Key { carrier } = &request.tool.tool.idempotency {
        put(&mut rendered, carrier, header(carrier, &request.key)?)?;
    }
    authorize(&mut rendered, login)?;
    Ok(rendered)
}

fn method(method: Method) -> reqwest::Method {
    match method {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        Method::Patch => reqwest::Method::PATCH,
        Method::Delete => reqwest::Method::DELETE,
    }
}

fn url(endpoint: &str, http: &CompiledHttp, scope: &Scope) -> Result<Url, TaskError> {
    let base = Url::parse(endpoint).map_err(|error| bad(format!("endpoint `{endpoint}`: {error}")))?;
    let path = path(&http.path, scope)?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let text = format!("{}{slash}{path}", endpoint.trim_end_matches('/'));
    let mut url = Url::parse(&text).map_err(|error| bad(format!("path `{path}`: {error}")))?;
    if url.origin() != base.origin() {
        return Err(bad(format!("path `{path}` leads to another server")));
    }
    for (name, template) in &http.query {
        for value in texts(template.eval(scope).map_err(expression)?) {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    Ok(url)
}

/// The path with each value percent-encoded. A value that would change the path's shape is refused: an empty one
/// would name the collection instead of the item, and dots would climb.
pub(super) fn path(template: &Template, scope: &Scope) -> Result<String, TaskError> {
    let empty = Cell::new(false);
    let escape = |value: &str| {
        empty.set(empty.get() || value.is_empty());
        percent_encode(value)
    };
    let path = template.eval_text(scope, &escape).map_err(expression)?;
    if empty.get() {
        return Err(bad("a value in the path is empty".to_owned()));
    }
    let before_query = path.split(['?', '#']).next().unwrap_or_default();
    let climbs =
        |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if before_query.split(['/', '\\']).any(climbs) {
        return Err(bad(format!("path `{path}` climbs out of its place")));
    }
    Ok(path)
}

/// Keeps the unreserved characters of RFC 3986.
pub(super) fn percent_encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// What a value comes to as a parameter: nothing for null, each item of a list, else one text.
fn texts(value: Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.into_iter().flat_map(texts).collect(),
        Value::String(text) => vec![text],
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![value.to_string()],
    }
}

fn with_body(
    builder: RequestBuilder,
    encoding: BodyEncoding,
    body: Value,
) -> Result<RequestBuilder, TaskError> {
    match (encoding, body) {
        (BodyEncoding::Json, body) => Ok(builder.json(&body)),
        (BodyEncoding::Form, Value::Object(fields)) => {
            let pairs: Vec<(String, String)> = fields
                .into_iter()
                .flat_map(|(name, value)| texts(value).into_iter().map(move |text| (name.clone(), text)))
                .collect();
            Ok(builder.form(&pairs))
        }
        (BodyEncoding::Form, other) => {
            Err(bad(format!("a form is an object of fields, not {}", kind(&other))))
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn authorize(request: &mut Request, login: &Login) -> Result<(), TaskError> {
    match login {
        Login::None => Ok(()),
        Login::Basic { user, password } => {
            use base64::Engine as _;
            let pair =
                base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.reveal()));
            put(request, "authorization", secret_header(&format!("Basic {pair}"))?)
        }
        Login::Bearer { token } => put(request, "authorization", secret_header(&bearer(token))?),
        Login::ApiKey { header, key } => put(request, header, secret_header(key.reveal())?),
    }
}

fn bearer(token: &Hidden) -> String {
    format!("Bearer {}", token.reveal())
}

fn put(request: &mut Request, name: &str, value: HeaderValue) -> Result<(), TaskError> {
    let name = HeaderName::try_from(name).map_err(|_| bad(format!("`{name}` is no name of a header")))?;
    request.headers_mut().insert(name, value);
    Ok(())
}

/// Refuses line ends, which would begin another header.
fn header(name: &str, value: &str) -> Result<HeaderValue, TaskError> {
    HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_| bad(format!("the value of header `{name}` holds control characters")))
}

fn secret_header(value: &str) -> Result<HeaderValue, TaskError> {
    let mut value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
        TaskError::new(ErrorClass::Auth, "the secret holds control characters, such as a line end")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn bad(message: String) -> TaskError {
    TaskError::new(ErrorClass::BadRequest, message)
}

fn expression(error: EvalError) -> TaskError {
    TaskError::new(ErrorClass::Expression, error.to_string())
}

#[cfg(test)]
mod tests;
