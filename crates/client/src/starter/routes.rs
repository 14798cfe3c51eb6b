//! Which coordinator owns which shard, as the coordinators say on the streams that they answer on.
//!
//! Owns: the shard of a start, and whose it is. Never: sends anything; what is not known, or wrong, is passed on by
//! whichever coordinator is asked.
use kapell_model::{Name, Origin, RunId, ShardCount, ShardId};
use kapell_proto::v1;
use tokio::sync::watch;

/// A coordinator, by its place among those that were named.
pub(super) type Place = usize;

/// Who owns which shard. Empty until somebody has said it.
#[derive(Debug, Default)]
pub(super) struct Routes(watch::Sender<Vec<Option<Place>>>);

impl Routes {
    /// Changes with every shard that somebody else owns.
    pub(super) fn changes(&self) -> watch::Receiver<Vec<Option<Place>>> {
        self.0.subscribe()
    }

    /// The owner of the shard in which a run without a key will live.
    pub(super) fn owner_of(&self, start: &v1::StartRunRequest) -> Option<(ShardId, Place)> {
        let shard = self.shard(start)?;
        Some((shard, self.owner(shard)?))
    }

    /// A start that no coordinator will take has none.
    fn shard(&self, start: &v1::StartRunRequest) -> Option<ShardId> {
        let count = ShardCount::new(u16::try_from(self.0.borrow().len()).ok()?)?;
        let namespace = match start.namespace.as_str() {
            "" => Name::default_namespace(),
            name => Name::new(name).ok()?,
        };
        let workflow = Name::new(&start.workflow).ok()?;
        let origin = Origin::of_request(&namespace, &workflow, &start.request_id);
        Some(RunId::of_event(count, &origin, None).shard())
    }

    fn owner(&self, shard: ShardId) -> Option<Place> {
        self.0.borrow().get(usize::from(shard.0)).copied().flatten()
    }

    /// A coordinator says what it owns. Whoever says it last is believed: an owner that stands still says nothing.
    pub(super) fn learn(&self, place: Place, here: &v1::ShardsHere) {
        let Ok(count) = usize::try_from(here.count) else { return };
        self.0.send_modify(|owners| {
            owners.resize(count, None);
            forget(owners, place);
            for shard in &here.shards {
                let owner = usize::try_from(*shard).ok().and_then(|shard| owners.get_mut(shard));
                if let Some(owner) = owner {
                    *owner = Some(place);
                }
            }
        });
    }

    /// A coordinator does not answer any more.
    pub(super) fn lose(&self, place: Place) {
        self.0.send_modify(|owners| forget(owners, place));
    }
}

fn forget(owners: &mut [Option<Place>], place: Place) {
    owners.iter_mut().filter(|owner| **owner == Some(place)).for_each(|owner| *owner = None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(shards: &[u32]) -> v1::ShardsHere {
        v1::ShardsHere { count: 4, shards: shards.to_vec() }
    }

    #[test]
    fn whoever_says_last_that_a_shard_is_there_is_believed() {
        let routes = Routes::default();
        let owners = || (0..4).map(|shard| routes.owner(ShardId(shard))).collect::<Vec<_>>();
        assert_eq!(owners(), [None; 4]);
        routes.learn(0, &here(&[0, 1, 2, 9]));
        routes.learn(1, &here(&[2, 3]));
        assert_eq!(owners(), [Some(0), Some(0), Some(1), Some(1)]);
        routes.learn(0, &here(&[0]));
        assert_eq!(owners(), [Some(0), None, Some(1), Some(1)]);
        routes.lose(1);
        assert_eq!(owners(), [Some(0), None, None, None]);
    }

    #[test]
    fn a_start_goes_to_the_shard_in_which_the_coordinator_looks_for_its_run() {
        let routes = Routes::default();
        let start = |workflow: &str| v1::StartRunRequest {
            workflow: workflow.to_owned(),
            request_id: "request-1".to_owned(),
            ..v1::StartRunRequest::default()
        };
        assert_eq!(routes.shard(&start("greet")), None, "nobody has said how many there are");
        routes.learn(0, &here(&[]));
        let (namespace, workflow) = (Name::default_namespace(), Name::new("greet").unwrap());
        let origin = Origin {
            namespace: &namespace,
            workflow: &workflow,
            source: "/kapell/start",
            event_id: "request-1",
        };
        let run = RunId::of_event(ShardCount::new(4).unwrap(), &origin, None);
        assert_eq!(
            (routes.shard(&start("greet")), routes.owner_of(&start("greet"))),
            (Some(run.shard()), None)
        );
        routes.learn(3, &here(&[0, 1, 2, 3]));
        assert_eq!(routes.owner_of(&start("greet")), Some((run.shard(), 3)));
        assert_eq!(routes.shard(&start("no workflow")), None);
    }
}
