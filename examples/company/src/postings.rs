//! Accounting: a book of postings that only grows.
//!
//! Owns: the postings, in memory and in an append-only file. Never: recognises a reference that it has seen before:
//! a posting that is sent twice is posted twice, and `GET /entries?ref=` shows it.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /entries` with `{"ref": "inv-1", "amount": 1290}` (cents, may be negative) | 201 `{"id": "JE-1"}`, 422 |
//! | `GET /entries?ref=REF` | 200 `{"entries": [{"id", "ref", "amount", "at", "request_note"}]}` |
//! | `GET /entries/count[?ref=REF]` | 200 `{"count": 3}` |
//!
//! An error is `{"error": {"code", "message"}}` with code `bad_request`, `bad_reference` or `full`. No credential.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    admin,
    faults::Knobs,
    line_file::{LineFile, LineFileError},
    money::Cents,
};

/// The book is full after so many postings.
pub const POSTINGS_MAX: usize = 1_000_000;

/// A reference is at most so long.
pub const REFERENCE_BYTES_MAX: usize = 200;

/// One posting: a line of the book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posting {
    /// `JE-` and its place in the book, from 1.
    pub id: String,
    /// What the client says it belongs to. Not unique.
    #[serde(rename = "ref")]
    pub reference: String,
    /// How much, in cents.
    pub amount: Cents,
    /// When it was accepted.
    pub at: Timestamp,
    /// The `Idempotency-Key` of the request, else its `X-Request-Id`. Kept, not used.
    pub request_note: Option<String>,
}

/// A handle to the book. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct PostingBook(Arc<Mutex<Pages>>);

#[derive(Debug)]
struct Pages {
    postings: Vec<Posting>,
    by_reference: BTreeMap<String, Vec<usize>>,
    file: LineFile,
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Query(#[from] QueryRejection),
    #[error("{0}")]
    Body(#[from] JsonRejection),
    #[error("a ref is 1 to {REFERENCE_BYTES_MAX} bytes")]
    Reference,
    #[error("the book holds {POSTINGS_MAX} postings and takes no more")]
    Full,
    #[error("the book can't be written")]
    Book(#[from] std::io::Error),
    #[error("the posting was lost")]
    Lost(#[from] tokio::task::JoinError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPosting {
    #[serde(rename = "ref")]
    reference: String,
    amount: Cents,
}

#[derive(Deserialize)]
struct ReferenceQuery {
    #[serde(rename = "ref")]
    reference: String,
}

#[derive(Deserialize)]
struct CountQuery {
    #[serde(rename = "ref")]
    reference: Option<String>,
}

pub(crate) fn router(book: PostingBook, knobs: Knobs) -> Router {
    let business = Router::new()
        .route("/entries", post(add).get(list))
        .route("/entries/count", get(count))
        .with_state(book);
    admin::with_faults(business, knobs)
}

async fn add(
    State(book): State<PostingBook>,
    headers: HeaderMap,
    body: Result<Json<NewPosting>, JsonRejection>,
) -> Result<Response, Refusal> {
    let Json(new) = body?;
    if new.reference.is_empty() || new.reference.len() > REFERENCE_BYTES_MAX {
        return Err(Refusal::Reference);
    }
    let note = admin::request_note(&headers);
    let id = tokio::task::spawn_blocking(move || book.accept(new, note)).await??;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))).into_response())
}

async fn list(
    State(book): State<PostingBook>,
    query: Result<Query<ReferenceQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query?;
    Ok(Json(json!({ "entries": book.with_reference(&query.reference) })).into_response())
}

async fn count(
    State(book): State<PostingBook>,
    query: Result<Query<CountQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(query) = query?;
    Ok(Json(json!({ "count": book.count(query.reference.as_deref()) })).into_response())
}

impl PostingBook {
    pub(crate) fn open(path: &Path) -> Result<Self, LineFileError> {
        let (file, lines) = LineFile::open::<Posting>(path)?;
        let mut pages =
            Pages { postings: Vec::with_capacity(lines.len()), by_reference: BTreeMap::new(), file };
        for posting in lines {
            pages.enter(posting);
        }
        Ok(Self(Arc::new(Mutex::new(pages))))
    }

    /// Accepts no more postings, also not from requests that are still under way.
    pub(crate) fn close(&self) {
        self.lock().file.close();
    }

    fn accept(&self, new: NewPosting, request_note: Option<String>) -> Result<String, Refusal> {
        let mut pages = self.lock();
        if pages.postings.len() >= POSTINGS_MAX {
            return Err(Refusal::Full);
        }
        let id = format!("JE-{}", pages.postings.len() + 1);
        let NewPosting { reference, amount } = new;
        let posting = Posting { id: id.clone(), reference, amount, at: Timestamp::now(), request_note };
        pages.file.append(&posting)?;
        pages.enter(posting);
        Ok(id)
    }

    fn with_reference(&self, reference: &str) -> Vec<Posting> {
        let pages = self.lock();
        let places = pages.by_reference.get(reference).map_or(&[][..], Vec::as_slice);
        places.iter().filter_map(|at| pages.postings.get(*at)).cloned().collect()
    }

    fn count(&self, reference: Option<&str>) -> usize {
        let pages = self.lock();
        match reference {
            None => pages.postings.len(),
            Some(reference) => pages.by_reference.get(reference).map_or(0, Vec::len),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        // A posting enters the pages after its line is on disk; nothing in between can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn enter(&mut self, posting: Posting) {
        self.by_reference.entry(posting.reference.clone()).or_default().push(self.postings.len());
        self.postings.push(posting);
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Self::Query(rejection) => (rejection.status(), "bad_request"),
            Self::Body(rejection) => (rejection.status(), "bad_request"),
            Self::Reference => (StatusCode::UNPROCESSABLE_ENTITY, "bad_reference"),
            Self::Full => (StatusCode::INSUFFICIENT_STORAGE, "full"),
            Self::Book(_) | Self::Lost(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let body = json!({ "error": { "code": code, "message": self.to_string() } });
        (status, Json(body)).into_response()
    }
}
