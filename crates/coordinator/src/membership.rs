//! Membership: this node in the cluster, for as long as it runs.
//!
//! Owns: joining, joining again when the session was lost, stepping back while the journal is out of reach, and telling
//! placement what the cluster says. Never: decides who owns what.
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use kapell_cluster::{Cluster, JoinError, Lost, Member, Session};
use kapell_journal::{Journal, ReadError};
use kapell_model::{Epoch, Name, ShardCount};
use kapell_runtime::{Job, OnDeath, Runtime};
use ractor::ActorRef;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::definitions::{CONTROL, Definitions};
use crate::placement::{PlacementMessage, staying};

const MEMBERSHIP: Job = Job { name: "membership", on_panic: OnDeath::StopNode };
/// Pause before the cluster is asked again to take this node in.
const JOIN_PAUSE: Duration = Duration::from_millis(500);
/// How often a member looks whether it reaches the journal, and how long a look may take.
const JOURNAL_LOOK: Duration = Duration::from_secs(1);
/// A member that has not reached it for so long steps back: longer than a restart of the store takes.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before changed definitions are read again that could not be read.
const READ_PAUSE: Duration = Duration::from_millis(500);

/// What a member needs.
pub(crate) struct Membership {
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) member: Member,
    pub(crate) shards: ShardCount,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) placement: ActorRef<PlacementMessage>,
    pub(crate) runtime: Runtime,
}

impl Membership {
    /// Until the node stops.
    pub(crate) fn keep(self) {
        let jobs = self.runtime.jobs.clone();
        jobs.spawn(MEMBERSHIP, async move {
            loop {
                let session = self.join().await;
                self.tell(PlacementMessage::Joined(session.clone()));
                let why = tokio::select! {
                    why = self.follow(&*session) => why,
                    () = self.journal_is_away(&*session) => {
                        self.step_back(&*session).await;
                        continue;
                    }
                };
                if why == Lost::Left {
                    // Placement has left, since it holds nothing any more.
                    return;
                }
                tracing::warn!(%why, "the cluster session is over; shards are given up until there is another");
                self.tell(PlacementMessage::Lost);
                if matches!(why, Lost::Replaced { .. }) {
                    // Two nodes of one name would throw each other out for ever.
                    return self.runtime.jobs.stop("membership");
                }
            }
        });
    }

    /// Until the journal has been out of reach for a while, and there are nodes that may reach it.
    async fn journal_is_away(&self, session: &dyn Session) {
        let members = session.members();
        let mut since = None;
        loop {
            sleep(JOURNAL_LOOK).await;
            let has_others = staying(&members.borrow()).nth(1).is_some();
            let looked = timeout(JOURNAL_LOOK, self.journal.epoch(CONTROL));
            if !has_others || matches!(looked.await, Ok(Ok(_))) {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() >= JOURNAL_PATIENCE {
                return;
            }
        }
    }

    /// Nobody else is given a shard of this node while it is a member. It joins again when it reaches the journal.
    async fn step_back(&self, session: &dyn Session) {
        tracing::warn!("the journal is out of reach; until it is back the shards go to nodes that reach it");
        self.tell(PlacementMessage::Lost);
        if let Err(error) = session.leave().await {
            tracing::warn!(%error, "the cluster was not told that the node steps back");
        }
    }

    async fn join(&self) -> Arc<dyn Session> {
        loop {
            let floor = match self.floor().await {
                Ok(floor) => floor,
                Err(error) => {
                    tracing::warn!(%error, "the journal does not say which epochs it knows; it is asked again");
                    sleep(JOIN_PAUSE).await;
                    continue;
                }
            };
            match self.cluster.join(self.member.clone(), floor).await {
                Ok(session) => return session,
                Err(error) => {
                    tracing::warn!(%error, "the node is no member of the cluster yet; it asks again");
                    sleep(pause(&error)).await;
                }
            }
        }
    }

    /// The highest epoch that the journal knows: a cluster store that was set up anew must not give a smaller one.
    async fn floor(&self) -> Result<Epoch, ReadError> {
        let mut floor = Epoch(0);
        for shard in self.shards.iter() {
            floor = floor.max(self.journal.epoch(shard).await?);
        }
        Ok(floor)
    }

    /// Until the session is over; says why.
    async fn follow(&self, session: &dyn Session) -> Lost {
        tokio::select! {
            biased;
            why = over(session.lost()) => why,
            // Beside each other: a node that comes reads definitions for as long as it takes to hand it its first shards.
            never = self.tell_changes(session) => match never {},
            never = self.follow_definitions(session) => match never {},
        }
    }

    async fn tell_changes(&self, session: &dyn Session) -> Infallible {
        let (mut members, mut owners) = (session.members(), session.owners());
        // Placement may have looked at them before we did.
        members.mark_changed();
        owners.mark_changed();
        loop {
            tokio::select! {
                biased;
                Ok(()) = members.changed() => {
                    let members = members.borrow_and_update().clone();
                    self.tell(PlacementMessage::Members(members));
                }
                Ok(()) = owners.changed() => {
                    let owners = owners.borrow_and_update().clone();
                    self.tell(PlacementMessage::Owners(owners));
                }
                else => pending().await,
            }
        }
    }

    async fn follow_definitions(&self, session: &dyn Session) -> Infallible {
        let mut revisions = session.revisions();
        if !revisions.borrow().is_empty() {
            // What changed between the last look and the session was told to nobody here.
            revisions.mark_changed();
        }
        while revisions.changed().await.is_ok() {
            revisions.borrow_and_update();
            while let Err(error) = self.definitions.follow(&*self.journal).await {
                // Nobody tells of them a second time.
                tracing::error!(%error, "changed definitions cannot be read; it is tried again");
                sleep(READ_PAUSE).await;
            }
        }
        pending().await
    }

    fn tell(&self, message: PlacementMessage) {
        if self.placement.cast(message).is_err() {
            tracing::debug!("placement has stopped");
        }
    }
}

/// A session that is gone without a word is as good as expired.
async fn over(mut lost: watch::Receiver<Option<Lost>>) -> Lost {
    let why = lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
    why.unwrap_or(Lost::Expired)
}

fn pause(error: &JoinError) -> Duration {
    match error {
        JoinError::NameTaken { retry_after, .. } | JoinError::Unavailable { retry_after, .. } => {
            (*retry_after).clamp(JOIN_PAUSE, JOIN_PAUSE * 10)
        }
        // A person is at work on the settings.
        JoinError::Refused { .. } => JOIN_PAUSE * 10,
    }
}

/// The counter that says that definitions changed.
pub(crate) static DEFINITIONS: LazyLock<Name> =
    LazyLock::new(|| Name::new("definitions").expect("it is a name"));

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use kapell_cluster::{NodeName, Owners, Solo};
    use kapell_journal::{Placed, Record};
    use kapell_model::{Seq, ShardId, Timestamp};
    use kapell_wire::{RecordRef, encode_record};
    use ractor::{Actor, ActorProcessingErr};

