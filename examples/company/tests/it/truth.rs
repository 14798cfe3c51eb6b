//! The ERP, and reality held against the business truth.

use kapell_company::{
    Company, CompanyOptions, Difference, Erp, Expected, MINIMUM_MARGIN, OrderId, OrderStatus, Reality, Shop,
    Sku, seed, vendor_price_change,
};
use lettre::{Message, SmtpTransport, Transport};
use reqwest::StatusCode;
use rusqlite::Connection;

use crate::{Site, answer};

fn flag(erp: &Erp, order: &str) {
    let connection = Connection::open(erp.path()).unwrap();
    let sql = "UPDATE purchase_orders SET flagged = 1, flag_reason = 'margin below 12 %' WHERE id = ?";
    assert_eq!(connection.execute(sql, [order]).unwrap(), 1);
}

fn tell_accounting(site: &Site, text: &str) {
    let message = Message::builder()
        .from("kasse@company.example".parse().unwrap())
        .to("accounting@company.example".parse().unwrap())
        .subject("V-100 changed its prices")
        .body(text.to_owned())
        .unwrap();
    let address = site.company.addresses().smtp;
    let transport = SmtpTransport::builder_dangerous(address.ip().to_string()).port(address.port()).build();
    transport.send(&message).unwrap();
}

