//! Every limit of a worker, in one place.
//!
//! Owns: the numbers. Never: enforces them; the code that does names them.
use std::time::Duration;

/// Tasks that wait for one specialist beyond those that it works on.
pub const QUEUE_TASKS_MAX: usize = 10_000;
/// Task actors of one specialist that are kept for the next task.
pub const IDLE_ACTORS_MAX: usize = 256;
/// Tool calls that one task may wait for at once.
pub const CALLS_AT_ONCE_MAX: u32 = 64;
/// Checkpoints of one task, those of earlier attempts included.
pub const CHECKPOINTS_PER_TASK_MAX: u32 = 1_000;
/// Ended tasks of one coordinator whose reports it has not acknowledged; above it, new tasks are refused.
pub const UNACKNOWLEDGED_MAX: usize = 65_536;
/// The same, in bytes of their outputs.
pub const UNACKNOWLEDGED_BYTES_MAX: usize = 256 << 20;
/// Messages for one coordinator that wait to be written; above it, nothing more is read from it.
pub const OUTBOX_MESSAGES_MAX: usize = 100_000;
/// A frame is closed when it is this long; a single larger message travels alone.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// Messages of one frame.
pub const FRAME_MESSAGES_MAX: usize = 512;
/// Tasks that one message of the answer to a claim names; a long answer comes in several.
pub const HOLDING_TASKS_MAX: usize = 1_000;
/// Largest frame that is taken from a coordinator: an assignment with its checkpoints, or all definitions.
pub const INBOUND_FRAME_BYTES_MAX: usize = 256 << 20;
/// Frames of one coordinator that were read and are not handled yet.
pub const INBOUND_FRAMES_MAX: usize = 16;
/// Time that a coordinator has to open the session.
pub const OPENING_MAX: Duration = Duration::from_secs(5);
/// First delay before a coordinator is dialed again.
pub const RETRY_FIRST: Duration = Duration::from_millis(20);
/// Longest delay before a coordinator is dialed again.
pub const RETRY_LAST: Duration = Duration::from_secs(1);
/// Window in which the deaths of a specialist are counted.
pub const DEATHS_WINDOW: Duration = Duration::from_secs(60);
/// Time that a specialist stays in quarantine, unless the options say otherwise.
pub const QUARANTINE_DEFAULT: Duration = Duration::from_secs(60);
/// How often a specialist looks for tasks that outlive their deadlines.
pub const WATCH_EVERY: Duration = Duration::from_millis(250);
/// Time after its deadline in which a task actor must have ended its task; later it is given up.
pub const OVERDUE_GRACE: Duration = Duration::from_millis(500);
