//! One stream to a node that owns shards.
//!
//! Owns: what was asked and not answered. A stream that breaks takes the answers with it: what may be asked twice is
//! asked again, and whoever asked for anything else is told that it is not known.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kapell_cluster::{NodeName, Owner};
use kapell_model::ShardId;
use kapell_proto::peer::v1::peer_message::Kind;
use kapell_proto::peer::v1::peer_service_client::PeerServiceClient;
use kapell_proto::peer::v1::{Answer, Ask, Forget, Hello, Note, PeerFrame};
use kapell_runtime::{Job, OnDeath, Runtime, channel};
use kapell_wire::peer::{ANSWER_FRAME_BYTES_MAX, ASK_FRAME_BYTES_MAX};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Streaming;

use super::ask::{self, Answered};
use super::outbox::Outbox;
use crate::definitions::Definitions;
use crate::shard::{Mailbox, Request};

/// Losing it loses the answers that were owed; the node starts anew and asks again.
const LINK: Job = Job { name: "link to a peer", on_panic: OnDeath::StopNode };

/// Requests that may be unanswered at once.
const UNANSWERED_MAX: usize = 65_536;
/// Requests taken out of a mailbox at once.
const TAKEN_AT_ONCE: usize = 512;
/// Time to open the stream.
const OPENING_MAX: Duration = Duration::from_secs(2);
/// Pause before a stream that broke is opened again.
const REDIAL: Duration = Duration::from_millis(100);
/// Pause before something that was given back is asked again: the shard is on its way, or its queue full.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// One stream to a node that owns shards.
pub(super) struct Link {
    owner: NodeName,
    address: String,
    node: NodeName,
    definitions: Arc<Definitions>,
    runtime: Runtime,
    shards: Mutex<Shards>,
    /// Notified when a mailbox has something, or a shard has left.
    work: Arc<Notify>,
    stop: Notify,
}

#[derive(Default)]
struct Shards {
    mailboxes: BTreeMap<ShardId, Arc<Mailbox>>,
    /// Shards whose unanswered requests are for another owner now.
    left: Vec<ShardId>,
}

impl Link {
    pub(super) fn new(
        owner: &Owner,
        node: NodeName,
        definitions: Arc<Definitions>,
        runtime: Runtime,
    ) -> Link {
        Link {
            owner: owner.node.clone(),
            address: owner.address.clone(),
            node,
            definitions,
            runtime,
            shards: Mutex::default(),
            work: Arc::new(Notify::new()),
            stop: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shards> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_on(&self, shard: ShardId, mailbox: Arc<Mailbox>) {
        self.lock().mailboxes.insert(shard, mailbox.clone());
        mailbox.forward(self.work.clone());
    }

    /// Says how many shards are left.
    pub(super) fn let_go(&self, shard: ShardId) -> usize {
        let mut shards = self.lock();
        shards.mailboxes.remove(&shard);
        shards.left.push(shard);
        self.work.notify_one();
        shards.mailboxes.len()
    }

    pub(super) fn stop(&self) {
        self.stop.notify_one();
    }

    /// Asks for as long as it has shards.
    pub(super) fn keep(self: Arc<Link>) {
        let jobs = self.runtime.jobs.clone();
        jobs.spawn(LINK, async move {
            let mut open =
                Open { link: &self, unanswered: BTreeMap::new(), returned: Vec::new(), next_tag: 1 };
            tokio::select! {
                () = self.stop.notified() => {}
                () = open.run() => {}
            }
            open.broken();
        });
    }
}

impl Link {
    async fn open(&self, outbox: &Outbox) -> Result<Streaming<PeerFrame>, String> {
        let channel =
            channel(self.runtime.net.clone(), &self.address).await.map_err(|error| error.to_string())?;
        let mut client = PeerServiceClient::new(channel).max_decoding_message_size(ANSWER_FRAME_BYTES_MAX);
        let hello = Hello {
            node: self.node.to_string(),
            owner: self.owner.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        outbox.push(Kind::Hello(hello)).map_err(|error| error.to_string())?;
        let answers = client.ask(outbox.frames()).await.map_err(|status| status.message().to_owned())?;
        Ok(answers.into_inner())
    }
}

struct Unanswered {
    shard: ShardId,
    mailbox: Arc<Mailbox>,
    request: Request,
}

/// What an open stream owes.
struct Open<'a> {
    link: &'a Link,
    unanswered: BTreeMap<u64, Unanswered>,
    /// Not done, and to be asked again after a pause.
    returned: Vec<Unanswered>,
    next_tag: u64,
}

impl Open<'_> {
    async fn run(&mut self) {
        let link = self.link;
        let mut said = String::new();
        loop {
            // Nobody is dialed before there is something to ask.
            link.work.notified().await;
            link.work.notify_one();
            let broke = self.serve().await;
            if broke != said {
                tracing::info!(owner = %link.owner, address = link.address, reason = broke, "no stream to a peer");
                said = broke;
            }
            self.broken();
            sleep(REDIAL).await;
        }
    }

    /// Until the stream breaks; says why.
    async fn serve(&mut self) -> String {
        let outbox = Outbox::new(ASK_FRAME_BYTES_MAX);
        let mut answers = match timeout(OPENING_MAX, self.link.open(&outbox)).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => return error,
            Err(_) => return format!("it did not answer within {OPENING_MAX:?}"),
        };
        let mut again_at: Option<Instant> = None;
        loop {
            let again = again_at.unwrap_or_else(Instant::now);
            tokio::select! {
                frame = answers.message() => match frame {
                    Ok(Some(frame)) => {
                        self.heard(frame, &outbox);
                        if !self.returned.is_empty() {
                            again_at.get_or_insert_with(|| Instant::now() + ASK_AGAIN);
                        }
                    }
                    Ok(None) => return "it ended the stream".to_owned(),
                    Err(status) => return status.message().to_owned(),
                },
                () = self.link.work.notified() => {
                    self.let_go();
                    self.ask(&outbox);
                }
                () = sleep_until(again), if again_at.is_some() => {
                    again_at = None;
                    self.give_back();
                }
            }
        }
    }

