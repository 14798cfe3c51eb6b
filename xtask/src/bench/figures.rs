//! Measured values and how they compare.
//!
//! Owns: which direction is better, the ratio, and what must be zero. Never: measures.

use std::borrow::Cow;

use serde_json::Value;

use super::targets;
use crate::report::{Rows, Verdict};

/// What is wanted of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// More of it.
    Higher,
    /// Less of it.
    Lower,
    /// None at all; anything else is a broken promise of ours.
    Zero,
}

/// One measured value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) workload: &'static str,
    pub(crate) concurrency: u32,
    /// With its unit at the end.
    pub(crate) metric: Cow<'static, str>,
    pub(crate) better: Better,
    pub(crate) value: f64,
}

/// Values of one run, ours beside theirs.
#[derive(Default)]
pub(crate) struct Figures {
    ours: Vec<Figure>,
    theirs: Vec<Figure>,
}

impl Figures {
    pub(crate) fn add_ours(&mut self, figures: Vec<Figure>) {
        self.ours.extend(figures);
    }

    pub(crate) fn add_theirs(&mut self, figures: Vec<Figure>) {
        self.theirs.extend(figures);
    }

    /// One line a value of ours.
    pub(crate) fn rows(&self) -> Rows {
        let columns = ["workload", "concurrency", "metric", "ratio", "kapell", "peer", "target", "holds"];
        let mut rows = Rows::new(columns);
        for ours in &self.ours {
            let theirs = self.theirs_of(ours);
            let target = targets::target(ours.workload, ours.concurrency, &ours.metric);
            rows.push([
                ours.workload.into(),
                ours.concurrency.into(),
                ours.metric.clone().into(),
                theirs.and_then(|theirs| ratio(ours, theirs)).map_or(Value::Null, short),
                short(ours.value),
                theirs.map_or(Value::Null, |theirs| short(theirs.value)),
                target.map_or(Value::Null, |target| target.shown().into()),
                self.holds(ours).map_or(Value::Null, Value::Bool),
            ]);
        }
        rows
    }

    /// Holds when every target holds that could be looked at, and nothing of ours that must be zero is more.
    pub(crate) fn verdict(&self) -> Verdict {
        let broken = |figure: &&Figure| {
            self.holds(figure) == Some(false) || (figure.better == Better::Zero && figure.value > 0.0)
        };
        Verdict::of(&self.ours.iter().filter(broken).collect::<Vec<_>>())
    }

    fn theirs_of(&self, ours: &Figure) -> Option<&Figure> {
        let same = |theirs: &&Figure| {
            (theirs.workload, theirs.concurrency, &theirs.metric)
                == (ours.workload, ours.concurrency, &ours.metric)
        };
        self.theirs.iter().find(same)
    }

    /// Whether a value reaches its target; `None`: it has none, or what it is held against was not measured.
    fn holds(&self, ours: &Figure) -> Option<bool> {
        let target = targets::target(ours.workload, ours.concurrency, &ours.metric)?;
        let times = self.theirs_of(ours).and_then(|theirs| ratio(ours, theirs));
        let of = |metric: &str| {
            let same = |other: &&Figure| {
                (other.workload, other.concurrency) == (ours.workload, ours.concurrency)
                    && other.metric == metric
            };
            self.ours.iter().find(same).map(|other| other.value)
        };
        target.holds(ours.value, times, of)
    }
}

/// How many times better ours is.
fn ratio(ours: &Figure, theirs: &Figure) -> Option<f64> {
    let (more, less) = match ours.better {
        Better::Higher => (ours.value, theirs.value),
        Better::Lower => (theirs.value, ours.value),
        Better::Zero => return None,
    };
    (less > 0.0).then(|| more / less)
}

/// Three digits are more than a noisy machine gives.
fn short(value: f64) -> Value {
    let scale = if value.abs() >= 100.0 { 1.0 } else { 100.0 };
    Value::from((value * scale).round() / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(better: Better, value: f64) -> Figure {
        Figure { workload: "w1", concurrency: 64, metric: "x".into(), better, value }
    }

    #[test]
    fn a_ratio_above_one_is_good_in_both_directions() {
        assert_eq!(ratio(&figure(Better::Higher, 30.0), &figure(Better::Higher, 10.0)), Some(3.0));
        assert_eq!(ratio(&figure(Better::Lower, 10.0), &figure(Better::Lower, 30.0)), Some(3.0));
        assert_eq!(ratio(&figure(Better::Zero, 0.0), &figure(Better::Zero, 7.0)), None);
        assert_eq!(ratio(&figure(Better::Higher, 1.0), &figure(Better::Higher, 0.0)), None);
    }

    #[test]
    fn what_must_be_zero_breaks_the_run() {
        let mut figures = Figures::default();
        figures.add_ours(vec![figure(Better::Zero, 0.0)]);
        figures.add_theirs(vec![figure(Better::Zero, 5.0)]);
        assert_eq!(figures.verdict(), Verdict::Holds);
        figures.add_ours(vec![figure(Better::Zero, 1.0)]);
        assert_eq!(figures.verdict(), Verdict::Broken);
    }

    #[test]
    fn a_share_is_taken_of_the_same_concurrency() {
        let at = |concurrency, metric: &'static str, value| Figure {
            workload: "w7",
            concurrency,
            metric: metric.into(),
            better: Better::Higher,
            value,
        };
        let mut figures = Figures::default();
        figures.add_ours(vec![
            at(64, "floor: bare inserts, rows/s", 10.0),
            at(64, "journal alone, appends/s", 6.0),
        ]);
        figures.add_ours(vec![at(1024, "floor: bare inserts, rows/s", 100.0)]);
        assert_eq!(figures.verdict(), Verdict::Holds);
        figures.add_ours(vec![at(1024, "journal alone, appends/s", 59.0)]);
        assert_eq!(figures.verdict(), Verdict::Broken);
    }
}
