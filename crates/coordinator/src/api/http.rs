//! HTTP on the same port: CloudEvents in, liveness.
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use kapell_model::Name;
use kapell_proto::v1;
use kapell_wire::cloud_event::{BATCH_BYTES_MAX, BadEvent, ContentMode, Event};
use serde_json::{Value, json};

use super::{Parts, events};

/// Routes beside the gRPC services.
pub(super) fn router(parts: Parts) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/v1/namespaces/{namespace}/events", post(publish))
        .layer(axum::extract::DefaultBodyLimit::max(BATCH_BYTES_MAX))
        .with_state(parts)
}

async fn publish(
    State(parts): State<Parts>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let namespace = match Name::new(&namespace) {
        Ok(namespace) => namespace,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, "bad-namespace", &error.to_string()),
    };
    let text = |name: &header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = text(&header::CONTENT_TYPE);
    let read = match ContentMode::of(content_type) {
        Some(ContentMode::Batch) => match Event::batch_from_json(&body) {
            Ok(events) => {
                return answer_batch(&events::all(&parts, &namespace, events.into_iter().map(Ok)).await);
            }
            Err(error) => return refuse(StatusCode::BAD_REQUEST, "bad-batch", &error.to_string()),
        },
        Some(ContentMode::Structured) => Event::from_json(&body),
        Some(ContentMode::Binary) | None => from_binary(&headers, content_type, &body),
    };
    match read {
        Ok(event) => {
            let results = events::all(&parts, &namespace, std::iter::once(Ok(event))).await;
            results.first().map_or_else(|| StatusCode::INTERNAL_SERVER_ERROR.into_response(), answer)
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, "bad-event", &error.to_string()),
    }
}

fn from_binary(headers: &HeaderMap, content_type: Option<&str>, body: &[u8]) -> Result<Event, BadEvent> {
    let named = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    Event::from_http(named, content_type, body)
}

fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    (status, axum::Json(json!({ "code": code, "message": message }))).into_response()
}

fn result_json(result: &v1::PublishResult) -> Value {
    let runs: Vec<Value> = result
        .runs
        .iter()
        .map(|run| json!({ "run": run.run, "workflow": run.workflow, "duplicate": run.duplicate }))
        .collect();
    match &result.refusal {
        None => json!({ "runs": runs, "delivered": result.delivered }),
        Some(refusal) => json!({ "code": refusal.code, "message": refusal.message }),
    }
}

fn status_of(refusal: &v1::Refusal) -> StatusCode {
    match refusal.retry_after_ms {
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
        None => StatusCode::BAD_REQUEST,
    }
}

fn answer(result: &v1::PublishResult) -> Response {
    let body = axum::Json(result_json(result));
    match &result.refusal {
        None => (StatusCode::ACCEPTED, body).into_response(),
        Some(refusal) => match refusal.retry_after_ms {
            Some(millis) => {
                let seconds = millis.div_ceil(1_000).to_string();
                (status_of(refusal), [(header::RETRY_AFTER, seconds)], body).into_response()
            }
            None => (status_of(refusal), body).into_response(),
        },
    }
}

/// Each event of a batch is answered on its own.
fn answer_batch(results: &[v1::PublishResult]) -> Response {
    let refused = results.iter().any(|result| result.refusal.is_some());
    let status = if refused { StatusCode::MULTI_STATUS } else { StatusCode::ACCEPTED };
    (status, axum::Json(results.iter().map(result_json).collect::<Value>())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(retry_after_ms: Option<u64>) -> (StatusCode, Option<String>) {
        let refusal = v1::Refusal { code: "busy".to_owned(), message: "busy".to_owned(), retry_after_ms };
        let result = v1::PublishResult { refusal: Some(refusal), ..v1::PublishResult::default() };
        let response = answer(&result);
        let header = response.headers().get(header::RETRY_AFTER);
        (response.status(), header.map(|seconds| seconds.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_refusal_for_now_says_in_whole_seconds_when_to_try_again() {
        assert_eq!(answered(Some(50)), (StatusCode::SERVICE_UNAVAILABLE, Some("1".to_owned())));
        assert_eq!(answered(Some(1_001)), (StatusCode::SERVICE_UNAVAILABLE, Some("2".to_owned())));
        assert_eq!(answered(None), (StatusCode::BAD_REQUEST, None));
    }
}
