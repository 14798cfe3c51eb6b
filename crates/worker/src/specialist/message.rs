//! What a specialist's supervisor may be asked.
use kapell_model::definition::SpecialistLimits;
use kapell_wire::task::TaskKey;

use super::state::SlotNo;
use crate::task::Task;

/// What a specialist's supervisor may be asked.
#[derive(Debug)]
pub(crate) enum SpecialistMessage {
    /// Work on these, in order.
    Submit(Vec<Task>),
    /// Forget this one, and stop it if it runs.
    StopTask(TaskKey),
    /// The definition changed.
    Limit(SpecialistLimits),
    /// A task actor ended its task.
    Freed { slot: SlotNo, task: TaskKey },
    /// Time to look for tasks that outlived their deadlines, and for the end of quarantine.
    Watch,
}
