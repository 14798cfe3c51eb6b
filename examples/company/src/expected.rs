//! The business truth: what must hold after a vendor changed its prices.
//!
//! Owns: the example event, and the pure function from books and event to shop prices, flags and the mail.
//! Never: looks at the world. `Reality` does, and the two are held against each other there.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::{
    erp::{Books, OrderStatus},
    ids::{OrderId, Sku, VendorId},
    money::{BasisPoints, Cents},
    seed::ACCOUNTING_ADDRESS,
};

/// The example event as a CloudEvent in JSON. Its `data` is a [`VendorPriceChange`].
pub const VENDOR_PRICE_CHANGE_EVENT: &str = include_str!("../data/vendor-price-change.json");

/// A vendor says that some of its products cost something else from a day on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VendorPriceChange {
    /// Which vendor.
    pub vendor_id: VendorId,
    /// From which day on.
    pub effective: Date,
    /// What changes.
    pub items: Vec<ChangedItem>,
}

/// One product whose cost changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedItem {
    /// The company's number of the product.
    pub sku: Sku,
    /// The vendor's number of it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_sku: Option<String>,
    /// What one piece cost until then, as the vendor says.
    pub old_cost_cents: Cents,
    /// What one piece costs from then on.
    pub new_cost_cents: Cents,
}

/// The event makes no sense in itself.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It does not read as an event with a price change.
    #[error("not a price change event")]
    Shape(#[from] serde_json::Error),
    /// It changes nothing.
    #[error("the event has no items")]
    Empty,
    /// It says two things about one product.
    #[error("the event has {0} twice")]
    Twice(Sku),
    /// A cost is zero or negative.
    #[error("a cost of {0} is not positive")]
    Cost(Sku),
}

/// What must hold afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// The price of every product, in both shops; those that the event does not concern stay as they were.
    pub prices: BTreeMap<Sku, Cents>,
    /// The products whose price changes: exactly one write each, in each shop. By sku.
    pub price_moves: Vec<PriceMove>,
    /// The orders that must be flagged, once each. By id.
    pub flagged_orders: Vec<OrderId>,
    /// The one mail that accounting must get.
    pub mail: ExpectedMail,
    /// Where the event does not fit the books. None for the example event.
    pub surprises: Vec<Surprise>,
}

/// A price that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PriceMove {
    /// Of which product.
    pub sku: Sku,
    /// The price before.
    pub old: Cents,
    /// The price afterwards.
    pub new: Cents,
}

/// A mail by what it must say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExpectedMail {
    /// To whom, by the envelope.
    pub to: String,
    /// Words that stand in the subject or the text: the vendor's id, each changed sku, each flagged order.
    pub mentions: Vec<String>,
}

/// Where the event does not fit the books. Nothing is done about such an item, except for a differing old cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Surprise {
    /// The books have no such product.
    UnknownProduct(Sku),
    /// The product comes from another vendor.
    OtherVendor(Sku),
    /// The books have another old cost. They are believed, since the margin to keep is the one that the company has.
    OldCostDiffers(Sku),
    /// A price for the new cost can't be calculated.
    NoPrice(Sku),
}

/// The example event's data.
///
/// # Errors
/// Never for the file as it is here; a test reads it.
pub fn vendor_price_change() -> Result<VendorPriceChange, ChangeError> {
    VendorPriceChange::from_event(VENDOR_PRICE_CHANGE_EVENT)
}

impl VendorPriceChange {
    /// Reads the `data` of a CloudEvent in JSON.
    ///
    /// # Errors
    /// It is no such event, or contradicts itself.
    pub fn from_event(json: &str) -> Result<Self, ChangeError> {
        #[derive(Deserialize)]
        struct Event {
            data: VendorPriceChange,
        }
        let Event { data } = serde_json::from_str(json)?;
        let mut seen = BTreeSet::new();
        for item in &data.items {
            if item.old_cost_cents.get() <= 0 || item.new_cost_cents.get() <= 0 {
                return Err(ChangeError::Cost(item.sku.clone()));
            }
            if !seen.insert(&item.sku) {
                return Err(ChangeError::Twice(item.sku.clone()));
            }
        }
        if data.items.is_empty() { Err(ChangeError::Empty) } else { Ok(data) }
    }
}

