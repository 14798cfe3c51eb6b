//! Everything that happens to clusters, again and again under load.
//!
//! Owns: the faults, and their order. Never: judges them.
use std::time::Duration;

use clap::ValueEnum;
use kapell_runtime::{Entropy as _, SeededEntropy};
use tokio::time::{Instant, sleep};

use crate::cluster::{CONNECTORS, COORDINATORS, Cluster, Cut, NODE_LEASE, WORKERS};
use crate::load::Load;
use crate::process::Process;
use crate::report::Fault;
use crate::trial::{Given, System, pause};

/// Long enough that others take over what the victim had.
const PAST_LEASE: Duration = NODE_LEASE.saturating_add(Duration::from_secs(2));
/// Long enough that etcd elects, and short enough that nobody's lease ends.
const ELECTION: Duration = Duration::from_secs(2);
/// Seconds by which a clock is wrong for a while.
const STEPS_S: [i64; 4] = [-3_600, -10, 10, 3_600];
/// What a client may wait for when the owner of its key crashes: the lease, and this to notice, load and answer.
const TAKE_OVER_MAX: Duration = Duration::from_secs(3);
/// And when the owner hands over.
const HAND_OVER_MAX: Duration = Duration::from_millis(500);
/// Between two faults: until so many runs have ended, at most so long.
const BREATH_RUNS: u64 = 64;
const BREATH_PATIENCE: Duration = Duration::from_secs(10);
/// Between two faults: until every order so far is accepted, at most so long.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(20);

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A coordinator is killed, and comes back after its shards went to others
    CoordinatorKilled,
    /// A coordinator stands still past its lease and goes on
    CoordinatorFrozen,
    /// A worker is killed and started again
    WorkerKilled,
    /// A connector is killed and started again
    ConnectorKilled,
    /// A coordinator is cut off from etcd past its lease
    CoordinatorFromEtcd,
    /// A coordinator is cut off from PostgreSQL for as long
    CoordinatorFromPostgres,
    /// A coordinator does not get through to the others, or they not to it
    CoordinatorFromPeers,
    /// A worker is cut off from all coordinators
    WorkerFromCoordinators,
    /// etcd's leader is cut off from the other members
    EtcdLeaderAway,
    /// etcd's leader is killed and started again
    EtcdLeaderKilled,
    /// PostgreSQL is shut down, with or without order, or killed, and started again
    PostgresRestarted,
    /// A coordinator's clock steps, forwards or back, and later to the right time
    ClockStepped,
    /// All coordinators are restarted in order, one after the other
    RollingRestart,
}

impl Kind {
    /// As on the command line.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The longest time in which an event must be accepted meanwhile.
    fn acceptance_max(self) -> Option<Duration> {
        match self {
            Kind::CoordinatorKilled => Some(NODE_LEASE + TAKE_OVER_MAX),
            Kind::RollingRestart => Some(HAND_OVER_MAX),
            Kind::CoordinatorFrozen
            | Kind::WorkerKilled
            | Kind::ConnectorKilled
            | Kind::CoordinatorFromEtcd
            | Kind::CoordinatorFromPostgres
            | Kind::CoordinatorFromPeers
            | Kind::WorkerFromCoordinators
            | Kind::EtcdLeaderAway
            | Kind::EtcdLeaderKilled
            | Kind::PostgresRestarted
            | Kind::ClockStepped => None,
        }
    }
}

/// How long events may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As long as it takes.
    Any,
    /// As long as is promised.
    InTime,
}

/// A cluster and what will happen to it.
pub(crate) struct Chaos {
    cluster: Cluster,
    kinds: Vec<Kind>,
    times: u32,
    pace: Pace,
}

impl Chaos {
    /// Starts the cluster. No `kinds`: all of them.
    pub(crate) async fn start(
        given: &Given,
        times: u32,
        kinds: &[Kind],
        pace: Pace,
    ) -> anyhow::Result<Chaos> {
        let kinds = if kinds.is_empty() { Kind::value_variants() } else { kinds };
        Ok(Chaos { cluster: Cluster::start(given).await?, kinds: kinds.to_vec(), times, pace })
    }

