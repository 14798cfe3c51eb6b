//! What encoding and decoding one entry costs: `cargo run --release -p kapell-wire --example codec_cost`.
#![expect(clippy::print_stdout, reason = "it prints what it measured")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kapell_kernel::{Attempt, Entry, UnitId};
use kapell_model::plan::{CompiledWorkflow, DefinitionDigest, StepIndex};
use kapell_model::{Json, Timestamp};
use kapell_wire::{Definitions, RecordRef, decode_record, encode_record};

const BATCHES: u32 = 200;
const ROUNDS: u32 = 10_000;
const AT: Timestamp = Timestamp(1_700_000_000_000);

/// The measured entries begin no run.
struct Nothing;
impl Definitions for Nothing {
    fn by_digest(&self, _: DefinitionDigest) -> Option<Arc<CompiledWorkflow>> {
        None
    }
}

fn main() {
    let text = |bytes: usize| Json::string(&"x".repeat(bytes.saturating_sub(2)));
    let unit = UnitId::item(StepIndex(3), 42);
    let dispatched = |input| Entry::TaskDispatched { unit, attempt: Attempt(1), input, deadline: AT };
    let entries = [
        ("TaskDispatched, no input", dispatched(None)),
        ("TaskDispatched, 300 bytes", dispatched(Some(text(300)))),
        ("UnitDone, 20 bytes", Entry::UnitDone { unit, output: text(20) }),
        ("UnitDone, 300 bytes", Entry::UnitDone { unit, output: text(300) }),
        ("UnitDone, 64 KiB", Entry::UnitDone { unit, output: text(64 << 10) }),
    ];
    for (name, entry) in entries {
        let bytes = encode_record(AT, RecordRef::Entry(&entry));
        let rounds = if bytes.len() > 10_000 { ROUNDS / 100 } else { ROUNDS };
        let encode = best(rounds, || {
            black_box(encode_record(AT, RecordRef::Entry(black_box(&entry))));
        });
        let decode = best(rounds, || {
            black_box(decode_record(black_box(&bytes), &Nothing).is_ok());
        });
        println!("{name:<28} {:>6} bytes   encode {encode:>9.0?}   decode {decode:>9.0?}", bytes.len());
    }
}

/// Time of one call in the best batch: on a busy machine the others measure the neighbours.
fn best(rounds: u32, mut work: impl FnMut()) -> Duration {
    let batch = |_| {
        let began = Instant::now();
        (0..rounds).for_each(|_| work());
        began.elapsed() / rounds
    };
    (0..BATCHES).map(batch).min().unwrap_or_default()
}
