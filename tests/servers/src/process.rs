//! The process of a server: as whom it runs, how it is waited for and killed.
//!
//! Owns: every wait and every signal. Never: knows which server it is.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::network::Host;

/// `nobody` and `nogroup`: a database server refuses to run as root.
const NOBODY: u32 = 65_534;
/// How often a state is looked at that nobody announces.
const LOOK: Duration = Duration::from_millis(5);
/// Time that a server gets to start or to end; a recovery on a busy machine included.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time that one question for health or metrics may take.
const ANSWER: Duration = Duration::from_secs(1);
/// Servers listen below the ports that the kernel gives to clients: while one is down, nobody else is given its port.
const FIRST_PORT: u32 = 18_000;
const PORTS: u32 = 14_000;

/// A command that runs `program` on `host` as a user who may run a server.
pub(crate) fn unprivileged(host: &Host, program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return host.command(program);
    }
    let mut command = host.command(Path::new("setpriv"));
    command
        .arg(format!("--reuid={NOBODY}"))
        .arg(format!("--regid={NOBODY}"))
        .arg("--clear-groups")
        .arg(program);
    command
}

/// Gives a file or folder to the user of [`unprivileged`].
pub(crate) fn hand_over(path: &Path) {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// A port that nobody listens on. Another server may take it first: the caller tries again.
pub(crate) fn free_port(attempt: u32) -> u16 {
    // Tests are processes of their own and start at the same time: they begin to look at different places.
    let begin = std::process::id().wrapping_mul(37).wrapping_add(attempt * 997);
    let ports = (0..PORTS).map(|step| FIRST_PORT + begin.wrapping_add(step) % PORTS);
    let mut ports = ports.map(|port| u16::try_from(port).unwrap());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// Waits until `holds`, or until the process has ended, or for long enough: whether it holds.
pub(crate) fn wait_until(child: &mut Child, holds: impl Fn() -> bool) -> bool {
    looks().any(|()| {
        let ended = !matches!(child.try_wait(), Ok(None));
        holds() || ended
    });
    holds() && matches!(child.try_wait(), Ok(None))
}

/// Looks until there is something, or for long enough.
pub(crate) fn wait_for<T>(look: impl Fn() -> Option<T>) -> Option<T> {
    looks().find_map(|()| look())
}

/// The answer to a GET, or nothing.
pub(crate) fn ask(address: SocketAddr, path: &str) -> String {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    // Nobody answers yet.
    asked().unwrap_or_default()
}

/// Sends a signal to a process that runs.
pub(crate) fn send(child: &Child, signal: Signal) {
    kill_process(pid(child), signal).unwrap();
}

/// Stops a process, and waits until each of its threads has.
pub(crate) fn stop(child: &Child) {
    send(child, Signal::STOP);
    waitpid(Some(pid(child)), WaitOptions::UNTRACED).unwrap();
}

/// Sends a signal and waits for the end; kills what does not end.
pub(crate) fn end(child: &mut Child, signal: Signal) {
    // It may have ended by itself.
    _ = kill_process(pid(child), signal);
    if !looks().any(|()| !matches!(child.try_wait(), Ok(None))) {
        kill_with_children(child);
    }
}

/// As if the machine had gone: no process of it runs another instruction.
pub(crate) fn kill_with_children(child: &mut Child) {
    // Held first, so that it starts no child that is not seen. It may have ended by itself.
    _ = kill_process(pid(child), Signal::STOP);
    let children = children(child.id());
    _ = kill_process(pid(child), Signal::KILL);
    for child in &children {
        _ = kill_process(*child, Signal::KILL);
    }
    child.wait().unwrap();
    let gone =
        || children.iter().all(|child| !Path::new("/proc").join(child.as_raw_nonzero().to_string()).exists());
    looks().any(|()| gone());
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn children(parent: u32) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).filter_map(Pid::from_raw).collect()
}

/// The fourth field of `stat`, counted behind the name, which may hold anything.
fn parent_of(pid: i32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// As many looks as there is patience for, with pauses between them.
fn looks() -> impl Iterator<Item = ()> {
    (0..PATIENCE.as_millis() / LOOK.as_millis()).map(|look| {
        if look > 0 {
            pause();
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "a test waits for another process, in a thread of its own")]
fn pause() {
    // why: nothing tells that another process is ready or gone
    std::thread::sleep(LOOK);
}
