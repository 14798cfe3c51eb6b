//! The loop of placement: hear of the cluster and of the shards' actors, change the state, do what it wants done.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kapell_cluster::{AcquireError, Session, SessionError};
use kapell_journal::{AcquireError as NotAcquired, AppendError, Journal};
use kapell_ledger::Ledger;
use kapell_model::{Epoch, ShardId};
use kapell_runtime::{Job, OnDeath, Runtime};
use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, ActorStatus, SpawnErr, SupervisionEvent,
};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::message::{Given, LoadFailure, PlacementMessage, SessionNo};
use super::state::{Act, Death, Placement, Route};
use crate::answer::{answer, replying};
use crate::calls::{CallDesk, CallDeskArguments, CallMessage};
use crate::definitions::Definitions;
use crate::dispatch::{DispatchMessage, Dispatcher, DispatcherArguments};
use crate::links::Links;
use crate::options::CoordinatorOptions;
use crate::peer::Peers;
use crate::shard::{LoadError, Request, Shard, ShardArguments, ShardMessage, ShardRules, with_causes};

/// Placement, and the supervisor of desks and shards.
pub(crate) struct Supervisor;

/// What it needs.
pub(crate) struct SupervisorArguments {
    pub(crate) options: CoordinatorOptions,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) links: Arc<Links>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) runtime: Runtime,
}

pub(crate) struct Supervised {
    args: SupervisorArguments,
    myself: ActorRef<PlacementMessage>,
    placement: Placement,
    /// `None` until the node is a member.
    session: Option<Arc<dyn Session>>,
    no: SessionNo,
    desks: [ActorId; 2],
    shards: BTreeMap<ActorId, (ShardId, Epoch)>,
    actors: BTreeMap<ShardId, ActorCell>,
    settling: Vec<oneshot::Sender<Result<(), String>>>,
    leaving: Vec<oneshot::Sender<()>>,
    /// Whether the last shard that was to be loaded could not be for a while.
    waits: bool,
}

/// Whoever waits for it is told when it died.
const LOAD: Job = Job { name: "load a shard", on_panic: OnDeath::StopNode };
const CLUSTER: Job = Job { name: "ask the cluster", on_panic: OnDeath::StopNode };
const SERVED: Job = Job { name: "see a shard arrive", on_panic: OnDeath::StopNode };
/// Longest wait for a shard that was handed over before others follow it.
const SERVED_WITHIN: Duration = Duration::from_secs(1);
/// Pause before a shard that died is loaded again.
const LOAD_PAUSE: Duration = Duration::from_millis(200);
/// Pause before the cluster is asked again for a shard that another node has, should nobody say that it is free.
const ACQUIRE_PAUSE: Duration = Duration::from_millis(250);

impl Actor for Supervisor {
    type Msg = PlacementMessage;
    type State = Supervised;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<PlacementMessage>,
        args: SupervisorArguments,
    ) -> Result<Supervised, ActorProcessingErr> {
        let cell = myself.get_cell();
        let (links, lease) = (args.links.clone(), args.options.lease);
        let desk = CallDeskArguments { links: links.clone(), definitions: args.definitions.clone(), lease };
        let dispatcher = DispatcherArguments {
            links: links.clone(),
            definitions: args.definitions.clone(),
            runtime: args.runtime.clone(),
            lease,
        };
        let (dispatch, _) = Actor::spawn_linked(None, Dispatcher, dispatcher, cell.clone()).await?;
        let (calls, _) = Actor::spawn_linked(None, CallDesk, desk, cell).await?;
        let desks = [dispatch.get_id(), calls.get_id()];
        links.connect(dispatch, calls);
        let placement = Placement::new(args.options.node.clone(), args.options.shards);
        Ok(Supervised {
            args,
            myself,
            placement,
            session: None,
            no: SessionNo::default(),
            desks,
            shards: BTreeMap::new(),
            actors: BTreeMap::new(),
            settling: Vec::new(),
            waits: false,
            leaving: Vec::new(),
        })
    }

    async fn handle(
        &self,
        _: ActorRef<PlacementMessage>,
        message: PlacementMessage,
        supervised: &mut Supervised,
    ) -> Result<(), ActorProcessingErr> {
        supervised.take(message);
        supervised.act();
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<PlacementMessage>,
        event: SupervisionEvent,
        supervised: &mut Supervised,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(who, error) => supervised.failed(who.get_id(), &error),
            SupervisionEvent::ActorTerminated(who, _, _) => supervised.ended(who.get_id()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        supervised.act();
        Ok(())
    }
}

