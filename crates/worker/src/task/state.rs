//! How far a task is with its calls and checkpoints.
//!
//! Owns: their numbers and limits. Never: sends them.
use kapell_model::limits::{CALLS_PER_TASK_MAX, PAYLOAD_BYTES_MAX};

use crate::context::{CallError, CheckpointError};
use crate::limits::{CALLS_AT_ONCE_MAX, CHECKPOINTS_PER_TASK_MAX};

/// How far a task is with its calls and checkpoints.
#[derive(Debug)]
pub(crate) struct Progress {
    next_call: u32,
    calls_under_way: u32,
    next_checkpoint: u32,
}

impl Progress {
    /// A task whose earlier attempts kept `checkpoints`.
    pub(crate) fn resumed(checkpoints: u32) -> Progress {
        Progress { next_call: 0, calls_under_way: 0, next_checkpoint: checkpoints }
    }

    /// The number of the next call. A refused call takes no number.
    pub(crate) fn begin_call(&mut self, args_bytes: usize) -> Result<u32, CallError> {
        if args_bytes > PAYLOAD_BYTES_MAX {
            return Err(CallError::TooLarge { bytes: args_bytes });
        }
        if self.next_call >= CALLS_PER_TASK_MAX {
            return Err(CallError::TooMany);
        }
        if self.calls_under_way >= CALLS_AT_ONCE_MAX {
            return Err(CallError::TooManyAtOnce);
        }
        self.calls_under_way += 1;
        self.next_call += 1;
        Ok(self.next_call - 1)
    }

    pub(crate) fn end_call(&mut self) {
        debug_assert!(self.calls_under_way > 0, "a call ended that did not begin");
        self.calls_under_way = self.calls_under_way.saturating_sub(1);
    }

    pub(crate) fn next_call(&self) -> u32 {
        self.next_call
    }

    pub(crate) fn skip_calls_to(&mut self, number: u32) {
        self.next_call = number;
    }

    /// The position of the next checkpoint.
    pub(crate) fn begin_checkpoint(&mut self, bytes: usize) -> Result<u32, CheckpointError> {
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(CheckpointError::TooLarge { bytes });
        }
        if self.next_checkpoint >= CHECKPOINTS_PER_TASK_MAX {
            return Err(CheckpointError::TooMany);
        }
        self.next_checkpoint += 1;
        Ok(self.next_checkpoint - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_numbered_and_a_flood_is_refused_at_the_limit() {
        let mut progress = Progress::resumed(0);
        for number in 0..CALLS_AT_ONCE_MAX {
            assert_eq!(progress.begin_call(PAYLOAD_BYTES_MAX), Ok(number));
        }
        assert_eq!(progress.begin_call(0), Err(CallError::TooManyAtOnce));
        progress.end_call();
        assert_eq!(progress.begin_call(0), Ok(CALLS_AT_ONCE_MAX), "a refused call takes no number");
        progress.end_call();
        let bytes = PAYLOAD_BYTES_MAX + 1;
        assert_eq!(progress.begin_call(bytes), Err(CallError::TooLarge { bytes }));
        progress.skip_calls_to(CALLS_PER_TASK_MAX - 1);
        assert_eq!(progress.begin_call(0), Ok(CALLS_PER_TASK_MAX - 1));
        progress.end_call();
        assert_eq!(progress.begin_call(0), Err(CallError::TooMany));
    }

    #[test]
    fn checkpoints_go_on_where_the_last_attempt_stopped() {
        let mut progress = Progress::resumed(CHECKPOINTS_PER_TASK_MAX - 1);
        let bytes = PAYLOAD_BYTES_MAX + 1;
        assert_eq!(progress.begin_checkpoint(bytes), Err(CheckpointError::TooLarge { bytes }));
        assert_eq!(progress.begin_checkpoint(1), Ok(CHECKPOINTS_PER_TASK_MAX - 1));
        assert_eq!(progress.begin_checkpoint(1), Err(CheckpointError::TooMany));
    }
}
