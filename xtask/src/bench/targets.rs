//! What is promised of each workload on two cores.
//!
//! Owns: the numbers. Never: measures, or compares figures of different runs.

/// What a value must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// So many times better than the peer.
    Times(f64),
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// No less than this share of another value of the workload.
    Share(f64, &'static str),
}

/// The target of a value, if it has one.
pub(crate) fn target(workload: &str, concurrency: u32, metric: &str) -> Option<Target> {
    Some(match (workload, concurrency, metric) {
        ("w1", 1, "p50 ms") => Target::Times(3.0),
        ("w1", 64, "steps/s") => Target::Times(15.0),
        ("w1", 512, "steps/s") => Target::Times(10.0),
        ("w2", _, "p50 ms") => Target::Times(5.0),
        ("w3", _, "exec to first run s") => Target::AtMost(0.25),
        ("w3", _, "idle memory MiB") => Target::AtMost(40.0),
        ("w3", _, "binary MiB") => Target::AtMost(50.0),
        ("w4", _, "all done after restart s") => Target::AtMost(1.3),
        ("w4", _, "steps executed twice") => Target::AtMost(0.0),
        ("w5", _, "single events/s") => Target::Share(1.0 / 3.0, "floor: empty calls/s"),
        ("w5", _, "events/s in batches of 64") => Target::Share(0.4, "floor: journal alone, appends/s"),
        ("w6", _, "memory a run bytes") => Target::AtMost(1_500.0),
        ("w6", _, "ready after kill -9 s") => Target::AtMost(8.0),
        ("w7", 64, "1 coordinator: steps/s") => Target::Times(4.0),
        ("w7", _, "2 coordinators: share of one" | "4 coordinators: share of one") => Target::AtLeast(0.85),
        ("w7", _, "journal alone, appends/s") => Target::Share(0.6, "floor: bare inserts, rows/s"),
        ("recovery", _, "exec to first answered read s") => Target::AtMost(2.0),
        _ => return None,
    })
}

impl Target {
    /// Whether a value reaches it; `None`: what it is held against was not measured.
    pub(crate) fn holds(
        self,
        value: f64,
        ratio: Option<f64>,
        of: impl Fn(&str) -> Option<f64>,
    ) -> Option<bool> {
        match self {
            Target::Times(times) => ratio.map(|ratio| ratio >= times),
            Target::AtMost(most) => Some(value <= most),
            Target::AtLeast(least) => Some(value >= least),
            Target::Share(share, metric) => of(metric).map(|whole| value >= whole * share),
        }
    }

    /// For people.
    pub(crate) fn shown(self) -> String {
        match self {
            Target::Times(times) => format!("{times}x"),
            Target::AtMost(most) => format!("<= {most}"),
            Target::AtLeast(least) => format!(">= {least}"),
            Target::Share(share, metric) => format!(">= {share:.2} of {metric}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_holds_at_the_limit_and_not_beyond() {
        let floor = |metric: &str| (metric == "floor: empty calls/s").then_some(300.0);
        let single = target("w5", 64, "single events/s").unwrap();
        assert_eq!(single.holds(100.0, None, floor), Some(true));
        assert_eq!(single.holds(99.0, None, floor), Some(false));
        assert_eq!(single.holds(99.0, None, |_| None), None, "there is nothing to hold it against");
        let times = target("w1", 64, "steps/s").unwrap();
        assert_eq!(times.holds(1.0, Some(15.0), floor), Some(true));
        assert_eq!(times.holds(1.0, Some(14.9), floor), Some(false));
        assert_eq!(times.holds(1.0, None, floor), None, "no peer was measured");
        let twice = target("w4", 64, "steps executed twice").unwrap();
        assert_eq!((twice.holds(0.0, None, floor), twice.holds(1.0, None, floor)), (Some(true), Some(false)));
        assert_eq!(target("w1", 64, "p99 ms"), None);
    }
}