impl Supervised {
    /// table: one arm for each message.
    fn take(&mut self, message: PlacementMessage) {
        match message {
            PlacementMessage::Joined(session) => {
                let (members, owners) =
                    (session.members().borrow().clone(), session.owners().borrow().clone());
                self.session = Some(session);
                self.no = SessionNo(self.no.0 + 1);
                self.placement.joined((*members).clone(), (*owners).clone());
            }
            PlacementMessage::Members(members) => self.placement.members((*members).clone()),
            PlacementMessage::Owners(owners) => self.placement.owners((*owners).clone()),
            PlacementMessage::Lost => {
                self.session = None;
                self.placement.lost();
            }
            PlacementMessage::Acquired { session, .. }
            | PlacementMessage::Answered(session)
            | PlacementMessage::Retired(session)
            | PlacementMessage::Released(session, _)
                if session != self.no => {}
            PlacementMessage::Acquired { shard, given, .. } => match given {
                Given::Ours(epoch) => self.placement.acquired(shard, epoch),
                Given::Not => self.placement.not_acquired(shard),
                Given::Unknown => self.placement.maybe_acquired(shard),
            },
            PlacementMessage::Answered(_) => self.placement.answered(),
            PlacementMessage::Retired(_) => self.placement.retired(),
            PlacementMessage::AcquireAgain(shard) => self.placement.again(shard),
            PlacementMessage::Loaded { shard, epoch, result } => self.loaded(shard, epoch, result),
            PlacementMessage::LoadAgain(shard, epoch) => self.placement.load_again(shard, epoch),
            PlacementMessage::Released(_, shard) => self.placement.released(shard),
            PlacementMessage::Served(shard) => self.placement.served(shard),
            PlacementMessage::Overdue(shard) => self.placement.overdue(shard),
            PlacementMessage::Settle(reply) => self.settling.push(reply),
            PlacementMessage::Look(reply) => answer(reply, self.placement.known()),
            PlacementMessage::Leave(reply) => {
                self.placement.leave();
                self.leaving.push(reply);
            }
        }
    }

    fn loaded(&mut self, shard: ShardId, epoch: Epoch, result: Result<ActorCell, LoadFailure>) {
        match result {
            // It died before it was known.
            Ok(actor) if actor.get_status() >= ActorStatus::Stopping => {
                self.placement.died(shard, epoch, Death::Failed);
            }
            Ok(actor) => {
                self.shards.insert(actor.get_id(), (shard, epoch));
                self.actors.insert(shard, actor);
                self.waits = false;
                tracing::debug!(%shard, %epoch, "the shard is loaded");
                self.placement.loaded(shard, epoch);
            }
            Err(failure) => {
                self.say(shard, &failure);
                if !failure.may_pass {
                    for waiting in std::mem::take(&mut self.settling) {
                        answer(waiting, Err(failure.text.clone()));
                    }
                }
                self.placement.died(shard, epoch, failure.why);
            }
        }
    }

    /// Of what may pass, once: it is met by all shards, several times a second.
    fn say(&mut self, shard: ShardId, failure: &LoadFailure) {
        let error = &failure.text;
        if !failure.may_pass {
            tracing::error!(%shard, error, "a shard cannot be loaded; it is tried again");
        } else if !std::mem::replace(&mut self.waits, true) {
            tracing::warn!(%shard, error, "shards cannot be loaded now; they are tried again until they are");
        }
    }

    fn failed(&mut self, who: ActorId, error: &ActorProcessingErr) {
        let Some((shard, epoch)) = self.shards.remove(&who) else {
            if !self.desks.contains(&who) {
                return;
            }
            // A desk knows who holds what; without it, only a restart of the node asks everybody again.
            tracing::error!(%error, "a desk died; the node stops");
            return self.args.runtime.jobs.stop("desk");
        };
        self.actors.remove(&shard);
        let why = match error.downcast_ref::<AppendError>() {
            Some(AppendError::Fenced { held_by }) => {
                tracing::warn!(%shard, %epoch, %held_by, "a shard is somebody else's by now");
                Death::Fenced
            }
            Some(
                AppendError::Unavailable { .. } | AppendError::Poisoned | AppendError::OutOfOrder { .. },
            )
            | None => {
                tracing::error!(%shard, %error, "a shard died; it is loaded again from the journal");
                Death::Failed
            }
        };
        self.placement.died(shard, epoch, why);
    }

