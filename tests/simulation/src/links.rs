//! The links of one host: to other hosts, through the simulated network, and to the stores that coordinators share.
//!
//! Owns: cutting, holding and repairing them. Never: decides when.
use kapell_tests_simulation::shared::{Store, Way};
use turmoil::Sim;

use crate::hosts::Site;

/// See the module.
pub(crate) struct Links<'a> {
    pub(crate) site: &'a Site,
    pub(crate) host: &'static str,
}

impl Links<'_> {
    pub(crate) fn others(&self) -> impl Iterator<Item = &'static str> + use<> {
        let host = self.host;
        self.site.hosts().iter().copied().filter(move |other| *other != host)
    }

    /// The other coordinators, or those that are none.
    pub(crate) fn half(&self, are_peers: bool) -> impl Iterator<Item = &'static str> + use<> {
        let peers = self.site.coordinators();
        self.others().filter(move |other| peers.contains(other) == are_peers)
    }

    /// Both directions to a store.
    pub(crate) fn to_store(&self, store: Store, way: Way) {
        for is_there in [true, false] {
            self.site.shared.post().set_way(self.host, store, is_there, way);
        }
    }

    /// Questions, or answers and news.
    pub(crate) fn one_way_to_store(&self, store: Store, is_there: bool) {
        self.site.shared.post().set_way(self.host, store, is_there, Way::Cut);
    }

    fn to_stores(&self, way: Way) {
        for store in [Store::Journal, Store::Cluster] {
            self.to_store(store, way);
        }
    }

    pub(crate) fn part(&self, sim: &Sim<'_>) {
        self.others().for_each(|other| sim.partition(self.host, other));
        self.to_stores(Way::Cut);
    }

    pub(crate) fn repair(&self, sim: &Sim<'_>) {
        self.others().for_each(|other| sim.repair(self.host, other));
        self.to_stores(Way::Open);
    }

    pub(crate) fn hold(&self, sim: &Sim<'_>) {
        self.others().for_each(|other| sim.hold(self.host, other));
        self.to_stores(Way::Held);
    }

    pub(crate) fn release(&self, sim: &Sim<'_>) {
        self.others().for_each(|other| sim.release(self.host, other));
        self.to_stores(Way::Open);
    }

    /// The process gets no time. Its timers run on, for the simulation cannot stop them; nobody hears of what they do
    /// until it goes on, and until then its own clock has not moved as far as its session is concerned.
    pub(crate) fn stop(&self, sim: &Sim<'_>) {
        self.others().for_each(|other| sim.hold(self.host, other));
        self.site.shared.post().stop(self.host);
    }

    pub(crate) fn go_on(&self, sim: &Sim<'_>) {
        self.others().for_each(|other| sim.release(self.host, other));
        self.site.shared.post().go_on(self.host);
    }
}
