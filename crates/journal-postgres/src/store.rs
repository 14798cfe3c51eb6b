//! The databases of a store: which there are, and in which order.
//!
//! Owns: the row of identity in each database. Never: takes a database in that belongs elsewhere, or an empty one into a
//! store that has all of its own: where shards are sought must be where they are.
use kapell_model::RunId;
use kapell_runtime::Entropy;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::database::Database;
use crate::link::Open;
use crate::trouble::Trouble;
use crate::value::RunKey;

/// Nodes that start together do it one after the other: `KapellId`.
const LOCK: i64 = i64::from_be_bytes(*b"KapellId");

/// What a database says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    id: [u8; 16],
    place: i32,
    databases: i32,
    complete: bool,
}

/// The store is not the one that the list of databases describes: what is wrong.
pub(crate) type Misfit = String;

/// Makes sure that each database is the one that belongs to its place in the list, or makes a new store of databases
/// that belong to none. Answers the id of the store.
pub(crate) async fn identify(
    databases: &[(&Database, &Open)],
    entropy: &dyn Entropy,
) -> Result<Result<[u8; 16], Misfit>, Trouble> {
    let Some((_, first)) = databases.first() else { return Ok(Err("no database is named".to_owned())) };
    // Held until everything is known, or the connection is closed.
    first.client.batch_execute(&format!("SELECT pg_advisory_lock({LOCK})")).await?;
    let mut found = Vec::with_capacity(databases.len());
    for (_, open) in databases {
        found.push(look(&open.client).await?);
    }
    let names = databases.iter().map(|(database, _)| database.target.to_string()).collect::<Vec<_>>();
    let id = match judge(&found, &names) {
        Err(misfit) => return Ok(Err(misfit)),
        Ok(Some(id)) => id,
        Ok(None) => entropy.next_u128().to_be_bytes(),
    };
    let count = i32::try_from(databases.len()).unwrap_or(i32::MAX);
    for ((place, identity), (_, open)) in (0..).zip(&found).zip(databases) {
        if identity.is_none() {
            introduce(&open.client, id, place, count).await?;
        }
    }
    for (identity, (_, open)) in found.iter().zip(databases) {
        if identity.is_none_or(|identity| !identity.complete) {
            open.client.batch_execute("UPDATE kapell_journal.store SET complete = true").await?;
        }
    }
    first.client.batch_execute(&format!("SELECT pg_advisory_unlock({LOCK})")).await?;
    Ok(Ok(id))
}

/// The id of the store that the databases are of, or will be of when those without identity have got one. `None`: none
/// has one.
fn judge(found: &[Option<Identity>], names: &[String]) -> Result<Option<[u8; 16]>, Misfit> {
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
        if identity.id != one.id {
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
    Ok(Some(one.id))
}

async fn look(client: &Client) -> Result<Option<Identity>, Trouble> {
    let sql = "SELECT id, place, databases, complete FROM kapell_journal.store";
    let rows = client.query_typed(sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Identity {
        id: row.try_get::<_, RunKey>(0)?.0.to_bytes(),
        place: row.try_get(1)?,
        databases: row.try_get(2)?,
        complete: row.try_get(3)?,
    }))
}

async fn introduce(client: &Client, id: [u8; 16], place: i32, databases: i32) -> Result<(), Trouble> {
    let sql = "INSERT INTO kapell_journal.store (id, place, databases) VALUES ($1, $2, $3)";
    let key = RunKey(RunId::from_bytes(id));
    client.execute_typed(sql, &[(&key, Type::UUID), (&place, Type::INT4), (&databases, Type::INT4)]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(id: u8, place: i32, databases: i32, complete: bool) -> Option<Identity> {
        Some(Identity { id: [id; 16], place, databases, complete })
    }

    fn judged(found: &[Option<Identity>]) -> Result<Option<[u8; 16]>, Misfit> {
        let names = (0..found.len()).map(|at| format!("db{at}")).collect::<Vec<_>>();
        judge(found, &names)
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
