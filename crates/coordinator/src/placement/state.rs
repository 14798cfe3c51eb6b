//! Which shards this node owns and should own. Synchronous; says what to do and never does it.
//!
//! Every node computes the same preference from the same members, so nobody assigns shards. Only the journal's fence
//! makes an owner; what is known here may be old, and then costs time, never data.
use std::collections::{BTreeMap, BTreeSet};

use kapell_cluster::{Members, NodeName, Owner, Owners};
use kapell_model::{Epoch, ShardCount, ShardId};

use super::message::Known;
use super::rendezvous::{preferred, staying};

/// Shards that are on their way from this node at once, until their next owner serves them, and from all nodes to one
/// (or one from each, if there are more): enough that journal and cluster have work, few enough that none of them waits for another.
const HAND_OVERS: usize = 4;

/// What placement wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Ask the cluster for the shard.
    Acquire(ShardId),
    /// Ask again after a while.
    AcquireLater(ShardId),
    /// Ask the cluster for a sign of life; what is to go goes when there is one.
    Ping,
    /// Tell the cluster that this node is leaving.
    Retire,
    /// Start the shard's actor, which loads it.
    Load(ShardId, Epoch),
    /// Have the shard stop taking requests, store a checkpoint and end.
    HandOver(ShardId, Epoch),
    /// Load the shard again after a while: its actor died.
    LoadLater(ShardId, Epoch),
    /// End the shard at once: it is not ours any more.
    Drop(ShardId, Epoch),
    /// Tell the desks that the shard is not here any more.
    Disown(ShardId),
    /// Tell the cluster that the shard is free.
    Release(ShardId, Epoch),
    /// Find out when the next owner serves the shard.
    AwaitServed(ShardId),
    /// Send requests of the shard there.
    Route(ShardId, Route),
}

/// Where requests of a shard go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Here.
    Here,
    /// To its owner.
    To(Owner),
    /// Nowhere yet: they wait.
    Nowhere,
}

/// How far this node is with a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not ours.
    Away,
    /// Wanted, and another node's still: the cluster is asked when that one lets go, or after a pause.
    Waiting,
    /// The cluster has been asked.
    Acquiring,
    /// The cluster was asked and did not answer: it is asked until it does, for the shard may be ours by now, and
    /// nobody else is given it then.
    Unsure,
    /// Its actor loads it.
    Loading(Epoch),
    /// Its actor loads it still, though the session was lost meanwhile.
    LoadingInVain(Epoch),
    /// Ours.
    Held(Epoch),
    /// Ours still, though another node's by preference: it goes when the cluster has just given a sign of life. One that
    /// is without a leader could not tell the other node that the shard is free.
    Yielding(Epoch),
    /// Its actor hands it over.
    Leaving(Epoch),
    /// It is not ours any more, and its actor is being ended.
    Dropping(Epoch),
    /// The cluster is told that it is free.
    Releasing,
}

/// Why a shard's actor died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// The journal failed under it, or there is a defect.
    Failed,
    /// The journal holds the shard under a later epoch.
    Fenced,
}

/// Whether this node wants shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// There is a session.
    Joined,
    /// There is none; shards are given up until there is.
    Apart,
    /// The node stops: shards go to others.
    Leaving,
}

/// Which shards this node owns and should own.
pub(crate) struct Placement {
    me: NodeName,
    members: Members,
    owners: Owners,
    stages: BTreeMap<ShardId, Stage>,
    routes: BTreeMap<ShardId, Route>,
    /// Under which epoch each shard was released last.
    freed: BTreeMap<ShardId, Epoch>,
    mode: Mode,
    /// Handed over, and not known to be served by the next owner yet.
    moving: BTreeSet<ShardId>,
    /// The cluster was asked for a sign of life.
    pinging: bool,
    /// The cluster was told that the node is leaving.
    is_retired: bool,
    acts: Vec<Act>,
}

impl Placement {
    pub(crate) fn new(me: NodeName, shards: ShardCount) -> Placement {
        Placement {
            me,
            members: Members::default(),
            owners: Owners::default(),
            stages: shards.iter().map(|shard| (shard, Stage::Away)).collect(),
            routes: shards.iter().map(|shard| (shard, Route::Nowhere)).collect(),
            freed: BTreeMap::new(),
            moving: BTreeSet::new(),
            mode: Mode::Apart,
            pinging: false,
            is_retired: false,
            acts: Vec::new(),
        }
    }

