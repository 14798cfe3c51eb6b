//! Recovery: load the checkpoint, evolve the tail, drive what is outstanding. Nothing else.
use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use kapell_journal::{AcquireError, Journal, Placed, ReadError};
use kapell_kernel::{Entry, Run, accept, evolve};
use kapell_ledger::{LedgerBatch, LedgerError, Part};
use kapell_model::{Epoch, RunId, Seq, ShardId, Timestamp};
use kapell_wire::{DecodeError, Image, RecordBody, decode_image, decode_record};

use super::actor::ShardArguments;
use super::state::ShardState;
use crate::definitions::{Definitions, control_run};

/// What was recovered.
pub(super) struct Loaded {
    pub(super) state: ShardState,
    pub(super) checkpointed: Seq,
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

pub(super) async fn load(args: &ShardArguments) -> Result<Loaded, LoadError> {
    let shard = args.rules.shard;
    let read = |source| LoadError::Read { shard, source };
    let epoch = Epoch(args.journal.epoch(shard).await.map_err(read)?.0 + 1);
    let acquired =
        args.journal.acquire(shard, epoch).await.map_err(|source| LoadError::Acquire { shard, source })?;
    let watermark =
        args.ledger.watermark(shard).await.map_err(|source| LoadError::Ledger { shard, source })?;
    let mut state = ShardState::new(args.rules);
    state.epoch = epoch;
    let mut images = args.journal.images(shard);
    while let Some(image) = images.next().await {
        let image = image.map_err(read)?;
        if let Some(bytes) = image.state.filter(|_| image.run != control_run()) {
            load_image(args, &mut state, image.run, &bytes)?;
            if watermark < acquired.checkpointed && state.runs.contains_key(&image.run) {
                // The ledger was lost: what still lives is told anew; `kapell ledger rebuild` brings back the rest.
                state.unprojected.insert(image.run);
            }
        }
    }
    let mut revived = BTreeSet::new();
    let mut tail = args.journal.read(shard, acquired.checkpointed);
    while let Some(placed) = tail.next().await {
        let placed = placed.map_err(read)?;
        let id = placed.record.run;
        if id == control_run() {
            // Read at start already, but no checkpoint covers them yet: the next one must, before they are trimmed.
            state.unsaved.insert(id);
            continue;
        }
        if revived.contains(&id) {
            continue;
        }
        if placed.seq > watermark {
            state.unprojected.insert(id);
        }
        state.unsaved.insert(id);
        if !load_record(args, &mut state, &placed)? {
            // The checkpoint knows the run as over, and it was retried since: its whole history is folded.
            let history = args.journal.history(id).await.map_err(read)?;
            let decode = |source| LoadError::Decode { shard, run: id, source };
            if let Some((run, _)) = fold(id, &history, &*args.definitions).map_err(decode)? {
                state.ended.remove(id);
                state.load(Box::new(run));
            }
            revived.insert(id);
        }
    }
    state.last = acquired.last;
    // A ledger that is ahead (a restored journal) is told everything again from here on.
    state.projected = watermark.min(acquired.last);
    Ok(Loaded { state, checkpointed: acquired.checkpointed })
}

fn load_image(
    args: &ShardArguments,
    state: &mut ShardState,
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
        Image::Definitions(_) => {}
    }
    Ok(())
}

/// Applies one record; false: it belongs to a run that is not loaded.
fn load_record(args: &ShardArguments, state: &mut ShardState, placed: &Placed) -> Result<bool, LoadError> {
    let (shard, id) = (args.rules.shard, placed.record.run);
    let (_, body) = decode_record(&placed.record.payload, &*args.definitions)
        .map_err(|source| LoadError::Decode { shard, run: id, source })?;
    let entry = match body {
        RecordBody::Entry(entry) => entry,
        RecordBody::Schedule(entry) => {
            state.schedules.evolve(id, &entry);
            return Ok(true);
        }
        RecordBody::Definition(_) => return Ok(true),
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
    pub(crate) batch: LedgerBatch,
}

/// Folds a whole shard for the ledger: first the checkpoint, then every entry that is kept.
pub(crate) async fn rebuild(
    journal: &dyn Journal,
    definitions: &Definitions,
    shard: ShardId,
) -> Result<Rebuilt, LoadError> {
    let read = |source| LoadError::Read { shard, source };
    let decode = |run, source| LoadError::Decode { shard, run, source };
    let (mut runs, mut entries, mut through) = (BTreeMap::<RunId, Run>::new(), 0, Seq::ZERO);
    let mut images = journal.images(shard);
    while let Some(image) = images.next().await {
        let image = image.map_err(read)?;
        let (run, Some(bytes)) = (image.run, image.state) else { continue };
        if let Image::Run(stored) =
            decode_image(run, &bytes, definitions).map_err(|source| decode(run, source))?
        {
            let loaded = Run::from_image(*stored);
            let loaded =
                loaded.map_err(|error| LoadError::Image { shard, run, reason: error.to_string() })?;
            runs.insert(run, loaded);
        }
    }
    let mut records = journal.read(shard, Seq::ZERO);
    while let Some(placed) = records.next().await {
        let placed = match placed {
            Ok(placed) => placed,
            Err(ReadError::Trimmed { through: trimmed }) => {
                // The images hold what was trimmed, also where nothing came after it.
                through = trimmed;
                records = journal.read(shard, trimmed);
                continue;
            }
            Err(error) => return Err(read(error)),
        };
        (entries, through) = (entries + 1, placed.seq);
        let id = placed.record.run;
        let (_, body) =
            decode_record(&placed.record.payload, definitions).map_err(|source| decode(id, source))?;
        match (body, runs.get_mut(&id)) {
            // Told anew from its beginning: that is worth more than the image.
            (RecordBody::Entry(Entry::RunAccepted(accepted)), _) => {
                runs.insert(id, accept(id, *accepted).0);
            }
            (RecordBody::Entry(entry), Some(run)) => {
                evolve(run, &entry);
            }
            (RecordBody::Entry(_), None) | (RecordBody::Definition(_) | RecordBody::Schedule(_), _) => {}
        }
    }
    let rows = runs.values().map(super::row::row).collect();
    Ok(Rebuilt { entries, batch: LedgerBatch { shard, through, runs: rows, part: Part::Last } })
}
