//! What all HTTP services of the company share: the knobs, the health answer, the note of a request.
//!
//! Owns: `GET /health`, `GET|PUT /admin/faults`, and carrying the faults out on every other route.
//! Never: asks for a credential, since a test sets the knobs from outside; it answers on loopback only.

use axum::{
    Json, Router,
    extract::{ConnectInfo, DefaultBodyLimit, Request, State, rejection::JsonRejection},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use crate::{
    faults::{Access, After, Before, Faults, Knobs},
    listener::Cut,
};

/// The largest request body that a service reads.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Puts the knobs in front of a service's own routes and adds the routes that every service has.
pub(crate) fn with_faults(business: Router, knobs: Knobs) -> Router {
    let business = business.layer(middleware::from_fn_with_state(knobs.clone(), carry_out));
    let admin = Router::new().route("/admin/faults", get(show).put(set)).with_state(knobs);
    Router::new()
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .merge(admin)
        .merge(business)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// What the client calls its request, to be kept with what the request did: its idempotency key, else its request id.
pub(crate) fn request_note(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    text("idempotency-key").or_else(|| text("x-request-id"))
}

async fn show(State(knobs): State<Knobs>) -> Json<Faults> {
    Json(knobs.get())
}

async fn set(State(knobs): State<Knobs>, faults: Result<Json<Faults>, JsonRejection>) -> Response {
    let faults = match faults {
        Ok(Json(faults)) => faults,
        Err(rejection) => {
            return (rejection.status(), Json(json!({ "error": rejection.body_text() }))).into_response();
        }
    };
    match knobs.set(faults) {
        Ok(()) => Json(knobs.get()).into_response(),
        Err(error) => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error.to_string() }))).into_response()
        }
    }
}

async fn carry_out(
    State(knobs): State<Knobs>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    request: Request,
    next: Next,
) -> Response {
    let access = match *request.method() {
        Method::GET | Method::HEAD => Access::Read,
        _ => Access::Write,
    };
    tokio::time::sleep(knobs.latency(access)).await;
    match knobs.before(access) {
        Before::Work => {}
        Before::Throttle { retry_after_s } => {
            let wait = [(header::RETRY_AFTER, retry_after_s.to_string())];
            return (wait, gateway(StatusCode::TOO_MANY_REQUESTS, "rate limit reached")).into_response();
        }
        Before::Unavailable => return gateway(StatusCode::SERVICE_UNAVAILABLE, "down for a moment"),
        Before::Drop => return hang_up(&cut),
    }
    let response = next.run(request).await;
    if !response.status().is_success() {
        return response;
    }
    let (delay, after) = knobs.after(access);
    tokio::time::sleep(delay).await;
    match after {
        After::Answer => response,
        After::Error => gateway(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong"),
        After::Drop => hang_up(&cut),
    }
}

/// An answer in the plain text of a gateway, not in the service's own shape: clients meet both.
fn gateway(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}

fn hang_up(cut: &Cut) -> Response {
    cut.cut();
    // Never leaves: the connection does not write any more.
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}