    /// What is to be done since the last time.
    pub(crate) fn acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    pub(crate) fn joined(&mut self, members: Members, owners: Owners) {
        if self.mode == Mode::Apart {
            self.mode = Mode::Joined;
        }
        (self.members, self.owners) = (members, owners);
        self.reconcile();
    }

    pub(crate) fn members(&mut self, members: Members) {
        self.members = members;
        self.reconcile();
    }

    pub(crate) fn owners(&mut self, owners: Owners) {
        self.owners = owners;
        self.reconcile();
    }

    /// The session is lost, and with it everything that was held under it.
    pub(crate) fn lost(&mut self) {
        if self.mode == Mode::Joined {
            self.mode = Mode::Apart;
        }
        self.pinging = false;
        self.moving.clear();
        let shards: Vec<ShardId> = self.stages.keys().copied().collect();
        for shard in shards {
            self.give_up(shard);
        }
    }

    /// The node stops: everything is handed over first, when the others know that it is theirs.
    pub(crate) fn leave(&mut self) {
        self.mode = Mode::Leaving;
        self.acts.push(Act::Retire);
        self.reconcile();
    }

    /// The cluster knows that the node is leaving.
    pub(crate) fn retired(&mut self) {
        self.is_retired = true;
        self.hand_over();
    }

    /// What this node knows of the cluster.
    pub(crate) fn known(&self) -> Known {
        let joined = self.mode != Mode::Apart;
        Known { joined, members: self.members.clone(), owners: self.owners.clone() }
    }

    /// Whether every shard is either held or away.
    pub(crate) fn is_settled(&self) -> bool {
        self.stages.values().all(|stage| matches!(stage, Stage::Away | Stage::Held(_)))
    }

    /// Whether no shard is held, and whoever has them now serves them: until then requests of theirs wait here.
    pub(crate) fn has_left(&self) -> bool {
        self.moving.is_empty() && self.stages.values().all(|stage| *stage == Stage::Away)
    }

    /// The cluster has just given a sign of life.
    pub(crate) fn answered(&mut self) {
        self.pinging = false;
        self.hand_over();
    }

    /// As many as may be on their way at once, of those that are to go. Each that arrives is a sign of life for the next.
    fn hand_over(&mut self) {
        if self.mode == Mode::Leaving && !self.is_retired {
            return;
        }
        let is_under_way = |stage: &Stage| matches!(stage, Stage::Leaving(_) | Stage::Releasing);
        let leaving = self.stages.iter().filter(|(_, stage)| is_under_way(stage)).map(|(shard, _)| *shard);
        let mut coming = BTreeMap::<NodeName, usize>::new();
        for heir in leaving.chain(self.moving.iter().copied()).filter_map(|shard| self.heir(shard)) {
            *coming.entry(heir.clone()).or_default() += 1;
        }
        // A node that comes is given shards by all others at once; each of many still gives one.
        let to_one = (HAND_OVERS / (self.members.len().max(2) - 1)).max(1);
        let yielding = self.stages.iter().filter_map(|(shard, stage)| {
            if let Stage::Yielding(epoch) = stage { Some((*shard, *epoch)) } else { None }
        });
        for (shard, epoch) in yielding.collect::<Vec<_>>() {
            // Those that nobody gets need not wait for each other.
            if let Some(heir) = self.heir(shard).cloned() {
                let all = coming.values().sum::<usize>();
                let to_it = coming.entry(heir).or_default();
                if all >= HAND_OVERS || *to_it >= to_one {
                    continue;
                }
                *to_it += 1;
            }
            self.set(shard, Stage::Leaving(epoch));
            self.acts.push(Act::HandOver(shard, epoch));
        }
    }

    pub(crate) fn acquired(&mut self, shard: ShardId, epoch: Epoch) {
        if !self.is_asked(shard) {
            // The session was lost meanwhile; the key goes with it.
            return;
        }
        if !self.is_wanted(shard) {
            return self.free(shard, epoch);
        }
        self.set(shard, Stage::Loading(epoch));
        self.route(shard, Route::Here);
        self.acts.push(Act::Load(shard, epoch));
    }

    /// Somebody else holds it.
    pub(crate) fn not_acquired(&mut self, shard: ShardId) {
        if self.is_asked(shard) {
            self.wait(shard);
        }
    }

    /// The cluster did not answer.
    pub(crate) fn maybe_acquired(&mut self, shard: ShardId) {
        if self.is_asked(shard) {
            self.set(shard, Stage::Unsure);
            self.acts.push(Act::AcquireLater(shard));
            self.follow(shard);
        }
    }

