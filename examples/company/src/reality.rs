//! What is true in the company now, read back from its files, and where that differs from what was expected.
//!
//! Owns: reading everything back, comparing. Never: asks a running service, so it tells the truth about a company
//! in another process, or about one that has ended, as well.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::Serialize;

use crate::{
    company::Files,
    erp::{Books, Erp, ErpError},
    expected::Expected,
    ids::{OrderId, Sku},
    line_file::{self, LineFileError},
    mailbox::{self, Mail, MailReadError},
    money::Cents,
    postings::Posting,
    seed,
    shelf::{PriceWrite, prices_after},
};

/// One of the two shops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shop {
    /// The shop with resources and a bearer token.
    North,
    /// The shop with procedures and an API key.
    South,
}

/// What a shop shows, and what it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShopRecord {
    /// The price of every product.
    pub prices: BTreeMap<Sku, Cents>,
    /// Every write that the shop accepted, in order.
    pub writes: Vec<PriceWrite>,
}

/// Everything that is true in the company at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reality {
    /// The north shop.
    pub north: ShopRecord,
    /// The south shop.
    pub south: ShopRecord,
    /// The ERP.
    pub books: Books,
    /// How often each order was flagged; orders that never were are not in it.
    pub flag_counts: BTreeMap<OrderId, usize>,
    /// The mails that were taken, in order.
    pub mails: Vec<Mail>,
    /// The postings that were accepted, in order.
    pub postings: Vec<Posting>,
}

/// The company can't be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A write log or the book of postings.
    #[error(transparent)]
    Lines(#[from] LineFileError),
    /// The ERP.
    #[error(transparent)]
    Erp(#[from] ErpError),
    /// The mails.
    #[error(transparent)]
    Mails(#[from] MailReadError),
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// A shop shows another price.
    Price {
        /// Which shop.
        shop: Shop,
        /// Which product.
        sku: Sku,
        /// The price that must be.
        want: Cents,
        /// The price that is, if the shop has the product at all.
        got: Option<Cents>,
    },
    /// A shop accepted another number of writes: something was done twice, or not, or needlessly.
    Writes {
        /// Which shop.
        shop: Shop,
        /// Which product.
        sku: Sku,
        /// How many writes must be.
        want: usize,
        /// How many there were.
        got: usize,
    },
    /// An order's flag is not as it must be.
    Flag {
        /// Which order.
        order: OrderId,
        /// Whether it must be flagged.
        want: bool,
    },
    /// An order is flagged, and nobody says why.
    FlagWithoutReason {
        /// Which order.
        order: OrderId,
    },
    /// An order was flagged another number of times.
    Flaggings {
        /// Which order.
        order: OrderId,
        /// How many times must be.
        want: usize,
        /// How many there were.
        got: usize,
    },
    /// Another number of mails went out, to whomever.
    Mails {
        /// How many must be.
        want: usize,
        /// How many there were.
        got: usize,
    },
    /// The mail went to somebody else.
    MailAddress {
        /// The mail's file.
        file: String,
        /// Who must get it, alone.
        want: String,
    },
    /// The mail does not say something that it must say.
    MailSilent {
        /// The mail's file.
        file: String,
        /// What it does not mention.
        about: String,
    },
}

impl ShopRecord {
    /// How often a price of the product was written.
    #[must_use]
    pub fn write_count(&self, sku: &Sku) -> usize {
        self.writes.iter().filter(|write| write.sku == *sku).count()
    }

    fn read(log: &Path) -> Result<Self, LineFileError> {
        let writes: Vec<PriceWrite> = line_file::read(log)?;
        Ok(Self { prices: prices_after(&seed::products(), &writes), writes })
    }
}

impl Reality {
    /// Reads the company that keeps its files in `dir`, whether it runs or not. Blocks on the disk.
    ///
    /// # Errors
    /// There is no company, or a file is damaged.
    pub fn read(dir: &Path) -> Result<Self, ReadError> {
        let files = Files::in_dir(dir);
        let erp = Erp::at(&files.erp);
        Ok(Self {
            north: ShopRecord::read(&files.north)?,
            south: ShopRecord::read(&files.south)?,
            books: erp.books()?,
            flag_counts: erp.flag_counts()?,
            mails: mailbox::read_mails(&files.mails)?,
            postings: line_file::read(&files.postings)?,
        })
    }

    /// The record of one shop.
    #[must_use]
    pub fn shop(&self, shop: Shop) -> &ShopRecord {
        match shop {
            Shop::North => &self.north,
            Shop::South => &self.south,
        }
    }

    /// How many postings have this reference.
    #[must_use]
    pub fn posting_count(&self, reference: &str) -> usize {
        self.postings.iter().filter(|posting| posting.reference == reference).count()
    }

    /// Where this reality differs from what was expected, given the reality before the event. Empty means: all is well.
    #[must_use]
    pub fn differences(&self, before: &Self, expected: &Expected) -> Vec<Difference> {
        let mut found = Vec::new();
        self.compare_shop(Shop::North, before, expected, &mut found);
        self.compare_shop(Shop::South, before, expected, &mut found);
        self.compare_orders(before, expected, &mut found);
        self.compare_mails(before, expected, &mut found);
        found
    }

    fn compare_shop(&self, shop: Shop, before: &Self, expected: &Expected, found: &mut Vec<Difference>) {
        let (now, then) = (self.shop(shop), before.shop(shop));
        for (sku, want) in &expected.prices {
            let got = now.prices.get(sku).copied();
            if got != Some(*want) {
                found.push(Difference::Price { shop, sku: sku.clone(), want: *want, got });
            }
            let want = usize::from(expected.price_moves.iter().any(|price_move| price_move.sku == *sku));
            let got = now.write_count(sku).saturating_sub(then.write_count(sku));
            if got != want {
                found.push(Difference::Writes { shop, sku: sku.clone(), want, got });
            }
        }
    }

    fn compare_orders(&self, before: &Self, expected: &Expected, found: &mut Vec<Difference>) {
        for then in &before.books.orders {
            let id = &then.id;
            let must = expected.flagged_orders.contains(id);
            let now = self.books.orders.iter().find(|order| order.id == *id);
            let flagged = now.is_some_and(|order| order.flagged);
            if flagged != (must || then.flagged) {
                found.push(Difference::Flag { order: id.clone(), want: must || then.flagged });
            }
            let reason = now.and_then(|order| order.flag_reason.as_deref()).unwrap_or_default();
            if must && flagged && reason.trim().is_empty() {
                found.push(Difference::FlagWithoutReason { order: id.clone() });
            }
            let count = |reality: &Self| reality.flag_counts.get(id).copied().unwrap_or(0);
            let (want, got) = (usize::from(must), count(self).saturating_sub(count(before)));
            if got != want {
                found.push(Difference::Flaggings { order: id.clone(), want, got });
            }
        }
    }

    fn compare_mails(&self, before: &Self, expected: &Expected, found: &mut Vec<Difference>) {
        let new = self.mails.get(before.mails.len()..).unwrap_or_default();
        if new.len() != 1 {
            found.push(Difference::Mails { want: 1, got: new.len() });
        }
        for mail in new {
            if mail.envelope_to != [expected.mail.to.clone()] {
                let want = expected.mail.to.clone();
                found.push(Difference::MailAddress { file: mail.file.clone(), want });
            }
            for about in &expected.mail.mentions {
                if !mentions(&mail.subject, about) && !mentions(&mail.body_text, about) {
                    found.push(Difference::MailSilent { file: mail.file.clone(), about: about.clone() });
                }
            }
        }
    }
}

/// Whether the text has the id as a word of its own: `PO-50` is not mentioned by `PO-5001`.
fn mentions(text: &str, id: &str) -> bool {
    let part_of_id = |c: char| c.is_alphanumeric() || c == '-';
    text.match_indices(id).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + id.len()..].chars().next();
        !before.is_some_and(part_of_id) && !after.is_some_and(part_of_id)
    })
}

