//! The coordinators that may be asked: every one of them takes every request.
//!
//! Owns: which of them is asked now. Never: sends anything, or decides whether a request may be sent again.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kapell_runtime::{DialError, Net, channel, channel_when_asked};
use tonic::transport::Channel;

/// The coordinators of one cluster.
#[derive(Debug)]
pub(crate) struct Homes {
    channels: Vec<Channel>,
    current: AtomicUsize,
}

/// One that is asked.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) at: usize,
    pub(crate) channel: Channel,
}

impl Homes {
    /// From `HOST:PORT`, several separated by commas. At least one has to answer.
    pub(crate) async fn reach(net: Arc<dyn Net>, addresses: &str) -> Result<Homes, DialError> {
        let addresses: Vec<&str> = addresses.split(',').map(str::trim).collect();
        let mut answering = Err(DialError::BadAddress(addresses.join(",")));
        for (at, address) in addresses.iter().enumerate() {
            answering = channel(Arc::clone(&net), address).await.map(|channel| Home { at, channel });
            if !matches!(answering, Err(DialError::Unreachable { .. })) {
                break;
            }
        }
        let answering = answering?;
        let others = addresses.iter().map(|address| channel_when_asked(Arc::clone(&net), address));
        let mut channels = others.collect::<Result<Vec<_>, _>>()?;
        channels[answering.at] = answering.channel;
        Ok(Homes { channels, current: AtomicUsize::new(answering.at) })
    }

    pub(crate) fn current(&self) -> Home {
        let at = self.current.load(Ordering::Relaxed);
        Home { at, channel: self.channels[at].clone() }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Home> {
        self.channels.iter().enumerate().map(|(at, channel)| Home { at, channel: channel.clone() })
    }

    /// The one after it is asked from now on, unless somebody has left it before.
    pub(crate) fn leave(&self, at: usize) {
        let next = (at + 1) % self.channels.len();
        // Failing, it was left already: many requests fail together.
        _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether there is another one to go to.
    pub(crate) fn has_others(&self) -> bool {
        self.channels.len() > 1
    }
}
