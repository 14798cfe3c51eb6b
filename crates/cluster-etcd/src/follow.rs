//! The job that follows what is stored.
//!
//! Owns: the watch on everything below the root, opened again on another member from where it was, and the listing when
//! etcd has forgotten what lies between. Never: shows half of a revision.
use std::convert::Infallible;

use etcd_client::{Client, Event, EventType, WatchOptions, WatchResponse, WatchStream};
use kapell_cluster::Lost;
use kapell_runtime::{Job, OnDeath};
use tokio::time::{Instant, sleep, timeout};

use crate::calls::{self, ANSWER_BYTES_MAX, stored};
use crate::endpoints::{Backoff, Turn};
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

/// Follows until the session is over.
pub(crate) async fn follow(registration: &Registration, view: View) {
    tokio::select! {
        biased;
        () = registration.over() => {}
        lost = watch_on(registration, view) => registration.lose(lost),
    }
}

async fn watch_on(registration: &Registration, mut view: View) -> Lost {
    let endpoints = &registration.endpoints;
    let mut backoff = Backoff::new();
    loop {
        let (turn, began) = (endpoints.turn(), Instant::now());
        let Err(end) = watch(registration, turn, &mut view).await;
        let end = match end {
            End::Compacted => {
                tracing::info!(
                    after = view.revision(),
                    "etcd was compacted beyond what was seen; listing again"
                );
                list_again(registration, &mut view).await
            }
            end @ (End::Moved(_) | End::Lost(_)) => Err(end),
        };
        match end {
            Ok(()) => {}
            Err(End::Lost(lost)) => return lost,
            Err(End::Moved(reason)) => {
                tracing::debug!(reason, after = view.revision(), "the watch goes on elsewhere");
                endpoints.leave(turn);
            }
            Err(End::Compacted) => {}
        }
        if began.elapsed() > registration.lease.ttl {
            backoff = Backoff::new();
        }
        sleep(backoff.next()).await;
    }
}

async fn watch(registration: &Registration, turn: Turn, view: &mut View) -> Result<Infallible, End> {
    let endpoints = &registration.endpoints;
    let mut stream = open(registration, turn, view.revision() + 1).await?;
    loop {
        let message = tokio::select! {
            biased;
            () = endpoints.left(turn) => return Err(End::Moved("the member was left".to_owned())),
            message = stream.message() => message.map_err(Trouble::from)?,
        };
        let Some(response) = message else { return Err(End::Moved("the stream ended".to_owned())) };
        check(&response)?;
        let mut reached = view.revision();
        for change in response.events().iter().filter_map(change) {
            let (Change::Put(stored) | Change::Deleted(stored)) = change;
            reached = reached.max(stored.changed);
            view.apply(change)?;
        }
        view.reached(reached);
        registration.show(view);
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
        // It would be silent until it has caught up with a past that it never had.
        return Err(End::Lost(Lost::Removed));
    }
    Ok(stream)
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

async fn list_again(registration: &Registration, view: &mut View) -> Result<(), End> {
    let until = registration.valid_until();
    let listing = calls::list(&registration.endpoints, registration.keys.root(), until).await?;
    view.listed(listing.revision, listing.all.iter().map(stored))?;
    registration.show(view);
    Ok(())
}

fn change(event: &Event) -> Option<Change<'_>> {
    let stored = stored(event.kv()?);
    Some(match event.event_type() {
        EventType::Put => Change::Put(stored),
        EventType::Delete => Change::Deleted(stored),
    })
}
