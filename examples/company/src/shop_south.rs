//! The south shop: procedures, form bodies, prices in cents, an API key.
//!
//! Owns: the HTTP shape of the shop. Never: decides a price.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /api/items[?supplier=ID]` | 200 `{"items": [ITEM]}` |
//! | `GET /api/item?code=CODE` | 200 `ITEM`, 404 |
//! | `POST /api/updatePrice`, a form with `item_code` and `price_cents` | 200 `{"status": "ok", "item": ITEM}`, 400, 404 |
//!
//! `ITEM` is `{"item_code", "title", "supplier_code", "price_cents": 1990}`. An error is
//! `{"status": "error", "code", "message"}` with code `bad_api_key`, `unknown_item`, `bad_price` or `bad_request`.

use std::sync::Arc;

use axum::{
    Form, Json, Router,
    extract::{
        Query, Request, State,
        rejection::{FormRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    admin,
    faults::Knobs,
    ids::{Sku, VendorId},
    money::Cents,
    shelf::{Item, Shelf, ShelfError},
};

/// The header that carries the API key.
const API_KEY: &str = "x-api-key";

/// The highest price that the shop takes, as in the north shop.
const PRICE_CENTS_MAX: i64 = 999_999_999;

#[derive(Serialize)]
struct ItemView {
    item_code: Sku,
    title: String,
    supplier_code: VendorId,
    price_cents: Cents,
}

#[derive(Deserialize)]
struct ListQuery {
    supplier: Option<String>,
}

#[derive(Deserialize)]
struct ItemQuery {
    code: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateForm {
    item_code: String,
    price_cents: i64,
}

struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

pub(crate) fn router(shelf: Shelf, key: &str, knobs: Knobs) -> Router {
    let key: Arc<str> = key.into();
    let business = Router::new()
        .route("/api/items", get(list))
        .route("/api/item", get(show))
        .route("/api/updatePrice", post(update_price))
        .with_state(shelf)
        .layer(middleware::from_fn_with_state(key, authorize));
    admin::with_faults(business, knobs)
}

async fn authorize(State(key): State<Arc<str>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(API_KEY);
    if given.is_some_and(|given| given.as_bytes() == key.as_bytes()) {
        return next.run(request).await;
    }
    Refusal::new(StatusCode::UNAUTHORIZED, "bad_api_key", "the header X-Api-Key is missing or wrong")
        .into_response()
}

async fn list(
    State(shelf): State<Shelf>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) =
        query.map_err(|error| Refusal::new(error.status(), "bad_request", error.body_text()))?;
    let items: Vec<_> = shelf.items(query.supplier.as_deref()).into_iter().map(ItemView::from).collect();
    Ok(Json(json!({ "items": items })).into_response())
}

async fn show(
    State(shelf): State<Shelf>,
    query: Result<Query<ItemQuery>, QueryRejection>,
) -> Result<Json<ItemView>, Refusal> {
    let Query(query) =
        query.map_err(|error| Refusal::new(error.status(), "bad_request", error.body_text()))?;
    let item = shelf.item(&query.code).ok_or_else(|| ShelfError::Unknown(query.code.into()))?;
    Ok(Json(item.into()))
}

async fn update_price(
    State(shelf): State<Shelf>,
    headers: HeaderMap,
    form: Result<Form<UpdateForm>, FormRejection>,
) -> Result<Response, Refusal> {
    let Form(form) = form.map_err(|error| Refusal::new(error.status(), "bad_request", error.body_text()))?;
    if !(1..=PRICE_CENTS_MAX).contains(&form.price_cents) {
        let message = format!("price_cents is 1 to {PRICE_CENTS_MAX}");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "bad_price", message));
    }
    let price = Cents::new(form.price_cents);
    let item = shelf.set_price(form.item_code.into(), price, admin::request_note(&headers)).await?;
    Ok(Json(json!({ "status": "ok", "item": ItemView::from(item) })).into_response())
}

impl From<Item> for ItemView {
    fn from(item: Item) -> Self {
        Self { item_code: item.sku, title: item.name, supplier_code: item.vendor, price_cents: item.price }
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
            ShelfError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_item"),
            ShelfError::Log(_) | ShelfError::Lost(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "status": "error", "code": self.code, "message": self.message });
        (self.status, Json(body)).into_response()
    }
}