impl fmt::Display for Shop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::North => "north shop",
            Self::South => "south shop",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Price { shop, sku, want, got: Some(got) } => {
                write!(out, "{shop}: {sku} costs {got}, must cost {want}")
            }
            Self::Price { shop, sku, want, got: None } => write!(out, "{shop}: no {sku}, must cost {want}"),
            Self::Writes { shop, sku, want, got } => {
                write!(out, "{shop}: the price of {sku} was written {got} times, must be {want}")
            }
            Self::Flag { order, want: true } => write!(out, "ERP: {order} is not flagged and must be"),
            Self::Flag { order, want: false } => write!(out, "ERP: {order} is flagged and must not be"),
            Self::FlagWithoutReason { order } => write!(out, "ERP: {order} is flagged without a reason"),
            Self::Flaggings { order, want, got } => {
                write!(out, "ERP: {order} was flagged {got} times, must be {want}")
            }
            Self::Mails { want, got } => write!(out, "mail: {got} went out, must be {want}"),
            Self::MailAddress { file, want } => write!(out, "mail {file}: must go to {want} alone"),
            Self::MailSilent { file, about } => write!(out, "mail {file}: does not mention {about}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::mentions;

    #[test]
    fn an_id_is_mentioned_only_as_a_word_of_its_own() {
        assert!(mentions("Flagged: PO-5001, PO-5004.", "PO-5004"));
        assert!(mentions("PO-5001", "PO-5001"));
        assert!(!mentions("PO-50010 and XPO-5001 and PO-5001-A", "PO-5001"));
        assert!(mentions("PO-50010 (PO-5001)", "PO-5001"));
    }
}