impl Expected {
    /// What must hold after the event, given the books before it.
    ///
    /// - A changed product keeps its margin: new price = new cost / (1 - margin), margin = 1 - old cost / old price,
    ///   rounded up to ten cents. An unchanged cost leaves the price alone, whatever its last digit.
    /// - An open, unflagged order for a changed product is flagged when it earns less than the minimum margin at the
    ///   new cost. Exactly the minimum is enough.
    /// - Accounting gets one mail that names the vendor, the products with a new price and the flagged orders.
    #[must_use]
    pub fn after(books: &Books, change: &VendorPriceChange, minimum_margin: BasisPoints) -> Self {
        let mut surprises = Vec::new();
        let costs = changed_costs(books, change, &mut surprises);
        let mut prices = BTreeMap::new();
        let mut price_moves = Vec::new();
        for product in &books.products {
            let new_cost = costs.get(&product.sku).copied().unwrap_or(product.cost);
            let mut price = product.price;
            if new_cost != product.cost {
                match product.price.repriced(product.cost, new_cost) {
                    Some(new) => price = new,
                    None => surprises.push(Surprise::NoPrice(product.sku.clone())),
                }
            }
            if price != product.price {
                price_moves.push(PriceMove { sku: product.sku.clone(), old: product.price, new: price });
            }
            prices.insert(product.sku.clone(), price);
        }
        price_moves.sort_by(|left, right| left.sku.cmp(&right.sku));
        let flagged_orders = unprofitable_orders(books, &costs, minimum_margin);
        let mentions = std::iter::once(change.vendor_id.to_string())
            .chain(price_moves.iter().map(|price_move| price_move.sku.to_string()))
            .chain(flagged_orders.iter().map(ToString::to_string))
            .collect();
        let mail = ExpectedMail { to: ACCOUNTING_ADDRESS.to_owned(), mentions };
        Self { prices, price_moves, flagged_orders, mail, surprises }
    }
}

/// The new costs of the products that the event may change.
fn changed_costs(
    books: &Books,
    change: &VendorPriceChange,
    surprises: &mut Vec<Surprise>,
) -> BTreeMap<Sku, Cents> {
    let mut costs = BTreeMap::new();
    for item in &change.items {
        let Some(product) = books.products.iter().find(|product| product.sku == item.sku) else {
            surprises.push(Surprise::UnknownProduct(item.sku.clone()));
            continue;
        };
        if product.vendor_id != change.vendor_id {
            surprises.push(Surprise::OtherVendor(item.sku.clone()));
            continue;
        }
        if product.cost != item.old_cost_cents {
            surprises.push(Surprise::OldCostDiffers(item.sku.clone()));
        }
        costs.insert(item.sku.clone(), item.new_cost_cents);
    }
    costs
}

