//! What the matrix says.
//!
//! Owns: the table, its JSON form, and whether all is well. Never: asks anybody.
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kapell_proto::v1::Finding;
use serde_json::{Value, json};

use crate::judge::{Fates, Settled};
use crate::load::Order;
use crate::processes::Role;

/// The outcome of a matrix.
pub(crate) struct Report {
    pub(crate) seed: u64,
    /// Of each role.
    pub(crate) kills: u32,
    /// Accepted orders.
    pub(crate) orders: usize,
    /// Orders that were under way when a role was killed.
    pub(crate) hit: BTreeMap<Role, BTreeSet<Order>>,
    pub(crate) fates: Fates,
    /// What `doctor` finds.
    pub(crate) findings: Vec<Finding>,
    pub(crate) settled: Settled,
    /// Roles that ended without being killed.
    pub(crate) died: Vec<Role>,
    /// Events whose first answer was lost.
    pub(crate) resent: u64,
    /// From the last kill to the end of the last run.
    pub(crate) settling: Duration,
}

/// One line of the table.
struct Row {
    role: &'static str,
    kills: u32,
    /// Runs under way at a kill of the role; in the last line, all.
    runs: usize,
    lost: usize,
    twice: usize,
    stuck: usize,
    failed: usize,
}

impl Report {
    /// Nothing is wrong, and there was something that could have gone wrong.
    pub(crate) fn holds(&self) -> bool {
        self.orders > 0
            && self.fates.wrong().is_empty()
            && self.fates.foreign_postings == 0
            && self.findings.is_empty()
            && self.died.is_empty()
    }

    fn rows(&self) -> Vec<Row> {
        let fates = &self.fates;
        let of = |role: Role, orders: &BTreeSet<Order>| Row {
            role: role.name(),
            kills: self.kills,
            runs: orders.len(),
            lost: orders.intersection(&fates.lost).count(),
            twice: orders.intersection(&fates.twice).count(),
            stuck: orders.intersection(&fates.stuck).count(),
            failed: orders.intersection(&fates.failed).count(),
        };
        let mut rows: Vec<Row> = self.hit.iter().map(|(role, orders)| of(*role, orders)).collect();
        rows.push(Row {
            role: "all",
            kills: self.kills * 3,
            runs: self.orders,
            lost: fates.lost.len(),
            twice: fates.twice.len(),
            stuck: fates.stuck.len(),
            failed: fates.failed.len(),
        });
        rows
    }

    fn remarks(&self) -> Value {
        let name = |role: &Role| role.name();
        json!({
            "seed": self.seed,
            "found_out_done": self.settled.took_effect,
            "found_out_not_done": self.settled.repeated,
            "events_sent_again": self.resent,
            "foreign_postings": self.fates.foreign_postings,
            "doctor_findings": self.findings.len(),
            "died_by_themselves": self.died.iter().map(name).collect::<Vec<_>>(),
            "settled_after_s": (self.settling.as_secs_f64() * 10.0).round() / 10.0,
            "holds": self.holds(),
        })
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![String::from("ROLE         KILLS    RUNS  LOST  DONE TWICE  STUCK  FAILED")];
        for row in self.rows() {
            let Row { role, kills, runs, lost, twice, stuck, failed } = row;
            lines.push(format!(
                "{role:<11}  {kills:>5}  {runs:>6}  {lost:>4}  {twice:>10}  {stuck:>5}  {failed:>6}"
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
        let row = |row: Row| {
            json!({
                "role": row.role, "kills": row.kills, "runs": row.runs, "lost": row.lost,
                "done_twice": row.twice, "stuck": row.stuck, "failed": row.failed,
            })
        };
        let lines = self.rows().into_iter().map(row).chain([self.remarks()]);
        lines.map(|line| format!("{line}\n")).collect()
    }
}