    /// The pause before another try is over.
    pub(crate) fn again(&mut self, shard: ShardId) {
        let stage = self.stage(shard);
        if stage == Stage::Unsure {
            self.acts.push(Act::Acquire(shard));
        } else if stage == Stage::Waiting {
            self.ask(shard);
        }
    }

    fn ask(&mut self, shard: ShardId) {
        self.set(shard, Stage::Acquiring);
        self.acts.push(Act::Acquire(shard));
    }

    fn wait(&mut self, shard: ShardId) {
        if self.is_wanted(shard) {
            self.set(shard, Stage::Waiting);
            self.acts.push(Act::AcquireLater(shard));
            self.follow(shard);
        } else {
            self.set(shard, Stage::Away);
            self.reconcile_one(shard);
        }
    }

    pub(crate) fn loaded(&mut self, shard: ShardId, epoch: Epoch) {
        let stage = self.stage(shard);
        if stage == Stage::Loading(epoch) {
            self.set(shard, Stage::Held(epoch));
            self.reconcile_one(shard);
        } else if stage == Stage::LoadingInVain(epoch) {
            self.end(shard, epoch);
        }
    }

    /// The shard's actor died, or could not load it. It is started anew under the same epoch, unless `Fenced` says
    /// that somebody else owns the shard by now, or this node is not to own it any more.
    pub(crate) fn died(&mut self, shard: ShardId, epoch: Epoch, why: Death) {
        let stage = self.stage(shard);
        let is_ours = [Stage::Loading(epoch), Stage::Held(epoch), Stage::Yielding(epoch)].contains(&stage);
        let is_given_up = why == Death::Fenced || !self.is_wanted(shard);
        if stage == Stage::Leaving(epoch) || (is_ours && is_given_up) {
            self.acts.push(Act::Disown(shard));
            self.free(shard, epoch);
        } else if is_ours {
            self.set(shard, Stage::Loading(epoch));
            self.acts.push(Act::LoadLater(shard, epoch));
        } else {
            self.gone(shard, epoch);
        }
    }

    /// The pause before a dead shard is loaded again is over.
    pub(crate) fn load_again(&mut self, shard: ShardId, epoch: Epoch) {
        if self.stage(shard) == Stage::Loading(epoch) {
            self.acts.push(Act::Load(shard, epoch));
        } else {
            self.gone(shard, epoch);
        }
    }

    /// The shard's actor has ended as it was told.
    pub(crate) fn gone(&mut self, shard: ShardId, epoch: Epoch) {
        let stage = self.stage(shard);
        if stage == Stage::Leaving(epoch) {
            // Before it is free: workers hear that it left before they hear whose it is.
            self.acts.push(Act::Disown(shard));
            self.free(shard, epoch);
        } else if stage == Stage::LoadingInVain(epoch) || stage == Stage::Dropping(epoch) {
            self.acts.push(Act::Disown(shard));
            self.set(shard, Stage::Away);
            self.reconcile_one(shard);
        }
    }

    /// The cluster knows that the shard is free.
    pub(crate) fn released(&mut self, shard: ShardId) {
        if self.stage(shard) != Stage::Releasing {
            return;
        }
        self.set(shard, Stage::Away);
        self.reconcile_one(shard);
        if self.stage(shard) == Stage::Away {
            self.moving.insert(shard);
            self.acts.push(Act::AwaitServed(shard));
        } else {
            self.hand_over();
        }
    }

    /// The next owner serves the shard.
    pub(crate) fn served(&mut self, shard: ShardId) {
        if self.moving.remove(&shard) {
            self.hand_over();
        }
    }

    /// Nobody has served the shard for so long that the others do not wait for it; the cluster may be why.
    pub(crate) fn overdue(&mut self, shard: ShardId) {
        if self.moving.remove(&shard) {
            self.ask_for_life();
        }
    }

    /// Once, until it is answered.
    fn ask_for_life(&mut self) {
        if !std::mem::replace(&mut self.pinging, true) {
            self.acts.push(Act::Ping);
        }
    }

    fn free(&mut self, shard: ShardId, epoch: Epoch) {
        self.route(shard, Route::Nowhere);
        if self.heirs().next().is_none() {
            // Nobody wants it, and all such are free at once when this node is no member any more.
            self.set(shard, Stage::Away);
            return self.hand_over();
        }
        self.set(shard, Stage::Releasing);
        self.freed.insert(shard, epoch);
        self.acts.push(Act::Release(shard, epoch));
    }

