//! The contracts of the journal and of the cluster, against those that simulated coordinators share: they are reached
//! as in a simulation, with its delays, and their time is the real one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use kapell_cluster::Cluster;
use kapell_journal::Journal;
use kapell_runtime::Jobs;
use kapell_tests_contract::cluster::Meeting;
use kapell_tests_contract::journal::{Stop, Store as Kept};
use kapell_tests_contract::{cluster_contract, journal_contract};
use kapell_tests_simulation::shared::{DEADLINE_MS, Store, Stores, Witness};
use tokio::time::Instant;

const LEASE: Duration = Duration::from_millis(1_200);
/// No answer is so slow that it is given up.
const SLOW_MS: u64 = DEADLINE_MS / 3;
/// How often the stores' time moves.
const STEP: Duration = Duration::from_millis(1);
/// How far it moves at once.
const STEP_MAX_MS: u64 = 5;
/// Histories of the journal: each request takes a few real milliseconds.
const HISTORIES: u32 = 6;

/// Nobody watches.
struct Nobody;

impl Witness for Nobody {
    fn saw(&self, _: Store, _: &str) {}
    fn bytes(&self, _: &[u8]) {}
    fn broken(&self, what: String) {
        panic!("{what}");
    }
}

/// Stores whose time passes for as long as this is there.
struct Passing {
    stores: Stores,
    over: Option<Sender<()>>,
    clock: Option<JoinHandle<()>>,
}

impl Passing {
    fn start() -> Passing {
        let stores = Stores::new(1, LEASE, SLOW_MS, Arc::new(Nobody));
        let (over, is_over) = mpsc::channel();
        let passing = stores.clone();
        let pass = move || {
            let (began, mut now_ms) = (Instant::now(), 0);
            while is_over.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                // Where the machine has much else to do, the stores' time stands rather than jump over a deadline.
                now_ms = (now_ms + STEP_MAX_MS).min(began.elapsed().as_millis() as u64);
                passing.step(now_ms);
            }
        };
        let clock = std::thread::Builder::new().name("stores".to_owned()).spawn(pass).unwrap();
        Passing { stores, over: Some(over), clock: Some(clock) }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        drop(self.over.take());
        if let Some(clock) = self.clock.take() {
            assert!(clock.join().is_ok(), "the stores do not panic");
        }
    }
}

impl Meeting for Passing {
    fn cluster(&self) -> Arc<dyn Cluster> {
        Arc::new(self.stores.cluster("node", Jobs::new()))
    }

    fn gives_up_within(&self) -> Duration {
        // The lease, of which none is gone, the look for leases that ended, and questions on a busy machine.
        LEASE + Duration::from_secs(2)
    }
}

impl Kept for Passing {
    fn open(&mut self) -> Arc<dyn Journal> {
        Arc::new(self.stores.journal("node"))
    }

    fn stop(&mut self, _: Stop) {
        // The stores outlive every process.
    }
}

cluster_contract!(shared_cluster, together, || Some(Passing::start()));
journal_contract!(shared_journal, || Some(Passing::start()), HISTORIES);
