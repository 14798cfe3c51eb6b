//! Postings: nothing is recognised, nothing is lost.

use kapell_company::{Faults, REFERENCE_BYTES_MAX};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{Site, answer};

#[tokio::test]
async fn a_reference_that_is_posted_twice_is_there_twice() {
    let site = Site::open().await;
    let post = |reference: &str, amount: i64| {
        site.postings(Method::POST, "/entries").json(&json!({ "ref": reference, "amount": amount }))
    };
    let noted = post("inv-1", 1_290).header("Idempotency-Key", "k-1");
    assert_eq!(answer(noted).await, (StatusCode::CREATED, json!({ "id": "JE-1" })));
    assert_eq!(answer(post("inv-1", 1_290)).await, (StatusCode::CREATED, json!({ "id": "JE-2" })));
    assert_eq!(answer(post("inv 2 & more", -500)).await.1, json!({ "id": "JE-3" }));

    let (_, found) = answer(site.postings(Method::GET, "/entries?ref=inv-1")).await;
    let entries = found["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!((&entries[0]["id"], &entries[0]["ref"]), (&json!("JE-1"), &json!("inv-1")));
    assert_eq!((&entries[0]["amount"], &entries[0]["request_note"]), (&json!(1_290), &json!("k-1")));
    let (_, other) = answer(site.postings(Method::GET, "/entries?ref=inv%202%20%26%20more")).await;
    assert_eq!(other["entries"][0]["amount"], -500);
    assert_eq!(answer(site.postings(Method::GET, "/entries?ref=none")).await.1, json!({ "entries": [] }));
    assert_eq!(answer(site.postings(Method::GET, "/entries/count")).await.1, json!({ "count": 3 }));
    assert_eq!(answer(site.postings(Method::GET, "/entries/count?ref=inv-1")).await.1, json!({ "count": 2 }));
    assert_eq!(site.company.reality().unwrap().posting_count("inv-1"), 2);
}

#[tokio::test]
async fn what_is_no_posting_is_refused() {
    let site = Site::open().await;
    let longest = "x".repeat(REFERENCE_BYTES_MAX);
    let cases = [
        (json!({ "ref": "", "amount": 1 }), 422),
        (json!({ "ref": format!("{longest}x"), "amount": 1 }), 422),
        (json!({ "ref": "a", "amount": 1.5 }), 422),
        (json!({ "ref": "a" }), 422),
        (json!({ "ref": longest, "amount": 1 }), 201),
    ];
    for (body, status) in cases {
        let got = answer(site.postings(Method::POST, "/entries").json(&body)).await;
        assert_eq!(got.0.as_u16(), status, "{body} {}", got.1);
    }
    assert_eq!(answer(site.postings(Method::GET, "/entries")).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(site.company.reality().unwrap().postings.len(), 1);
}

#[tokio::test]
async fn postings_of_unknown_outcome_can_be_looked_up_and_survive_a_restart() {
    let site = Site::open().await;
    let faults = Faults { drop_before_next: 1, drop_after_next: 1, ..Faults::default() };
    site.company.postings_knobs().set(faults).unwrap();
    for reference in ["undone", "done"] {
        let request = site.postings(Method::POST, "/entries").json(&json!({ "ref": reference, "amount": 1 }));
        assert!(request.send().await.unwrap_err().is_request());
    }
    let site = site.reopen().await;
    assert_eq!(answer(site.postings(Method::GET, "/entries/count?ref=undone")).await.1["count"], 0);
    assert_eq!(answer(site.postings(Method::GET, "/entries/count?ref=done")).await.1["count"], 1);
    let next = site.postings(Method::POST, "/entries").json(&json!({ "ref": "next", "amount": 1 }));
    assert_eq!(answer(next).await.1["id"], "JE-2");
}

#[tokio::test]
async fn postings_from_many_at_once_have_ids_of_their_own() {
    let site = Site::open().await;
    let mut jobs = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let body = json!({ "ref": "crowd", "amount": 1 });
        jobs.spawn(answer(site.postings(Method::POST, "/entries").json(&body)));
    }
    let mut ids: Vec<_> = jobs.join_all().await.into_iter().map(|(_, body)| body["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 64);
    assert_eq!(site.company.reality().unwrap().posting_count("crowd"), 64);
}
