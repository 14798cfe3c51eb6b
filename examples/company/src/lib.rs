//! The example company: a retailer with two web shops, an ERP, an accounting service and a mail server.
//!
//! Owns: the outside systems that a demonstration or a crash test acts on, the seed data, and the business truth
//! that says what must hold after a vendor changed its prices.
//! Never: knows who acts on it. It depends on nothing of the orchestrator, and no write here is idempotent, so an
//! action that was done twice can be seen afterwards.

#![expect(
    clippy::disallowed_methods,
    reason = "an outside system: it runs on real time and real tasks, and no simulation owns it"
)]

mod admin;
mod company;
mod erp;
mod expected;
mod faults;
mod ids;
mod line_file;
mod listener;
mod mailbox;
mod money;
mod postings;
mod reality;
pub mod seed;
mod shelf;
mod shop_north;
mod shop_south;

pub use company::{Addresses, Company, CompanyOptions, Credentials, Ports, ServiceFaults, StartError};
pub use erp::{AuditLine, Books, Erp, ErpError, OrderStatus, Product, PurchaseOrder, Vendor};
pub use expected::{
    ChangeError, ChangedItem, Expected, ExpectedMail, PriceMove, Surprise, VENDOR_PRICE_CHANGE_EVENT,
    VendorPriceChange, vendor_price_change,
};
pub use faults::{FAULT_DELAY_MAX_MS, FaultError, Faults, Knobs, Reach};
pub use ids::{OrderId, Sku, VendorId};
pub use line_file::LineFileError;
pub use mailbox::{MAIL_BYTES_MAX, Mail, MailLogin, MailReadError, RECIPIENTS_MAX, SESSIONS_MAX};
pub use money::{BasisPoints, Cents, MINIMUM_MARGIN, PriceTextError};
pub use postings::{POSTINGS_MAX, Posting, REFERENCE_BYTES_MAX};
pub use reality::{Difference, ReadError, Reality, Shop, ShopRecord};
pub use shelf::PriceWrite;