    use super::*;
    use crate::definitions::{change, control_run};
    use crate::kept::Kept;

    /// Placement that does nothing but tell which owners it heard of last.
    struct Listening;

    impl Actor for Listening {
        type Msg = PlacementMessage;
        type State = watch::Sender<Arc<Owners>>;
        type Arguments = watch::Sender<Arc<Owners>>;

        async fn pre_start(
            &self,
            _: ActorRef<PlacementMessage>,
            heard: watch::Sender<Arc<Owners>>,
        ) -> Result<watch::Sender<Arc<Owners>>, ActorProcessingErr> {
            Ok(heard)
        }

        async fn handle(
            &self,
            _: ActorRef<PlacementMessage>,
            message: PlacementMessage,
            heard: &mut watch::Sender<Arc<Owners>>,
        ) -> Result<(), ActorProcessingErr> {
            if let PlacementMessage::Owners(owners) = message {
                heard.send_replace(owners);
            }
            Ok(())
        }
    }

    async fn membership(journal: Kept) -> (Membership, watch::Receiver<Arc<Owners>>) {
        let heard = watch::Sender::default();
        let hears = heard.subscribe();
        let (placement, _) = Actor::spawn(None, Listening, heard).await.unwrap();
        let membership = Membership {
            cluster: Arc::new(Solo::new()),
            member: Member::new(NodeName::local(), "127.0.0.1:1".to_owned(), "0".to_owned()),
            shards: ShardCount::default(),
            journal: Arc::new(journal),
            definitions: Arc::default(),
            placement,
            runtime: Runtime::system(),
        };
        (membership, hears)
    }

    #[tokio::test]
    async fn who_owns_what_is_told_while_definitions_are_read() {
        let (membership, mut hears) = membership(Kept { is_silent: true, ..Kept::of(vec![]) }).await;
        let session = membership.cluster.join(membership.member.clone(), Epoch(0)).await.unwrap();
        session.bump(&DEFINITIONS).await.unwrap();
        session.acquire(ShardId(1)).await.unwrap();
        let has_heard = async {
            hears.wait_for(|owners| owners.contains_key(&ShardId(1))).await.unwrap();
            session.acquire(ShardId(2)).await.unwrap();
            hears.wait_for(|owners| owners.contains_key(&ShardId(2))).await.unwrap();
        };
        tokio::select! {
            why = membership.follow(&*session) => panic!("{why:?}"),
            heard = tokio::time::timeout(Duration::from_secs(10), has_heard) => heard.unwrap(),
        }
    }

    #[tokio::test]
    async fn changed_definitions_are_read_again_until_they_can_be_read() {
        let document = serde_json::json!({
            "apiVersion": "kapell.dev/v1", "kind": "Workflow", "metadata": { "name": "nap" },
            "spec": { "steps": [{ "id": "nap", "wait": { "for": "1h" } }] },
        });
        let payload = encode_record(Timestamp(1), RecordRef::Definition(&change(&document, Timestamp(1))));
        let records = vec![Placed { seq: Seq(1), record: Record { run: control_run(), payload } }];
        let journal = Kept { hiccups: AtomicU32::new(2), ..Kept::of(records) };
        let (membership, _) = membership(journal).await;
        let session = membership.cluster.join(membership.member.clone(), Epoch(0)).await.unwrap();
        session.bump(&DEFINITIONS).await.unwrap();
        let mut known = membership.definitions.subscribe();
        let known = async { known.wait_for(|known| known.revision == 1).await.map(drop) };
        tokio::select! {
            why = membership.follow(&*session) => panic!("{why:?}"),
            known = tokio::time::timeout(Duration::from_secs(10), known) => known.unwrap().unwrap(),
        }
    }
}
