//! The writer's part: which appends are accepted, one write and one flush for all of them, then the answers.
//!
//! Owns: the active segment, the order of appends, what a failure closes. Never: waits for work, starts a thread, or
//! calls back while it holds something.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use kapell_journal::{AcquireError, Acquired, AppendError, Done, ReadError};
use kapell_model::{Epoch, Seq, ShardId};

use crate::disk::write_all;
use crate::frame::{Frame, encode_acquired, parse_frame};
use crate::group::Group;
use crate::options::SEGMENT_BYTES_MIN;
use crate::scan::Extent;
use crate::segment::{Active, Before, Chore, Chores, begin};
use crate::shared::{Shared, lock};

/// A batch, encoded by the caller's thread.
pub(crate) struct Append {
    pub(crate) shard: ShardId,
    pub(crate) epoch: Epoch,
    pub(crate) first: Seq,
    pub(crate) count: u64,
    pub(crate) frame: Vec<u8>,
    pub(crate) done: Done,
}

/// Where the answer to an acquisition goes.
pub(crate) type AcquireAnswer = oneshot::Sender<Result<Acquired, AcquireError>>;

/// What the writer is asked, in order.
pub(crate) enum Item {
    Append(Append),
    Acquire {
        shard: ShardId,
        epoch: Epoch,
        answer: AcquireAnswer,
    },
    /// An append of this epoch was turned away in front of the queue: what follows it must not be written.
    Close {
        shard: ShardId,
        epoch: Epoch,
    },
}

/// An answer that is given after the engine is done.
pub(crate) enum Reply {
    Append(Done, Result<(), AppendError>),
    Acquire(AcquireAnswer, Result<Acquired, AcquireError>),
}

impl Reply {
    pub(crate) fn give(self) {
        match self {
            Reply::Append(done, outcome) => done.answer(outcome),
            // Nobody may wait for it any more.
            Reply::Acquire(answer, outcome) => drop(answer.send(outcome)),
        }
    }
}

enum Staged {
    Append(Done, Result<(), AppendError>),
    Acquire(AcquireAnswer, Result<ShardId, AcquireError>),
}

#[derive(Clone, Copy)]
struct Mark {
    epoch: Epoch,
    last: Seq,
    closed: bool,
    /// The commit that asked for it last.
    touched_in: u64,
}

/// See the module.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    chores: Chores,
    active: Active,
    /// What a write or flush of the active segment said: it is never written again.
    failed: Option<String>,
    marks: BTreeMap<ShardId, Mark>,
    /// Shards of this commit.
    touched: Vec<ShardId>,
    commits: u64,
    group: Group,
    staged: Vec<Staged>,
}

impl Engine {
    pub(crate) fn new(shared: Arc<Shared>, chores: Chores, active: Active) -> Engine {
        chores.hand(&shared, Chore::Prepare);
        Engine {
            shared,
            chores,
            active,
            failed: None,
            marks: BTreeMap::new(),
            touched: Vec::new(),
            commits: 0,
            group: Group::new(),
            staged: Vec::new(),
        }
    }

    /// Does all items as one group. The replies are in the order of the items; the caller gives them. Answers how long
    /// the flush took, if there was one.
    pub(crate) fn commit(
        &mut self,
        items: impl Iterator<Item = Item>,
        replies: &mut Vec<Reply>,
    ) -> Option<Duration> {
        self.group.clear();
        self.touched.clear();
        self.commits += 1;
        for item in items {
            self.stage(item);
        }
        // A group without frames only tells readers which shards were closed.
        let written = if self.group.is_empty() { Ok((self.active.end, None)) } else { self.write() };
        let (flushed_in, reason) = match written {
            Ok((at, flushed_in)) => {
                self.publish(at);
                (flushed_in, None)
            }
            Err(reason) => {
                self.close_all(&reason);
                (None, Some(reason))
            }
        };
        let staged = std::mem::take(&mut self.staged);
        replies.extend(staged.into_iter().map(|staged| self.reply(staged, reason.as_deref())));
        flushed_in
    }

    fn stage(&mut self, item: Item) {
        match item {
            Item::Append(append) => {
                let outcome = self.stage_append(&append);
                self.staged.push(Staged::Append(append.done, outcome));
            }
            Item::Acquire { shard, epoch, answer } => {
                let outcome = self.stage_acquire(shard, epoch).map(|()| shard);
                self.staged.push(Staged::Acquire(answer, outcome));
            }
            Item::Close { shard, epoch } => {
                let mark = self.mark(shard);
                if mark.epoch == epoch {
                    mark.closed = true;
                }
            }
        }
    }

    fn mark(&mut self, shard: ShardId) -> &mut Mark {
        let shared = &self.shared;
        let mark = self.marks.entry(shard).or_insert_with(|| {
            let view = lock(&shared.state).shard(shard);
            Mark { epoch: view.row.epoch, last: view.row.last, closed: view.closed, touched_in: 0 }
        });
        if mark.touched_in != self.commits {
            mark.touched_in = self.commits;
            self.touched.push(shard);
        }
        mark
    }

    fn stage_append(&mut self, append: &Append) -> Result<(), AppendError> {
        let mark = self.mark(append.shard);
        if append.epoch != mark.epoch {
            return Err(AppendError::Fenced { held_by: mark.epoch });
        }
        if mark.closed {
            return Err(AppendError::Poisoned);
        }
        let expected = mark.last.next();
        if append.first != expected {
            mark.closed = true;
            return Err(AppendError::OutOfOrder { expected, got: append.first });
        }
        if append.count > 0 {
            mark.last = mark.last.plus(append.count);
            self.group.push(&append.frame);
        }
        Ok(())
    }

