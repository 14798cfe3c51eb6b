//! Recovery: load the checkpoint, evolve the tail, drive what is outstanding. Nothing else.
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use futures::StreamExt as _;
use kapell_journal::{AcquireError, Acquired, Journal, Placed, ReadError};
use kapell_kernel::{Entry, Run, accept, evolve};
use kapell_ledger::{LedgerError, RunRow};
use kapell_model::{RunId, Seq, ShardId, Timestamp};
use kapell_wire::{
    DecodeError, DefinitionRecord, DefinitionsImage, Image, RecordBody, decode_image, decode_record,
};
use tokio::time::Instant;

use super::actor::ShardArguments;
use super::state::ShardState;
use crate::definitions::{CONTROL, Definitions, Unreadable, control_run};

/// What was recovered.
pub(super) struct Loaded {
    pub(super) state: ShardState,
    pub(super) checkpointed: Seq,
}

/// An error with all that caused it, the nearest first.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

/// Why a shard could not be recovered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// Another node holds it, or the journal cannot be read.
    #[error("shard {shard} cannot be acquired")]
    Acquire {
        /// Which.
        shard: ShardId,
        /// Why.
        #[source]
        source: AcquireError,
    },
    /// The journal cannot be read.
    #[error("shard {shard} cannot be read")]
    Read {
        /// Which.
        shard: ShardId,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// An entry or image does not mean anything to this program.
    #[error("shard {shard}: what is stored for run {run} cannot be understood")]
    Decode {
        /// Which.
        shard: ShardId,
        /// Whose.
        run: RunId,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// An image does not hold together.
    #[error("shard {shard}: the checkpoint of run {run} does not hold together: {reason}")]
    Image {
        /// Which.
        shard: ShardId,
        /// Whose.
        run: RunId,
        /// Why.
        reason: String,
    },
    /// The definitions cannot be read.
    #[error("shard {shard}: the definitions cannot be read")]
    Definitions {
        /// Which.
        shard: ShardId,
        /// Why.
        #[source]
        source: Unreadable,
    },
    /// The ledger does not say how far it is.
    #[error("shard {shard}: the ledger cannot be asked")]
    Ledger {
        /// Which.
        shard: ShardId,
        /// Why.
        #[source]
        source: LedgerError,
    },
}

impl LoadError {
    /// Whether it may go by itself: journal or ledger are out of reach, or another node was faster.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            LoadError::Acquire { source: AcquireError::Fenced { .. }, .. }
            | LoadError::Ledger { source: LedgerError::Unavailable { .. }, .. } => true,
            LoadError::Acquire { source: AcquireError::Read(error), .. }
            | LoadError::Read { source: error, .. }
            | LoadError::Definitions { source: Unreadable::Journal(error), .. } => {
                matches!(error, ReadError::Unavailable { .. })
            }
            LoadError::Decode { .. }
            | LoadError::Image { .. }
            | LoadError::Definitions { .. }
            | LoadError::Ledger { .. } => false,
        }
    }
}

pub(super) async fn load(args: &ShardArguments) -> Result<Loaded, LoadError> {
    let shard = args.rules.shard;
    let acquired = args.journal.acquire(shard, args.epoch).await;
    let acquired = acquired.map_err(|source| LoadError::Acquire { shard, source })?;
    let moment = Instant::now();
    let definitions = |source| LoadError::Definitions { shard, source };
    let loaded = match recover(args, &acquired).await {
        Err(LoadError::Decode { source: DecodeError::UnknownDefinition { .. }, .. }) => {
            // The owner before pinned runs to definitions that this node has not read yet. They were stored before the
            // runs were, and that owner can store no more.
            args.definitions.follow_after(moment, &*args.journal).await.map_err(definitions)?;
            recover(args, &acquired).await
        }
        recovered => recovered,
    }?;
    let catching_up = catch_up(&args.definitions, &*args.journal, &loaded.state, moment);
    catching_up.await.map_err(definitions)?;
    Ok(loaded)
}

/// The owner before may have known more of the definitions. A schedule that it has forgotten because it was removed would
/// be a new one here, with all its ticks before it.
fn catch_up<'a>(
    definitions: &'a Definitions,
    journal: &'a dyn Journal,
    state: &ShardState,
    moment: Instant,
) -> impl Future<Output = Result<(), Unreadable>> + use<'a> {
    let has_schedules = state.has_schedules(&definitions.in_force());
    async move { if has_schedules { definitions.follow_after(moment, journal).await } else { Ok(()) } }
}

