//! What a matrix says.
//!
//! Owns: the table, its JSON form, and whether all is well. Never: asks anybody.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kapell_proto::v1::Finding;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::judge::{Fates, Settled};
use crate::load::{Course, Order, Span};

/// Something that was done to the system.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) name: String,
    /// Its effects are looked for from here to the next fault.
    pub(crate) at: Instant,
    /// An event must be accepted within so long meanwhile.
    pub(crate) acceptance_max: Option<Duration>,
}

/// The outcome of a matrix.
pub(crate) struct Report {
    pub(crate) seed: u64,
    /// In order.
    pub(crate) faults: Vec<Fault>,
    /// When the last orders were accepted.
    pub(crate) stopped: Instant,
    pub(crate) courses: BTreeMap<Order, Course>,
    pub(crate) fates: Fates,
    /// What `doctor` finds.
    pub(crate) findings: Vec<Finding>,
    pub(crate) settled: Settled,
    /// Processes that ended without being told to.
    pub(crate) died: Vec<String>,
    /// Appends of old owners of shards that the journal refused.
    pub(crate) refused_by_journal: usize,
    /// From the last fault to the end of the last run.
    pub(crate) settling: Duration,
}

/// From a fault to the next one.
type Window = (Instant, Instant);

/// In which one most of the time passed: a fault is not blamed for what the next one holds up.
fn most_of(span: Span, windows: &[Window]) -> Option<usize> {
    let parts = windows.iter().map(|(from, to)| span.within(*from, *to)).enumerate();
    parts.filter(|(_, part)| !part.is_zero()).max_by_key(|(_, part)| *part).map(|(at, _)| at)
}

/// One line of the table.
#[derive(Default)]
struct Row<'a> {
    fault: &'a str,
    times: usize,
    /// Under way at one of them, or sent before the next.
    orders: BTreeSet<Order>,
    /// The longest time until an event was accepted that it held up, and the most that it may be.
    acceptance: Duration,
    acceptance_max: Option<Duration>,
    /// The one that took so long.
    slowest: Option<Order>,
    /// The longest time from there to the end of its run.
    work: Duration,
}

impl Row<'_> {
    fn accepted(&mut self, order: Order, after: Duration) {
        if after > self.acceptance {
            (self.acceptance, self.slowest) = (after, Some(order));
        }
    }

    fn take_in(&mut self, other: &Row<'_>) {
        self.orders.extend(&other.orders);
        if let Some(order) = other.slowest {
            self.accepted(order, other.acceptance);
        }
        self.work = self.work.max(other.work);
    }

    fn is_too_slow(&self) -> bool {
        self.acceptance_max.is_some_and(|most| self.acceptance > most)
    }

    fn of(&self, orders: &BTreeSet<Order>) -> usize {
        self.orders.intersection(orders).count()
    }
}

impl Report {
    /// Nothing is wrong, and there was something that could have gone wrong.
    pub(crate) fn holds(&self) -> bool {
        !self.courses.is_empty()
            && self.fates.wrong().is_empty()
            && self.fates.foreign_postings == 0
            && self.findings.is_empty()
            && self.died.is_empty()
            && !self.rows().iter().any(|row| row.is_too_slow())
    }

    /// Of each fault, the order that was accepted last after its sending.
    pub(crate) fn slowest(&self) -> BTreeSet<Order> {
        self.rows().iter().filter_map(|row| row.slowest).collect()
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let begins = || self.faults.iter().map(|fault| fault.at);
        let windows: Vec<Window> = begins().zip(begins().skip(1).chain([self.stopped])).collect();
        let mut rows = BTreeMap::<&str, Row>::new();
        for (fault, (from, to)) in self.faults.iter().zip(&windows) {
            let row = rows.entry(fault.name.as_str()).or_default();
            (row.fault, row.acceptance_max) = (fault.name.as_str(), fault.acceptance_max);
            row.times += 1;
            let met = self.courses.iter().filter(|(_, course)| course.was_within(*from, *to));
            row.orders.extend(met.map(|(order, _)| *order));
        }
        let held_up_by = |span: Span| most_of(span, &windows).map(|at| self.faults[at].name.as_str());
        for (order, course) in &self.courses {
            let acceptance = course.acceptance();
            if let Some(row) = held_up_by(acceptance).and_then(|fault| rows.get_mut(fault)) {
                row.accepted(*order, acceptance.length(self.stopped));
            }
            if let Some(work) = course.work()
                && let Some(row) = held_up_by(work).and_then(|fault| rows.get_mut(fault))
            {
                row.work = row.work.max(work.length(self.stopped));
            }
        }
        let mut all = Row { fault: "all", times: self.faults.len(), ..Row::default() };
        rows.values().for_each(|row| all.take_in(row));
        rows.into_values().chain([all]).collect()
    }

