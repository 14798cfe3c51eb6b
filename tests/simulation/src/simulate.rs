//! One simulation: builds the hosts, steps them, lets things go wrong, heals, and judges.
//!
//! Owns: the clock and the end. Never: knows what the hosts do.
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use kapell_journal_local::fault::FaultDisk;
use kapell_tests_simulation::shared::{DEADLINE_MS, Stores};
use turmoil::Sim;

use crate::company::{Kind, Scenario, happenings};
use crate::faults::{Faults, Plan};
use crate::hosts::{self, LedgerFile, NODE_LEASE, Site};
use crate::interpose;
use crate::judge;
use crate::mix::Mix;
use crate::ticks::SPEED;
use crate::world::World;

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) seed: u64,
    pub(crate) scenario: Scenario,
    pub(crate) plan: Plan,
    pub(crate) mix: Mix,
    pub(crate) spoil: Option<Spoil>,
}

/// What is spoilt on purpose, to see that the judge notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// The first entry is posted twice.
    PostTwice,
    /// The journal that coordinators share takes from former owners of a shard, too.
    Fence,
}

/// How it went.
pub(crate) struct Verdict {
    pub(crate) world: World,
    pub(crate) elapsed_ms: u64,
    /// Operations of the coordinator's disk, or appends to the journal that coordinators share.
    pub(crate) operations: u64,
    /// How often that journal refused one that does not own the shard any more.
    pub(crate) fenced: u64,
}

/// Virtual time of one step.
const TICK_MS: u64 = 2;
/// A question and its answer that are both slow miss each other: whoever asked has given up by then.
const SLOW_MS: u64 = DEADLINE_MS * 5 / 6;
/// After the last fault, all must be well within this virtual time.
const QUIET_WITHIN_MS: u64 = 40_000;
/// After all is well, nothing more may happen in this virtual time.
const QUIET_FOR_MS: u64 = 2_000;

/// Runs it in the calling thread, which must not have been used for anything else.
pub(crate) fn simulate(wanted: Wanted) -> anyhow::Result<Verdict> {
    interpose::begin(wanted.seed);
    let world = World::default();
    world.lock().begin();
    if wanted.mix.schedules > 0 {
        world.lock().speed = SPEED;
    }
    let site = Site {
        seed: wanted.seed,
        world: world.clone(),
        disk: FaultDisk::new(),
        shared: Stores::new(wanted.seed ^ 0x57e5, NODE_LEASE, SLOW_MS, Arc::new(world.clone())),
        ledger: LedgerFile::new()?,
        happenings: Arc::new(happenings(wanted.seed, wanted.scenario, &wanted.mix)),
        mix: wanted.mix,
    };
    let mut sim = build(wanted.seed, &site);
    let mut faults = Faults::new(wanted.seed, wanted.plan, site.clone());
    if wanted.spoil == Some(Spoil::PostTwice) {
        let twice = site.happenings.iter().find(|one| one.kind == Kind::Line);
        twice.into_iter().for_each(|line| world.lock().send(&format!("{}/line", line.id), 10));
    }
    if wanted.spoil == Some(Spoil::Fence) {
        site.shared.break_fence();
    }
    let (mut now_ms, mut well_since) = (0, None);
    let mut healed_ms = None;
    loop {
        interpose::set_now_ms(now_ms);
        world.lock().arrive();
        site.shared.step(now_ms);
        faults.step(&mut sim, now_ms);
        if faults.is_healed() {
            let healed = *healed_ms.get_or_insert(now_ms);
            let well = world.lock().all_well;
            well_since = well.then(|| well_since.unwrap_or(now_ms));
            if wanted.mix.is_wide && well && !world.lock().restarted {
                // Recovery must find everything as it was.
                faults.restart(&mut sim);
                let mut world = world.lock();
                (world.restarted, world.all_well) = (true, false);
                (well_since, healed_ms) = (None, Some(now_ms));
            }
            let quiet = well_since.is_some_and(|since| now_ms - since >= QUIET_FOR_MS);
            if quiet || now_ms - healed > QUIET_WITHIN_MS {
                break;
            }
        }
        if let Err(error) = sim.step() {
            world.lock().broken.push(format!("a host failed: {error}"));
            break;
        }
        now_ms += TICK_MS;
    }
    let is_well = well_since.is_some() && world.lock().restarted == wanted.mix.is_wide;
    judge::judge(&site, is_well, QUIET_WITHIN_MS);
    // The hosts end with the process: a shard's mailbox may hold what keeps it alive.
    std::mem::forget(sim);
    let operations = site.disk.operations() + site.shared.appends();
    Ok(Verdict { world, elapsed_ms: now_ms, operations, fenced: site.shared.fenced() })
}

fn build<'a>(seed: u64, site: &Site) -> Sim<'a> {
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .epoch(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        .simulation_duration(Duration::from_secs(3_600))
        .tick_duration(Duration::from_millis(TICK_MS))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(8_192)
        .enable_random_order();
    let mut sim = builder.build();
    let life = |site: &Site| site.clone();
    for name in site.coordinators() {
        let at = life(site);
        sim.host(*name, move || done(hosts::coordinator(at.clone(), name)));
    }
    for name in ["w0", "w1"] {
        let at = life(site);
        sim.host(name, move || done(hosts::worker(at.clone(), name)));
    }
    let at = life(site);
    sim.host("conn", move || done(hosts::connector(at.clone())));
    let at = life(site);
    sim.host("client", move || done(hosts::client(at.clone())));
    sim
}

async fn done(life: impl Future<Output = ()>) -> turmoil::Result {
    life.await;
    Ok(())
}