async fn recover(args: &ShardArguments, acquired: &Acquired) -> Result<Loaded, LoadError> {
    let shard = args.rules.shard;
    let read = |source| LoadError::Read { shard, source };
    let watermark =
        args.ledger.watermark(shard).await.map_err(|source| LoadError::Ledger { shard, source })?;
    let mut state = ShardState::new(args.rules);
    state.epoch = args.epoch;
    state.checkpointed = Some(acquired.checkpointed);
    state.trimmed = acquired.trimmed;
    let mut defined = Defined::default();
    let mut images = args.journal.images(shard);
    while let Some(image) = images.next().await {
        let image = image.map_err(read)?;
        let Some(bytes) = image.state else { continue };
        load_image(args, &mut state, &mut defined, image.run, &bytes)?;
        if watermark < acquired.checkpointed && state.runs.contains_key(&image.run) {
            // The ledger was lost: what still lives is told anew; `kapell ledger rebuild` brings back the rest.
            state.unprojected.insert(image.run);
        }
    }
    let mut revived = BTreeSet::new();
    let mut tail = args.journal.read(shard, acquired.checkpointed);
    let mut reached = acquired.checkpointed;
    // Nothing comes behind: whoever could append is the shard that is being loaded.
    while reached < acquired.last
        && let Some(placed) = tail.next().await
    {
        let placed = placed.map_err(read)?;
        reached = placed.seq;
        let id = placed.record.run;
        if revived.contains(&id) {
            continue;
        }
        if placed.seq > watermark && id != control_run() {
            state.unprojected.insert(id);
        }
        // Of definitions, too: the next checkpoint must cover them before they are trimmed.
        state.unsaved.insert(id);
        if !load_record(args, &mut state, &mut defined, &placed)? {
            // The checkpoint knows the run as over, and it was retried since: its whole history is folded.
            let history = args.journal.history(id).await.map_err(read)?;
            let decode = |source| LoadError::Decode { shard, run: id, source };
            if let Some((run, _)) = fold(id, &history, &*args.definitions).map_err(decode)? {
                state.ended.remove(id);
                if let Some(first) = history.first() {
                    state.revived.insert(id, first.seq);
                }
                state.load(Box::new(run));
            } else {
                tracing::error!(run = %id, "the journal says that it goes on, and does not hold its beginning");
            }
            revived.insert(id);
        }
    }
    if shard == CONTROL {
        let adopted = args.definitions.adopt(defined.stored, defined.changes);
        adopted.map_err(|source| LoadError::Definitions { shard, source })?;
    }
    state.last = acquired.last;
    // A ledger that is ahead (a restored journal) is told everything again from here on.
    state.projected = watermark.min(acquired.last);
    Ok(Loaded { state, checkpointed: acquired.checkpointed })
}

/// What the control shard holds beside its runs.
#[derive(Default)]
struct Defined {
    stored: DefinitionsImage,
    changes: Vec<DefinitionRecord>,
}

fn load_image(
    args: &ShardArguments,
    state: &mut ShardState,
    defined: &mut Defined,
    run: RunId,
    bytes: &[u8],
) -> Result<(), LoadError> {
    let shard = args.rules.shard;
    let image = decode_image(run, bytes, &*args.definitions).map_err(|source| LoadError::Decode {
        shard,
        run,
        source,
    })?;
    match image {
        Image::Run(image) => {
            let loaded = Run::from_image(*image).map_err(|error| LoadError::Image {
                shard,
                run,
                reason: error.to_string(),
            })?;
            state.load(Box::new(loaded));
        }
        Image::Ended { at } => state.ended.insert(run, at),
        Image::Schedule(schedule) => state.schedules.load(run, *schedule),
        Image::Definitions(stored) => defined.stored = stored,
    }
    Ok(())
}

/// Applies one record; false: it belongs to a run that is not loaded.
fn load_record(
    args: &ShardArguments,
    state: &mut ShardState,
    defined: &mut Defined,
    placed: &Placed,
) -> Result<bool, LoadError> {
    let (shard, id) = (args.rules.shard, placed.record.run);
    let (_, body) = decode_record(&placed.record.payload, &*args.definitions)
        .map_err(|source| LoadError::Decode { shard, run: id, source })?;
    let entry = match body {
        RecordBody::Entry(entry) => entry,
        RecordBody::Schedule(entry) => {
            state.schedules.evolve(id, &entry);
            return Ok(true);
        }
        RecordBody::Definition(change) => {
            defined.changes.push(change);
            return Ok(true);
        }
    };
    match (entry, state.runs.get_mut(&id)) {
        (Entry::RunAccepted(accepted), _) => {
            let (run, _) = accept(id, *accepted);
            state.load(Box::new(run));
            Ok(true)
        }
        (entry, Some(run)) => {
            evolve(run, &entry);
            Ok(true)
        }
        (_, None) => Ok(false),
    }
}

/// What happened to a run, in order.
pub(crate) type Told = Vec<(Seq, Timestamp, Entry)>;

