//! A whole cluster on this machine: its processes and servers on hosts of their own.
//!
//! Owns: what runs where, and what can be done to it. Never: decides what is done when.
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kapell_client::Client;
use kapell_runtime::{Runtime, SystemNet};
use kapell_tests_servers::{Etcd, Host, Network, Postgres, Setup, SteppedClock, can_have_a_network};
use tokio::time::{Instant, sleep};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::process::Process;
use crate::trial::Given;

/// How many there are of each.
pub(crate) const COORDINATORS: usize = 3;
pub(crate) const WORKERS: usize = 3;
pub(crate) const CONNECTORS: usize = 2;
const ETCD_MEMBERS: usize = 3;
const HOSTS: u8 = 10;

/// After so long of silence a node's shards go to others. Half of what is usual, so that more happens in an hour.
pub(crate) const NODE_LEASE: Duration = Duration::from_secs(3);
/// Time that the cluster gets to be whole again.
const WHOLE_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
const PORT: u16 = 7700;

/// The cluster. Processes end before what they stand on.
pub(crate) struct Cluster {
    pub(crate) coordinators: Vec<Process>,
    pub(crate) workers: Vec<Process>,
    pub(crate) connectors: Vec<Process>,
    addresses: Vec<String>,
    /// Of the coordinators.
    pub(crate) clocks: Vec<SteppedClock>,
    /// `None` while something is done to them.
    servers: Option<Servers>,
}

/// Who is cut off from whom; by number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    CoordinatorFromEtcd(usize),
    CoordinatorFromPostgres(usize),
    /// What it sends to the others is lost.
    CoordinatorToPeers(usize),
    /// What the others send to it is lost.
    PeersToCoordinator(usize),
    WorkerFromCoordinators(usize),
    /// From the other members.
    EtcdLeader,
}

/// What the processes stand on.
pub(crate) struct Servers {
    pub(crate) etcd: Etcd,
    pub(crate) postgres: Postgres,
    pub(crate) network: Network,
    pub(crate) hosts: Hosts,
}

/// Who is where.
#[derive(Clone)]
pub(crate) struct Hosts {
    pub(crate) coordinators: Vec<Host>,
    pub(crate) workers: Vec<Host>,
    pub(crate) etcd: Vec<Host>,
    pub(crate) postgres: Host,
}

impl Servers {
    fn start() -> Option<Servers> {
        let network = Network::start(HOSTS);
        let mut free = network.hosts().iter().cloned();
        let mut take = |count| free.by_ref().take(count).collect::<Vec<_>>();
        let (coordinators, workers, etcd) = (take(COORDINATORS), take(WORKERS), take(ETCD_MEMBERS));
        let postgres = free.next()?;
        let hosts = Hosts { coordinators, workers, etcd, postgres };
        let setup = Setup::default().setting("max_connections", "200").host(&hosts.postgres);
        Some(Servers { etcd: Etcd::start_on(&hosts.etcd)?, postgres: setup.start()?, network, hosts })
    }

    /// From now on nothing gets through there.
    pub(crate) fn cut(&mut self, cut: Cut) {
        let Hosts { coordinators, workers, etcd, postgres } = self.hosts.clone();
        let without = |hosts: &[Host], at: usize| {
            let mut others = hosts.to_vec();
            let one = others.remove(at);
            (vec![one], others)
        };
        let (these, those, back) = match cut {
            Cut::CoordinatorFromEtcd(at) => (vec![coordinators[at].clone()], etcd, true),
            Cut::CoordinatorFromPostgres(at) => (vec![coordinators[at].clone()], vec![postgres], true),
            Cut::CoordinatorToPeers(at) => {
                let (one, others) = without(&coordinators, at);
                (one, others, false)
            }
            Cut::PeersToCoordinator(at) => {
                let (one, others) = without(&coordinators, at);
                (others, one, false)
            }
            Cut::WorkerFromCoordinators(at) => (vec![workers[at].clone()], coordinators, true),
            Cut::EtcdLeader => {
                let (leader, others) = without(&etcd, self.etcd.leader());
                (leader, others, true)
            }
        };
        for (one, other) in these.iter().flat_map(|one| those.iter().map(move |other| (one, other))) {
            self.network.cut(one, other);
            if back {
                self.network.cut(other, one);
            }
        }
    }
}

