//! The ERP: a SQLite file with vendors, products, purchase orders, and an audit of what was done to them.
//!
//! Owns: the schema (`schema.sql`), the seed, reading back. Never: changes a row after the seed; who works with the
//! ERP opens the file and does so, and the triggers write down each time.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef},
};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{OrderId, Sku, VendorId},
    money::Cents,
};

const SCHEMA: &str = include_str!("schema.sql");

/// `PRAGMA user_version` of a file that was seeded whole.
const SCHEMA_VERSION: i64 = 1;

/// How long a reader or the seed waits for another's transaction.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// A supplier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vendor {
    /// Its id.
    pub id: VendorId,
    /// Its name.
    pub name: String,
    /// Where it reads mail.
    pub email: String,
}

/// A product that the company sells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Product {
    /// Its number here.
    pub sku: Sku,
    /// Its number at the vendor.
    pub vendor_sku: String,
    /// What it is called.
    pub name: String,
    /// Who supplies it.
    pub vendor_id: VendorId,
    /// What one piece costs the company.
    pub cost: Cents,
    /// What one piece costs in the shops.
    pub price: Cents,
}

/// Where a purchase order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderStatus {
    /// Agreed and not yet shipped: the only one that is worth a flag.
    Open,
    /// Gone.
    Shipped,
    /// Never to be shipped.
    Cancelled,
}

/// A business customer's order at an agreed price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PurchaseOrder {
    /// Its id.
    pub id: OrderId,
    /// Of which product.
    pub sku: Sku,
    /// How many pieces.
    pub quantity: u32,
    /// What the customer pays for one piece.
    pub agreed_sale_price: Cents,
    /// The day of the order, as `2026-11-03`.
    pub ordered_on: String,
    /// Where it stands.
    pub status: OrderStatus,
    /// Whether somebody must look at it.
    pub flagged: bool,
    /// Why.
    pub flag_reason: Option<String>,
}

/// What the ERP holds, apart from the audit. Everything is sorted by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Books {
    /// The suppliers.
    pub vendors: Vec<Vendor>,
    /// The products.
    pub products: Vec<Product>,
    /// The purchase orders of any status.
    pub orders: Vec<PurchaseOrder>,
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditLine {
    /// When, in UTC.
    pub at: String,
    /// `order_flagged`, `order_unflagged`, `cost_changed` or `price_changed`.
    pub action: String,
    /// The id of the order or product.
    pub subject: String,
    /// The flag's reason, or the amounts in cents.
    pub detail: Option<String>,
}

/// The ERP can't be read or created.
#[derive(Debug, thiserror::Error)]
pub enum ErpError {
    /// The file is locked, missing, or not an ERP.
    #[error("cannot use the ERP at {}", path.display())]
    Database {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file is of another version.
    #[error("the ERP at {} has schema version {found}, this company reads {SCHEMA_VERSION}", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
}

/// A handle to the ERP's file. Each call opens it anew, so it never stands in anyone's way.
#[derive(Clone, Debug)]
pub struct Erp {
    path: PathBuf,
}

impl Erp {
    /// Creates the file with these books, or takes the one that is there as it is.
    ///
    /// # Errors
    /// The file can't be created, or is of another version.
    pub fn create(path: &Path, books: &Books) -> Result<Self, ErpError> {
        let erp = Self { path: path.to_owned() };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let found = erp.connect(flags).and_then(|mut connection| seed(&mut connection, books));
        match found.map_err(|source| erp.failed(source))? {
            SCHEMA_VERSION => Ok(erp),
            found => Err(ErpError::Version { path: erp.path, found }),
        }
    }

    /// Takes an ERP that was created before.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the ERP holds, as of one moment. Blocks on the disk.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn books(&self) -> Result<Books, ErpError> {
        self.read(|read| {
            Ok(Books {
                vendors: rows(read, "SELECT id, name, email FROM vendors ORDER BY id", vendor)?,
                products: rows(
                    read,
                    "SELECT sku, vendor_sku, name, vendor_id, cost_cents, price_cents FROM products ORDER BY sku",
                    product,
                )?,
                orders: rows(
                    read,
                    "SELECT id, sku, quantity, agreed_sale_price_cents, ordered_on, status, flagged, flag_reason
                     FROM purchase_orders ORDER BY id",
                    order,
                )?,
            })
        })
    }

