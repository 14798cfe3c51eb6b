//! Latencies and rates.
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Latencies of one closed loop.
pub(crate) struct Figures {
    micros: Histogram<u64>,
}

impl Figures {
    /// Nothing measured yet.
    pub(crate) fn new() -> anyhow::Result<Figures> {
        Ok(Figures { micros: Histogram::new_with_bounds(1, 3_600_000_000, 3)? })
    }

    /// One more.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.micros.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// All of another loop.
    pub(crate) fn add(&mut self, other: &Figures) -> anyhow::Result<()> {
        self.micros.add(&other.micros)?;
        Ok(())
    }

    /// As JSON; latencies in milliseconds.
    pub(crate) fn json(&self, elapsed: Duration) -> Value {
        let at = |quantile| self.micros.value_at_quantile(quantile) as f64 / 1_000.0;
        json!({
            "n": self.micros.len(),
            "secs": elapsed.as_secs_f64(),
            "per_s": self.micros.len() as f64 / elapsed.as_secs_f64(),
            "p50_ms": at(0.50), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": at(1.0),
        })
    }
}