impl Cluster {
    /// Starts everything and waits until it is whole.
    pub(crate) async fn start(given: &Given) -> anyhow::Result<Cluster> {
        if let Err(why) = can_have_a_network() {
            bail!("{why}");
        }
        // Nothing else is going on yet, and hosts end with the thread that made them.
        let servers =
            Servers::start().context("etcd or PostgreSQL is missing (hint: cargo xtask servers)")?;
        let addresses = servers.hosts.coordinators.iter().map(|host| format!("{}:{PORT}", host.address()));
        let addresses: Vec<String> = addresses.collect();
        let all = addresses.join(",");
        let (etcd, postgres) = (servers.etcd.endpoints().join(","), servers.postgres.url());
        let lease = format!("{}s", NODE_LEASE.as_secs());
        let clocks = (0..COORDINATORS).map(|at| SteppedClock::right(&given.dir.join(format!("clock-{at}"))));
        let clocks: Option<Vec<_>> = clocks.collect();
        let clocks = clocks.context("libfaketime is missing (hint: cargo xtask chaos brings it)")?;
        let coordinator = |(at, host): (usize, &Host)| {
            let (name, listen) = (format!("coordinator-{at}"), addresses[at].clone());
            let mut options = vec!["--listen".to_owned(), listen, "--node".to_owned(), name.clone()];
            options.extend(["--etcd".to_owned(), etcd.clone(), "--postgres".to_owned(), postgres.clone()]);
            options.extend(["--node-lease".to_owned(), lease.clone(), "--heartbeat".to_owned()]);
            options.push("500ms".to_owned());
            process(given, host, "coordinator", name, options, Some(clocks[at].clone()))
        };
        let agent = |role: &'static str, at: usize, host: &Host| {
            let name = format!("{role}-{at}");
            let options = vec!["--coordinator".to_owned(), all.clone(), "--name".to_owned(), name.clone()];
            process(given, host, role, name, options, None)
        };
        let hosts = &servers.hosts;
        let coordinators = hosts.coordinators.iter().enumerate().map(coordinator);
        let workers = hosts.workers.iter().enumerate().map(|(at, host)| agent("worker", at, host));
        // Beside the company, whose servers listen on loopback.
        let connectors = (0..CONNECTORS).map(|at| agent("connector", at, &Host::here()));
        let cluster = Cluster {
            coordinators: coordinators.collect::<Result<_, _>>()?,
            workers: workers.collect::<Result<_, _>>()?,
            connectors: connectors.collect::<Result<_, _>>()?,
            addresses,
            clocks,
            servers: Some(servers),
        };
        cluster.whole().await?;
        Ok(cluster)
    }

    /// Of all coordinators, separated by commas.
    pub(crate) fn addresses(&self) -> String {
        self.addresses.join(",")
    }

    /// Does something to the servers or the network.
    pub(crate) async fn with_servers(
        &mut self,
        change: impl FnOnce(&mut Servers) + Send + 'static,
    ) -> anyhow::Result<()> {
        let mut servers = self.servers.take().context("something is done to the servers already")?;
        let changed = blocking(move || {
            change(&mut servers);
            servers
        });
        self.servers = Some(changed.await?);
        Ok(())
    }

    /// Waits until every coordinator is ready and knows all of them, and an owner of every shard.
    pub(crate) async fn whole(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        for address in &self.addresses {
            while !is_whole(address).await {
                if begun.elapsed() > WHOLE_PATIENCE {
                    bail!(
                        "the cluster is not whole again after {WHOLE_PATIENCE:?}: see the log of {address}"
                    );
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }
}

/// Whether a coordinator is ready, as a load balancer would ask it, and knows of all others and of no shard that moves.
async fn is_whole(address: &str) -> bool {
    let ready = async {
        let channel = kapell_runtime::channel(Arc::new(SystemNet), address).await.ok()?;
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.ok()
    };
    let is_ready = ready.await.is_some_and(|answer| answer.get_ref().status() == ServingStatus::Serving);
    let looked = async {
        let client = Client::connect(address).await.ok()?.with_deadline(LOOK_PATIENCE);
        client.admin().cluster().await.ok()
    };
    is_ready
        && looked.await.is_some_and(|known| {
            known.joined
                && known.members.len() == COORDINATORS
                && known.shards.iter().all(|shard| shard.node == shard.preferred)
        })
}

fn process(
    given: &Given,
    host: &Host,
    role: &'static str,
    name: String,
    options: Vec<String>,
    clock: Option<SteppedClock>,
) -> anyhow::Result<Process> {
    let (host, version) = (host.clone(), given.versions());
    Process::start(&name, &given.dir, move || {
        let mut command = host.command(&version());
        command.arg(role).args(&options);
        clock.iter().for_each(|clock| clock.give(&mut command));
        command
    })
}

/// Servers are waited for in threads of their own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    Runtime::system().blocking(work).await.ok().context("the work on the servers panicked")
}
