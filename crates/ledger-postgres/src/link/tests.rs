//! Servers that say nothing.
use std::time::Duration;

use kapell_ledger::LedgerError;
use kapell_runtime::Jobs;
use tokio::net::TcpListener;
use tokio_postgres::Client;

use super::{Link, OPEN_WITHIN, Place, Work};
use crate::trouble::{RETRY_AFTER, Trouble};

struct Nothing;

impl Work for Nothing {
    type Answer = ();

    async fn once(&self, _: &Client) -> Result<(), Trouble> {
        Ok(())
    }
}

async fn ask(link: &mut Link) -> LedgerError {
    link.run(Duration::from_secs(1), &Nothing).await.map_err(Trouble::answer).unwrap_err()
}

/// Whoever waits is told after a while, and those who come after it do not wait as long again.
#[tokio::test(start_paused = true)]
async fn a_server_that_takes_connections_and_says_nothing_is_not_waited_for_twice() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://kapell@{}/ledger?sslmode=disable", silent.local_addr().unwrap());
    let mut link = Link::new(Place::new(&url, &Jobs::new()).unwrap());
    let begin = tokio::time::Instant::now();
    let first = ask(&mut link).await;
    assert!(matches!(&first, LedgerError::Unavailable { .. }), "{first:?}");
    assert!((OPEN_WITHIN..OPEN_WITHIN * 2).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    let second = ask(&mut link).await;
    assert_eq!(second, first);
    assert!(begin.elapsed() < OPEN_WITHIN * 2, "it was asked again at once");
    // why: the pause itself is what is tested
    tokio::time::sleep(RETRY_AFTER).await;
    ask(&mut link).await;
    assert!(begin.elapsed() >= OPEN_WITHIN * 2, "it is asked again after a rest");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_unavailable() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let place = Place::new(&format!("postgres://kapell@{port}/ledger"), &Jobs::new()).unwrap();
    let error = ask(&mut Link::new(place)).await;
    assert!(matches!(&error, LedgerError::Unavailable { .. }), "{error:?}");
}
