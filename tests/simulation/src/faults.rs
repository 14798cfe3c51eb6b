//! What goes wrong, and when, from the seed.
//!
//! Owns: crashes, partitions, the disk's faults, and healing everything in the end. Never: looks inside a host.
use std::collections::BTreeSet;

use kapell_journal_local::fault::{Crash, Fault};
use kapell_runtime::{Entropy as _, SeededEntropy};
use kapell_tests_simulation::shared::{Forget, Store, Way};
use turmoil::Sim;

use crate::hosts::{NODE_LEASE, Site};
use crate::links::Links;
use crate::trouble::{Between, Trouble};

/// What kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// None.
    Calm,
    /// Anything, at any moment.
    Storm,
    /// Clocks step, and nothing else goes wrong.
    Clocks,
    /// The power of the coordinator goes at this operation of its disk, once.
    PowerAt(u64),
}

/// Virtual time in which things go wrong.
const STORM_MS: u64 = 12_000;

/// How far a clock steps at most, forward or back: several leases.
const STEP_MAX_MS: u64 = 8_000;

/// See the module.
pub(crate) struct Faults {
    dice: SeededEntropy,
    site: Site,
    plan: Plan,
    next_ms: u64,
    /// What ends when.
    pending: BTreeSet<(u64, u64, End)>,
    count: u64,
    healed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// The process starts again; for `power`, its links are repaired.
    Bounce(&'static str),
    Repair(&'static str),
    Release(&'static str),
    /// The process gets time again.
    GoOn(&'static str),
    /// The store is reached again.
    StoreUp(Store),
    /// The coordinator's process is ended, so that it starts anew.
    Restart,
    /// There is room on the disk again.
    Room,
    /// The host's clock is right again.
    Clock(&'static str),
}

impl Faults {
    pub(crate) fn new(seed: u64, plan: Plan, site: Site) -> Faults {
        let dice = SeededEntropy::new(seed ^ 0xfa17);
        if let Plan::PowerAt(operation) = plan {
            site.disk.crash_at(operation);
        }
        let next_ms = 500 + dice.below(1_000);
        Faults { dice, site, plan, next_ms, pending: BTreeSet::new(), count: 0, healed: false }
    }

    /// Nothing goes wrong any more and everything was repaired.
    pub(crate) fn is_healed(&self) -> bool {
        self.healed
    }

    pub(crate) fn step(&mut self, sim: &mut Sim<'_>, now_ms: u64) {
        self.end_due(sim, now_ms);
        self.revive(sim, now_ms);
        match self.plan {
            Plan::Storm | Plan::Clocks if now_ms < STORM_MS => {
                if now_ms >= self.next_ms {
                    self.next_ms = now_ms + 100 + self.dice.below(1_500);
                    self.begin(sim, now_ms);
                }
            }
            Plan::Calm | Plan::Storm | Plan::Clocks | Plan::PowerAt(_) => self.heal(),
        }
    }

    fn heal(&mut self) {
        if self.healed || !self.pending.is_empty() {
            return;
        }
        self.healed = true;
        let mut world = self.site.world.lock();
        world.healed = true;
        world.log("sim", "all is healed");
    }

    fn log(&self, what: &str) {
        self.site.world.log("sim", what);
    }

    fn later(&mut self, at: u64, end: End) {
        self.count += 1;
        self.pending.insert((at, self.count, end));
    }

    fn is_pending(&self, host: &str) -> bool {
        self.pending.iter().any(|(_, _, end)| match end {
            End::Bounce(other) | End::Repair(other) | End::Release(other) | End::GoOn(other) => {
                *other == host
            }
            // These do not keep other things from going wrong.
            End::Clock(_) | End::StoreUp(_) => false,
            End::Restart | End::Room => host == "coord",
        })
    }

    fn begin(&mut self, sim: &mut Sim<'_>, now_ms: u64) {
        let hosts = self.site.hosts();
        let host = hosts[self.dice.below(hosts.len() as u64) as usize];
        if self.is_pending(host) {
            return;
        }
        let until = now_ms + 50 + self.dice.below(2_500);
        let mut troubles = Trouble::of(self.is_coordinator(host), self.site.mix);
        if self.plan == Plan::Clocks {
            troubles.retain(|trouble| *trouble == Trouble::Clock);
        }
        let trouble = troubles[self.dice.below(troubles.len() as u64) as usize];
        self.site.world.lock().fault(trouble.name());
        match trouble {
            Trouble::Kill => {
                self.log(&format!("{host} is killed"));
                self.crash(sim, host);
                self.later(until, End::Bounce(host));
            }
            Trouble::Power => {
                self.log(&format!("{host} loses power"));
                self.links(host).part(sim);
                self.crash(sim, host);
                self.later(until, End::Bounce(host));
            }
            Trouble::CutOff => {
                self.log(&format!("{host} is cut off"));
                self.links(host).part(sim);
                self.later(until + 4_000, End::Repair(host));
            }
            Trouble::OneWay => {
                self.log(&format!("{host} is cut off in one direction"));
                self.one_way(sim, host);
                self.later(until + 2_000, End::Repair(host));
            }
            Trouble::Delay => {
                self.log(&format!("messages to and from {host} are held"));
                self.links(host).hold(sim);
                self.later(until, End::Release(host));
            }
            Trouble::Stall => {
                self.log(&format!("messages to and from {host} are held for longer than a lease"));
                self.links(host).hold(sim);
                self.later(until + 1_600, End::Release(host));
            }
            Trouble::DiskPower => {
                let at = self.site.disk.operations() + 1 + self.dice.below(30);
                self.log(&format!("the disk will lose power at operation {at}"));
                self.site.disk.crash_at(at);
            }
            Trouble::Disk => self.disk_fault(until),
            Trouble::Reset => self.reset(host),
            Trouble::Clock => self.step_clock(host, until),
            Trouble::Ledger => {
                self.log("the ledger is lost");
                self.crash(sim, host);
                if let Err(error) = self.site.ledger.lose() {
                    self.site.world.lock().broken.push(format!("no new ledger: {error:#}"));
                }
                self.site.world.lock().ledger_lost += 1;
                self.later(until, End::Bounce(host));
            }
            Trouble::Between(between) => self.between(sim, host, between, until),
        }
    }

    fn one_way(&self, sim: &Sim<'_>, host: &'static str) {
        let links = self.links(host);
        for other in links.others() {
            if self.dice.below(2) == 0 {
                sim.partition_oneway(host, other);
            } else {
                sim.partition_oneway(other, host);
            }
        }
        if self.site.mix.is_cluster() {
            for store in [Store::Journal, Store::Cluster] {
                links.one_way_to_store(store, self.dice.below(2) == 0);
            }
        }
    }

    fn between(&mut self, sim: &Sim<'_>, host: &'static str, between: Between, until: u64) {
        let node_lease_ms = NODE_LEASE.as_millis() as u64;
        self.log(&format!("{host}: {between:?}"));
        match between {
            Between::FromCluster | Between::FromJournal => {
                let is_journal = between == Between::FromJournal;
                let store = if is_journal { Store::Journal } else { Store::Cluster };
                match self.dice.below(3) {
                    0 => self.links(host).one_way_to_store(store, true),
                    1 => self.links(host).one_way_to_store(store, false),
                    _both => self.links(host).to_store(store, Way::Cut),
                }
                self.later(until + node_lease_ms, End::Repair(host));
            }
            Between::FromPeers | Between::FromWorkers => {
                let half = self.links(host).half(between == Between::FromPeers);
                half.for_each(|other| sim.partition(host, other));
                self.later(until + 4_000, End::Repair(host));
            }
            Between::StoreReset => {
                let store = if self.dice.below(2) == 0 { Store::Journal } else { Store::Cluster };
                let next = self.dice.below(6);
                let count = self.site.shared.post().reset(host, store, next);
                self.log(&format!(
                    "{count} questions to {store:?} are answered by nobody, nor the next {next}"
                ));
            }
            Between::JournalDown => self.store_down(Store::Journal, until),
            Between::ClusterDown => self.store_down(Store::Cluster, until),
            Between::LeaseLost => {
                let how = if self.dice.below(2) == 0 { Forget::Ended } else { Forget::Removed };
                let was_there = self.site.shared.forget(host, how);
                self.log(&format!("its session: {how:?}, {was_there}"));
            }
            Between::Standstill => {
                self.links(host).stop(sim);
                self.later(until + node_lease_ms, End::GoOn(host));
            }
            Between::Leave => {
                self.site.world.lock().leaving.insert(host);
                self.later(until + 1_000, End::Bounce(host));
            }
        }
    }

    fn store_down(&mut self, store: Store, until: u64) {
        for host in self.site.coordinators() {
            self.links(host).to_store(store, Way::Cut);
        }
        self.later(until, End::StoreUp(store));
    }

    fn links(&self, host: &'static str) -> Links<'_> {
        Links { site: &self.site, host }
    }

    fn is_coordinator(&self, host: &str) -> bool {
        self.site.coordinators().contains(&host)
    }

    /// Every connection of the host ends, now or within the next few frames.
    fn reset(&self, host: &'static str) {
        let mut world = self.site.world.lock();
        let lines = std::mem::take(&mut world.lines);
        let mut count = 0;
        for (dialer, to, line) in lines {
            let touches = dialer == host || to == host;
            let after_bytes = self.dice.below(2) * self.dice.below(3_000);
            if touches {
                count += u64::from(line.cut(after_bytes as usize));
            } else {
                world.lines.push((dialer, to, line));
            }
        }
        world.log("sim", &format!("{count} connections of {host} are reset"));
    }

    /// Never further than this from the right time: a timer that is set meanwhile waits so much longer.
    fn step_clock(&mut self, host: &'static str, until: u64) {
        let step_ms = self.dice.below(2 * STEP_MAX_MS) as i64 - STEP_MAX_MS as i64;
        let mut world = self.site.world.lock();
        world.clock_steps_ms.insert(host, step_ms);
        world.log("sim", &format!("the clock of {host} is {step_ms} ms from the right time"));
        drop(world);
        self.later(until, End::Clock(host));
    }

    fn disk_fault(&mut self, until: u64) {
        let bytes = self.dice.below(600) as usize;
        let faults = [Fault::WriteError, Fault::NoSpace, Fault::SyncError, Fault::ShortWrite { bytes }];
        let fault = faults[self.dice.below(4) as usize];
        self.log(&format!("the disk will fail once: {fault:?}"));
        self.site.disk.inject(fault);
        self.later(until, End::Room);
        self.later(until + 500, End::Restart);
    }

    /// Ends a process; for the coordinator, power goes too half of the time.
    fn crash(&self, sim: &mut Sim<'_>, host: &str) {
        sim.crash(host);
        if host == "coord" {
            let how = match self.dice.below(4) {
                0 => Crash::LoseUnsynced,
                1 => Crash::KeepUnsynced,
                _random => Crash::Random { seed: self.dice.below(u64::MAX) },
            };
            self.site.disk.crash(how);
        }
    }

    fn end_due(&mut self, sim: &mut Sim<'_>, now_ms: u64) {
        while let Some((at, no, end)) = self.pending.first().copied()
            && at <= now_ms
        {
            self.pending.remove(&(at, no, end));
            self.log(&format!("{end:?}"));
            match end {
                End::Bounce(host) => {
                    self.links(host).repair(sim);
                    self.start(sim, host);
                }
                End::Repair(host) => self.links(host).repair(sim),
                End::Release(host) => self.links(host).release(sim),
                End::GoOn(host) => self.links(host).go_on(sim),
                End::StoreUp(store) => {
                    for host in self.site.coordinators() {
                        self.links(host).to_store(store, Way::Open);
                    }
                }
                End::Restart => {
                    self.crash(sim, "coord");
                    self.start(sim, "coord");
                }
                End::Room => {}
                End::Clock(host) => drop(self.site.world.lock().clock_steps_ms.remove(host)),
            }
        }
    }

    /// The coordinator starts anew, though nothing went wrong; of several, one, and the others do not.
    pub(crate) fn restart(&self, sim: &mut Sim<'_>) {
        let all = self.site.coordinators();
        let survivor = if all.len() > 1 { all[self.dice.below(all.len() as u64) as usize] } else { all[0] };
        self.log(&format!("{survivor} starts anew"));
        all.iter().for_each(|host| sim.crash(*host));
        self.site.disk.crash(Crash::KeepUnsynced);
        if all.len() > 1 {
            self.site.world.lock().survivor = Some(survivor);
        }
        self.start(sim, survivor);
    }

    fn start(&self, sim: &mut Sim<'_>, host: &'static str) {
        let mut world = self.site.world.lock();
        world.down.remove(host);
        world.leaving.remove(host);
        drop(world);
        sim.bounce(host);
    }

    /// A coordinator that died by itself, or whose disk has no power, is started again after a while.
    fn revive(&mut self, sim: &mut Sim<'_>, now_ms: u64) {
        for host in self.site.coordinators() {
            let down = self.site.world.lock().down.contains(host) || self.site.disk.is_crashed();
            let comes = self.pending.iter().any(|(_, _, end)| *end == End::Bounce(host));
            if down && !comes {
                self.log(&format!("{host} is ended"));
                self.crash(sim, host);
                let after = 50 + self.dice.below(1_000);
                self.later(now_ms + after, End::Bounce(host));
            }
        }
    }
}