    /// What was done to orders and products, in order. Blocks on the disk.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn audit(&self) -> Result<Vec<AuditLine>, ErpError> {
        self.read(|read| rows(read, "SELECT at, action, subject, detail FROM audit ORDER BY id", audit_line))
    }

    /// How often each order was flagged; orders that never were are not in it. Blocks on the disk.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn flag_counts(&self) -> Result<BTreeMap<OrderId, usize>, ErpError> {
        let mut counts = BTreeMap::new();
        for line in self.audit()? {
            if line.action == "order_flagged" {
                *counts.entry(OrderId::from(line.subject)).or_default() += 1;
            }
        }
        Ok(counts)
    }

    fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, ErpError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE; // a reader of a WAL file writes its shared-memory index
        self.connect(flags)
            .and_then(|mut connection| work(&connection.transaction()?))
            .map_err(|source| self.failed(source))
    }

    fn connect(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY_WAIT)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(connection)
    }

    fn failed(&self, source: rusqlite::Error) -> ErpError {
        ErpError::Database { path: self.path.clone(), source }
    }
}

/// Fills a new file; gives the schema version that the file has in the end.
fn seed(connection: &mut Connection, books: &Books) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    let write = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = write.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let any: Option<i64> = write.query_row("SELECT 1 FROM sqlite_master", [], |row| row.get(0)).optional()?;
    if version != 0 || any.is_some() {
        return Ok(version);
    }
    write.execute_batch(SCHEMA)?;
    for vendor in &books.vendors {
        write
            .execute("INSERT INTO vendors VALUES (?, ?, ?)", params![vendor.id, vendor.name, vendor.email])?;
    }
    for product in &books.products {
        let Product { sku, vendor_sku, name, vendor_id, cost, price } = product;
        let values = params![sku, vendor_sku, name, vendor_id, cost, price];
        write.execute("INSERT INTO products VALUES (?, ?, ?, ?, ?, ?)", values)?;
    }
    for order in &books.orders {
        let PurchaseOrder { id, sku, quantity, agreed_sale_price, ordered_on, status, flagged, flag_reason } =
            order;
        let values = params![id, sku, quantity, agreed_sale_price, ordered_on, status, flagged, flag_reason];
        write.execute("INSERT INTO purchase_orders VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)?;
    }
    write.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    write.commit()?;
    Ok(SCHEMA_VERSION)
}

fn rows<T>(
    read: &Transaction<'_>,
    sql: &str,
    map: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    read.prepare(sql)?.query_map([], map)?.collect()
}

fn vendor(row: &Row<'_>) -> rusqlite::Result<Vendor> {
    Ok(Vendor { id: row.get(0)?, name: row.get(1)?, email: row.get(2)? })
}

fn product(row: &Row<'_>) -> rusqlite::Result<Product> {
    Ok(Product {
        sku: row.get(0)?,
        vendor_sku: row.get(1)?,
        name: row.get(2)?,
        vendor_id: row.get(3)?,
        cost: row.get(4)?,
        price: row.get(5)?,
    })
}

fn order(row: &Row<'_>) -> rusqlite::Result<PurchaseOrder> {
    Ok(PurchaseOrder {
        id: row.get(0)?,
        sku: row.get(1)?,
        quantity: row.get(2)?,
        agreed_sale_price: row.get(3)?,
        ordered_on: row.get(4)?,
        status: row.get(5)?,
        flagged: row.get(6)?,
        flag_reason: row.get(7)?,
    })
}

fn audit_line(row: &Row<'_>) -> rusqlite::Result<AuditLine> {
    Ok(AuditLine { at: row.get(0)?, action: row.get(1)?, subject: row.get(2)?, detail: row.get(3)? })
}

macro_rules! text_column {
    ($($id:ty),*) => {$(
        impl ToSql for $id {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl FromSql for $id {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_str().map(Self::from)
            }
        }
    )*};
}

text_column!(Sku, VendorId, OrderId);

impl ToSql for Cents {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.get().into())
    }
}

impl FromSql for Cents {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self::new)
    }
}

impl ToSql for OrderStatus {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = match self {
            Self::Open => "open",
            Self::Shipped => "shipped",
            Self::Cancelled => "cancelled",
        };
        Ok(text.into())
    }
}

impl FromSql for OrderStatus {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "open" => Ok(Self::Open),
            "shipped" => Ok(Self::Shipped),
            "cancelled" => Ok(Self::Cancelled),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}