    fn remarks(&self) -> Value {
        json!({
            "seed": self.seed,
            "found_out_done": self.settled.took_effect,
            "found_out_not_done": self.settled.repeated,
            "foreign_postings": self.fates.foreign_postings,
            "doctor_findings": self.findings.len(),
            "died_by_themselves": self.died,
            "appends_refused_by_the_journal": self.refused_by_journal,
            "settled_after_s": (self.settling.as_secs_f64() * 10.0).round() / 10.0,
            "holds": self.holds(),
        })
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let fates = &self.fates;
        let mut lines = vec![format!(
            "{:<26}  TIMES  ORDERS  LOST  DONE TWICE  STUCK  FAILED  ACCEPTED WITHIN  MAY BE  DONE WITHIN",
            "FAULT"
        )];
        for row in self.rows() {
            let most = row.acceptance_max.map_or_else(String::new, seconds);
            lines.push(format!(
                "{:<26}  {:>5}  {:>6}  {:>4}  {:>10}  {:>5}  {:>6}  {:>15}  {most:>6}  {:>11}{}",
                row.fault,
                row.times,
                row.orders.len(),
                row.of(&fates.lost),
                row.of(&fates.twice),
                row.of(&fates.stuck),
                row.of(&fates.failed),
                seconds(row.acceptance),
                seconds(row.work),
                match row.slowest.filter(|_| row.is_too_slow()) {
                    Some(order) => format!("  TOO SLOW: {}", order.name()),
                    None => String::new(),
                },
            ));
        }
        lines.push(String::new());
        for (name, value) in self.remarks().as_object().into_iter().flatten() {
            lines.push(format!("{}: {value}", name.replace('_', " ")));
        }
        for finding in &self.findings {
            lines.push(format!("doctor: {} {} {}", finding.kind, finding.run, finding.text));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// For programs.
    pub(crate) fn json_lines(&self) -> String {
        let fates = &self.fates;
        let row = |row: Row<'_>| {
            json!({
                "fault": row.fault, "times": row.times, "orders": row.orders.len(),
                "lost": row.of(&fates.lost), "done_twice": row.of(&fates.twice),
                "stuck": row.of(&fates.stuck), "failed": row.of(&fates.failed),
                "accepted_within_s": row.acceptance.as_secs_f64(),
                "slowest": row.slowest.map(Order::name),
                "accepted_may_be_s": row.acceptance_max.map(|most| most.as_secs_f64()),
                "done_within_s": row.work.as_secs_f64(),
            })
        };
        let lines = self.rows().into_iter().map(row).chain([self.remarks()]);
        lines.map(|line| format!("{line}\n")).collect()
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_under_which_an_event_waited_longest_held_it_up() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let windows = [(at(1_000), at(2_000)), (at(2_000), at(9_000))];
        let during = |from, to: Option<u64>| most_of(Span { from: at(from), to: to.map(at) }, &windows);
        assert_eq!(during(1_100, Some(1_200)), Some(0));
        assert_eq!(during(1_950, Some(8_000)), Some(1), "it was all but accepted when the second one came");
        assert_eq!(during(1_100, Some(2_100)), Some(0), "the first one's all but wholly");
        assert_eq!(during(900, Some(1_010)), Some(0), "it began before");
        assert_eq!(during(100, Some(900)), None, "nothing was wrong");
        assert_eq!(during(1_900, None), Some(1), "it waits still");
    }
}
