//! Every limit of a run and its definition, in one place.
//!
//! Owns: the numbers to start with. Never: enforces them; the code that does names them.
use std::time::Duration;

/// Largest payload of an event, input or result, in bytes. Larger things travel by reference.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Largest definition document, in bytes.
pub const DEFINITION_BYTES_MAX: usize = 256 << 10;
/// Deepest nesting of lists and objects in a definition document. Reading takes about 45 KB of stack a level without
/// optimisation, so this stays below the 2 MiB that a thread has by default.
pub const DOCUMENT_DEPTH_MAX: usize = 32;
/// Nodes that YAML aliases may add to a definition document.
pub const DOCUMENT_ALIAS_NODES_MAX: usize = 20_000;
/// Most definitions of a store.
pub const DEFINITIONS_MAX: usize = 10_000;
/// All definitions of a store together, in bytes of JSON. They travel in one message to each worker and connector that
/// comes, and in one answer to whoever lists them.
pub const DEFINITIONS_BYTES_MAX: usize = 32 << 20;
/// Most steps of a plan.
pub const PLAN_STEPS_MAX: usize = 10_000;
/// Most items of one foreach.
pub const FOREACH_ITEMS_MAX: usize = 10_000;
/// Items of one foreach that are worked on at once, unless the step says otherwise.
pub const FOREACH_CONCURRENCY_DEFAULT: u32 = 100;
/// Inputs of all items of one foreach together, in bytes.
pub const FOREACH_INPUT_BYTES_MAX: usize = 8 << 20;
/// Outputs of all items of one foreach together, in bytes.
pub const FOREACH_OUTPUT_BYTES_MAX: usize = 8 << 20;
/// Output of a run that has several last steps, in bytes. Above what one foreach gives, and below what a message holds.
pub const RUN_OUTPUT_BYTES_MAX: usize = 16 << 20;
/// Most attempts of a step.
pub const ATTEMPTS_MAX: u32 = 100;
/// Tool calls of one task.
pub const CALLS_PER_TASK_MAX: u32 = 10_000;
/// Arguments and results of the tool calls of one task and its checkpoints, together, in bytes.
pub const TASK_BYTES_MAX: usize = 64 << 20;
/// Events sent to a run that no step has waited for yet.
pub const SIGNALS_MAX: usize = 10_000;
/// Those events together, in bytes.
pub const SIGNALS_BYTES_MAX: usize = 8 << 20;
/// Longest key of a run, and longest value by which an event finds the step that waits for it, in bytes.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// Longest name or reason that somebody gives who steers a run or answers a question, in bytes.
pub const WORDS_BYTES_MAX: usize = 4 << 10;
/// Requests of people that a run remembers as done, by their ids. The oldest is forgotten first.
pub const REQUESTS_KEPT: usize = 32;
/// Deepest nesting of subworkflows.
pub const NESTING_MAX: u32 = 16;
/// Runs that wait behind one key.
pub const KEY_QUEUE_MAX: usize = 10_000;
/// Longest CEL expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 8 << 10;
/// Most iterations that one CEL evaluation may take: the largest list that it can see, to the power of the depth
/// of its nested macros. About 10 ms; a bound by count gives the same answer on every machine.
pub const EXPRESSION_ITERATIONS_MAX: u64 = 100_000;
/// Bytes of text that the text functions of one CEL evaluation may read and write together. Some 20 ms; it is also what
/// they may take of memory.
pub const EXPRESSION_TEXT_BYTES_MAX: usize = 64 << 20;
/// Largest value that one CEL evaluation may give, in bytes: as large as what it may look at, the output of a foreach
/// among other things.
pub const EXPRESSION_VALUE_BYTES_MAX: usize = 16 << 20;
/// Longest message of an error that is kept, in bytes.
pub const ERROR_BYTES_MAX: usize = 4 << 10;
/// Time that a call of a tool may take, unless the tool says otherwise.
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Time that an attempt may take, unless the step or skill says otherwise.
pub const ATTEMPT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);
/// Attempts of a step, unless it says otherwise.
pub const ATTEMPTS_DEFAULT: u32 = 5;
/// First delay before another attempt, unless the step says otherwise.
pub const BACKOFF_INITIAL_DEFAULT: Duration = Duration::from_secs(1);
/// Longest delay before another attempt, unless the step says otherwise.
pub const BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(60);
/// Time that a person has to answer, unless the step says otherwise.
pub const APPROVAL_EXPIRES_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// How far ahead a tick of a schedule is looked for.
pub const TICK_SEARCH_YEARS: i64 = 50;
/// A tick that is this late was missed: it is made up for as the schedule's `catchup` says. More than a shard needs to
/// change its owner.
pub const TICK_LATE_MAX: Duration = Duration::from_secs(10);
/// Missed ticks that `catchup: all` makes up for: the latest ones.
pub const CATCHUP_TICKS_MAX: usize = 1_000;
/// Ticks that were left out together are counted up to here.
pub const TICKS_COUNTED_MAX: u64 = 1_000;
/// Runs of one schedule that are not over.
pub const SCHEDULE_RUNS_MAX: usize = 1_000;
/// Ticks of one schedule that wait for its last run to be over.
pub const SCHEDULE_WAITING_MAX: usize = 1_000;
