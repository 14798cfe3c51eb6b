//! The seams of `kapell-runtime` over the simulated network and time, and a disk that writes down what is done to it.
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use kapell_journal_local::fault::FaultDisk;
use kapell_journal_local::{Disk, DiskFile};
use kapell_model::Timestamp;
use kapell_runtime::{Blocking, Clock, Connection, Jobs, Listener, Net, Runtime, SeededEntropy};
use turmoil::net::{TcpListener, TcpStream};

use crate::interpose;
use crate::world::World;

/// A runtime for one life of one host.
pub(crate) fn runtime(seed: u64, world: &World) -> Runtime {
    let mut state = world.lock();
    state.boots += 1;
    Runtime {
        clock: Arc::new(SimClock),
        entropy: Arc::new(SeededEntropy::new(interpose::mix(seed ^ (state.boots << 32)))),
        net: Arc::new(SimNet),
        jobs: Jobs::new(),
        blocking: Blocking::Inline,
    }
}

struct SimClock;

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(interpose::now_ms())
    }
}

/// TCP of turmoil.
pub(crate) struct SimNet;

impl Net for SimNet {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move { Ok(Connection::new(TcpStream::connect(address).await?)) })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(
            async move { Ok(Box::new(SimListener(TcpListener::bind(address).await?)) as Box<dyn Listener>) },
        )
    }
}

struct SimListener(TcpListener);

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move { Ok(Connection::new(self.0.accept().await?.0)) })
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
    }
}

/// Folds every change of the disk into the digest.
pub(crate) struct WatchedDisk {
    pub(crate) disk: FaultDisk,
    pub(crate) world: World,
}

struct WatchedFile {
    file: Arc<dyn DiskFile>,
    world: World,
}

impl WatchedDisk {
    fn watch(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(WatchedFile { file, world: self.world.clone() })
    }
}

impl Disk for WatchedDisk {
    fn place(&self) -> String {
        self.disk.place()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.world.log("disk", &format!("create {name}"));
        Ok(self.watch(self.disk.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.watch(self.disk.open(name)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.world.log("disk", &format!("rename {from} {to}"));
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.world.log("disk", &format!("remove {name}"));
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

impl DiskFile for WatchedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut world = self.world.lock();
        world.log("disk", &format!("write {offset} {}", bytes.len()));
        world.fold(bytes);
        drop(world);
        self.file.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.world.log("disk", "sync");
        self.file.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.world.log("disk", &format!("truncate {bytes}"));
        self.file.truncate(bytes)
    }
}
