//! A journal and a cluster that several nodes share.
//!
//! Owns: what outlives every node, and how it is reached. Never: reads a clock; time is what [`Stores::step`] says.
mod cluster;
mod journal;
mod log;
mod post;
mod registry;
mod writers;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kapell_runtime::Jobs;

pub use cluster::SharedCluster;
pub use journal::SharedJournal;
pub use post::{DEADLINE_MS, Post, Store, Way};
pub use registry::Forget;

use log::Log;
use registry::Registry;

/// Hears of everything that happens in the stores.
pub trait Witness: Send + Sync {
    /// Something happened.
    fn saw(&self, store: Store, what: &str);
    /// Bytes were stored.
    fn bytes(&self, bytes: &[u8]);
    /// A promise is broken.
    fn broken(&self, what: String);
}

/// What the nodes share.
#[derive(Clone)]
pub struct Stores {
    post: Post,
    log: Arc<Mutex<Log>>,
    registry: Arc<Mutex<Registry>>,
    lease: Duration,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stores {
    /// Empty ones; sessions have this lease, and slow messages take up to `slow_ms` longer than others.
    #[must_use]
    pub fn new(seed: u64, lease: Duration, slow_ms: u64, witness: Arc<dyn Witness>) -> Stores {
        let post = Post::new(seed, slow_ms);
        let registry = Registry::new(post.clone(), lease.as_millis() as u64, Arc::clone(&witness));
        Stores {
            post,
            log: Arc::new(Mutex::new(Log::new(witness))),
            registry: Arc::new(Mutex::new(registry)),
            lease,
        }
    }

    /// Brings the stores to this time.
    pub fn step(&self, now_ms: u64) {
        locked(&self.registry).expire(now_ms);
        self.post.step(now_ms);
    }

    /// How they are reached.
    #[must_use]
    pub fn post(&self) -> &Post {
        &self.post
    }

    /// The journal, as one life of a node reaches it.
    #[must_use]
    pub fn journal(&self, node: &'static str) -> SharedJournal {
        SharedJournal::new(self.post.clone(), Arc::clone(&self.log), node)
    }

    /// The cluster, as one life of a node reaches it.
    #[must_use]
    pub fn cluster(&self, node: &'static str, jobs: Jobs) -> SharedCluster {
        SharedCluster::new(self.post.clone(), Arc::clone(&self.registry), node, jobs, self.lease)
    }

    /// The cluster forgets a session though it was kept; says whether there was one.
    pub fn forget(&self, node: &'static str, how: Forget) -> bool {
        locked(&self.registry).forget(node, how)
    }

    /// The journal does not fence any more: whoever watches it must notice.
    pub fn break_fence(&self) {
        locked(&self.log).open_to_all();
    }

    /// How many appends the journal took.
    #[must_use]
    pub fn appends(&self) -> u64 {
        locked(&self.log).appends()
    }

    /// How many requests the journal refused because somebody else had acquired the shard.
    #[must_use]
    pub fn fenced(&self) -> u64 {
        locked(&self.log).fenced()
    }
}
