//! Members start, die, find together again, and are gone with their value.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::net::TcpStream;

use kapell_tests_servers::Etcd;

fn listens(endpoint: &str) -> bool {
    TcpStream::connect(endpoint).is_ok()
}

#[test]
fn another_member_leads_when_the_leader_is_killed() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    let endpoints = etcd.endpoints();
    assert!(endpoints.iter().all(|endpoint| listens(endpoint)));
    let first = etcd.leader();
    etcd.kill(first);
    assert!(!listens(&endpoints[first]));
    let second = etcd.leader();
    assert_ne!(first, second);
    etcd.start_again();
    assert_eq!(etcd.endpoints(), endpoints);
    assert!(endpoints.iter().all(|endpoint| listens(endpoint)));
    drop(etcd);
    assert!(!endpoints.iter().any(|endpoint| listens(endpoint)));
}