    async fn happen(&mut self, kind: Kind, dice: &SeededEntropy) -> anyhow::Result<()> {
        let of = |count: usize| dice.below(count as u64) as usize;
        match kind {
            Kind::CoordinatorKilled => {
                let victim = &mut self.cluster.coordinators[of(COORDINATORS)];
                victim.kill().await?;
                sleep(PAST_LEASE).await;
                victim.start_again()
            }
            Kind::CoordinatorFrozen => {
                let victim = &mut self.cluster.coordinators[of(COORDINATORS)];
                victim.freeze()?;
                sleep(PAST_LEASE).await;
                victim.thaw()
            }
            Kind::WorkerKilled => self.cluster.workers[of(WORKERS)].kill_and_restart().await,
            Kind::ConnectorKilled => self.cluster.connectors[of(CONNECTORS)].kill_and_restart().await,
            Kind::CoordinatorFromEtcd => self.cut(Cut::CoordinatorFromEtcd(of(COORDINATORS))).await,
            Kind::CoordinatorFromPostgres => self.cut(Cut::CoordinatorFromPostgres(of(COORDINATORS))).await,
            Kind::CoordinatorFromPeers => {
                let ways = [Cut::CoordinatorToPeers, Cut::PeersToCoordinator];
                self.cut(ways[of(ways.len())](of(COORDINATORS))).await
            }
            Kind::WorkerFromCoordinators => self.cut(Cut::WorkerFromCoordinators(of(WORKERS))).await,
            Kind::EtcdLeaderAway => self.cut(Cut::EtcdLeader).await,
            Kind::EtcdLeaderKilled => {
                self.cluster.with_servers(|servers| servers.etcd.kill(servers.etcd.leader())).await?;
                sleep(ELECTION).await;
                self.cluster.with_servers(|servers| servers.etcd.start_again()).await
            }
            Kind::PostgresRestarted => self.restart_postgres(dice.below(3)).await,
            Kind::ClockStepped => {
                let clock = &self.cluster.clocks[of(COORDINATORS)];
                clock.step(STEPS_S[of(STEPS_S.len())]);
                sleep(PAST_LEASE).await;
                clock.step(0);
                Ok(())
            }
            Kind::RollingRestart => self.restart_coordinators().await,
        }
    }

    async fn cut(&mut self, cut: Cut) -> anyhow::Result<()> {
        self.cluster.with_servers(move |servers| servers.cut(cut)).await?;
        sleep(if matches!(cut, Cut::EtcdLeader) { ELECTION } else { PAST_LEASE }).await;
        self.cluster.with_servers(|servers| servers.network.mend()).await
    }

    async fn restart_coordinators(&mut self) -> anyhow::Result<()> {
        for at in 0..COORDINATORS {
            self.cluster.coordinators[at].end().await?;
            self.cluster.coordinators[at].start_again()?;
            self.cluster.whole().await?;
        }
        Ok(())
    }

    async fn restart_postgres(&mut self, how: u64) -> anyhow::Result<()> {
        self.cluster
            .with_servers(move |servers| {
                let postgres = &mut servers.postgres;
                match how {
                    0 => return postgres.restart(),
                    1 => postgres.stop_immediately(),
                    _ => postgres.kill(),
                }
                postgres.start_again();
            })
            .await
    }
}

impl System for Chaos {
    fn addresses(&self) -> String {
        self.cluster.addresses()
    }

    /// Every fault so many times, in random order. The next one comes when the cluster is whole again and works.
    async fn suffer(&mut self, dice: &SeededEntropy, load: &Load) -> anyhow::Result<Vec<Fault>> {
        let mut left: Vec<Kind> =
            self.kinds.iter().flat_map(|kind| vec![*kind; self.times as usize]).collect();
        let all = left.len();
        let mut faults = Vec::new();
        load.progress(BREATH_RUNS, BREATH_PATIENCE).await;
        while !left.is_empty() {
            let kind = left.swap_remove(dice.below(left.len() as u64) as usize);
            sleep(pause(dice)).await;
            eprintln!("{} of {all}: {}", all - left.len(), kind.name());
            let acceptance_max = kind.acceptance_max().filter(|_| self.pace == Pace::InTime);
            faults.push(Fault { name: kind.name(), at: Instant::now(), acceptance_max });
            self.happen(kind, dice).await?;
            self.cluster.whole().await?;
            // What this one held up is not the next one's doing.
            load.caught_up(CATCH_UP_PATIENCE).await;
            load.progress(BREATH_RUNS, BREATH_PATIENCE).await;
        }
        Ok(faults)
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let Cluster { coordinators, workers, connectors, .. } = &mut self.cluster;
        coordinators.iter_mut().chain(workers).chain(connectors)
    }
}
