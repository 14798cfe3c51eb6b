//! A network of hosts on this machine, between which packets can be dropped.
//!
//! Owns: the hosts' network namespaces, the routes between them, and which ways are cut. Never: runs anything on a host;
//! it needs a namespace of its own to work in, so that nothing of the machine's own network is touched, and root.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::process;

/// Where hosts live: this machine has the first address, `hosts` follow.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Some place where servers and other processes run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    address: Ipv4Addr,
    /// A process that holds the host's namespace open, and the name of the way there; `None`: the caller's own.
    apart: Option<(u32, String)>,
}

impl Host {
    /// Where the caller runs, on loopback.
    #[must_use]
    pub fn here() -> Self {
        Self { address: Ipv4Addr::LOCALHOST, apart: None }
    }

    /// Where it is reached.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that runs `program` on the host, in the same process.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let Some((holder, _)) = &self.apart else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{holder}/ns/net")).arg(program);
        command
    }

    /// The interface by which packets of the host come here.
    fn way(&self) -> &str {
        self.apart.as_ref().map_or("lo", |(_, way)| way)
    }
}

/// Hosts, each with a network namespace of its own. They are gone when the value is dropped, or the thread that made
/// them ends, however that happens.
#[derive(Debug)]
pub struct Network {
    hosts: Vec<Host>,
    holders: Vec<Child>,
    /// From whom to whom packets are dropped.
    cuts: Vec<(Host, Host)>,
}

/// Whether [`Network::start`] can work here; otherwise why not, and what to do.
///
/// # Errors
///
/// A sentence for people.
pub fn can_have_a_network() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces need root (hint: sudo, or a container that may make them)".to_owned());
    }
    for program in ["ip", "nsenter", "unshare", "setpriv"] {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&folders).any(|folder| folder.join(program).exists()) {
            return Err(format!("`{program}` is missing (hint: install iproute2 and util-linux)"));
        }
    }
    let interfaces = std::fs::read_to_string("/proc/self/net/dev").map_err(|error| error.to_string())?;
    if interfaces.lines().filter(|line| line.contains(':')).count() > 1 {
        return Err("this is the machine's own network (hint: start this with `unshare --net`)".to_owned());
    }
    Ok(())
}

impl Network {
    /// That many hosts; each reaches each, and the caller.
    ///
    /// # Panics
    ///
    /// When the machine does not let it; ask [`can_have_a_network`] before.
    #[must_use]
    pub fn start(hosts: u8) -> Self {
        can_have_a_network().unwrap();
        ip(&["link", "set", "lo", "up"]);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let mut network = Self { hosts: Vec::new(), holders: Vec::new(), cuts: Vec::new() };
        for at in 1..=hosts {
            network.add(at);
        }
        network
    }

    fn add(&mut self, at: u8) {
        let [a, b, c, first] = FIRST.octets();
        let address = Ipv4Addr::new(a, b, c, first + at);
        let mut holder = Command::new("setpriv");
        holder.args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]).stdin(Stdio::null());
        let holder = holder.spawn().unwrap();
        let (id, way) = (holder.id(), format!("host{at}"));
        self.holders.push(holder);
        let ours = namespace("self");
        process::wait_for(|| (namespace(&id.to_string()) != ours).then_some(())).expect("a namespace");
        ip(&["link", "add", &way, "type", "veth", "peer", "name", "eth0", "netns", &id.to_string()]);
        ip(&["address", "add", &FIRST.to_string(), "peer", &address.to_string(), "dev", &way]);
        ip(&["link", "set", &way, "up"]);
        let host = Host { address, apart: Some((id, way)) };
        let inside = |arguments: &[&str]| run(host.command(Path::new("ip")).args(arguments));
        inside(&["link", "set", "lo", "up"]);
        inside(&["address", "add", &address.to_string(), "peer", &FIRST.to_string(), "dev", "eth0"]);
        inside(&["link", "set", "eth0", "up"]);
        inside(&["route", "add", "default", "via", &FIRST.to_string()]);
        self.hosts.push(host);
    }

    /// The hosts, in order.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// From now on packets that one host sends to another are dropped on the way; nobody is told.
    ///
    /// # Panics
    ///
    /// When they are dropped already.
    pub fn cut(&mut self, from: &Host, to: &Host) {
        let cut = (from.clone(), to.clone());
        assert!(!self.cuts.contains(&cut), "the way is cut already");
        rule("add", &cut);
        self.cuts.push(cut);
    }

    /// Mends every way that was cut.
    pub fn mend(&mut self) {
        for cut in self.cuts.drain(..) {
            rule("delete", &cut);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            process::kill_with_children(holder);
        }
    }
}

/// Which one a process is in.
fn namespace(process: &str) -> PathBuf {
    std::fs::read_link(format!("/proc/{process}/ns/net")).unwrap()
}

/// Asked before the table of routes.
fn rule(what: &str, (from, to): &(Host, Host)) {
    let to = format!("{}/32", to.address);
    ip(&["rule", what, "priority", "1", "iif", from.way(), "to", &to, "blackhole"]);
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

fn run(command: &mut Command) {
    let ran = command.stdin(Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
}
