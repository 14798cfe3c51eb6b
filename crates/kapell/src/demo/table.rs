//! The table at the end: everything that had to happen, and whether it happened once.
//!
//! Owns: turning what differs into rows. Never: asks Kapell: what is true is read from the company's own files.
use kapell_company::{Difference, Expected, OrderId, Reality, Shop, Sku};
use kapell_proto::v1;

/// Somebody was killed in the middle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    pub(super) who: &'static str,
    /// The signal ended it, not something before.
    pub(super) by_signal: bool,
    /// The run had not ended then.
    pub(super) unfinished: bool,
    /// Price writes that the shops had taken by then.
    pub(super) writes: usize,
}

/// What is true about one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Missing,
    Wrong,
    Twice,
}

/// What a row is about; a difference belongs to exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    Run,
    Price(Shop, Sku),
    Flag(OrderId),
    Mail,
    NothingElse,
    Death,
}

#[derive(Clone, Debug)]
struct Row {
    about: About,
    what: String,
    detail: String,
    verdict: Verdict,
    /// What is wrong, in words.
    notes: Vec<String>,
}

/// The rows.
#[derive(Clone, Debug)]
pub(super) struct Table(Vec<Row>);

impl Table {
    pub(super) fn of(
        before: &Reality,
        after: &Reality,
        expected: &Expected,
        run: &v1::Run,
        deaths: &[Death],
    ) -> Table {
        let mut table = Table(expected_rows(after, expected));
        table.0.insert(0, run_row(run));
        for difference in after.differences(before, expected) {
            let (about, verdict) = place(&difference, expected);
            table.mark(&about, verdict, difference.to_string());
        }
        if before.books.products != after.books.products {
            table.mark(&About::NothingElse, Verdict::Wrong, "ERP: products changed".to_owned());
        }
        if before.postings != after.postings {
            table.mark(&About::NothingElse, Verdict::Wrong, "accounting: postings were made".to_owned());
        }
        table.0.extend(deaths.iter().map(death_row));
        table
    }

    fn mark(&mut self, about: &About, verdict: Verdict, note: String) {
        if let Some(row) = self.0.iter_mut().find(|row| row.about == *about) {
            row.verdict = row.verdict.max(verdict);
            row.notes.push(note);
        }
    }

    /// Rows that are not ok.
    pub(super) fn count_wrong(&self) -> usize {
        self.0.iter().filter(|row| row.verdict != Verdict::Ok).count()
    }

    /// As it is printed.
    pub(super) fn lines(&self) -> Vec<String> {
        let width =
            |of: fn(&Row) -> &str| self.0.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
        let (what, detail) = (width(|row| &row.what), width(|row| &row.detail));
        let mut lines = vec![String::new()];
        for row in &self.0 {
            let verdict = match row.verdict {
                Verdict::Ok => "ok",
                Verdict::Missing => "MISSING",
                Verdict::Wrong => "WRONG",
                Verdict::Twice => "TWICE",
            };
            lines.push(format!("  {:what$}  {:detail$}  {verdict}", row.what, row.detail));
            lines.extend(row.notes.iter().map(|note| format!("      {note}")));
        }
        lines.push(String::new());
        lines
    }
}

fn row(about: About, what: impl Into<String>, detail: impl Into<String>) -> Row {
    Row { about, what: what.into(), detail: detail.into(), verdict: Verdict::Ok, notes: vec![] }
}

fn run_row(run: &v1::Run) -> Row {
    let mut row = row(About::Run, "run", "completed");
    if run.state() != v1::RunState::Completed {
        row.verdict = Verdict::Missing;
        row.notes.extend(run.error.as_ref().map(|error| error.message.clone()));
    }
    row
}

fn death_row(death: &Death) -> Row {
    let detail = format!("kill -9 in the middle, after {} price writes", death.writes);
    let mut row = row(About::Death, death.who, detail);
    if !death.by_signal || !death.unfinished {
        row.verdict = Verdict::Missing;
        row.notes.push("it had ended before, or the run had".to_owned());
    }
    row
}

/// A row for each thing that had to happen.
fn expected_rows(after: &Reality, expected: &Expected) -> Vec<Row> {
    let mut rows = Vec::new();
    for shop in [Shop::North, Shop::South] {
        for change in &expected.price_moves {
            let detail = format!("{} -> {}, written once", change.old, change.new);
            rows.push(row(About::Price(shop, change.sku.clone()), format!("{shop} {}", change.sku), detail));
        }
    }
    for order in &expected.flagged_orders {
        rows.push(row(About::Flag(order.clone()), format!("ERP {order}"), "flagged once, with a reason"));
    }
    let detail = match after.mails.last() {
        Some(mail) => format!("one, \"{}\"", mail.subject),
        None => "one".to_owned(),
    };
    rows.push(row(About::Mail, format!("mail to {}", expected.mail.to), detail));
    rows.push(row(About::NothingElse, "everything else", "as it was"));
    rows
}