/// Does by hand what the truth asks for.
async fn act(site: &Site, expected: &Expected) {
    for price_move in &expected.price_moves {
        let (sku, new) = (price_move.sku.as_str(), price_move.new);
        assert_eq!(answer(site.reprice_north(sku, &new.to_string())).await.0, StatusCode::OK);
        assert_eq!(answer(site.reprice_south(sku, new.get())).await.0, StatusCode::OK);
    }
    for order in &expected.flagged_orders {
        flag(&site.company.erp(), order.as_str());
    }
    tell_accounting(site, &expected.mail.mentions.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acting_as_the_truth_asks_leaves_no_difference() {
    let site = Site::open().await;
    let before = site.company.reality().unwrap();
    let expected = Expected::after(&before.books, &vendor_price_change().unwrap(), MINIMUM_MARGIN);
    assert_eq!(expected.price_moves.len(), 4);
    act(&site, &expected).await;
    let after = site.company.reality().unwrap();
    assert_eq!(after.differences(&before, &expected), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_thing_that_is_missing_is_a_difference() {
    let site = Site::open().await;
    let before = site.company.reality().unwrap();
    let expected = Expected::after(&before.books, &vendor_price_change().unwrap(), MINIMUM_MARGIN);
    let found = before.differences(&before, &expected);
    // Price and write of 4 products in 2 shops, flag and flagging of 3 orders, 1 mail.
    assert_eq!(found.len(), 2 * 4 * 2 + 3 * 2 + 1);
    let text: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(text.contains(&"north shop: LMP-1002 costs 90.00, must cost 99.00".to_owned()), "{text:#?}");
    assert!(text.contains(&"ERP: PO-5004 is not flagged and must be".to_owned()), "{text:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_thing_that_was_done_twice_or_wrongly_is_a_difference() {
    let site = Site::open().await;
    let before = site.company.reality().unwrap();
    let expected = Expected::after(&before.books, &vendor_price_change().unwrap(), MINIMUM_MARGIN);
    act(&site, &expected).await;
    assert_eq!(answer(site.reprice_south("LMP-1002", 9_900)).await.0, StatusCode::OK);
    assert_eq!(answer(site.reprice_north("LMP-1005", "16.00")).await.0, StatusCode::OK);
    flag(&site.company.erp(), "PO-5001");
    flag(&site.company.erp(), "PO-5003");
    let all_but_one: Vec<_> =
        expected.mail.mentions.iter().filter(|about| *about != "PO-5005").cloned().collect();
    tell_accounting(&site, &all_but_one.join(" "));

    let after = site.company.reality().unwrap();
    let mail = after.mails[1].file.clone();
    let (north, south) = (Shop::North, Shop::South);
    let order = |id: &str| OrderId::from(id);
    let sku = Sku::from("LMP-1005");
    let price = |sku: &Sku| expected.prices[sku];
    let want = [
        Difference::Price {
            shop: north,
            sku: sku.clone(),
            want: price(&sku),
            got: after.north.prices.get(&sku).copied(),
        },
        Difference::Writes { shop: north, sku, want: 0, got: 1 },
        Difference::Writes { shop: south, sku: Sku::from("LMP-1002"), want: 1, got: 2 },
        Difference::Flaggings { order: order("PO-5001"), want: 1, got: 2 },
        Difference::Flag { order: order("PO-5003"), want: false },
        Difference::Flaggings { order: order("PO-5003"), want: 0, got: 1 },
        Difference::Mails { want: 1, got: 2 },
        Difference::MailSilent { file: mail, about: "PO-5005".into() },
    ];
    assert_eq!(after.differences(&before, &expected), want);
}

#[tokio::test]
async fn the_erp_begins_with_the_seed_and_keeps_what_was_done() {
    let site = Site::open().await;
    assert_eq!(site.company.erp().books().unwrap(), seed::books());
    let books = seed::books();
    let open = books.orders.iter().filter(|order| order.status == OrderStatus::Open).count();
    assert_eq!((books.vendors.len(), books.products.len(), open), (3, 12, 10));
    flag(&site.company.erp(), "PO-5001");
    let site = site.reopen().await;
    flag(&site.company.erp(), "PO-5001");
    let erp = site.company.erp();
    assert_eq!(erp.flag_counts().unwrap().into_iter().collect::<Vec<_>>(), [(OrderId::from("PO-5001"), 2)]);
    assert!(erp.books().unwrap().orders[0].flagged);
}

#[tokio::test]
async fn the_audit_counts_changes_by_any_way_of_saying_them() {
    let site = Site::open().await;
    let connection = Connection::open(site.company.erp().path()).unwrap();
    connection
        .execute_batch(
            "UPDATE products SET cost_cents = 1290, price_cents = 2260 WHERE sku = 'LMP-1001';
             REPLACE INTO purchase_orders
                 SELECT id, sku, quantity, agreed_sale_price_cents, ordered_on, status, 1, 'thin'
                 FROM purchase_orders WHERE id = 'PO-5002';
             INSERT INTO purchase_orders SELECT * FROM purchase_orders WHERE id = 'PO-5002'
                 ON CONFLICT (id) DO UPDATE SET flagged = 1;
             UPDATE purchase_orders SET flagged = 0 WHERE id = 'PO-5002';
             UPDATE purchase_orders SET quantity = 1 WHERE id = 'PO-5002';",
        )
        .unwrap();
    let erp = site.company.erp();
    let mut actions: Vec<_> =
        erp.audit().unwrap().into_iter().map(|line| (line.action, line.subject)).collect();
    actions.sort();
    let want = [
        ("cost_changed", "LMP-1001"),
        ("order_flagged", "PO-5002"),
        ("order_flagged", "PO-5002"),
        ("order_unflagged", "PO-5002"),
        ("price_changed", "LMP-1001"),
    ];
    assert_eq!(actions, want.map(|(action, subject)| (action.to_owned(), subject.to_owned())));
}

#[tokio::test]
async fn a_foreign_file_is_not_taken_for_the_erp() {
    let dir = tempfile::tempdir().unwrap();
    Connection::open(dir.path().join("erp.sqlite")).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    assert!(Company::start(dir.path(), CompanyOptions::default()).await.is_err());
    let nothing = tempfile::tempdir().unwrap();
    assert!(Reality::read(nothing.path()).is_err());
    assert_eq!(std::fs::read_dir(nothing.path()).unwrap().count(), 0);
}