    fn ended(&mut self, who: ActorId) {
        if let Some((shard, epoch)) = self.shards.remove(&who) {
            self.actors.remove(&shard);
            self.placement.gone(shard, epoch);
        }
    }

    fn act(&mut self) {
        loop {
            let acts = self.placement.acts();
            if acts.is_empty() {
                break;
            }
            acts.into_iter().for_each(|act| self.do_one(act));
        }
        if self.session.is_some() && self.placement.is_settled() {
            std::mem::take(&mut self.settling).into_iter().for_each(|waiting| answer(waiting, Ok(())));
        }
        if !self.leaving.is_empty() && self.placement.has_left() {
            self.left();
        }
    }

    /// Nothing is held any more: the cluster need not wait until the session's time has passed.
    fn left(&mut self) {
        let waiting = std::mem::take(&mut self.leaving);
        let session = self.session.take();
        self.args.runtime.jobs.spawn(CLUSTER, async move {
            if let Some(session) = session
                && let Err(error) = session.leave().await
            {
                tracing::warn!(%error, "the cluster was not told that the node leaves");
            }
            waiting.into_iter().for_each(|waiting| answer(waiting, ()));
        });
    }

    fn do_one(&mut self, act: Act) {
        match act {
            Act::Acquire(shard) => self.acquire(shard),
            Act::AcquireLater(shard) => {
                self.myself.send_after(ACQUIRE_PAUSE, move || PlacementMessage::AcquireAgain(shard));
            }
            Act::Ping => self.ping(),
            Act::Retire => self.retire(),
            Act::Load(shard, epoch) => self.load(shard, epoch),
            Act::LoadLater(shard, epoch) => {
                self.myself.send_after(LOAD_PAUSE, move || PlacementMessage::LoadAgain(shard, epoch));
            }
            Act::HandOver(shard, epoch) => self.tell(shard, epoch, ShardMessage::HandOver),
            Act::Drop(shard, epoch) => match self.actors.get(&shard) {
                Some(actor) => actor.kill(),
                None => self.placement.gone(shard, epoch),
            },
            Act::Disown(shard) => {
                self.args.links.tell_dispatch(DispatchMessage::Disown(shard));
                self.args.links.tell_calls(CallMessage::Disown(shard));
            }
            Act::Release(shard, epoch) => self.release(shard, epoch),
            Act::AwaitServed(shard) => self.await_served(shard),
            Act::Route(shard, route) => self.route(shard, route),
        }
    }

    fn tell(&mut self, shard: ShardId, epoch: Epoch, message: ShardMessage) {
        let told = self.actors.get(&shard).is_some_and(|actor| {
            let actor: ActorRef<ShardMessage> = actor.clone().into();
            actor.cast(message).is_ok()
        });
        if !told {
            self.placement.gone(shard, epoch);
        }
    }

    fn route(&mut self, shard: ShardId, route: Route) {
        tracing::debug!(%shard, ?route, "requests of the shard go another way");
        self.args.peers.route(shard, route);
    }

    fn acquire(&mut self, shard: ShardId) {
        let (myself, no) = (self.myself.clone(), self.no);
        let Some(session) = self.session.clone() else {
            return self.placement.not_acquired(shard);
        };
        self.args.runtime.jobs.spawn(CLUSTER, async move {
            let given = match session.acquire(shard).await {
                Ok(epoch) => Given::Ours(epoch),
                Err(AcquireError::HeldBy(_)) => Given::Not,
                Err(error @ AcquireError::Lost(_)) => {
                    tracing::warn!(%shard, %error, "the cluster does not give the shard");
                    Given::Not
                }
                Err(error @ AcquireError::Unavailable { .. }) => {
                    tracing::warn!(%shard, %error, "the cluster does not give the shard; it is asked again");
                    Given::Unknown
                }
            };
            drop(myself.cast(PlacementMessage::Acquired { session: no, shard, given }));
        });
    }

    fn release(&mut self, shard: ShardId, epoch: Epoch) {
        let (myself, no) = (self.myself.clone(), self.no);
        let Some(session) = self.session.clone() else {
            return self.placement.released(shard);
        };
        self.args.runtime.jobs.spawn(CLUSTER, async move {
            // Told until it knows: the session lives on, and nobody else is given the shard before.
            let otherwise = format!("the cluster was not told that shard {shard} is free");
            insist(|| session.release(shard, epoch), &otherwise).await;
            drop(myself.cast(PlacementMessage::Released(no, shard)));
        });
    }

