//! The products of one shop: their prices in memory, each accepted write on disk.
//!
//! Owns: prices and the write log they are rebuilt from at a restart.
//! Never: recognises a write that it has seen before. Each accepted write is one more line, also of the same price.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    erp::Product,
    ids::{Sku, VendorId},
    line_file::{LineFile, LineFileError},
    money::Cents,
};

/// One write that a shop accepted: a line of its write log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceWrite {
    /// When it was accepted.
    pub at: Timestamp,
    /// Of which product.
    pub sku: Sku,
    /// The price from then on.
    pub price_cents: Cents,
    /// The `Idempotency-Key` of the request, else its `X-Request-Id`. The shop keeps it and does nothing with it.
    pub request_note: Option<String>,
}

/// A product as a shop shows it.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) sku: Sku,
    pub(crate) name: String,
    pub(crate) vendor: VendorId,
    pub(crate) price: Cents,
}

/// Why a write was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShelfError {
    #[error("no product {0}")]
    Unknown(Sku),
    #[error("the write log can't be written")]
    Log(#[from] std::io::Error),
    #[error("the write was lost")]
    Lost(#[from] tokio::task::JoinError),
}

/// A handle to the products of one shop. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Shelf(Arc<Mutex<Stock>>);

#[derive(Debug)]
struct Stock {
    items: BTreeMap<Sku, Item>,
    log: LineFile,
}

impl Shelf {
    /// Takes the products as they began and applies the write log to them.
    pub(crate) fn open(log: &Path, products: Vec<Product>) -> Result<Self, LineFileError> {
        let (log, writes) = LineFile::open::<PriceWrite>(log)?;
        let mut prices = prices_after(&products, &writes);
        let items = products
            .into_iter()
            .map(|product| {
                let price = prices.remove(&product.sku).unwrap_or(product.price);
                let item = Item { sku: product.sku, name: product.name, vendor: product.vendor_id, price };
                (item.sku.clone(), item)
            })
            .collect();
        Ok(Self(Arc::new(Mutex::new(Stock { items, log }))))
    }

    pub(crate) fn item(&self, sku: &str) -> Option<Item> {
        self.lock().items.get(sku).cloned()
    }

    /// All items, or those of one vendor, by product number.
    pub(crate) fn items(&self, vendor: Option<&str>) -> Vec<Item> {
        let stock = self.lock();
        stock
            .items
            .values()
            .filter(|item| vendor.is_none_or(|vendor| item.vendor.as_str() == vendor))
            .cloned()
            .collect()
    }

    /// Accepts a write: on disk first, then visible. It goes on when the client's connection ends meanwhile.
    pub(crate) async fn set_price(
        &self,
        sku: Sku,
        price: Cents,
        note: Option<String>,
    ) -> Result<Item, ShelfError> {
        let shelf = self.clone();
        tokio::task::spawn_blocking(move || shelf.accept(sku, price, note)).await?
    }

    /// Accepts no more writes, also not from requests that are still under way.
    pub(crate) fn close(&self) {
        self.lock().log.close();
    }

    fn accept(&self, sku: Sku, price: Cents, request_note: Option<String>) -> Result<Item, ShelfError> {
        let mut stock = self.lock();
        let Stock { items, log } = &mut *stock;
        let item = items.get_mut(&sku).ok_or_else(|| ShelfError::Unknown(sku.clone()))?;
        log.append(&PriceWrite { at: Timestamp::now(), sku, price_cents: price, request_note })?;
        item.price = price;
        Ok(item.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        // A price is changed in one assignment after its line is on disk: a panicked holder left a valid stock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The prices that a shop shows after these writes.
pub(crate) fn prices_after(products: &[Product], writes: &[PriceWrite]) -> BTreeMap<Sku, Cents> {
    let mut prices: BTreeMap<_, _> =
        products.iter().map(|product| (product.sku.clone(), product.price)).collect();
    for write in writes {
        prices.insert(write.sku.clone(), write.price_cents);
    }
    prices
}