/// Folds the history of one run anew.
pub(crate) fn fold(
    id: RunId,
    history: &[Placed],
    definitions: &dyn kapell_wire::Definitions,
) -> Result<Option<(Run, Told)>, DecodeError> {
    let mut run: Option<Run> = None;
    let mut entries = Vec::with_capacity(history.len());
    for placed in history {
        let (at, body) = decode_record(&placed.record.payload, definitions)?;
        let RecordBody::Entry(entry) = body else { continue };
        match (&mut run, &entry) {
            (None, Entry::RunAccepted(accepted)) => run = Some(accept(id, (**accepted).clone()).0),
            (Some(run), entry) => {
                evolve(run, entry);
            }
            // The beginning was trimmed.
            (None, _) => return Ok(None),
        }
        entries.push((placed.seq, at, entry));
    }
    Ok(run.map(|run| (run, entries)))
}

/// Rows of every run that the journal still holds, and how many entries were folded.
pub(crate) struct Rebuilt {
    pub(crate) entries: u64,
    pub(crate) through: Seq,
    pub(crate) runs: Vec<RunRow>,
}

/// Folds a whole shard for the ledger. `checkpointed` is what its checkpoint covers; `None`: another one was stored
/// while this one was read, and it must be folded anew.
pub(crate) async fn rebuild(
    journal: &dyn Journal,
    definitions: &Definitions,
    shard: ShardId,
    checkpointed: Seq,
) -> Result<Option<Rebuilt>, LoadError> {
    let images = images(journal, definitions, shard).await?;
    let Some(whole) = tell(journal, definitions, (shard, checkpointed), images).await? else {
        return Ok(None);
    };
    let runs = whole.runs.values().map(super::row::row).collect();
    Ok(Some(Rebuilt { entries: whole.entries, through: whole.through, runs }))
}

/// The runs of the checkpoint that are not over.
async fn images(
    journal: &dyn Journal,
    definitions: &Definitions,
    shard: ShardId,
) -> Result<BTreeMap<RunId, Run>, LoadError> {
    let mut runs = BTreeMap::new();
    let mut images = journal.images(shard);
    while let Some(image) = images.next().await {
        let image = image.map_err(|source| LoadError::Read { shard, source })?;
        let (run, Some(bytes)) = (image.run, image.state) else { continue };
        let decoded = decode_image(run, &bytes, definitions);
        if let Image::Run(stored) = decoded.map_err(|source| LoadError::Decode { shard, run, source })? {
            let loaded = Run::from_image(*stored);
            let broken =
                |error: kapell_kernel::BadImage| LoadError::Image { shard, run, reason: error.to_string() };
            runs.insert(run, loaded.map_err(broken)?);
        }
    }
    Ok(runs)
}

/// What a shard's journal tells.
struct Whole {
    runs: BTreeMap<RunId, Run>,
    entries: u64,
    through: Seq,
}

/// Folds every entry that is kept over the runs of the checkpoint.
async fn tell(
    journal: &dyn Journal,
    definitions: &Definitions,
    (shard, checkpointed): (ShardId, Seq),
    images: BTreeMap<RunId, Run>,
) -> Result<Option<Whole>, LoadError> {
    let mut whole = Whole { runs: images, entries: 0, through: Seq::ZERO };
    let mut begun = BTreeSet::new();
    let mut records = journal.read(shard, Seq::ZERO);
    while let Some(placed) = records.next().await {
        let placed = match placed {
            Ok(placed) => placed,
            // The images hold what was trimmed, unless they are from before.
            Err(ReadError::Trimmed { through }) if through <= checkpointed => {
                whole.through = whole.through.max(through);
                records = journal.read(shard, through);
                continue;
            }
            Err(ReadError::Trimmed { .. }) => return Ok(None),
            Err(source) => return Err(LoadError::Read { shard, source }),
        };
        (whole.entries, whole.through) = (whole.entries + 1, placed.seq);
        let id = placed.record.run;
        let (_, body) = decode_record(&placed.record.payload, definitions)
            .map_err(|source| LoadError::Decode { shard, run: id, source })?;
        match (body, whole.runs.get_mut(&id)) {
            // Told anew from its beginning: that is worth more than the image.
            (RecordBody::Entry(Entry::RunAccepted(accepted)), _) => {
                begun.insert(id);
                whole.runs.insert(id, accept(id, *accepted).0);
            }
            // An image contains what its checkpoint covers.
            (RecordBody::Entry(entry), Some(run)) if begun.contains(&id) || placed.seq > checkpointed => {
                evolve(run, &entry);
            }
            (RecordBody::Entry(_), Some(_) | None) => {}
            (RecordBody::Definition(_) | RecordBody::Schedule(_), _) => {}
        }
    }
    Ok(Some(whole))
}

#[cfg(test)]
mod tests;