fn unprofitable_orders(
    books: &Books,
    costs: &BTreeMap<Sku, Cents>,
    minimum_margin: BasisPoints,
) -> Vec<OrderId> {
    let mut orders: Vec<_> = books
        .orders
        .iter()
        .filter(|order| order.status == OrderStatus::Open && !order.flagged)
        .filter(|order| {
            costs
                .get(&order.sku)
                .is_some_and(|cost| order.agreed_sale_price.earns_less_than(minimum_margin, *cost))
        })
        .map(|order| order.id.clone())
        .collect();
    orders.sort();
    orders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{money::MINIMUM_MARGIN, seed};

    fn expected(change: &VendorPriceChange) -> Expected {
        Expected::after(&seed::books(), change, MINIMUM_MARGIN)
    }

    #[test]
    fn the_example_event_has_the_outcome_that_was_worked_out_by_hand() {
        let expected = expected(&vendor_price_change().unwrap());
        let moves: Vec<_> = expected
            .price_moves
            .iter()
            .map(|one| (one.sku.as_str(), one.old.to_string(), one.new.to_string()))
            .collect();
        let by_hand = [
            ("LMP-1001", "19.90", "22.60"), // 12.90 x 19.90 / 11.40 = 22.518
            ("LMP-1002", "90.00", "99.00"), // 57.20 x 90.00 / 52.00 = 99 exactly
            ("LMP-1003", "59.90", "63.60"), // 36.90 x 59.90 / 34.80 = 63.515
            ("LMP-1004", "11.90", "11.40"), //  5.90 x 11.90 /  6.20 = 11.324
        ];
        assert_eq!(moves, by_hand.map(|(sku, old, new)| (sku, old.to_owned(), new.to_owned())));
        assert_eq!(expected.flagged_orders, ["PO-5001", "PO-5004", "PO-5005"].map(OrderId::from));
        assert_eq!(expected.prices.len(), 12);
        assert_eq!(expected.prices["LMP-1005"], Cents::new(1_590));
        assert_eq!(expected.surprises, []);
        let mentions =
            ["V-100", "LMP-1001", "LMP-1002", "LMP-1003", "LMP-1004", "PO-5001", "PO-5004", "PO-5005"];
        assert_eq!(
            expected.mail,
            ExpectedMail { to: ACCOUNTING_ADDRESS.into(), mentions: mentions.map(String::from).into() }
        );
    }

    #[test]
    fn the_event_is_what_makes_the_orders_unprofitable() {
        let books = seed::books();
        for id in ["PO-5001", "PO-5003", "PO-5004", "PO-5005"] {
            let order = books.orders.iter().find(|order| order.id.as_str() == id).unwrap();
            let product = books.products.iter().find(|product| product.sku == order.sku).unwrap();
            assert!(!order.agreed_sale_price.earns_less_than(MINIMUM_MARGIN, product.cost), "{id}");
        }
    }

    #[test]
    fn an_order_that_is_flagged_already_is_left_alone() {
        let mut books = seed::books();
        books.orders[0].flagged = true;
        let expected = Expected::after(&books, &vendor_price_change().unwrap(), MINIMUM_MARGIN);
        assert_eq!(expected.flagged_orders, ["PO-5004", "PO-5005"].map(OrderId::from));
    }

    #[test]
    fn what_does_not_fit_the_books_is_said_and_not_done() {
        let mut change = vendor_price_change().unwrap();
        change.items[0].sku = Sku::from("LMP-9999");
        change.items[1].sku = Sku::from("CER-3001");
        change.items[2].old_cost_cents = Cents::new(1);
        let expected = expected(&change);
        let surprises = [
            Surprise::UnknownProduct(Sku::from("LMP-9999")),
            Surprise::OtherVendor(Sku::from("CER-3001")),
            Surprise::OldCostDiffers(Sku::from("LMP-1003")),
        ];
        assert_eq!(expected.surprises, surprises);
        let skus: Vec<_> = expected.price_moves.iter().map(|one| one.sku.as_str()).collect();
        assert_eq!(skus, ["LMP-1003", "LMP-1004"]);
        assert_eq!(expected.prices["LMP-1003"], Cents::new(6_360));
    }

    #[test]
    fn an_unchanged_cost_leaves_an_odd_price_alone() {
        let mut books = seed::books();
        let lamp = books.products.iter_mut().find(|product| product.sku.as_str() == "LMP-1001").unwrap();
        lamp.price = Cents::new(1_999);
        let mut change = vendor_price_change().unwrap();
        change.items[0].new_cost_cents = change.items[0].old_cost_cents;
        let expected = Expected::after(&books, &change, MINIMUM_MARGIN);
        assert_eq!(expected.prices["LMP-1001"], Cents::new(1_999));
    }

    #[test]
    fn an_event_that_contradicts_itself_is_refused() {
        let read = |from: &str, to: &str| {
            assert!(VENDOR_PRICE_CHANGE_EVENT.contains(from));
            VendorPriceChange::from_event(&VENDOR_PRICE_CHANGE_EVENT.replace(from, to)).unwrap_err()
        };
        assert!(matches!(read("LMP-1002", "LMP-1001"), ChangeError::Twice(_)));
        assert!(matches!(read("5720", "0"), ChangeError::Cost(_)));
        assert!(matches!(read("5720", "57.2"), ChangeError::Shape(_)));
        assert!(matches!(read("2026-12-01", "soon"), ChangeError::Shape(_)));
        let none = r#"{"data": {"vendor_id": "V-100", "effective": "2026-12-01", "items": []}}"#;
        assert!(matches!(VendorPriceChange::from_event(none), Err(ChangeError::Empty)));
    }
}