    /// Takes what waits in the mailboxes, as far as more may be unanswered; the rest waits where its bound is.
    fn ask(&mut self, outbox: &Outbox) {
        let mailboxes = self.link.lock().mailboxes.clone();
        for (shard, mailbox) in mailboxes {
            while self.unanswered.len() < UNANSWERED_MAX {
                let room = UNANSWERED_MAX - self.unanswered.len();
                let requests = mailbox.take(room.min(TAKEN_AT_ONCE));
                if requests.is_empty() {
                    break;
                }
                for request in requests {
                    self.ask_one(shard, &mailbox, ask::begun(request), outbox);
                }
            }
        }
    }

    fn ask_one(&mut self, shard: ShardId, mailbox: &Arc<Mailbox>, request: Request, outbox: &Outbox) {
        let Some(what) = ask::what(&request) else { return ask::drop_unanswered(request) };
        let tag = self.next_tag;
        self.next_tag += 1;
        let min_revision = self.link.definitions.in_force().revision;
        let ask = Ask { tag, shard: u32::from(shard.0), min_revision, what: Some(what) };
        if let Err(error) = outbox.push(Kind::Ask(ask)) {
            // Dropped: whoever asked is told that nobody knows, and the log why.
            return tracing::error!(%shard, %error, "a request is too large for its owner");
        }
        self.unanswered.insert(tag, Unanswered { shard, mailbox: mailbox.clone(), request });
    }

    fn heard(&mut self, frame: PeerFrame, outbox: &Outbox) {
        for message in frame.messages {
            match message.kind {
                Some(Kind::Answer(answer)) => self.answered(answer),
                Some(Kind::Note(note)) => self.noted(note, outbox),
                // What only the asking side says, or what only a newer program knows.
                Some(Kind::Hello(_) | Kind::Ask(_) | Kind::Forget(_)) | None => {}
            }
        }
        // Room for more, if it was full.
        self.link.work.notify_one();
    }

    fn answered(&mut self, answer: Answer) {
        let Some(Unanswered { shard, mailbox, request }) = self.unanswered.remove(&answer.tag) else {
            return;
        };
        match ask::answered(request, answer.what) {
            Answered::Done => {}
            Answered::NotDone(request) => self.returned.push(Unanswered { shard, mailbox, request }),
        }
    }

    fn noted(&mut self, note: Note, outbox: &Outbox) {
        let watching = self.unanswered.get(&note.tag).map(|unanswered| &unanswered.request);
        let (Some(Request::Watch(_, to, _)), Some(run)) = (watching, note.run) else { return };
        if to.is_closed() {
            self.unanswered.remove(&note.tag);
            outbox.offer(Kind::Forget(Forget { tag: note.tag }));
        } else {
            // A watcher that does not keep up misses states, never the end.
            drop(to.try_send(run));
        }
    }

    /// Puts back what was returned, and what may be asked twice.
    fn broken(&mut self) {
        for (_, unanswered) in std::mem::take(&mut self.unanswered) {
            if ask::may_be_repeated(&unanswered.request) {
                self.returned.push(unanswered);
            }
        }
        self.give_back();
    }

    /// What is unanswered of shards that this node owns no more: their owner before may never answer.
    fn let_go(&mut self) {
        let left = std::mem::take(&mut self.link.lock().left);
        if left.is_empty() {
            return;
        }
        let gone = self.unanswered.extract_if(.., |_, unanswered| left.contains(&unanswered.shard));
        let repeated = gone.map(|(_, gone)| gone).filter(|gone| ask::may_be_repeated(&gone.request));
        self.returned.extend(repeated);
        self.give_back();
    }

    fn give_back(&mut self) {
        let mut by_shard: BTreeMap<ShardId, (Arc<Mailbox>, Vec<Request>)> = BTreeMap::new();
        for Unanswered { shard, mailbox, request } in std::mem::take(&mut self.returned) {
            by_shard.entry(shard).or_insert_with(|| (mailbox, Vec::new())).1.push(request);
        }
        for (mailbox, requests) in by_shard.into_values() {
            mailbox.put_back(requests);
        }
    }
}