/// The row that a difference belongs to, and what it makes of it.
fn place(difference: &Difference, expected: &Expected) -> (About, Verdict) {
    let count = |want: usize, got: usize| if got > want { Verdict::Twice } else { Verdict::Missing };
    let is_moved = |sku: &Sku| expected.price_moves.iter().any(|change| change.sku == *sku);
    match difference {
        Difference::Price { shop, sku, .. } if is_moved(sku) => {
            (About::Price(*shop, sku.clone()), Verdict::Missing)
        }
        Difference::Writes { shop, sku, want, got } if is_moved(sku) => {
            (About::Price(*shop, sku.clone()), count(*want, *got))
        }
        Difference::Flag { order, want: true } => (About::Flag(order.clone()), Verdict::Missing),
        Difference::FlagWithoutReason { order } => (About::Flag(order.clone()), Verdict::Wrong),
        Difference::Flaggings { order, want, got } if *want > 0 => {
            (About::Flag(order.clone()), count(*want, *got))
        }
        Difference::Mails { want, got } => (About::Mail, count(*want, *got)),
        Difference::MailAddress { .. } | Difference::MailSilent { .. } => (About::Mail, Verdict::Wrong),
        Difference::Price { .. }
        | Difference::Writes { .. }
        | Difference::Flag { want: false, .. }
        | Difference::Flaggings { .. } => (About::NothingElse, Verdict::Wrong),
    }
}

#[cfg(test)]
mod tests {
    use kapell_company::{Company, CompanyOptions, MINIMUM_MARGIN, vendor_price_change};

    use super::*;

    const FLAGGED: &str = "2026-12-01: too dear";

    /// The company before the event, and as it must be afterwards, but for the mail.
    async fn before_and_after() -> (Reality, Reality, Expected) {
        let folder = tempfile::tempdir().unwrap();
        let company = Company::start(folder.path(), CompanyOptions::default()).await.unwrap();
        let before = company.reality().unwrap();
        company.stop().await;
        let expected = Expected::after(&before.books, &vendor_price_change().unwrap(), MINIMUM_MARGIN);
        let mut after = before.clone();
        for change in &expected.price_moves {
            write(&mut after, Shop::North, change);
            write(&mut after, Shop::South, change);
        }
        for id in &expected.flagged_orders {
            let order = after.books.orders.iter_mut().find(|order| order.id == *id).unwrap();
            order.flagged = true;
            order.flag_reason = Some(FLAGGED.to_owned());
            after.flag_counts.insert(id.clone(), 1);
        }
        (before, after, expected)
    }

    fn write(reality: &mut Reality, shop: Shop, change: &kapell_company::PriceMove) {
        let record = match shop {
            Shop::North => &mut reality.north,
            Shop::South => &mut reality.south,
        };
        let (sku, price_cents) = (change.sku.clone(), change.new);
        let at = "2026-11-20T08:00:00Z".parse().unwrap();
        record.prices.insert(sku.clone(), price_cents);
        record.writes.push(kapell_company::PriceWrite { at, sku, price_cents, request_note: None });
    }

    fn verdicts(table: &Table) -> Vec<(String, Verdict)> {
        let wrong = table.0.iter().filter(|row| row.verdict != Verdict::Ok);
        wrong.map(|row| (row.what.clone(), row.verdict)).collect()
    }

    #[tokio::test]
    async fn what_is_missing_done_twice_or_not_asked_for_is_said_in_its_row() {
        let (before, mut after, expected) = before_and_after().await;
        let run = v1::Run { state: v1::RunState::Completed as i32, ..v1::Run::default() };
        let death = Death { who: "worker", by_signal: true, unfinished: true, writes: 2 };
        let mail = "mail to accounting@company.example".to_owned();
        let table = Table::of(&before, &after, &expected, &run, &[death]);
        assert_eq!(verdicts(&table), [(mail.clone(), Verdict::Missing)]);
        assert_eq!(table.0.len(), 1 + 8 + 3 + 2 + 1);

        write(&mut after, Shop::South, &expected.price_moves[1]);
        after.north.prices.clone_from(&before.north.prices);
        after.north.writes.clear();
        after.flag_counts.insert(expected.flagged_orders[2].clone(), 2);
        after.books.products[0].cost = kapell_company::Cents::new(1);
        let run = v1::Run { state: v1::RunState::Failed as i32, ..v1::Run::default() };
        let table = Table::of(&before, &after, &expected, &run, &[Death { unfinished: false, ..death }]);
        let north = |sku: &str| (format!("north shop {sku}"), Verdict::Missing);
        let wrong = [
            ("run".to_owned(), Verdict::Missing),
            north("LMP-1001"),
            north("LMP-1002"),
            north("LMP-1003"),
            north("LMP-1004"),
            ("south shop LMP-1002".to_owned(), Verdict::Twice),
            ("ERP PO-5005".to_owned(), Verdict::Twice),
            (mail, Verdict::Missing),
            ("everything else".to_owned(), Verdict::Wrong),
            ("worker".to_owned(), Verdict::Missing),
        ];
        assert_eq!(verdicts(&table), wrong);
        assert_eq!(table.count_wrong(), wrong.len());
    }
}
