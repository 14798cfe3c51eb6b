//! HTTP on loopback: a listener whose connections can be cut, and the life of a server on it.
//!
//! Owns: binding, cutting one connection in the middle of a request, stopping.
//! Never: knows a route.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// How long requests in flight may take after a server was told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Pause after an accept that failed, so that a machine out of file descriptors is not spun on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Cuts the connection that a request came on: no byte of an answer leaves any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cut(Arc<AtomicBool>);

impl Cut {
    pub(crate) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Cut {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().cut.clone()
    }
}

/// A TCP listener that hands out cuttable connections.
#[derive(Debug)]
pub(crate) struct CuttableListener(TcpListener);

impl Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (CuttableStream, SocketAddr) {
        loop {
            if let Ok((stream, peer)) = self.0.accept().await
                && stream.set_nodelay(true).is_ok()
            {
                return (CuttableStream { stream, cut: Cut::default() }, peer);
            }
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// One connection; writing to it fails once it was cut, on which the HTTP server closes it.
#[derive(Debug)]
pub(crate) struct CuttableStream {
    stream: TcpStream,
    cut: Cut,
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        at: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(at, into)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, at: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.cut.check()?;
        Pin::new(&mut self.stream).poll_write(at, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        at: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.cut.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(at, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, at: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut.check()?;
        Pin::new(&mut self.stream).poll_flush(at)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, at: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(at)
    }
}

/// A running HTTP server. Dropping it stops it without waiting.
#[derive(Debug)]
pub(crate) struct HttpServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    job: JoinHandle<io::Result<()>>,
}

impl HttpServer {
    /// Binds 127.0.0.1; port 0 lets the operating system choose.
    pub(crate) async fn start(port: u16, router: Router) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let service = router.into_make_service_with_connect_info::<Cut>();
        let served = axum::serve(CuttableListener(listener), service).with_graceful_shutdown(async move {
            // A dropped sender means the same as a sent word: stop.
            drop(stopped.await);
        });
        let job = tokio::spawn(served.into_future());
        Ok(Self { address, stop: Some(stop), job })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops taking connections and waits for the requests in flight, but not for ever.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        if tokio::time::timeout(STOP_PATIENCE, &mut self.job).await.is_err() {
            self.job.abort();
        }
    }
}
