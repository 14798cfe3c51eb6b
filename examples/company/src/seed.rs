//! The company on its first day.
//!
//! Owns: vendors, products and purchase orders as the ERP and both shops begin with them.
//! Never: changes; a test that needs other data acts on a running company.
//!
//! The figures are chosen so that the example event has something to find: three orders that become unprofitable,
//! one that lands exactly on the minimum margin and stays, one on a product whose cost falls, one already thin order
//! of another vendor that the event does not concern, and a shipped and a cancelled order that nobody may touch.

use crate::{
    erp::{Books, OrderStatus, Product, PurchaseOrder, Vendor},
    ids::{OrderId, Sku, VendorId},
    money::Cents,
};

/// The one currency of the company.
pub const CURRENCY: &str = "EUR";

/// Where accounting reads its mail.
pub const ACCOUNTING_ADDRESS: &str = "accounting@company.example";

/// id, name, mail address
const VENDORS: [(&str, &str, &str); 3] = [
    ("V-100", "Nordlicht Leuchten GmbH", "sales@nordlicht.example"),
    ("V-200", "Tessuto Casa S.r.l.", "ordini@tessuto-casa.example"),
    ("V-300", "Keramikhof KG", "verkauf@keramikhof.example"),
];

/// sku, number at the vendor, name, vendor, cost in cents, price in cents; by sku
const PRODUCTS: [(&str, &str, &str, &str, i64, i64); 12] = [
    ("CER-3001", "KH-0012", "Dinner plates, set of 6", "V-300", 2_340, 3_990),
    ("CER-3002", "KH-0033", "Mug, set of 4", "V-300", 1_180, 2_190),
    ("CER-3003", "KH-0051", "Serving bowl", "V-300", 1_460, 2_690),
    ("LMP-1001", "NL-77-01", "Desk lamp Fjord", "V-100", 1_140, 1_990),
    ("LMP-1002", "NL-77-02", "Floor lamp Polar", "V-100", 5_200, 9_000),
    ("LMP-1003", "NL-80-15", "Pendant light Halo", "V-100", 3_480, 5_990),
    ("LMP-1004", "NL-91-04", "LED bulb E27, pack of 4", "V-100", 620, 1_190),
    ("LMP-1005", "NL-77-09", "Clip lamp Kiel", "V-100", 890, 1_590),
    ("TXT-2001", "TC/4410", "Linen throw 130 x 170", "V-200", 2_150, 3_990),
    ("TXT-2002", "TC/4425", "Cotton bed linen 135 x 200", "V-200", 2_890, 4_990),
    ("TXT-2003", "TC/4471", "Wool cushion cover 50 x 50", "V-200", 980, 1_890),
    ("TXT-2004", "TC/4502", "Bath towel, pack of 4", "V-200", 1_320, 2_490),
];

/// id, sku, quantity, agreed sale price of one piece in cents, day of the order, status
const ORDERS: [(&str, &str, u32, i64, &str, OrderStatus); 12] = [
    ("PO-5001", "LMP-1001", 40, 1_450, "2026-10-28", OrderStatus::Open),
    ("PO-5002", "LMP-1001", 12, 1_690, "2026-11-03", OrderStatus::Open),
    ("PO-5003", "LMP-1002", 6, 6_500, "2026-11-03", OrderStatus::Open),
    ("PO-5004", "LMP-1002", 15, 6_290, "2026-11-05", OrderStatus::Open),
    ("PO-5005", "LMP-1003", 20, 4_150, "2026-11-09", OrderStatus::Open),
    ("PO-5006", "LMP-1004", 200, 990, "2026-11-10", OrderStatus::Open),
    ("PO-5007", "TXT-2001", 25, 3_190, "2026-11-10", OrderStatus::Open),
    ("PO-5008", "TXT-2003", 60, 1_090, "2026-11-12", OrderStatus::Open),
    ("PO-5009", "CER-3001", 10, 3_390, "2026-11-16", OrderStatus::Open),
    ("PO-5010", "LMP-1001", 30, 1_400, "2026-10-02", OrderStatus::Shipped),
    ("PO-5011", "CER-3002", 48, 1_790, "2026-11-17", OrderStatus::Open),
    ("PO-5012", "LMP-1002", 4, 5_990, "2026-10-14", OrderStatus::Cancelled),
];

/// What the ERP holds on the first day.
#[must_use]
pub fn books() -> Books {
    Books { vendors: vendors(), products: products(), orders: orders() }
}

fn vendors() -> Vec<Vendor> {
    VENDORS
        .iter()
        .map(|(id, name, email)| Vendor {
            id: VendorId::from(*id),
            name: (*name).to_owned(),
            email: (*email).to_owned(),
        })
        .collect()
}

/// The products that both shops and the ERP begin with.
#[must_use]
pub fn products() -> Vec<Product> {
    PRODUCTS
        .iter()
        .map(|(sku, vendor_sku, name, vendor, cost, price)| Product {
            sku: Sku::from(*sku),
            vendor_sku: (*vendor_sku).to_owned(),
            name: (*name).to_owned(),
            vendor_id: VendorId::from(*vendor),
            cost: Cents::new(*cost),
            price: Cents::new(*price),
        })
        .collect()
}

fn orders() -> Vec<PurchaseOrder> {
    ORDERS
        .iter()
        .map(|(id, sku, quantity, agreed, ordered_on, status)| PurchaseOrder {
            id: OrderId::from(*id),
            sku: Sku::from(*sku),
            quantity: *quantity,
            agreed_sale_price: Cents::new(*agreed),
            ordered_on: (*ordered_on).to_owned(),
            status: *status,
            flagged: false,
            flag_reason: None,
        })
        .collect()
}
