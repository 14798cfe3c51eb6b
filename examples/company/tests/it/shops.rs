//! Both shops: their shapes, their logs, their knobs.

use std::time::Duration;

use kapell_company::{Cents, CompanyOptions, Faults, Reach, ServiceFaults, Sku, StartError};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use crate::{Site, answer, eventually};

#[tokio::test]
async fn the_north_shop_speaks_of_products_in_decimal_text() {
    let site = Site::open().await;
    let lamp = json!({ "sku": "LMP-1001", "name": "Desk lamp Fjord", "vendor": "V-100", "price": "19.90", "currency": "EUR" });
    assert_eq!(answer(site.north(Method::GET, "/products/LMP-1001")).await, (StatusCode::OK, lamp.clone()));
    let (_, all) = answer(site.north(Method::GET, "/products")).await;
    assert_eq!(all["products"].as_array().unwrap().len(), 12);
    let (_, lamps) = answer(site.north(Method::GET, "/products?vendor=V-100")).await;
    assert_eq!(lamps["products"].as_array().unwrap().len(), 5);
    assert_eq!(lamps["products"][0], lamp);

    let (status, changed) = answer(site.reprice_north("LMP-1001", "21.50")).await;
    assert_eq!((status, &changed["price"]), (StatusCode::OK, &json!("21.50")));
    assert_eq!(answer(site.north(Method::GET, "/products/LMP-1001")).await.1, changed);
}

#[tokio::test]
async fn the_north_shop_refuses_in_its_own_shape_and_writes_nothing() {
    let site = Site::open().await;
    let code =
        |(status, body): (StatusCode, serde_json::Value)| (status.as_u16(), body["error"]["code"].clone());
    let path = "/products/LMP-1001/price";
    assert_eq!(code(answer(site.north(Method::GET, "/products/NONE")).await), (404, json!("not_found")));
    assert_eq!(code(answer(site.reprice_north("NONE", "1.00")).await), (404, json!("not_found")));
    assert_eq!(code(answer(site.reprice_north("LMP-1001", "21.5")).await), (422, json!("invalid_price")));
    let number = site.north(Method::PUT, path).json(&json!({ "price": 21.5 }));
    assert_eq!(code(answer(number).await), (422, json!("bad_request")));
    let text = site.north(Method::PUT, path).body("price=21.50");
    assert_eq!(code(answer(text).await), (415, json!("bad_request")));
    let url = format!("{}{path}", site.company.addresses().shop_north);
    let nobody = site.http.put(&url).json(&json!({ "price": "1.00" }));
    assert_eq!(code(answer(nobody).await), (401, json!("unauthorized")));
    let other = site.http.put(&url).bearer_auth("south-demo-key").json(&json!({ "price": "1.00" }));
    assert_eq!(code(answer(other).await), (401, json!("unauthorized")));
    assert_eq!(site.company.reality().unwrap().north.writes, []);
}

#[tokio::test]
async fn the_south_shop_speaks_of_items_in_cents() {
    let site = Site::open().await;
    let item = json!({ "item_code": "CER-3003", "title": "Serving bowl", "supplier_code": "V-300", "price_cents": 2690 });
    assert_eq!(answer(site.south(Method::GET, "/api/item?code=CER-3003")).await, (StatusCode::OK, item));
    let (_, items) = answer(site.south(Method::GET, "/api/items?supplier=V-300")).await;
    assert_eq!(items["items"].as_array().unwrap().len(), 3);
    assert_eq!(answer(site.south(Method::GET, "/api/items")).await.1["items"].as_array().unwrap().len(), 12);

    let changed = json!({ "item_code": "CER-3003", "title": "Serving bowl", "supplier_code": "V-300", "price_cents": 2700 });
    let done = (StatusCode::OK, json!({ "status": "ok", "item": changed }));
    assert_eq!(answer(site.reprice_south("CER-3003", 2_700)).await, done);
    assert_eq!(answer(site.south(Method::GET, "/api/item?code=CER-3003")).await.1, changed);
}

