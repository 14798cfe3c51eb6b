//! Checkpoints and trimming.
//!
//! Owns: which checkpoint file is written next, when files are merged, which segments may go. Never: lets a checkpoint
//! cover what is not durable, or a segment go that some shard still needs.
use std::sync::Arc;

use kapell_journal::{AppendError, ReadError, RunImage};
use kapell_model::{Epoch, Seq, ShardId};

use crate::checkpoint::{Checkpoint, CheckpointFile, ImageWriter, Merge};
use crate::names::{FileName, UNFINISHED};
use crate::shared::{Segment, Shared, lock};

impl Shared {
    fn refused(&self, reason: &dyn std::fmt::Display) -> AppendError {
        AppendError::Unavailable { reason: reason.to_string(), retry_after: self.options.retry_after }
    }
}

/// Writes what changed as a delta, or, when the deltas outgrew the base, everything as a new base.
pub(crate) fn checkpoint(
    shared: &Shared,
    shard: ShardId,
    epoch: Epoch,
    through: Seq,
    changed: Vec<RunImage>,
) -> Result<(), AppendError> {
    let _one_at_a_time = lock(&shared.keeping);
    let before = admit(shared, shard, epoch, through)?;
    let images = in_order(changed);
    let number = before.used + 1;
    let size: usize = images.iter().map(|image| image.state.as_ref().map_or(0, bytes::Bytes::len) + 20).sum();
    let rebase = outgrown(&before, size as u64, shared.options.checkpoint_files_max);
    let name = if rebase { FileName::Base(shard, number) } else { FileName::Delta(shard, number) };
    let passing = format!("{}{UNFINISHED}", name.text());

    let under = if rebase { before.as_ref().clone() } else { Checkpoint::default() };
    let written = write_images(shared, &under, images, &passing, rebase)
        .and_then(|writer| writer.finish(shard, number, through).map_err(|error| shared.refused(&error)));
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(error) => {
            drop(shared.disk.remove(&passing));
            return Err(error);
        }
    };
    let mut after = Checkpoint { through, files: Vec::new(), used: number, broken: false };
    if !rebase {
        after.files.clone_from(&before.files);
    }
    after.files.push(CheckpointFile { name, bytes });
    publish(shared, shard, epoch, &passing, name, after)?;
    if rebase {
        for file in &before.files {
            // What stays is removed when the journal is opened the next time.
            drop(shared.disk.remove(&file.name.text()));
        }
    }
    Ok(())
}

/// Whether this owner may write this checkpoint. Answers the one before it.
fn admit(
    shared: &Shared,
    shard: ShardId,
    epoch: Epoch,
    through: Seq,
) -> Result<Arc<Checkpoint>, AppendError> {
    let state = lock(&shared.state);
    state.admit(shard, epoch)?;
    let view = state.shard(shard);
    let (from, to) = (view.checkpoint.through, view.row.last);
    if through < from {
        return Err(AppendError::OutOfOrder { expected: from, got: through });
    }
    if through > to {
        return Err(AppendError::OutOfOrder { expected: to, got: through });
    }
    Ok(view.checkpoint)
}

/// Each run once, in order; of several images of a run the last one given counts.
fn in_order(mut changed: Vec<RunImage>) -> Vec<RunImage> {
    changed.reverse();
    changed.sort_by_key(|image| image.run);
    changed.dedup_by_key(|image| image.run);
    changed
}

fn outgrown(before: &Checkpoint, adding: u64, files_max: usize) -> bool {
    let Some((base, deltas)) = before.files.split_first() else { return true };
    let grown: u64 = deltas.iter().map(|file| file.bytes).sum();
    before.broken || before.files.len() >= files_max || grown + adding > base.bytes
}

fn write_images(
    shared: &Shared,
    under: &Checkpoint,
    images: Vec<RunImage>,
    passing: &str,
    rebase: bool,
) -> Result<ImageWriter, AppendError> {
    let mut writer = ImageWriter::create(&*shared.disk, passing).map_err(|error| shared.refused(&error))?;
    if !rebase {
        for image in &images {
            writer.push(image).map_err(|error| shared.refused(&error))?;
        }
        return Ok(writer);
    }
    let unread = |error: ReadError| shared.refused(&error);
    let mut merge = Merge::open(&*shared.disk, under, shared.options.retry_after).map_err(unread)?;
    merge.overlay(images);
    while let Some(image) = merge.next().map_err(unread)? {
        writer.push(&image).map_err(|error| shared.refused(&error))?;
    }
    Ok(writer)
}

/// Gives the file its name, unless the shard changed hands meanwhile.
fn publish(
    shared: &Shared,
    shard: ShardId,
    epoch: Epoch,
    passing: &str,
    name: FileName,
    after: Checkpoint,
) -> Result<(), AppendError> {
    let _no_acquisition_meanwhile = lock(&shared.publishing);
    if let Err(error) = lock(&shared.state).admit(shard, epoch) {
        drop(shared.disk.remove(passing));
        return Err(error);
    }
    let named = shared.disk.rename(passing, &name.text()).and_then(|()| shared.disk.sync_dir());
    let mut state = lock(&shared.state);
    let held = &mut state.shard_mut(shard).checkpoint;
    match named {
        Ok(()) => {
            *held = Arc::new(after);
            Ok(())
        }
        Err(error) => {
            // The name may or may not be there after a crash; a base with a higher number outdoes it.
            let broken = Checkpoint { used: after.used, broken: true, ..held.as_ref().clone() };
            *held = Arc::new(broken);
            Err(shared.refused(&error))
        }
    }
}

/// Notes what the shard lets go of, and removes the oldest segments that nobody needs.
pub(crate) fn trim(shared: &Shared, shard: ShardId, epoch: Epoch, through: Seq) -> Result<(), AppendError> {
    let _one_at_a_time = lock(&shared.keeping);
    {
        let mut state = lock(&shared.state);
        state.admit(shard, epoch)?;
        let view = state.shard_mut(shard);
        let covered = view.checkpoint.through;
        if through > covered {
            return Err(AppendError::OutOfOrder { expected: covered, got: through });
        }
        view.row.trimmed = view.row.trimmed.max(through);
    }
    while let Some(oldest) = removable(shared) {
        // The name goes for ever before the next one does: what is left is always without a gap.
        let log = FileName::Segment(oldest.number).text();
        let removed = shared.disk.remove(&log).and_then(|()| shared.disk.sync_dir());
        removed.map_err(|error| shared.refused(&error))?;
        lock(&shared.state).segments.pop_front();
        // Without its segment it says nothing; what stays is removed at the next opening.
        drop(shared.disk.remove(&FileName::Index(oldest.number).text()));
    }
    Ok(())
}

/// The oldest segment, if it is sealed and each shard let go of all that it holds.
fn removable(shared: &Shared) -> Option<Arc<Segment>> {
    let state = lock(&shared.state);
    let (oldest, next) = (state.segments.front()?, state.segments.get(1)?);
    let done = next.start.rows().all(|(shard, row)| {
        let view = state.shard(shard);
        let free = view.row.trimmed.min(view.checkpoint.through);
        row.last == oldest.start.row(shard).last || row.last <= free
    });
    done.then(|| Arc::clone(oldest))
}