    /// Asks the shard something: who owns it next answers when it has loaded it.
    fn await_served(&mut self, shard: ShardId) {
        let myself = self.myself.clone();
        let Some(mailbox) = self.args.links.shard(shard).cloned() else {
            return self.placement.overdue(shard);
        };
        self.args.runtime.jobs.spawn(SERVED, async move {
            let (reply, answered) = oneshot::channel();
            let asked = async {
                mailbox.submit(Request::Stats(replying(reply))).await;
                answered.await
            };
            let news = match timeout(SERVED_WITHIN, asked).await {
                Ok(Ok(_)) => PlacementMessage::Served(shard),
                Ok(Err(_)) | Err(_) => PlacementMessage::Overdue(shard),
            };
            drop(myself.cast(news));
        });
    }

    fn ping(&mut self) {
        let (myself, no) = (self.myself.clone(), self.no);
        let Some(session) = self.session.clone() else { return self.placement.answered() };
        self.args.runtime.jobs.spawn(CLUSTER, async move {
            insist(|| session.ping(), "shards stay here until the cluster answers").await;
            drop(myself.cast(PlacementMessage::Answered(no)));
        });
    }

    fn retire(&mut self) {
        let (myself, no) = (self.myself.clone(), self.no);
        let Some(session) = self.session.clone() else { return self.placement.retired() };
        self.args.runtime.jobs.spawn(CLUSTER, async move {
            insist(|| session.retire(), "the shards stay here until the cluster knows that the node leaves")
                .await;
            drop(myself.cast(PlacementMessage::Retired(no)));
        });
    }

    /// Starts the shard's actor, which loads it, in a job of its own: loading is work for all cores.
    fn load(&mut self, shard: ShardId, epoch: Epoch) {
        let (myself, session) = (self.myself.clone(), self.session.clone());
        let Some(args) = session.and_then(|session| self.arguments(shard, epoch, session)) else {
            return self.placement.died(shard, epoch, Death::Failed);
        };
        self.args.runtime.jobs.spawn(LOAD, async move {
            let spawned = Actor::spawn_linked(None, Shard, args, myself.get_cell()).await;
            let result = spawned.map(|(actor, _)| actor.get_cell()).map_err(failure_of);
            drop(myself.cast(PlacementMessage::Loaded { shard, epoch, result }));
        });
    }

    fn arguments(&self, shard: ShardId, epoch: Epoch, session: Arc<dyn Session>) -> Option<ShardArguments> {
        let options = &self.args.options;
        let rules = ShardRules {
            shard,
            shards: options.shards,
            dedupe_window: options.dedupe_window,
            dedupe_runs_max: options.dedupe_runs_max,
            live_runs_max: options.live_runs_max,
            checkpoint_entries: options.checkpoint_entries,
            checkpoint_every: options.checkpoint_every,
            history_entries: options.history_entries,
        };
        Some(ShardArguments {
            rules,
            epoch,
            session,
            journal: self.args.journal.clone(),
            ledger: self.args.ledger.clone(),
            mailbox: self.args.links.shard(shard).cloned()?,
            links: self.args.links.clone(),
            definitions: self.args.definitions.clone(),
            runtime: self.args.runtime.clone(),
        })
    }
}

/// Until the cluster has answered, or the session is over.
async fn insist<F>(call: impl Fn() -> F, otherwise: &str)
where
    F: Future<Output = Result<(), SessionError>>,
{
    while let Err(error) = call().await {
        tracing::warn!(%error, "{otherwise}");
        match error {
            SessionError::Lost(_) => return,
            SessionError::Unavailable { retry_after, .. } => sleep(retry_after).await,
        }
    }
}

fn failure_of(error: SpawnErr) -> LoadFailure {
    let SpawnErr::StartupFailed(error) = error else {
        return LoadFailure { why: Death::Failed, may_pass: false, text: error.to_string() };
    };
    let known = error.downcast_ref::<LoadError>();
    let fenced = matches!(known, Some(LoadError::Acquire { source: NotAcquired::Fenced { .. }, .. }));
    let may_pass = known.is_some_and(LoadError::may_pass);
    let why = if fenced { Death::Fenced } else { Death::Failed };
    LoadFailure { why, may_pass, text: with_causes(&*error) }
}
