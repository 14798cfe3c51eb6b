//! The databases of a store: which there are, and in which order.
//!
//! Owns: the row of identity in each database. Never: takes a database in that belongs elsewhere, or an empty one into a
//! store that has all of its own: where shards are sought must be where they are.
use kapell_model::RunId;
use kapell_runtime::Entropy;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::database::Database;
use crate::link::Open;
use crate::trouble::Trouble;
use crate::value::RunKey;

/// Nodes that start together do it one after the other: `KapellId`.
const LOCK: i64 = i64::from_be_bytes(*b"KapellId");

/// What a database says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    store: Store,
    place: i32,
    databases: i32,
    complete: bool,
}

/// What all databases of a store say alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Store {
    pub(crate) id: [u8; 16],
    /// How many shards there are, from the beginning: a run's shard follows from its key.
    pub(crate) shards: i32,
}

/// The store is not the one that the list of databases describes: what is wrong.
pub(crate) type Misfit = String;

/// Makes sure that each database is the one that belongs to its place in the list, or makes a new store of databases
/// that belong to none, with so many shards. Answers what the store was made as.
pub(crate) async fn identify(
    databases: &[(&Database, &Open)],
    shards: u16,
    entropy: &dyn Entropy,
) -> Result<Result<Store, Misfit>, Trouble> {
    let Some((_, first)) = databases.first() else { return Ok(Err("no database is named".to_owned())) };
    // Held until everything is known, or the connection is closed.
    first.client.batch_execute(&format!("SELECT pg_advisory_lock({LOCK})")).await?;
    let mut found = Vec::with_capacity(databases.len());
    for (_, open) in databases {
        found.push(look(&open.client).await?);
    }
    let names = databases.iter().map(|(database, _)| database.target.to_string()).collect::<Vec<_>>();
    let store = match judge(&found, &names) {
        Err(misfit) => return Ok(Err(misfit)),
        Ok(Some(store)) => store,
        Ok(None) => Store { id: entropy.next_u128().to_be_bytes(), shards: i32::from(shards) },
    };
    let count = i32::try_from(databases.len()).unwrap_or(i32::MAX);
    for ((place, identity), (_, open)) in (0..).zip(&found).zip(databases) {
        if identity.is_none() {
            introduce(&open.client, store, place, count).await?;
        }
    }
    for (identity, (_, open)) in found.iter().zip(databases) {
        if identity.is_none_or(|identity| !identity.complete) {
            open.client.batch_execute("UPDATE kapell_journal.store SET complete = true").await?;
        }
    }
    first.client.batch_execute(&format!("SELECT pg_advisory_unlock({LOCK})")).await?;
    Ok(Ok(store))
}

/// The store that the databases are of, or will be of when those without identity have got one. `None`: none has one.
fn judge(found: &[Option<Identity>], names: &[String]) -> Result<Option<Store>, Misfit> {
    let known = found.iter().zip(names).filter_map(|(identity, name)| Some(((*identity)?, name)));
    let known = known.collect::<Vec<_>>();
    let Some((one, its_name)) = known.first() else { return Ok(None) };
    for (at, identity) in found.iter().enumerate() {
        let name = &names[at];
        let Some(identity) = identity else {
            if known.iter().any(|(other, _)| other.complete) {
                return Err(format!(
                    "{name} is empty, and {its_name} belongs to a store that has all its databases"
                ));
            }
            continue;
        };
        if identity.store != one.store {
            return Err(format!("{name} and {its_name} belong to different stores"));
        }
        if usize::try_from(identity.databases) != Ok(found.len()) {
            let (all, listed) = (identity.databases, found.len());
            return Err(format!("the store of {name} has {all} database(s), and {listed} are listed"));
        }
        if usize::try_from(identity.place) != Ok(at) {
            let (place, at) = (identity.place + 1, at + 1);
            return Err(format!("{name} is number {place} of its store, and number {at} in the list"));
        }
    }
    Ok(Some(one.store))
}

async fn look(client: &Client) -> Result<Option<Identity>, Trouble> {
    let sql = "SELECT id, shards, place, databases, complete FROM kapell_journal.store";
    let rows = client.query_typed(sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Identity {
        store: Store { id: row.try_get::<_, RunKey>(0)?.0.to_bytes(), shards: row.try_get(1)? },
        place: row.try_get(2)?,
        databases: row.try_get(3)?,
        complete: row.try_get(4)?,
    }))
}

async fn introduce(client: &Client, store: Store, place: i32, databases: i32) -> Result<(), Trouble> {
    let sql = "INSERT INTO kapell_journal.store (id, shards, place, databases) VALUES ($1, $2, $3, $4)";
    let key = RunKey(RunId::from_bytes(store.id));
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&key, Type::UUID), (&store.shards, Type::INT4), (&place, Type::INT4), (&databases, Type::INT4)];
    client.execute_typed(sql, &parameters).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: u8, place: i32, databases: i32, complete: bool) -> Option<Identity> {
        Some(Identity { store: Store { id: [id; 16], shards: 64 }, place, databases, complete })
    }

    fn judged(found: &[Option<Identity>]) -> Result<Option<[u8; 16]>, Misfit> {
        let names = (0..found.len()).map(|at| format!("db{at}")).collect::<Vec<_>>();
        Ok(judge(found, &names)?.map(|store| store.id))
    }

    #[test]
    fn databases_that_belong_to_no_store_become_one() {
        assert_eq!(judged(&[None, None]), Ok(None));
    }

    #[test]
    fn a_store_whose_making_was_interrupted_is_completed() {
        assert_eq!(judged(&[identity(1, 0, 2, false), None]), Ok(Some([1; 16])));
        assert_eq!(judged(&[identity(1, 0, 2, true), identity(1, 1, 2, false)]), Ok(Some([1; 16])));
    }

    #[test]
    fn a_list_that_is_not_the_stores_is_refused() {
        let wrong = [
            (vec![identity(1, 0, 2, true), None], "db1 is empty"),
            (vec![None, identity(1, 1, 2, true)], "db0 is empty"),
            (vec![identity(1, 1, 2, true), identity(1, 0, 2, true)], "number 2 of its store"),
            (vec![identity(1, 0, 2, true)], "has 2 database(s), and 1 are listed"),
            (vec![identity(1, 0, 2, true), identity(2, 1, 2, true)], "different stores"),
            (vec![identity(1, 0, 2, true), identity(1, 0, 2, true)], "number 1 of its store, and number 2"),
        ];
        for (found, says) in wrong {
            let misfit = judged(&found).unwrap_err();
            assert!(misfit.contains(says), "{misfit}");
        }
    }
}