    fn end(&mut self, shard: ShardId, epoch: Epoch) {
        self.set(shard, Stage::Dropping(epoch));
        self.acts.push(Act::Drop(shard, epoch));
    }

    fn give_up(&mut self, shard: ShardId) {
        match self.stage(shard) {
            Stage::Held(epoch) | Stage::Yielding(epoch) | Stage::Leaving(epoch) => self.end(shard, epoch),
            Stage::Loading(epoch) => self.set(shard, Stage::LoadingInVain(epoch)),
            Stage::Waiting | Stage::Acquiring | Stage::Unsure | Stage::Releasing => {
                self.set(shard, Stage::Away)
            }
            Stage::Away | Stage::LoadingInVain(_) | Stage::Dropping(_) => {}
        }
        self.route(shard, Route::Nowhere);
    }

    fn reconcile(&mut self) {
        let shards: Vec<ShardId> = self.stages.keys().copied().collect();
        for shard in shards {
            self.reconcile_one(shard);
        }
    }

    fn reconcile_one(&mut self, shard: ShardId) {
        match self.stage(shard) {
            Stage::Away => {
                if self.is_wanted(shard) {
                    if self.is_anothers(shard) { self.wait(shard) } else { self.ask(shard) }
                } else if let Some(epoch) = self.stray(shard) {
                    return self.free(shard, epoch);
                }
                self.follow(shard);
            }
            Stage::Waiting => {
                if !self.is_wanted(shard) {
                    self.set(shard, Stage::Away);
                } else if !self.is_anothers(shard) {
                    self.ask(shard);
                }
                self.follow(shard);
            }
            Stage::Acquiring | Stage::Unsure => self.follow(shard),
            Stage::Held(epoch) if !self.is_wanted(shard) => {
                self.set(shard, Stage::Yielding(epoch));
                // While the node is leaving, that the cluster is told so is its sign of life.
                if self.mode != Mode::Leaving || self.is_retired {
                    self.ask_for_life();
                }
            }
            Stage::Yielding(epoch) if self.is_wanted(shard) => self.set(shard, Stage::Held(epoch)),
            Stage::Held(_)
            | Stage::Yielding(_)
            | Stage::Loading(_)
            | Stage::LoadingInVain(_)
            | Stage::Leaving(_)
            | Stage::Dropping(_)
            | Stage::Releasing => {}
        }
    }

    /// The cluster has been asked for it, and what it said is not known.
    fn is_asked(&self, shard: ShardId) -> bool {
        matches!(self.stage(shard), Stage::Acquiring | Stage::Unsure)
    }

    fn is_wanted(&self, shard: ShardId) -> bool {
        self.mode == Mode::Joined && self.heir(shard).is_some_and(|node| *node == self.me)
    }

    /// Who is to own it.
    fn heir(&self, shard: ShardId) -> Option<&NodeName> {
        preferred(shard, self.heirs())
    }

    /// Who is to own shards: this node too, unless it is leaving.
    fn heirs(&self) -> impl Iterator<Item = &NodeName> {
        staying(&self.members).filter(|node| self.mode != Mode::Leaving || **node != self.me)
    }

    /// Whether the cluster says that another node owns it.
    fn is_anothers(&self, shard: ShardId) -> bool {
        self.owners.get(&shard).is_some_and(|owner| owner.node != self.me)
    }

    /// The cluster says that the shard is ours, and not only because it has not said yet that it was released: a first
    /// try to acquire it arrived after a second one was answered. Nobody else would get it while we live.
    fn stray(&self, shard: ShardId) -> Option<Epoch> {
        let owner = self.owners.get(&shard).filter(|owner| owner.node == self.me)?;
        (self.freed.get(&shard) < Some(&owner.epoch)).then_some(owner.epoch)
    }

    /// Requests of a shard that is not ours go to whoever is known to own it.
    fn follow(&mut self, shard: ShardId) {
        let owner = self.owners.get(&shard).filter(|owner| owner.node != self.me);
        let to = owner.map_or(Route::Nowhere, |owner| Route::To(owner.clone()));
        self.route(shard, to);
    }

    fn route(&mut self, shard: ShardId, to: Route) {
        if self.routes.get(&shard) != Some(&to) {
            self.routes.insert(shard, to.clone());
            self.acts.push(Act::Route(shard, to));
        }
    }

    fn stage(&self, shard: ShardId) -> Stage {
        self.stages.get(&shard).copied().unwrap_or(Stage::Away)
    }

    fn set(&mut self, shard: ShardId, stage: Stage) {
        self.stages.insert(shard, stage);
    }
}

#[cfg(test)]
mod tests;
