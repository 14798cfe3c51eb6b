//! etcd.
//!
//! Owns: a cluster of some members on loopback, and which of them run. Never: talks etcd's protocol; it asks for health
//! and metrics over plain HTTP.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::network::Host;
use crate::process;

/// Milliseconds between two heartbeats of a leader.
const HEARTBEAT_MS: u32 = 100;
/// Milliseconds after which a silent leader is replaced. The shortest lease follows from it: one second.
const ELECTION_MS: u32 = 600;
/// Others may take the ports between the look and the start.
const ATTEMPTS: u32 = 5;

/// Certificates of a cluster that speaks TLS with its clients, and wants certificates of them. Files of PEM.
#[derive(Clone, Debug)]
pub struct EtcdTls {
    /// Who signs for the clients.
    pub ca: PathBuf,
    /// The certificate of every member.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Some members of one etcd. They and their data are gone when the value is dropped.
#[derive(Debug)]
pub struct Etcd {
    program: PathBuf,
    members: Vec<Member>,
    tls: Option<EtcdTls>,
    dir: TempDir,
}

#[derive(Debug)]
struct Member {
    host: Host,
    /// For clients, for the other members, and for health and metrics.
    ports: [u16; 3],
    /// `None` while it is stopped.
    child: Option<Child>,
}

impl Etcd {
    /// That many members, of which one leads; or says why the test is skipped.
    ///
    /// # Panics
    ///
    /// When the program is there and does not start; see also [`missing`](crate::missing).
    #[must_use]
    pub fn start(members: usize) -> Option<Self> {
        Self::start_with(members, None)
    }

    /// A member on each of these hosts.
    ///
    /// # Panics
    ///
    /// When the program is there and does not start; see also [`missing`](crate::missing).
    #[must_use]
    pub fn start_on(hosts: &[Host]) -> Option<Self> {
        Self::start_members(hosts, None)
    }

    /// The same, with TLS towards clients.
    ///
    /// # Panics
    ///
    /// When the program is there and does not start; see also [`missing`](crate::missing).
    #[must_use]
    pub fn start_with(members: usize, tls: Option<EtcdTls>) -> Option<Self> {
        Self::start_members(&vec![Host::here(); members], tls)
    }

    fn start_members(hosts: &[Host], tls: Option<EtcdTls>) -> Option<Self> {
        let Some(program) = crate::program("etcd") else {
            crate::missing("etcd");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("kapell-etcd-").tempdir_in("/tmp").unwrap();
        let mut etcd = Self { program, members: Vec::new(), tls, dir };
        for attempt in 0..ATTEMPTS {
            etcd.members = choose_ports(hosts, attempt);
            if etcd.run_all() {
                return Some(etcd);
            }
            etcd.kill_all();
            etcd.wipe();
        }
        panic!("etcd does not start: {}", etcd.log(0));
    }

    /// `HOST:PORT` of every member, for clients; the same over restarts.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.at(0).to_string()).collect()
    }

    /// The member that leads.
    ///
    /// # Panics
    ///
    /// When none does for a long time.
    #[must_use]
    pub fn leader(&self) -> usize {
        let leads = |at: &usize| {
            let member = &self.members[*at];
            member.child.is_some() && member.ask("/metrics").contains("\netcd_server_is_leader 1\n")
        };
        process::wait_for(|| (0..self.members.len()).find(leads)).expect("one of them leads")
    }

