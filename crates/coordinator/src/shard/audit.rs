//! The audit of a shard: is every live run waiting for something, and does somebody drive it?
use kapell_kernel::{Order, Run, invariants, outstanding};
use kapell_model::RunId;

use super::message::Audit;
use super::orders::Owed;
use super::state::ShardState;
use super::waits::Waiter;

impl ShardState {
    /// Checks every run: its invariants, and that each order has a driver here or is handed back to be asked for.
    pub(super) fn audit(&self) -> Audit {
        let mut audit = Audit::default();
        for id in self.ids() {
            let Some(run) = self.runs.get(&id) else { continue };
            audit.runs += 1;
            if let Err(broken) = invariants::check(run) {
                audit.broken.push((id, broken.to_string()));
            }
            for order in outstanding(run) {
                audit.orders += 1;
                self.audit_order(id, run, &order, &mut audit);
            }
        }
        self.audit_schedules(&mut audit);
        audit
    }

    fn audit_order(&self, id: RunId, run: &Run, order: &Order, audit: &mut Audit) {
        let driven = match order {
            Order::AwaitTurn => run
                .accepted()
                .key
                .as_ref()
                .is_some_and(|key| self.keys.knows(&run.workflow().namespace, key, id)),
            Order::GatherContext => self.gathering.contains(&id),
            // Answered within the batch: seen here, it was not.
            Order::MakePlan | Order::Judge { .. } => false,
            Order::Dispatch(dispatch) => {
                audit.tasks.push((id, dispatch.unit, dispatch.attempt));
                true
            }
            Order::Call { unit, call } | Order::Reconcile { unit, call } => {
                audit.calls.push((id, *unit, call.no, call.attempt));
                true
            }
            Order::AskApproval { key, .. } => self.approvals.contains_key(&(id, *key)),
            Order::SetTimer { key, .. } => self.timers.is_set(id, *key),
            Order::AwaitEvent { unit, attempt, .. } => self.waits.knows(Waiter::Unit(id, *unit, *attempt)),
            Order::StartChild { unit, attempt, .. } => {
                let owed = Owed::Child(id, *unit, *attempt);
                self.owed.contains_key(&owed) || self.children.contains(&owed)
            }
            Order::CancelChild { unit, attempt, .. } => {
                let owed = Owed::ChildEnd(id, *unit, *attempt);
                self.owed.contains_key(&owed) || self.children.contains(&owed)
            }
            Order::TellParent(_) => self.owed.contains_key(&Owed::Parent(id)),
            Order::AwaitResume => true,
            Order::BindOutcome { .. } => self.waits.knows(Waiter::Outcome(id)),
        };
        if !driven {
            audit.undriven.push((id, format!("{:?}", order.key())));
        }
    }
}
