//! Answers: what a status and a body say about whether the call took effect.
//!
//! Owns: the table of statuses, `Retry-After`, the result template. Never: asks again.
use std::time::Duration;

use kapell_kernel::{ErrorClass, TaskError};
use kapell_model::Timestamp;
use kapell_model::catalogue::CompiledHttp;
use kapell_model::expr::Scope;
use kapell_runtime::Clock;
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use serde_json::{Value, json};

use crate::outside::{CallOutcome, OutsideRequest, is_read, is_repeatable};

/// How much of an unexpected body is shown.
const BODY_CHARS_SHOWN: usize = 500;
/// Longest wait that an outside system may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// table: what each status says.
    pub(super) fn judge(
        &self,
        clock: &dyn Clock,
        request: &OutsideRequest,
        http: &CompiledHttp,
    ) -> CallOutcome {
        let failed = |class| CallOutcome::Failed(self.error(class));
        match self.status {
            200..=299 => self.result(request, http),
            429 => CallOutcome::Failed(self.patience(ErrorClass::RateLimited, clock)),
            503 => CallOutcome::Failed(self.patience(ErrorClass::Unavailable, clock)),
            401 | 403 => failed(ErrorClass::Auth),
            // The server gave up waiting for the request, or wants it again: it did not do it.
            408 | 425 => failed(ErrorClass::Unavailable),
            // It is to be done elsewhere, so it was not done here.
            301 | 307 | 308 => failed(ErrorClass::BadRequest),
            // "See what came of it": done as likely as not.
            300..=399 if is_repeatable(&request.tool) => failed(ErrorClass::ContractBroken),
            400..=499 => failed(ErrorClass::BadRequest),
            // The server does not know how, or will not: it did not do it.
            501 | 505 | 511 => failed(ErrorClass::BadRequest),
            _ => CallOutcome::lost(&request.tool, self.describe()),
        }
    }

    fn result(&self, request: &OutsideRequest, http: &CompiledHttp) -> CallOutcome {
        match self.read(request, http) {
            Ok(output) => CallOutcome::succeeded(output),
            Err(why) if is_read(&request.tool) => CallOutcome::failed(ErrorClass::ContractBroken, why),
            Err(why) => {
                let body = self.json().unwrap_or_else(|_| Value::String(self.body_start()));
                let output = json!({ "status": self.status, "body": body, "note": why });
                CallOutcome::Succeeded { output, note: Some(why) }
            }
        }
    }

    fn read(&self, request: &OutsideRequest, http: &CompiledHttp) -> Result<Value, String> {
        let Some(template) = &http.result else { return self.json() };
        let mut scope = Scope::new();
        scope.set("args", &request.args);
        scope.set("status", &json!(self.status));
        if template.references().variables.contains("body") {
            scope.set("body", &self.json()?);
        }
        template.eval(&scope).map_err(|error| format!("{error}; {}", self.describe()))
    }

    /// The body; nothing is null.
    fn json(&self) -> Result<Value, String> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| format!("the answer is no JSON ({error}); {}", self.describe()))
    }

    fn error(&self, class: ErrorClass) -> TaskError {
        TaskError::new(class, self.describe())
    }

    fn patience(&self, class: ErrorClass, clock: &dyn Clock) -> TaskError {
        let asked = self.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        TaskError { retry_after: asked.and_then(|text| retry_after(text, clock.now())), ..self.error(class) }
    }

    fn describe(&self) -> String {
        let location = self.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.map_or_else(String::new, |place| format!(" to {place}"));
        match self.body_start() {
            body if body.is_empty() => format!("status {}{location}", self.status),
            body => format!("status {}{location}: {body}", self.status),
        }
    }

    fn body_start(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().chars().take(BODY_CHARS_SHOWN).collect()
    }
}

/// Seconds, or a date of HTTP.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
            now.until(Timestamp(u64::try_from(date.timestamp().as_millisecond()).ok()?))
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_seconds_or_a_date() {
        let now = Timestamp::from_rfc3339("1994-11-06T08:49:00Z").unwrap();
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(37)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO), "it has passed");
        assert_eq!(retry_after("99999999999", now), Some(RETRY_AFTER_MAX));
        for nonsense in ["", "soon", "-5", "1.5"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense}");
        }
    }
}
