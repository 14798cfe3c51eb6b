//! A way to etcd that can be shut.
#![expect(clippy::disallowed_methods, reason = "the tasks of a test end with its runtime")]
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Connections stay, nothing passes: a network that drops packets.
    Silent,
}

/// Stands in front of one endpoint.
pub(crate) struct Gate {
    endpoint: String,
    state: Arc<watch::Sender<State>>,
    /// Its changes end the connections that there are.
    cut: Arc<watch::Sender<()>>,
}

impl Gate {
    pub(crate) async fn before(target: &str) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let (state, cut) = (Arc::new(watch::Sender::new(State::Open)), Arc::new(watch::Sender::new(())));
        let (target, states, cuts) = (target.to_owned(), Arc::clone(&state), Arc::clone(&cut));
        tokio::spawn(async move {
            loop {
                let (inner, _) = listener.accept().await.unwrap();
                let (target, states, mut cut) = (target.clone(), states.subscribe(), cuts.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = cut.changed() => {}
                        () = pass(inner, target, states) => {}
                    }
                });
            }
        });
        Gate { endpoint, state, cut }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// Nothing passes from now on, and nobody is told.
    pub(crate) fn shut(&self) {
        self.state.send_replace(State::Silent);
    }

    /// What was sent meanwhile arrives.
    pub(crate) fn open(&self) {
        self.state.send_replace(State::Open);
    }

    /// Ends all connections; what was sent and has not passed is lost.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(());
    }
}

async fn pass(inner: TcpStream, target: String, mut state: watch::Receiver<State>) {
    // The gate lives as long as the test.
    _ = state.wait_for(|state| *state == State::Open).await;
    // etcd may be down; whoever asks finds the connection ended.
    let Ok(outer) = TcpStream::connect(target).await else { return };
    let ((from_inner, to_inner), (from_outer, to_outer)) = (inner.into_split(), outer.into_split());
    tokio::select! {
        () = pump(from_inner, to_outer, state.clone()) => {}
        () = pump(from_outer, to_inner, state) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        _ = state.wait_for(|state| *state == State::Open).await;
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