    /// SIGKILL.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            process::kill_with_children(&mut child);
        }
    }

    /// SIGKILL to all of them.
    pub fn kill_all(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill(member));
    }

    /// Stops a member from doing anything; its connections stay open and silent.
    pub fn freeze(&mut self, member: usize) {
        process::stop(self.members[member].child.as_ref().expect("the member runs"));
    }

    /// Lets a frozen member go on.
    pub fn thaw(&mut self, member: usize) {
        process::send(self.members[member].child.as_ref().expect("the member runs"), Signal::CONT);
    }

    /// Starts all that do not run on the data that they left, and waits until they are healthy.
    ///
    /// # Panics
    ///
    /// When one of them does not start.
    pub fn start_again(&mut self) {
        assert!(self.run_all(), "etcd does not start again: {}", self.log(0));
    }

    /// Forgets everything. All members must have been stopped.
    ///
    /// # Panics
    ///
    /// When one of them runs.
    pub fn wipe(&mut self) {
        for (at, member) in self.members.iter().enumerate() {
            assert!(member.child.is_none(), "member {at} runs");
            // One that did not get as far as making it has none.
            _ = std::fs::remove_dir_all(self.data(at));
        }
    }

    /// Copies the data of a single stopped member to the side, or brings it back: an older state of its own.
    ///
    /// # Panics
    ///
    /// When there is more than one member, or it runs.
    pub fn backup(&mut self) -> PathBuf {
        let copy = self.dir.path().join("backup");
        copy_folder(&self.single(), &copy);
        copy
    }

    /// Brings back what [`Etcd::backup`] has copied.
    ///
    /// # Panics
    ///
    /// When there is more than one member, or it runs.
    pub fn restore(&mut self, copy: &Path) {
        let data = self.single();
        self.wipe();
        copy_folder(copy, &data);
    }

    /// The end of what a member has logged.
    #[must_use]
    pub fn log(&self, member: usize) -> String {
        let log = std::fs::read(self.file(member, "log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4_096)..]).into_owned()
    }

    fn single(&self) -> PathBuf {
        assert!(self.members.len() == 1 && self.members[0].child.is_none(), "one stopped member");
        self.data(0)
    }

    fn data(&self, member: usize) -> PathBuf {
        self.file(member, "data")
    }

    fn file(&self, member: usize, name: &str) -> PathBuf {
        self.dir.path().join(format!("{member}-{name}"))
    }

    /// Whether all of them run and are healthy.
    fn run_all(&mut self) -> bool {
        for at in 0..self.members.len() {
            if self.members[at].child.is_none() {
                let child = self.command(at).spawn().unwrap();
                self.members[at].child = Some(child);
            }
        }
        self.members.iter_mut().all(|member| {
            let metrics = member.at(2);
            let healthy = || process::ask(metrics, "/health").contains(r#""health":"true""#);
            member.child.as_mut().is_some_and(|child| process::wait_until(child, healthy))
        })
    }

    fn command(&self, at: usize) -> Command {
        let url = |member: &Member, port: usize| format!("http://{}", member.at(port));
        let member = &self.members[at];
        let [mut client, peer, metrics] = [0, 1, 2].map(|port| url(member, port));
        let peers = self.members.iter().enumerate();
        let peers = peers.map(|(at, member)| format!("m{at}={}", url(member, 1))).collect::<Vec<_>>();
        let log = File::options().create(true).append(true).open(self.file(at, "log")).unwrap();
        let mut command = member.host.command(&self.program);
        command.arg("--name").arg(format!("m{at}")).arg("--data-dir").arg(self.data(at));
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--listen-metrics-urls", &metrics, "--initial-cluster", &peers.join(",")]);
        command.args(["--heartbeat-interval", &HEARTBEAT_MS.to_string()]);
        // The default since etcd 3.5: a member that was cut off does not depose the leader when it is back.
        command.arg("--pre-vote");
        command.args(["--election-timeout", &ELECTION_MS.to_string(), "--log-level", "warn"]);
        if let Some(tls) = &self.tls {
            client = client.replace("http:", "https:");
            command.arg("--cert-file").arg(&tls.certificate).arg("--key-file").arg(&tls.key);
            command.arg("--trusted-ca-file").arg(&tls.ca).arg("--client-cert-auth");
        }
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }
}

impl Member {
    fn at(&self, port: usize) -> SocketAddr {
        (self.host.address(), self.ports[port]).into()
    }

    fn ask(&self, path: &str) -> String {
        process::ask(self.at(2), path)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill_all();
    }
}

fn choose_ports(hosts: &[Host], attempt: u32) -> Vec<Member> {
    let mut ports = Vec::new();
    let mut look = attempt * 100;
    while ports.len() < hosts.len() * 3 {
        let port = process::free_port(look);
        if !ports.contains(&port) {
            ports.push(port);
        }
        look += 1;
    }
    let members = hosts.iter().zip(ports.chunks(3));
    members
        .map(|(host, ports)| Member {
            host: host.clone(),
            ports: [ports[0], ports[1], ports[2]],
            child: None,
        })
        .collect()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
