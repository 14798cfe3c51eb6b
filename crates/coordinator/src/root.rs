//! The root of a coordinator's supervision tree.
//!
//! Owns: starting the desks and the shards, loading a dead shard anew. Never: handles a request.
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use kapell_journal::{Journal, ReadError};
use kapell_ledger::Ledger;
use kapell_model::{ShardCount, ShardId, Timestamp};
use kapell_runtime::{Job, OnDeath, Runtime};
use kapell_wire::{DecodeError, Image, RecordBody, decode_image, decode_record};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::answer::answer;
use crate::calls::{CallDesk, CallDeskArguments};
use crate::definitions::{Definitions, control_run};
use crate::dispatch::{Dispatcher, DispatcherArguments};
use crate::ingest::Ingest;
use crate::links::Links;
use crate::options::{BadOptions, CoordinatorOptions};
use crate::shard::{Shard, ShardArguments, ShardRules};

/// Why a coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options cannot work.
    #[error(transparent)]
    Options(#[from] BadOptions),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; is another coordinator running there?")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The definitions in the journal cannot be read.
    #[error("the definitions cannot be read from the journal")]
    Definitions(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A shard cannot be recovered.
    #[error("a shard cannot be recovered: {0}")]
    Shard(String),
}

impl From<ReadError> for StartError {
    fn from(error: ReadError) -> StartError {
        StartError::Definitions(Box::new(error))
    }
}
impl From<DecodeError> for StartError {
    fn from(error: DecodeError) -> StartError {
        StartError::Definitions(Box::new(error))
    }
}

/// Everything that runs in a coordinator.
pub(crate) struct Root {
    pub(crate) links: Arc<Links>,
    pub(crate) definitions: Arc<Definitions>,
    pub(crate) ingest: Ingest,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) ledger: Arc<dyn Ledger>,
    supervisor: ActorRef<SupervisorMessage>,
}

impl Root {
    pub(crate) async fn start(
        options: &CoordinatorOptions,
        journal: Arc<dyn Journal>,
        ledger: Arc<dyn Ledger>,
        runtime: &Runtime,
    ) -> Result<Root, StartError> {
        options.check()?;
        let definitions = Arc::new(Definitions::default());
        load_definitions(&*journal, &definitions, runtime.clock.now()).await?;
        let links = Arc::new(Links::new(options.shards, options.mailbox_capacity));
        let args = SupervisorArguments {
            options: options.clone(),
            journal: journal.clone(),
            ledger: ledger.clone(),
            links: links.clone(),
            definitions: definitions.clone(),
            runtime: runtime.clone(),
        };
        let (supervisor, _) = Actor::spawn(None, Supervisor, args)
            .await
            .map_err(|error| StartError::Shard(error.to_string()))?;
        let ingest =
            Ingest { links: links.clone(), definitions: definitions.clone(), shards: options.shards };
        Ok(Root { links, definitions, ingest, journal, ledger, supervisor })
    }

    pub(crate) async fn stop(self) {
        // What the shards had not stored was not answered; a stopped one loses nothing.
        if let Err(error) = self.supervisor.stop_and_wait(None, Some(Duration::from_secs(5))).await {
            tracing::warn!(%error, "the supervisor did not stop in time");
        }
    }
}

/// Reads the control shard: first its checkpoint, then what came after.
async fn load_definitions(
    journal: &dyn Journal,
    definitions: &Definitions,
    now: Timestamp,
) -> Result<(), StartError> {
    let control = ShardId(0);
    let together = |errors: Vec<kapell_model::diagnostic::Diagnostic>| {
        let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        StartError::Definitions(text.into())
    };
    let mut images = journal.images(control);
    while let Some(image) = images.next().await {
        let image = image?;
        let Some(bytes) = image.state.filter(|_| image.run == control_run()) else { continue };
        if let Image::Definitions(stored) = decode_image(image.run, &bytes, definitions)? {
            definitions.load(stored, now).map_err(together)?;
        }
    }
    let mut changes = Vec::new();
    for placed in journal.history(control_run()).await? {
        if let (_, RecordBody::Definition(change)) = decode_record(&placed.record.payload, definitions)? {
            changes.push(change);
        }
    }
    definitions.apply(&changes).map_err(together)
}

struct Supervisor;

enum SupervisorMessage {
    /// Load a shard again after its actor died.
    Restart(ShardId),
}

struct SupervisorArguments {
    options: CoordinatorOptions,
    journal: Arc<dyn Journal>,
    ledger: Arc<dyn Ledger>,
    links: Arc<Links>,
    definitions: Arc<Definitions>,
    runtime: Runtime,
}

struct Supervised {
    args: SupervisorArguments,
    shards: BTreeMap<ActorId, ShardId>,
}

/// Whoever waits for it is told when it died.
const LOAD: Job = Job { name: "load a shard", on_panic: OnDeath::Log };
/// Pause before a shard that died is loaded again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = Supervised;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
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
        let (calls, _) = Actor::spawn_linked(None, CallDesk, desk, cell.clone()).await?;
        links.connect(dispatch, calls);
        let mut supervised = Supervised { args, shards: BTreeMap::new() };
        let shards: ShardCount = supervised.args.options.shards;
        // Each in a job of its own: loading is work for all cores.
        let loading: Vec<_> = shards.iter().map(|shard| supervised.load(shard, cell.clone())).collect();
        for loaded in join_all(loading).await {
            let (actor, shard) = loaded?;
            supervised.shards.insert(actor, shard);
        }
        Ok(supervised)
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        supervised: &mut Supervised,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisorMessage::Restart(shard) = message;
        match supervised.load(shard, myself.get_cell()).await {
            Ok((actor, shard)) => {
                supervised.shards.insert(actor, shard);
            }
            Err(error) => {
                tracing::error!(%shard, %error, "a shard cannot be loaded; it is tried again");
                myself.send_after(RESTART_PAUSE * 5, move || SupervisorMessage::Restart(shard));
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        supervised: &mut Supervised,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ActorFailed(who, error) = event else { return Ok(()) };
        match supervised.shards.remove(&who.get_id()) {
            Some(shard) => {
                tracing::error!(%shard, %error, "a shard died; it is loaded again from the journal");
                myself.send_after(RESTART_PAUSE, move || SupervisorMessage::Restart(shard));
            }
            None => {
                // A desk knows who holds what; without it, only a restart of the node asks everybody again.
                tracing::error!(%error, "a desk died; the node stops");
                supervised.args.runtime.jobs.stop("desk");
            }
        }
        Ok(())
    }
}

impl Supervised {
    /// Starts the shard's actor, which loads it.
    fn load(
        &self,
        shard: ShardId,
        cell: ActorCell,
    ) -> impl Future<Output = Result<(ActorId, ShardId), ActorProcessingErr>> + use<> {
        let args = self.arguments(shard);
        let jobs = self.args.runtime.jobs.clone();
        async move {
            let (reply, loaded) = oneshot::channel();
            let args = args.ok_or("a shard without a mailbox")?;
            jobs.spawn(
                LOAD,
                async move { answer(reply, Actor::spawn_linked(None, Shard, args, cell).await) },
            );
            let (actor, _) = loaded.await.map_err(|_| "loading it was given up")??;
            Ok((actor.get_id(), shard))
        }
    }

    fn arguments(&self, shard: ShardId) -> Option<ShardArguments> {
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
            journal: self.args.journal.clone(),
            ledger: self.args.ledger.clone(),
            mailbox: self.args.links.shard(shard).cloned()?,
            links: self.args.links.clone(),
            definitions: self.args.definitions.clone(),
            runtime: self.args.runtime.clone(),
        })
    }
}
