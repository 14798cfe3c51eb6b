//! A journal as one moment left it, for tests. Never: is written.
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use kapell_journal::{
    AcquireError, Acquired, AppendDone, AppendError, Batch, Journal, Placed, ReadError, RunImage,
};
use kapell_model::{Epoch, RunId, Seq, ShardId};

/// One moment of a journal.
pub(crate) struct Kept {
    pub(crate) records: Vec<Placed>,
    pub(crate) images: Vec<RunImage>,
    pub(crate) trimmed: Seq,
    /// So many reads of images fail at first.
    pub(crate) hiccups: AtomicU32,
    /// Reads of images have no answer.
    pub(crate) is_silent: bool,
    /// How often the history of one run was read.
    pub(crate) histories: AtomicU32,
}

impl Kept {
    pub(crate) fn of(records: Vec<Placed>) -> Kept {
        let (hiccups, histories) = (AtomicU32::new(0), AtomicU32::new(0));
        Kept { records, images: Vec::new(), trimmed: Seq::ZERO, hiccups, is_silent: false, histories }
    }
}

impl Journal for Kept {
    fn epoch(&self, _: ShardId) -> BoxFuture<'_, Result<Epoch, ReadError>> {
        unreachable!("nobody acquires it")
    }
    fn acquire(&self, _: ShardId, _: Epoch) -> BoxFuture<'_, Result<Acquired, AcquireError>> {
        unreachable!("nobody acquires it")
    }
    fn append(&self, _: Batch, _: AppendDone) {
        unreachable!("nobody writes it")
    }
    fn read(&self, _: ShardId, after: Seq) -> BoxStream<'_, Result<Placed, ReadError>> {
        if after < self.trimmed {
            return stream::iter([Err(ReadError::Trimmed { through: self.trimmed })]).boxed();
        }
        let kept = self.records.iter().filter(move |placed| placed.seq > after);
        stream::iter(kept.map(|placed| Ok(placed.clone()))).boxed()
    }
    fn history(&self, run: RunId) -> BoxFuture<'_, Result<Vec<Placed>, ReadError>> {
        self.histories.fetch_add(1, Ordering::Relaxed);
        let of_run = self.records.iter().filter(|placed| placed.record.run == run).cloned().collect();
        Box::pin(async { Ok(of_run) })
    }
    fn checkpoint(
        &self,
        _: ShardId,
        _: Epoch,
        _: Seq,
        _: Vec<RunImage>,
    ) -> BoxFuture<'_, Result<(), AppendError>> {
        unreachable!("nobody writes it")
    }
    fn images(&self, _: ShardId) -> BoxStream<'_, Result<RunImage, ReadError>> {
        if self.hiccups.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        {
            let (reason, retry_after) = ("a hiccup".to_owned(), Duration::ZERO);
            return stream::iter([Err(ReadError::Unavailable { reason, retry_after })]).boxed();
        }
        if self.is_silent {
            return stream::pending().boxed();
        }
        stream::iter(self.images.iter().map(|image| Ok(image.clone()))).boxed()
    }
    fn trim(&self, _: ShardId, _: Epoch, _: Seq) -> BoxFuture<'_, Result<(), AppendError>> {
        unreachable!("nobody writes it")
    }
}
