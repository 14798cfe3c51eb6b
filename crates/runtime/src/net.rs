//! Connections between roles.
//!
//! Owns: dialing and listening, real or simulated, and handing both to tonic. Never: speaks a protocol.
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// An open connection.
pub struct Connection {
    io: Box<dyn Io>,
    /// Held while it is open, where their number has a limit.
    _counted: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Wraps anything that carries bytes.
    pub fn new(io: impl Io) -> Connection {
        Connection { io: Box::new(io), _counted: None }
    }
}

/// Accepts connections.
pub trait Listener: Send + 'static {
    /// The next connection. An error of one connection is not the end of the listener.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>>;

    /// Where it listens.
    fn address(&self) -> SocketAddr;
}

/// How to reach others.
pub trait Net: Send + Sync + 'static {
    /// Connects to `host:port`.
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>>;

    /// Listens on `host:port`; port 0 takes a free one.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
}

/// TCP of the operating system, without Nagle's delay.
#[derive(Clone, Copy, Debug)]
pub struct SystemNet;

impl Net for SystemNet {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Connection::new(stream))
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind(address).await?;
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

impl Listener for tokio::net::TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let (stream, _) = tokio::net::TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok(Connection::new(stream))
        })
    }

    fn address(&self) -> SocketAddr {
        self.local_addr().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

/// Every connection that a listener accepts, for a tonic or axum server.
pub fn incoming(listener: Box<dyn Listener>) -> impl Stream<Item = io::Result<Connection>> + Send {
    incoming_up_to(listener, Semaphore::MAX_PERMITS)
}

/// As [`incoming`]; while so many are open, further ones wait with the operating system.
pub fn incoming_up_to(
    listener: Box<dyn Listener>,
    open_max: usize,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let open = Arc::new(Semaphore::new(open_max));
    futures::stream::unfold((listener, open), |(mut listener, open)| async move {
        let counted = Arc::clone(&open).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok(connection) => {
                    let counted = Connection { _counted: Some(counted), ..connection };
                    return Some((Ok(counted), (listener, open)));
                }
                Err(error) => {
                    // Out of file handles or a connection reset in the backlog: others may still come.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    })
}

/// Why no channel could be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is no `host:port`.
    #[error("`{0}` is no address; write HOST:PORT")]
    BadAddress(String),
    /// Nobody answers there.
    #[error("nobody answers at {address}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// A gRPC channel with windows and keepalives that suit long-lived streams of frames.
pub async fn channel(net: Arc<dyn Net>, address: &str) -> Result<Channel, DialError> {
    endpoint(address)?
        .connect_with_connector(dialer(net, address))
        .await
        .map_err(|source| DialError::Unreachable { address: address.to_owned(), source })
}

/// As [`channel`], but nobody has to answer yet: the first request connects.
pub fn channel_when_asked(net: Arc<dyn Net>, address: &str) -> Result<Channel, DialError> {
    Ok(endpoint(address)?.connect_with_connector_lazy(dialer(net, address)))
}

fn endpoint(address: &str) -> Result<Endpoint, DialError> {
    Ok(Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| DialError::BadAddress(address.to_owned()))?
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(4))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .tcp_nodelay(true))
}

fn dialer(
    net: Arc<dyn Net>,
    address: &str,
) -> impl Service<Uri, Response = TokioIo<Connection>, Error = io::Error, Future: Send> + Send + use<> {
    let target = address.to_owned();
    tower::service_fn(move |_| {
        let (net, target) = (Arc::clone(&net), target.clone());
        async move { net.dial(&target).await.map(TokioIo::new) }
    })
}

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}
impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_read(cx, buf)
    }
}
impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_connection_too_many_waits_until_another_ends() {
        let listener = SystemNet.listen("127.0.0.1:0").await.unwrap();
        let address = listener.address().to_string();
        let mut accepted = Box::pin(incoming_up_to(listener, 2));
        let mut dialed = Vec::new();
        for _ in 0..3 {
            dialed.push(SystemNet.dial(&address).await.unwrap());
        }
        let first = accepted.next().await.unwrap().unwrap();
        let _second = accepted.next().await.unwrap().unwrap();
        assert!(futures::poll!(accepted.next()).is_pending());
        drop(first);
        assert!(accepted.next().await.unwrap().is_ok());
    }
}