#[tokio::test]
async fn the_south_shop_refuses_in_its_own_shape_and_writes_nothing() {
    let site = Site::open().await;
    let code = |(status, body): (StatusCode, serde_json::Value)| {
        assert_eq!(body["status"], "error");
        (status.as_u16(), body["code"].clone())
    };
    assert_eq!(
        code(answer(site.south(Method::GET, "/api/item?code=NONE")).await),
        (404, json!("unknown_item"))
    );
    assert_eq!(code(answer(site.south(Method::GET, "/api/item")).await), (400, json!("bad_request")));
    assert_eq!(code(answer(site.reprice_south("NONE", 100)).await), (404, json!("unknown_item")));
    assert_eq!(code(answer(site.reprice_south("CER-3003", 0)).await), (400, json!("bad_price")));
    let decimal = site
        .south(Method::POST, "/api/updatePrice")
        .form(&[("item_code", "CER-3003"), ("price_cents", "27.00")]);
    assert_eq!(code(answer(decimal).await), (422, json!("bad_request")));
    let url = format!("{}/api/items", site.company.addresses().shop_south);
    assert_eq!(code(answer(site.http.get(url)).await), (401, json!("bad_api_key")));
    assert_eq!(site.company.reality().unwrap().south.writes, []);
}

#[tokio::test]
async fn each_accepted_write_is_a_line_even_of_the_same_request() {
    let site = Site::open().await;
    for _ in 0..2 {
        let request = site.reprice_north("LMP-1001", "21.50").header("Idempotency-Key", "run-1/step-2");
        assert_eq!(answer(request.header("X-Request-Id", "ignored")).await.0, StatusCode::OK);
    }
    let named = site.reprice_south("LMP-1001", 2_150).header("X-Request-Id", "r-7");
    assert_eq!(answer(named).await.0, StatusCode::OK);
    assert_eq!(answer(site.reprice_south("LMP-1002", 9_900)).await.0, StatusCode::OK);

    let reality = site.company.reality().unwrap();
    assert_eq!(reality.north.write_count(&Sku::from("LMP-1001")), 2);
    let notes: Vec<_> = reality.north.writes.iter().map(|write| write.request_note.as_deref()).collect();
    assert_eq!(notes, [Some("run-1/step-2"); 2]);
    let notes: Vec<_> = reality.south.writes.iter().map(|write| write.request_note.as_deref()).collect();
    assert_eq!(notes, [Some("r-7"), None]);
    assert_eq!(reality.south.prices["LMP-1002"], Cents::new(9_900));
}

#[tokio::test]
async fn a_restart_keeps_prices_and_writes() {
    let site = Site::open().await;
    assert_eq!(answer(site.reprice_north("LMP-1001", "21.50")).await.0, StatusCode::OK);
    assert_eq!(answer(site.reprice_south("LMP-1001", 2_160)).await.0, StatusCode::OK);
    let before = site.company.reality().unwrap();
    let site = site.reopen().await;
    assert_eq!(site.company.reality().unwrap(), before);
    assert_eq!(answer(site.north(Method::GET, "/products/LMP-1001")).await.1["price"], "21.50");
    assert_eq!(answer(site.south(Method::GET, "/api/item?code=LMP-1001")).await.1["price_cents"], 2_160);
    assert_eq!(answer(site.reprice_north("LMP-1001", "21.50")).await.0, StatusCode::OK);
    assert_eq!(site.company.reality().unwrap().north.write_count(&Sku::from("LMP-1001")), 2);
}

