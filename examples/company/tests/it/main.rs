//! The company over real sockets, with the clients that others use.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its supporting functions too")]

mod accounting;
mod mail;
mod process;
mod shops;
mod truth;

use std::time::Duration;

use kapell_company::{Company, CompanyOptions};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

/// A company in a folder of its own, and an HTTP client.
struct Site {
    company: Company,
    http: Client,
    dir: TempDir,
}

impl Site {
    async fn open() -> Self {
        Self::open_with(CompanyOptions::default()).await
    }

    async fn open_with(options: CompanyOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let company = Company::start(dir.path(), options).await.unwrap();
        Self { company, http: client(), dir }
    }

    /// Stops the company and starts it again on the same ports, with a client that holds no connection from before.
    async fn reopen(self) -> Self {
        let ports = self.company.ports();
        self.company.stop().await;
        let options = CompanyOptions { ports, ..CompanyOptions::default() };
        let company = Company::start(self.dir.path(), options).await.unwrap();
        assert_eq!(company.ports(), ports);
        Self { company, http: client(), dir: self.dir }
    }

    fn north(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.company.addresses().shop_north);
        self.http.request(method, url).bearer_auth("north-demo-token")
    }

    fn south(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.company.addresses().shop_south);
        self.http.request(method, url).header("X-Api-Key", "south-demo-key")
    }

    fn postings(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.company.addresses().postings))
    }

    fn reprice_north(&self, sku: &str, price: &str) -> RequestBuilder {
        let body = serde_json::json!({ "price": price });
        self.north(Method::PUT, &format!("/products/{sku}/price")).json(&body)
    }

    fn reprice_south(&self, code: &str, price_cents: i64) -> RequestBuilder {
        let form = [("item_code", code.to_owned()), ("price_cents", price_cents.to_string())];
        self.south(Method::POST, "/api/updatePrice").form(&form)
    }
}

fn client() -> Client {
    // Another test of this process may have installed it already.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder().timeout(Duration::from_secs(20)).build().unwrap()
}

async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Waits until something holds that another task brings about.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        // why: another process is polled, and it cannot tell when it is ready
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never happened: {what}");
}
