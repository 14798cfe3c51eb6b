//! The ledger contract against PostgreSQL: a real server, whose processes are killed for a crash.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use kapell_ledger::Ledger;
use kapell_ledger_postgres::PostgresLedger;
use kapell_runtime::Jobs;
use kapell_tests_contract::ledger::{LedgerStore, Stop};
use kapell_tests_contract::ledger_contract;
use kapell_tests_servers::{Durability, Postgres, Setup};
use tokio::runtime::Runtime;

thread_local! {
    /// One for each test, which runs in a thread of its own.
    static SERVER: Option<Rc<RefCell<Postgres>>> =
        Setup::default().durability(Durability::Unsynced).start().map(|server| Rc::new(RefCell::new(server)));
}

/// A database without a ledger, and the node that uses it.
struct Database {
    server: Rc<RefCell<Postgres>>,
    url: String,
    node: Runtime,
    jobs: Jobs,
}

impl Database {
    fn new() -> Option<Database> {
        let server = SERVER.with(Clone::clone)?;
        let (url, node, jobs) = (server.borrow().url(), Runtime::new().unwrap(), Jobs::new());
        node.block_on(PostgresLedger::remove(&url, &jobs)).unwrap();
        Some(Database { server, url, node, jobs })
    }
}

impl LedgerStore for Database {
    fn open(&mut self) -> Arc<dyn Ledger> {
        Arc::new(self.node.block_on(PostgresLedger::open(&self.url, &self.jobs)).unwrap())
    }

    fn reopen(&mut self, open: Arc<dyn Ledger>, how: Stop) -> Arc<dyn Ledger> {
        match how {
            Stop::Clean => {}
            Stop::Crash => {
                self.jobs.stop("crash");
                self.server.borrow_mut().kill();
                self.server.borrow_mut().start_again();
                self.jobs = Jobs::new();
            }
        }
        drop(open);
        self.open()
    }
}

ledger_contract!(postgres, Database::new);