    fn stage_acquire(&mut self, shard: ShardId, epoch: Epoch) -> Result<(), AcquireError> {
        if self.failed.is_some() {
            self.heal()?;
        }
        let mark = self.mark(shard);
        if mark.epoch > epoch {
            return Err(AcquireError::Fenced { held_by: mark.epoch });
        }
        mark.epoch = epoch;
        mark.closed = false;
        let frame = encode_acquired(shard, epoch, mark.last);
        self.group.push(&frame);
        Ok(())
    }

    /// One write, one flush. Answers where the group lies, and how long the flush took.
    fn write(&mut self) -> Result<(u64, Option<Duration>), String> {
        let next = self.active.next();
        let full =
            next + self.group.bytes_at(next) > self.shared.options.segment_bytes.max(SEGMENT_BYTES_MIN);
        // The first segment after opening is not prepared; flushing it costs twice as much, so it is left early.
        let better = !self.active.prepared && lock(&self.shared.spare).is_some();
        // A group larger than a segment gets one of its own.
        if (full && next > self.active.first_group) || better {
            self.roll().map_err(|error| error.to_string())?;
        }
        let offset = self.active.next();
        let bytes = self.group.finish(self.active.segment.salt, offset);
        let end = offset + bytes.len() as u64;
        let took = write_all(&*self.active.file, bytes, offset)
            .and_then(|()| self.active.file.sync())
            .map_err(|error| error.to_string())?;
        self.active.end = end;
        Ok((offset, Some(took)))
    }

    /// Goes on in a new segment, which seals the active one where its last durable group ends.
    fn roll(&mut self) -> std::io::Result<()> {
        let before = Before {
            number: self.active.segment.number,
            salt: self.active.segment.salt,
            end: self.active.end,
        };
        let table = lock(&self.shared.state).table();
        let next = begin(&self.shared, before, table)?;
        let sealed = std::mem::replace(&mut self.active, next);
        sealed.segment.end.get_or_init(|| sealed.end);
        lock(&self.shared.state).segments.push_back(Arc::clone(&self.active.segment));
        self.chores.hand(&self.shared, Chore::Seal(sealed.segment));
        self.chores.hand(&self.shared, Chore::Prepare);
        Ok(())
    }

    /// Leaves a segment that failed: what is known to be durable of it is read again, the rest is cut off for ever by
    /// the header of the next segment.
    fn heal(&mut self) -> Result<(), ReadError> {
        let source = self.shared.source(&self.active.segment)?;
        source.scan(Extent::Sealed(self.active.end), &mut |_, _| Ok(()))?;
        self.roll().map_err(|error| source.failed(&error))?;
        self.failed = None;
        Ok(())
    }

    /// Shows readers what became durable.
    fn publish(&mut self, at: u64) {
        if let Some(index) = lock(&self.active.segment.memory).as_mut() {
            for (place, bytes) in self.group.frames(at) {
                if let Some(Frame::Records(records)) = parse_frame(bytes) {
                    let added = index.add(place, &records);
                    debug_assert!(added.is_ok(), "we encoded this frame");
                }
            }
        }
        let acquires = self.staged.iter().any(|staged| matches!(staged, Staged::Acquire(_, Ok(_))));
        let _before_or_after_a_checkpoint = acquires.then(|| lock(&self.shared.publishing));
        let mut state = lock(&self.shared.state);
        for shard in &self.touched {
            if let Some(mark) = self.marks.get(shard) {
                // A stranger's refused append must not make a shard known.
                if mark.epoch == Epoch(0) && !state.shards.contains_key(shard) {
                    continue;
                }
                let view = state.shard_mut(*shard);
                view.row.epoch = mark.epoch;
                view.row.last = mark.last;
                view.closed = mark.closed;
            }
        }
    }

    /// Nothing of the group is known to be durable: every shard must be acquired again.
    fn close_all(&mut self, reason: &str) {
        self.failed = Some(reason.to_owned());
        self.marks.clear();
        let mut state = lock(&self.shared.state);
        for view in state.shards.values_mut() {
            view.closed = true;
        }
    }

    fn reply(&self, staged: Staged, failed: Option<&str>) -> Reply {
        let retry_after = self.shared.options.retry_after;
        match (staged, failed) {
            (Staged::Append(done, Ok(())), Some(reason)) => {
                let reason = reason.to_owned();
                Reply::Append(done, Err(AppendError::Unavailable { reason, retry_after }))
            }
            (Staged::Append(done, outcome), Some(_) | None) => Reply::Append(done, outcome),
            (Staged::Acquire(answer, Ok(_)), Some(reason)) => {
                let reason = reason.to_owned();
                Reply::Acquire(answer, Err(ReadError::Unavailable { reason, retry_after }.into()))
            }
            (Staged::Acquire(answer, outcome), Some(_) | None) => {
                let found = outcome.map(|shard| {
                    let state = lock(&self.shared.state);
                    let view = state.shard(shard);
                    Acquired {
                        last: view.row.last,
                        checkpointed: view.checkpoint.through,
                        trimmed: state.gone(shard),
                    }
                });
                Reply::Acquire(answer, found)
            }
        }
    }
}
