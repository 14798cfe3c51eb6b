//! The job that follows what is stored.
//!
//! Owns: two watches on everything below the root, each on a member of its own and opened again on another from where both
//! were, and the listing when etcd has forgotten what lies between. Never: shows half of a revision.
//!
//! A member that comes back from a partition keeps leases alive before it hears of changes. Whoever watched there alone
//! would learn half a second late that a shard is free.
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Mutex, MutexGuard, PoisonError};

use etcd_client::{Client, Event, EventType, WatchOptions, WatchResponse, WatchStream};
use kapell_cluster::Lost;
use kapell_runtime::{Job, OnDeath};
use tokio::time::{Instant, sleep, timeout};

use crate::calls::{self, ANSWER_BYTES_MAX, stored};
use crate::endpoints::{Backoff, Endpoints, Turn};
use crate::registration::Registration;
use crate::trouble::Trouble;
use crate::view::{Change, View};

/// Without it the node would act on what was, for ever.
pub(crate) const FOLLOW: Job = Job { name: "cluster watch", on_panic: OnDeath::StopNode };

/// Why a watch ended.
enum End {
    /// Somebody found the member bad, or this watch did.
    Moved(String),
    /// etcd has thrown away changes that were not seen yet.
    Compacted,
    Lost(Lost),
}

impl From<Trouble> for End {
    fn from(trouble: Trouble) -> End {
        End::Moved(trouble.into_reason())
    }
}

impl From<Lost> for End {
    fn from(lost: Lost) -> End {
        End::Lost(lost)
    }
}

/// Which of the two watches it is.
#[derive(Clone, Copy)]
enum Place {
    /// On the member that everybody talks to; if it fails there, everybody moves.
    First,
    /// On one of the others.
    Beside,
}

/// What the watches have seen together.
struct Followed<'a> {
    registration: &'a Registration,
    view: Mutex<View>,
}

/// Follows until the session is over.
pub(crate) async fn follow(registration: &Registration, view: View) {
    let followed = Followed { registration, view: Mutex::new(view) };
    let beside = async {
        match registration.endpoints.others() {
            0 => pending().await,
            _ => Box::pin(followed.keep(Place::Beside)).await,
        }
    };
    tokio::select! {
        biased;
        () = registration.over() => {}
        lost = Box::pin(followed.keep(Place::First)) => registration.lose(lost),
        lost = beside => registration.lose(lost),
    }
}

impl Followed<'_> {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoints(&self) -> &Endpoints {
        &self.registration.endpoints
    }

    /// Opens the watch again and again.
    async fn keep(&self, place: Place) -> Lost {
        let (mut backoff, mut failed) = (Backoff::new(), 0);
        loop {
            let (turn, began) = (self.endpoints().turn(), Instant::now());
            let member = match place {
                Place::First => turn,
                Place::Beside => turn.after(1 + failed % self.endpoints().others()),
            };
            let Err(end) = self.watch(member, place).await;
            let after = self.view().revision();
            let end = match end {
                End::Compacted => {
                    tracing::info!(after, "etcd was compacted beyond what was seen; listing again");
                    self.list_again().await.err()
                }
                end @ (End::Moved(_) | End::Lost(_)) => Some(end),
            };
            match end {
                Some(End::Lost(lost)) => return lost,
                Some(End::Moved(reason)) => {
                    tracing::debug!(reason, after, "a watch goes on elsewhere");
                    match place {
                        Place::First => self.endpoints().leave(turn),
                        Place::Beside => failed += 1,
                    }
                }
                Some(End::Compacted) | None => {}
            }
            if began.elapsed() > self.registration.lease.ttl {
                backoff = Backoff::new();
            }
            sleep(backoff.next()).await;
        }
    }

    async fn watch(&self, member: Turn, place: Place) -> Result<Infallible, End> {
        let revision = self.view().revision() + 1;
        let mut stream = open(self.registration, member, revision).await?;
        let moved = async {
            match place {
                Place::First => self.endpoints().left(member).await,
                Place::Beside => self.endpoints().met(member).await,
            }
        };
        tokio::pin!(moved);
        loop {
            let message = tokio::select! {
                biased;
                () = &mut moved => return Err(End::Moved("everybody moved".to_owned())),
                message = stream.message() => message.map_err(Trouble::from)?,
            };
            let Some(response) = message else { return Err(End::Moved("the stream ended".to_owned())) };
            check(&response)?;
            self.take(&response)?;
        }
    }

    /// Shows what the other watch has not shown yet.
    fn take(&self, response: &WatchResponse) -> Result<(), Lost> {
        let mut view = self.view();
        let mut reached = view.revision();
        for change in response.events().iter().filter_map(change) {
            let (Change::Put(stored) | Change::Deleted(stored)) = change;
            reached = reached.max(stored.changed);
            view.apply(change)?;
        }
        view.reached(reached);
        self.registration.show(&view);
        Ok(())
    }

    async fn list_again(&self) -> Result<(), End> {
        let seen = self.view().revision();
        let Registration { endpoints, keys, .. } = self.registration;
        let listing = calls::list(endpoints, keys.root(), self.registration.valid_until()).await?;
        let mut view = self.view();
        if (seen..view.revision()).contains(&listing.revision) {
            // The other watch is ahead of it by now.
            return Ok(());
        }
        view.listed(listing.revision, listing.all.iter().map(stored))?;
        self.registration.show(&view);
        Ok(())
    }
}

/// The watch, from `revision` on, once etcd says that it is there.
async fn open(registration: &Registration, turn: Turn, revision: i64) -> Result<WatchStream, End> {
    let root = registration.keys.root();
    let options = WatchOptions::new().with_prefix().with_start_revision(revision);
    let open = |client: Client| async move {
        client.watch_client().max_decoding_message_size(ANSWER_BYTES_MAX).watch(root, Some(options)).await
    };
    let mut stream = registration.endpoints.once(turn, open).await?;
    let first = timeout(registration.endpoints.call_timeout(), stream.message());
    let Some(first) = first.await.map_err(|_| Trouble::timeout())?.map_err(Trouble::from)? else {
        return Err(End::Moved("the stream ended".to_owned()));
    };
    check(&first)?;
    let now = first.header().map_or(0, etcd_client::ResponseHeader::revision);
    if first.created() && now + 1 < revision {
        check_past(registration, revision).await?;
    }
    Ok(stream)
}

/// A member that only lags catches up. etcd that was set back would be silent until it has a past that it never had.
async fn check_past(registration: &Registration, revision: i64) -> Result<(), End> {
    let until = registration.valid_until();
    let led = calls::get(&registration.endpoints, &registration.keys.base(), until).await?;
    if led.revision + 1 < revision { Err(End::Lost(Lost::Removed)) } else { Ok(()) }
}

fn check(response: &WatchResponse) -> Result<(), End> {
    if response.compact_revision() > 0 {
        return Err(End::Compacted);
    }
    if response.canceled() {
        return Err(End::Moved(format!("etcd ended the watch: {}", response.cancel_reason())));
    }
    Ok(())
}

fn change(event: &Event) -> Option<Change<'_>> {
    let stored = stored(event.kv()?);
    Some(match event.event_type() {
        EventType::Put => Change::Put(stored),
        EventType::Delete => Change::Deleted(stored),
    })
}
