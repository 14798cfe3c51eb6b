//! How long things take.
//!
//! Owns: the one reading of the machine's clock, and the pauses. Never: decides anything by the time of day.
#![expect(
    clippy::disallowed_methods,
    reason = "no simulated time here: xtask measures and waits for real processes"
)]

use std::time::{Duration, Instant};

/// Runs from its making.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The pause between two looks at a child process. Short against any command, long against a busy loop.
pub(crate) fn nap() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Lets a process under measurement do its work, or come to rest.
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// `7.4 s`, `3 min 05 s`.
pub(crate) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    format!("{} min {:02} s", seconds / 60, seconds % 60)
}
