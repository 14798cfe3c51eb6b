//! The contract of the cluster port.
//!
//! A backend runs it with [`cluster_contract!`](crate::cluster_contract): one test per case and backend. Those in which
//! several nodes are there at once are for backends that have room for them.
pub mod cases;
pub mod together;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kapell_cluster::{Cluster, Member, Members, NodeName, Owner, Owners, Session};
use kapell_model::{Epoch, Name, ShardId};
use tokio::sync::watch;

/// Longest time for which something may be on its way to a watch, on a machine that has much else to do.
pub const SOON: Duration = Duration::from_secs(10);

/// A cluster that outlives its nodes.
pub trait Meeting {
    /// It, as one more process reaches it.
    fn cluster(&self) -> Arc<dyn Cluster>;

    /// How long a node that died may still be shown: its lease and what the backend takes to notice.
    fn gives_up_within(&self) -> Duration;
}

/// A node at `NAME:7700`.
#[must_use]
pub fn member(name: &str) -> Member {
    let node = NodeName::new(name).unwrap();
    Member::new(node, format!("{name}:7700"), "0.1.0".to_owned())
}

/// Joins as `name`, with a floor.
pub async fn join_above(meeting: &dyn Meeting, name: &str, floor: u64) -> Arc<dyn Session> {
    meeting.cluster().join(member(name), Epoch(floor)).await.unwrap()
}

/// Joins as `name`.
pub async fn join(meeting: &dyn Meeting, name: &str) -> Arc<dyn Session> {
    join_above(meeting, name, 0).await
}

/// Acquires what is free.
pub async fn acquire(session: &Arc<dyn Session>, shard: u16) -> u64 {
    session.acquire(ShardId(shard)).await.unwrap().0
}

/// Releases what is held.
pub async fn release(session: &Arc<dyn Session>, shard: u16, epoch: u64) {
    session.release(ShardId(shard), Epoch(epoch)).await.unwrap();
}

/// Waits until a watch shows what is expected.
pub async fn shows<T: Clone>(watch: &mut watch::Receiver<T>, is_expected: impl FnMut(&T) -> bool) -> T {
    soon(watch.wait_for(is_expected)).await.expect("the session lives").clone()
}

/// Waits until a session shows that node as the owner of a shard, or nobody; with the epoch.
pub async fn shows_owner(session: &Arc<dyn Session>, shard: u16, owner: Option<(&str, u64)>) {
    let expected = owner.map(|(name, epoch)| {
        let Member { node, address, .. } = member(name);
        Owner { node, address, epoch: Epoch(epoch) }
    });
    let is_expected = |owners: &Arc<Owners>| owners.get(&ShardId(shard)) == expected.as_ref();
    shows(&mut session.owners(), is_expected).await;
}

/// Waits until a session shows exactly these nodes.
pub async fn shows_nodes(session: &Arc<dyn Session>, names: &[&str]) {
    let is_expected = |members: &Arc<Members>| members.keys().map(NodeName::as_str).eq(names.iter().copied());
    shows(&mut session.members(), is_expected).await;
}

/// A counter as a session shows it; 0 before anybody counted.
#[must_use]
pub fn counter(session: &Arc<dyn Session>, name: &Name) -> u64 {
    session.revisions().borrow().get(name).copied().unwrap_or_default()
}

/// The outcome, which must come soon.
///
/// # Panics
///
/// When it does not.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.expect("it happens soon")
}

/// Makes one test of each case: `cluster_contract!(name_of_the_backend, || meeting)` for what one node sees,
/// `cluster_contract!(name_of_the_backend, together, || meeting)` for what several see too. A meeting that is `None` has
/// said why the test is skipped.
#[macro_export]
macro_rules! cluster_contract {
    ($backend:ident, $make:expr) => {
        $crate::cluster_contract!(@cases $backend, $make,
            cases::a_node_sees_itself,
            cases::epochs_rise_above_the_floor_and_over_sessions,
            cases::a_shard_that_is_acquired_again_has_the_same_epoch,
            cases::an_owner_is_shown_until_it_releases,
            cases::a_release_under_another_epoch_changes_nothing,
            cases::a_counter_changes_with_every_bump,
            cases::who_leaves_gives_up_everything_and_takes_nothing_on,
            cases::a_process_that_starts_again_takes_its_own_place,
            cases::who_retires_keeps_what_it_has_until_it_lets_go,
        );
    };
    ($backend:ident, together, $make:expr) => {
        $crate::cluster_contract!($backend, $make);
        mod together {
            #[allow(unused_imports, reason = "the meeting may need nothing")]
            use super::*;
            $crate::cluster_contract!(@cases $backend, $make,
                together::nodes_see_each_other_come_and_go,
                together::one_of_many_wins_a_shard_and_the_others_learn_who,
                together::a_shard_goes_round_under_rising_epochs,
                together::a_name_that_is_taken_elsewhere_is_refused,
                together::a_counter_is_seen_by_the_others,
                together::a_node_that_dies_is_given_up_after_its_session_was_over,
                together::all_hear_who_is_leaving,
            );
        }
    };
    (@cases $backend:ident, $make:expr, $($module:ident :: $case:ident,)*) => {
        mod $backend {
            #[allow(unused_imports, reason = "the meeting may need nothing")]
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(meeting) = ($make)() else { return };
                $crate::cluster::$module::$case(&meeting).await;
            })*
        }
    };
}
