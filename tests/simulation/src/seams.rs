//! The seams of `kapell-runtime` over the simulated network and time, and a disk that writes down what is done to it.
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use kapell_journal_local::fault::FaultDisk;
use kapell_journal_local::{Disk, DiskFile};
use kapell_ledger::{
    ApprovalQuery, ApprovalRow, Ledger, LedgerBatch, LedgerError, Page, Rebuild, RunQuery, RunRow,
};
use kapell_ledger_sqlite::SqliteLedger;
use kapell_model::{RunId, Seq, ShardId, Timestamp};
use kapell_runtime::{
    Blocking, Clock, Connection, Entropy as _, Jobs, Listener, Net, Runtime, SeededEntropy,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::interpose;
use crate::world::{Line, World};

/// A runtime for one life of one host.
pub(crate) fn runtime(seed: u64, world: &World, host: &'static str) -> Runtime {
    let (clock, net) = (SimClock { world: world.clone(), host }, SimNet { world: world.clone(), host });
    let mut state = world.lock();
    state.boots += 1;
    Runtime {
        clock: Arc::new(clock),
        entropy: Arc::new(SeededEntropy::new(interpose::mix(seed ^ (state.boots << 32)))),
        net: Arc::new(net),
        jobs: Jobs::new(),
        blocking: Blocking::Inline,
    }
}

/// The time of day as one host sees it; timeouts and leases go by tokio's clock, which never steps.
struct SimClock {
    world: World,
    host: &'static str,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let world = self.world.lock();
        let step_ms = world.clock_steps_ms.get(self.host).copied().unwrap_or_default();
        Timestamp(world.time_of_day_ms().saturating_add_signed(step_ms * world.speed as i64))
    }
}

/// TCP of turmoil.
pub(crate) struct SimNet {
    world: World,
    host: &'static str,
}

impl Net for SimNet {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            let line = Line::default();
            let to = address.split(':').next().unwrap_or_default().to_owned();
            self.world.lock().lines.push((self.host, to, line.clone()));
            Ok(Connection::new(Cuttable { stream, line }))
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(
            async move { Ok(Box::new(SimListener(TcpListener::bind(address).await?)) as Box<dyn Listener>) },
        )
    }
}

/// A connection that the simulation can reset, at once or after a few more bytes.
struct Cuttable {
    stream: TcpStream,
    line: Line,
}

fn reset<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.line.left(context) == Some(0) {
            return reset();
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = match self.line.left(context) {
            Some(0) => return reset(),
            Some(left) => bytes.len().min(left),
            None => bytes.len(),
        };
        let written = Pin::new(&mut self.stream).poll_write(context, &bytes[..most]);
        if let Poll::Ready(Ok(count)) = &written {
            self.line.passed(*count);
        }
        written
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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

/// A ledger that takes its time, as one on a thread of its own does: others get between two requests.
pub(crate) struct SlowLedger {
    pub(crate) file: Arc<SqliteLedger>,
    pub(crate) dice: SeededEntropy,
}

impl SlowLedger {
    fn slowly<'a, T>(&'a self, answer: BoxFuture<'a, T>) -> BoxFuture<'a, T>
    where
        T: Send + 'a,
    {
        Box::pin(async move {
            // why: virtual time, and its passing is part of what is simulated
            tokio::time::sleep(Duration::from_millis(self.dice.below(30))).await;
            answer.await
        })
    }
}

impl Ledger for SlowLedger {
    fn watermark(&self, shard: ShardId) -> BoxFuture<'_, Result<Seq, LedgerError>> {
        self.slowly(self.file.watermark(shard))
    }
    fn apply(&self, batch: LedgerBatch) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.slowly(self.file.apply(batch))
    }
    fn runs(&self, query: RunQuery) -> BoxFuture<'_, Result<Page<RunRow>, LedgerError>> {
        self.slowly(self.file.runs(query))
    }
    fn run(&self, run: RunId) -> BoxFuture<'_, Result<Option<RunRow>, LedgerError>> {
        self.slowly(self.file.run(run))
    }
    fn approvals(
        &self,
        query: ApprovalQuery,
    ) -> BoxFuture<'_, Result<Page<(RunRow, ApprovalRow)>, LedgerError>> {
        self.slowly(self.file.approvals(query))
    }
    fn replace(&self, rebuild: Rebuild) -> BoxFuture<'_, Result<(), LedgerError>> {
        self.slowly(self.file.replace(rebuild))
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
    fn sync(&self) -> io::Result<Duration> {
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
