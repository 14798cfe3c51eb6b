//! Times as people read them.
use std::time::Duration;

use kapell_model::Timestamp;
use kapell_runtime::{Clock as _, SystemClock};

/// Now, by the machine's clock.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// RFC 3339 in UTC with milliseconds; `None` for the 0 that stands for "not yet".
pub(crate) fn rfc3339(millis: i64) -> Option<String> {
    match u64::try_from(millis) {
        Ok(0) | Err(_) => None,
        Ok(millis) => Some(Timestamp(millis).to_string()),
    }
}

/// How long ago; empty for "not yet".
pub(crate) fn age(millis: i64, now: Timestamp) -> String {
    match u64::try_from(millis) {
        Ok(0) | Err(_) => String::new(),
        Ok(millis) => short(Duration::from_millis(now.0.saturating_sub(millis))),
    }
}

/// From one point to another; empty when one of them is not there.
pub(crate) fn between(from: i64, to: i64) -> String {
    if from <= 0 || to <= 0 {
        return String::new();
    }
    short(Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0)))
}

/// A span in at most two units, such as `3d4h`, `12m5s`, `4.2s` or `35ms`.
pub(crate) fn short(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..10 => format!("{seconds}.{}s", span.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let shown =
            [35, 4_250, 42_000, 725_000, 3_600_000, 273_600_000].map(|ms| short(Duration::from_millis(ms)));
        assert_eq!(shown, ["35ms", "4.2s", "42s", "12m5s", "1h", "3d4h"]);
    }

    #[test]
    fn a_time_that_is_not_there_is_empty() {
        assert_eq!(rfc3339(0), None);
        assert_eq!(rfc3339(1_500).unwrap(), "1970-01-01T00:00:01.500Z");
        assert_eq!(age(0, Timestamp(5)), "");
        assert_eq!(between(5, 0), "");
        assert_eq!(age(2_000, Timestamp(1_000)), "0ms");
    }
}
