//! The journal contract against PostgreSQL: a store of two databases of a real server, whose processes are killed for a
//! crash.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use kapell_journal::Journal;
use kapell_journal_postgres::{Fsync, Options, PostgresJournal};
use kapell_runtime::Runtime;
use kapell_tests_contract::journal::{Stop, Store};
use kapell_tests_contract::journal_contract;
use kapell_tests_servers::{Durability, Postgres, Setup};
use tokio_postgres::NoTls;

thread_local! {
    /// One for each test, which runs in a thread of its own. That a killed server keeps what it was told to flush is
    /// tested with the journal; here the machine goes on.
    static SERVER: Option<Rc<RefCell<Postgres>>> =
        Setup::default().durability(Durability::Unsynced).start().map(|server| Rc::new(RefCell::new(server)));
}

/// Small segments, so that every case meets many of them.
fn small() -> Options {
    Options {
        segment_bytes: 64 << 10,
        sweep_every: Duration::ZERO,
        fsync: Fsync::NotForTests,
        ..Options::default()
    }
}

struct Databases {
    server: Rc<RefCell<Postgres>>,
    urls: [String; 2],
    threads: tokio::runtime::Runtime,
    node: Runtime,
}

impl Databases {
    /// Two databases without a journal.
    fn new() -> Option<Databases> {
        let server = SERVER.with(Clone::clone)?;
        let urls = ["postgres", "template1"].map(|name| server.borrow().url_of(name));
        let threads = tokio::runtime::Runtime::new().unwrap();
        for url in &urls {
            threads.block_on(async {
                let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
                #[expect(clippy::disallowed_methods, reason = "the connection of a test")]
                tokio::spawn(connection);
                client.batch_execute("DROP SCHEMA IF EXISTS kapell_journal CASCADE").await.unwrap();
            });
        }
        Some(Databases { server, urls, threads, node: Runtime::system() })
    }
}

impl Store for Databases {
    fn open(&mut self) -> Arc<dyn Journal> {
        let open = PostgresJournal::open(&self.urls, small(), &self.node);
        Arc::new(self.threads.block_on(open).unwrap())
    }

    fn stop(&mut self, how: Stop) {
        match how {
            // The next node opens while this one is still about to finish.
            Stop::Clean => {}
            Stop::Crash { .. } => {
                self.node.jobs.stop("crash");
                self.server.borrow_mut().kill();
                self.server.borrow_mut().start_again();
                self.node = Runtime::system();
            }
        }
    }
}

journal_contract!(postgres, Databases::new, 6);
