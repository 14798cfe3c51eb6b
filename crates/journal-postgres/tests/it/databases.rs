//! Several databases, and databases that are not what they should be.
use kapell_journal::Journal as _;
use kapell_journal_postgres::{Fsync, OpenError, Options};
use kapell_model::{Epoch, Seq, ShardCount, ShardId};

use crate::rig::*;

#[tokio::test]
async fn shards_are_spread_over_databases_and_each_is_where_it_was() {
    let Some(server) = quick_server() else { return };
    let behind = client(&server.url()).await;
    behind.batch_execute("CREATE DATABASE second").await.unwrap();
    behind.batch_execute("CREATE DATABASE third").await.unwrap();
    let urls = ["postgres", "second", "third"].map(|name| server.url_of(name));
    for round in 1..=2_u64 {
        let journal = open_with(&urls, small()).await.unwrap();
        for shard in 0..6 {
            assert_eq!(acquire(&journal, shard, round).await, Seq(round - 1));
            put(&journal, shard, round, round, format!("{round}")).await.unwrap();
        }
    }
    for (at, url) in urls.iter().enumerate() {
        let shards = "SELECT string_agg(shard::text, ',' ORDER BY shard) FROM kapell_journal.shards";
        let found: String = client(url).await.query_one(shards, &[]).await.unwrap().get(0);
        assert_eq!(found, format!("{at},{}", at + 3));
    }
}

#[tokio::test]
async fn a_list_of_databases_that_is_not_the_stores_is_refused() {
    let Some(server) = quick_server() else { return };
    let behind = client(&server.url()).await;
    behind.batch_execute("CREATE DATABASE second").await.unwrap();
    behind.batch_execute("CREATE DATABASE third").await.unwrap();
    let [one, two, three] = ["postgres", "second", "third"].map(|name| server.url_of(name));
    drop(open_with(&[one.clone(), two.clone()], small()).await.unwrap());
    let wrong = [
        (vec![two.clone(), one.clone()], "number 2 of its store, and number 1 in the list"),
        (vec![one.clone()], "has 2 database(s), and 1 are listed"),
        (vec![one.clone(), three.clone()], "is empty"),
        (vec![one.clone(), one.clone()], "number 1 of its store, and number 2"),
        (vec![], "no database is named"),
    ];
    for (urls, says) in wrong {
        let refused = open_with(&urls, small()).await.map(|_| ()).unwrap_err();
        assert!(matches!(refused, OpenError::Databases { .. }), "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains(says) && text.contains("hint") && !text.contains("hush"), "{text}");
    }
    open_with(&[one, two], small()).await.expect("the right one is still good");
    open_with(&[three], small()).await.expect("what was refused was not touched");
}

#[tokio::test]
async fn a_store_keeps_the_number_of_shards_that_it_was_made_with() {
    let Some(server) = quick_server() else { return };
    for wanted in [7, 9] {
        let options = Options { shards: ShardCount::new(wanted).unwrap(), ..small() };
        assert_eq!(open_with(&[server.url()], options).await.unwrap().shards().get(), 7);
    }
}

#[tokio::test]
async fn nodes_that_start_together_make_one_store() {
    let Some(server) = quick_server() else { return };
    client(&server.url()).await.batch_execute("CREATE DATABASE second").await.unwrap();
    let urls = ["postgres", "second"].map(|name| server.url_of(name));
    let nodes = (0..6).map(|_| open_with(&urls, small()));
    for node in futures::future::join_all(nodes).await {
        node.unwrap();
    }
    let mut ids = Vec::new();
    for url in &urls {
        let sql = "SELECT id::text || complete::text FROM kapell_journal.store";
        ids.push(client(url).await.query_one(sql, &[]).await.unwrap().get::<_, String>(0));
    }
    assert_eq!(ids[0], ids[1]);
    assert!(ids[0].ends_with("true"));
}

#[tokio::test]
async fn a_server_that_does_not_flush_is_refused() {
    let Some(server) = quick_server() else { return };
    let refused = open_with(&[server.url()], Options { fsync: Fsync::Required, ..small() }).await;
    let text = refused.map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("fsync=off") && text.contains("set fsync=on"), "{text}");
}

#[tokio::test]
async fn commits_are_flushed_whatever_the_server_says_by_default() {
    let setup = kapell_tests_servers::Setup::default().setting("synchronous_commit", "off");
    let Some(server) = setup.start() else { return };
    let journal = open_with(&[server.url()], Options { fsync: Fsync::Required, ..small() }).await.unwrap();
    acquire(&journal, 1, 1).await;
    let behind = client(&server.url()).await;
    // What the session of a writer has is seen where its commits are: flushed up to the end.
    for place in 1..=20 {
        put(&journal, 1, 1, place, "x").await.unwrap();
        let flushed = "SELECT pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()";
        let row = behind.query_one(flushed, &[]).await.unwrap();
        assert!(row.get::<_, bool>(0), "an append was answered before it was flushed");
    }
}

#[tokio::test]
async fn tables_of_a_newer_kapell_are_refused_and_newer_additions_are_not() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    acquire(&journal, 1, 1).await;
    put(&journal, 1, 1, 1, "one").await.unwrap();
    let behind = client(&server.url()).await;
    behind.batch_execute("UPDATE kapell_journal.schema_version SET minor = 99").await.unwrap();
    let again = open(&server).await;
    assert_eq!(texts(&again, 1, 0).await, ["one"]);
    behind.batch_execute("UPDATE kapell_journal.schema_version SET major = 2, minor = 0").await.unwrap();
    let refused = open_with(&[server.url()], small()).await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpenError::Schema { .. }), "{refused:?}");
    let source = std::error::Error::source(&refused).unwrap().to_string();
    assert!(source.contains("2.0") && source.contains("newer Kapell"), "{source}");
}

#[tokio::test]
async fn a_node_does_not_go_on_with_another_store_that_took_the_place_of_its_own() {
    let Some(server) = quick_server() else { return };
    let journal = open(&server).await;
    acquire(&journal, 1, 1).await;
    let behind = client(&server.url()).await;
    behind.batch_execute("DROP SCHEMA kapell_journal CASCADE").await.unwrap();
    drop(open(&server).await);
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'kapell-journal'";
    count(&behind, cut).await;
    let refused = journal.acquire(ShardId(1), Epoch(2)).await.unwrap_err();
    assert!(refused.to_string().contains("not the database that it was"), "{refused}");
}

#[tokio::test]
async fn what_the_server_says_no_to_is_told_without_the_password() {
    let Some(server) = quick_server() else { return };
    for url in [server.url().replace("hush", "guess"), server.url_of("nowhere")] {
        let refused = open_with(std::slice::from_ref(&url), small()).await.map(|_| ()).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, OpenError::Unavailable { .. }), "{refused:?}");
        assert!(!text.contains("guess") && !text.contains("hush") && text.contains("127.0.0.1"), "{text}");
    }
}