#[tokio::test]
async fn faults_before_the_work_leave_it_undone() {
    let site = Site::open().await;
    let faults =
        json!({ "throttle_next": 1, "retry_after_s": 3, "unavailable_next": 1, "drop_before_next": 1 });
    let set = site.http.put(format!("{}/admin/faults", site.company.addresses().shop_north)).json(&faults);
    assert_eq!(answer(set).await.0, StatusCode::OK);

    let throttled = site.reprice_north("LMP-1001", "21.50").send().await.unwrap();
    assert_eq!(throttled.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(throttled.headers()["retry-after"], "3");
    assert_eq!(answer(site.reprice_north("LMP-1001", "21.50")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer(site.north(Method::GET, "/products/LMP-1001")).await.0, StatusCode::OK);
    assert!(site.reprice_north("LMP-1001", "21.50").send().await.unwrap_err().is_request());
    assert_eq!(site.company.reality().unwrap().north.writes, []);
    assert_eq!(answer(site.reprice_north("LMP-1001", "21.50")).await.0, StatusCode::OK);
    assert_eq!(site.company.shop_north_knobs().get(), Faults { retry_after_s: 3, ..Faults::default() });
}

#[tokio::test]
async fn faults_after_the_work_leave_it_done_once() {
    let site = Site::open().await;
    site.company
        .shop_south_knobs()
        .set(Faults { error_after_next: 1, drop_after_next: 1, ..Faults::default() })
        .unwrap();
    // A refused request is not work, so it takes no count.
    assert_eq!(answer(site.reprice_south("NONE", 100)).await.0, StatusCode::NOT_FOUND);
    assert_eq!(answer(site.reprice_south("LMP-1001", 2_150)).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(site.reprice_south("LMP-1002", 9_900).send().await.unwrap_err().is_request());
    assert_eq!(answer(site.south(Method::GET, "/api/item?code=LMP-1002")).await.1["price_cents"], 9_900);
    let south = site.company.reality().unwrap().south;
    assert_eq!(south.write_count(&Sku::from("LMP-1001")), 1);
    assert_eq!(south.write_count(&Sku::from("LMP-1002")), 1);
}

#[tokio::test]
async fn a_client_that_leaves_early_undoes_nothing_and_starts_nothing() {
    let slow = Faults { answer_delay_ms: 10_000, ..Faults::default() };
    let late = Faults { latency_ms: 10_000, ..Faults::default() };
    let faults = ServiceFaults { shop_north: slow, shop_south: late, ..ServiceFaults::default() };
    let site = Site::open_with(CompanyOptions { faults, ..CompanyOptions::default() }).await;
    let patience = Duration::from_millis(300);
    let begun = Instant::now();
    let north = site.reprice_north("LMP-1001", "21.50").timeout(patience).send();
    let south = site.reprice_south("LMP-1001", 2_150).timeout(patience).send();
    assert!(north.await.unwrap_err().is_timeout());
    assert!(south.await.unwrap_err().is_timeout());
    assert!(begun.elapsed() < Duration::from_secs(5));
    eventually("the north shop wrote", || site.company.reality().unwrap().north.writes.len() == 1).await;
    assert_eq!(site.company.reality().unwrap().south.writes, []);
}

#[tokio::test]
async fn a_request_under_way_when_the_company_stops_writes_nothing_later() {
    let late = Faults { latency_ms: 3_500, ..Faults::default() };
    let faults = ServiceFaults { shop_north: late, ..ServiceFaults::default() };
    let site = Site::open_with(CompanyOptions { faults, ..CompanyOptions::default() }).await;
    let request = site.reprice_north("LMP-1001", "21.50");
    let stop_and_start = async {
        // why: the request must be under way when the shop stops
        tokio::time::sleep(Duration::from_millis(200)).await;
        site.reopen().await
    };
    let (answered, site) = tokio::join!(request.send(), stop_and_start);
    assert_eq!(answered.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(site.company.reality().unwrap().north.writes, []);
    assert_eq!(answer(site.north(Method::GET, "/products/LMP-1001")).await.1["price"], "19.90");
}

#[tokio::test]
async fn reads_are_disturbed_when_asked_for() {
    let site = Site::open().await;
    let faults = Faults { unavailable_next: 1, reach: Reach::All, ..Faults::default() };
    site.company.shop_north_knobs().set(faults).unwrap();
    assert_eq!(answer(site.north(Method::GET, "/products")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer(site.north(Method::GET, "/products")).await.0, StatusCode::OK);
    let health = site.http.get(format!("{}/health", site.company.addresses().shop_north));
    assert_eq!(answer(health).await, (StatusCode::OK, json!({ "status": "ok" })));
}

#[tokio::test]
async fn knobs_that_make_no_sense_are_refused() {
    let site = Site::open().await;
    let url = format!("{}/admin/faults", site.company.addresses().shop_south);
    for faults in [json!({ "latency_ms": 600_001 }), json!({ "latency": 5 }), json!({ "reach": "some" })] {
        assert_eq!(
            answer(site.http.put(&url).json(&faults)).await.0,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{faults}"
        );
    }
    assert_eq!(answer(site.http.get(&url)).await.1, serde_json::to_value(Faults::default()).unwrap());
}

#[tokio::test]
async fn a_folder_has_one_company_and_a_port_has_one_service() {
    let site = Site::open().await;
    let again = kapell_company::Company::start(site.dir.path(), CompanyOptions::default()).await;
    assert!(matches!(again, Err(StartError::InUse { .. })));
    let other = tempfile::tempdir().unwrap();
    let options = CompanyOptions { ports: site.company.ports(), ..CompanyOptions::default() };
    let taken = kapell_company::Company::start(other.path(), options).await;
    assert!(matches!(taken, Err(StartError::Port { service: "shop_north", .. })));
}
