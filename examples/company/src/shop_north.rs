//! The north shop: resources, JSON, prices as decimal text, a bearer token.
//!
//! Owns: the HTTP shape of the shop. Never: decides a price.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /products[?vendor=ID]` | 200 `{"products": [PRODUCT]}` |
//! | `GET /products/{sku}` | 200 `PRODUCT`, 404 |
//! | `PUT /products/{sku}/price` with `{"price": "21.50"}` | 200 `PRODUCT`, 404, 422 |
//!
//! `PRODUCT` is `{"sku", "name", "vendor", "price": "19.90", "currency": "EUR"}`. An error is
//! `{"error": {"code", "message"}}` with code `unauthorized`, `not_found`, `invalid_price` or `bad_request`.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{
        Path, Query, Request, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    admin,
    faults::Knobs,
    ids::{Sku, VendorId},
    money::Cents,
    seed::CURRENCY,
    shelf::{Item, Shelf, ShelfError},
};

#[derive(Serialize)]
struct ProductView {
    sku: Sku,
    name: String,
    vendor: VendorId,
    price: String,
    currency: &'static str,
}

#[derive(Deserialize)]
struct ListQuery {
    vendor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceBody {
    price: String,
}

struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

pub(crate) fn router(shelf: Shelf, token: &str, knobs: Knobs) -> Router {
    let credential: Arc<str> = format!("Bearer {token}").into();
    let business = Router::new()
        .route("/products", get(list))
        .route("/products/{sku}", get(show))
        .route("/products/{sku}/price", put(set_price))
        .with_state(shelf)
        .layer(middleware::from_fn_with_state(credential, authorize));
    admin::with_faults(business, knobs)
}

async fn authorize(State(credential): State<Arc<str>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    if given.is_some_and(|given| given.as_bytes() == credential.as_bytes()) {
        return next.run(request).await;
    }
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", "a valid bearer token is needed");
    ([(header::WWW_AUTHENTICATE, "Bearer")], refusal).into_response()
}

async fn list(
    State(shelf): State<Shelf>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) =
        query.map_err(|error| Refusal::new(error.status(), "bad_request", error.body_text()))?;
    let products: Vec<_> = shelf.items(query.vendor.as_deref()).into_iter().map(ProductView::from).collect();
    Ok(Json(json!({ "products": products })).into_response())
}

async fn show(State(shelf): State<Shelf>, Path(sku): Path<String>) -> Result<Json<ProductView>, Refusal> {
    let item = shelf.item(&sku).ok_or_else(|| ShelfError::Unknown(sku.into()))?;
    Ok(Json(item.into()))
}

async fn set_price(
    State(shelf): State<Shelf>,
    Path(sku): Path<String>,
    headers: HeaderMap,
    body: Result<Json<PriceBody>, JsonRejection>,
) -> Result<Json<ProductView>, Refusal> {
    let Json(body) = body.map_err(|error| Refusal::new(error.status(), "bad_request", error.body_text()))?;
    let price = Cents::from_decimal(&body.price)
        .map_err(|error| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_price", error))?;
    let item = shelf.set_price(sku.into(), price, admin::request_note(&headers)).await?;
    Ok(Json(item.into()))
}

impl From<Item> for ProductView {
    fn from(item: Item) -> Self {
        let price = item.price.to_string();
        Self { sku: item.sku, name: item.name, vendor: item.vendor, price, currency: CURRENCY }
    }
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl ToString) -> Self {
        Self { status, code, message: message.to_string() }
    }
}

impl From<ShelfError> for Refusal {
    fn from(error: ShelfError) -> Self {
        let (status, code) = match &error {
            ShelfError::Unknown(_) => (StatusCode::NOT_FOUND, "not_found"),
            ShelfError::Log(_) | ShelfError::Lost(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        (self.status, Json(body)).into_response()
    }
}
