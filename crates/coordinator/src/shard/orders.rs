//! Orders of a shard's runs: who drives each, from the moment it is opened until it is closed.
//!
//! Owns: answering the orders that need nobody else, and handing all others to their drivers.
use std::collections::VecDeque;
use std::time::Duration;

use kapell_kernel::{
    ApprovalKey, Attempt, CallNo, Command, Context, Entry, ErrorClass, Order, OrderKey, ParentRef,
    PlanSource, Run, TaskError, UnitId, judgement, outstanding,
};
use kapell_model::plan::StepKind;
use kapell_model::{Json, Name, RunId, Timestamp};
use tokio::time::Instant;

use super::message::{Output, StartRun, WorkOrder};
use super::state::ShardState;
use super::waits::Waiter;
use crate::definitions::InForce;
use crate::own_event::OwnEvent;

/// How long another shard has to answer before it is asked again.
pub(super) const OWED_AGAIN: Duration = Duration::from_secs(2);

/// An order that another shard answers; sent again until it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owed {
    /// The child has not confirmed that it began.
    Child(RunId, UnitId, Attempt),
    /// The child has not confirmed that it is ending.
    ChildEnd(RunId, UnitId, Attempt),
    /// The parent has not confirmed that it knows.
    Parent(RunId),
}

/// What a command was about, where the answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    FinishTask(UnitId, Attempt),
    IntendCall(UnitId, CallNo),
    Other,
}

impl Asked {
    pub(super) fn of(command: &Command) -> Asked {
        if let Command::FinishTask { unit, attempt, .. } = command {
            Asked::FinishTask(*unit, *attempt)
        } else if let Command::IntendCall { unit, no, .. } = command {
            Asked::IntendCall(*unit, *no)
        } else {
            Asked::Other
        }
    }
}

impl ShardState {
    // table: what each new order asks of whom.
    #[expect(clippy::too_many_lines, reason = "a table: one arm for each kind of order")]
    pub(super) fn open(
        &mut self,
        id: RunId,
        orders: Vec<Order>,
        in_force: &InForce,
        inline: &mut VecDeque<(RunId, Command)>,
    ) {
        let Some(run) = self.runs.get(&id) else { return };
        let namespace = run.workflow().namespace.clone();
        let origin = self.origin;
        for order in orders {
            if let Some(owed) = owed_of(id, &order) {
                self.owed.insert(owed, None);
            }
            match order {
                // The line of the key, or the person, is the driver.
                Order::AwaitTurn | Order::AwaitResume => {}
                Order::GatherContext if run.workflow().context.is_empty() => {
                    let (context, reasons) = (Json::trusted("{}"), vec![]);
                    inline.push_back((id, Command::SupplyContext { context, reasons }));
                }
                Order::GatherContext => {
                    self.gathering.insert(id);
                    self.outputs.push(Output::Gather(id));
                }
                Order::MakePlan => {
                    let (source, reasons) = (PlanSource::Written, vec![]);
                    inline.push_back((id, Command::AdoptPlan { source, reasons }));
                }
                Order::Judge { unit, attempt } => {
                    let context = Context { catalogue: &in_force.catalogue, shards: self.rules.shards };
                    let judged = judgement::judge(run, unit, &context);
                    let (verdict, reasons) = (judged.verdict, judged.reasons);
                    inline.push_back((id, Command::GiveVerdict { unit, attempt, verdict, reasons }));
                }
                Order::Dispatch(dispatch) => {
                    let work = WorkOrder { run: id, namespace: namespace.clone(), work: *dispatch, origin };
                    self.outputs.push(Output::Dispatch(work));
                }
                Order::Call { unit, call } => {
                    let work =
                        WorkOrder { run: id, namespace: namespace.clone(), work: (unit, *call), origin };
                    self.outputs.push(Output::Call(work));
                }
                Order::Reconcile { unit, call } => {
                    let work =
                        WorkOrder { run: id, namespace: namespace.clone(), work: (unit, *call), origin };
                    self.outputs.push(Output::Reconcile(work));
                }
                Order::AskApproval { key, since, .. } => {
                    self.approvals.insert((id, key), since);
                }
                Order::SetTimer { key, at } => self.timers.set(id, key, at),
                Order::AwaitEvent { unit, attempt, event_type, correlation } => {
                    let by = match run.plan_step(unit.step).map(|step| &step.kind) {
                        Some(StepKind::Event { by, .. }) => by.as_ref(),
                        Some(_) | None => None,
                    };
                    let waiter = Waiter::Unit(id, unit, attempt);
                    self.waits.add((&namespace, &event_type), by, &correlation, waiter);
                }
                Order::StartChild { unit, attempt, child, workflow, input } => {
                    let parent = ParentRef { run: id, unit, attempt };
                    match child_start(run, parent, child, &workflow, &input, in_force) {
                        Ok(start) => self.outputs.push(Output::StartChild(parent, Box::new(start))),
                        Err(error) => {
                            inline
                                .push_back((id, Command::ReportChild { unit, attempt, result: Err(error) }));
                        }
                    }
                }
                Order::CancelChild { unit, attempt, child, by, reason, mode } => {
                    let parent = ParentRef { run: id, unit, attempt };
                    let cancel = Box::new(Command::Cancel { by, reason, mode });
                    let start = start_of(run, parent, child, in_force).map(Box::new);
                    self.outputs.push(Output::CancelChild(parent, child, cancel, start));
                }
                Order::TellParent(parent) => {
                    if let Some(ended) = run.ended() {
                        self.outputs.push(Output::TellParent(id, parent, Box::new(ended.ending.clone())));
                    }
                }
                Order::BindOutcome { event_type, correlation } => {
                    self.waits.add((&namespace, &event_type), None, &correlation, Waiter::Outcome(id));
                }
            }
        }
    }

    /// table: who is told that an order is not outstanding any more.
    pub(super) fn close(&mut self, id: RunId, keys: &[OrderKey], asked: &Asked) {
        for key in keys {
            match *key {
                OrderKey::Turn | OrderKey::Plan | OrderKey::Judge(..) | OrderKey::Resume => {}
                OrderKey::Context => {
                    self.gathering.remove(&id);
                }
                OrderKey::Dispatch(unit, attempt) => {
                    if *asked != Asked::FinishTask(unit, attempt) {
                        self.outputs.push(Output::Cancel(id, unit, attempt));
                    }
                }
                OrderKey::Call(unit, no, attempt) | OrderKey::Reconcile(unit, no, attempt) => {
                    self.outputs.push(Output::CallOver(id, unit, no, attempt));
                }
                OrderKey::Approval(approval) => {
                    self.approvals.remove(&(id, approval));
                }
                OrderKey::Timer(timer) => self.timers.cancel(id, timer),
                OrderKey::Event(unit, attempt) => self.waits.remove(Waiter::Unit(id, unit, attempt)),
                OrderKey::Child(unit, attempt) => {
                    self.owed.remove(&Owed::Child(id, unit, attempt));
                    self.children.remove(&Owed::Child(id, unit, attempt));
                }
                OrderKey::CancelChild(unit, attempt) => {
                    self.owed.remove(&Owed::ChildEnd(id, unit, attempt));
                    self.children.remove(&Owed::ChildEnd(id, unit, attempt));
                }
                OrderKey::Parent => {
                    self.owed.remove(&Owed::Parent(id));
                }
                OrderKey::Outcome => self.waits.remove(Waiter::Outcome(id)),
            }
        }
    }

    /// Sends again what other shards have not answered. How long that is goes by a clock that does not step: the time of
    /// day may go back, and nothing would be sent any more, or forward, and everything would be at once.
    pub(super) fn ask_again(&mut self, moment: Instant, now: Timestamp, in_force: &InForce) {
        let mut late = Vec::new();
        for (owed, due) in &mut self.owed {
            if *due.get_or_insert(moment + OWED_AGAIN) <= moment {
                late.push(*owed);
            }
        }
        let mut inline = VecDeque::new();
        for owed in late {
            let (Owed::Child(id, ..) | Owed::ChildEnd(id, ..) | Owed::Parent(id)) = owed;
            let Some(run) = self.runs.get(&id) else {
                self.owed.remove(&owed);
                if let Owed::Child(schedule, _, attempt) = owed {
                    self.ask_for_tick_run(schedule, attempt);
                }
                continue;
            };
            let orders = outstanding(run);
            let again = orders.into_iter().filter(|order| owed_of(id, order) == Some(owed)).collect();
            self.open(id, again, in_force, &mut inline);
            if let Some(due) = self.owed.get_mut(&owed) {
                *due = Some(moment + OWED_AGAIN);
            }
        }
        self.drain(inline, now, in_force);
    }

    /// Tells the worker how a call went.
    pub(super) fn call_news(&mut self, id: RunId, entry: &Entry) {
        let ended = if let Entry::CallFinished { unit, no, .. } | Entry::CallSettled { unit, no, .. } = entry
        {
            Some((*unit, *no))
        } else if let Entry::ApprovalDecided { key: ApprovalKey::Call(unit, no, _), .. } = entry {
            Some((*unit, *no))
        } else {
            None
        };
        if let Some((unit, no)) = ended {
            self.tell_call(id, unit, no);
        }
    }

    /// A call that was asked for again has no entry; the worker is told how far it is.
    pub(super) fn repeat_call_news(&mut self, id: RunId, asked: &Asked) {
        if let Asked::IntendCall(unit, no) = asked {
            self.tell_call(id, *unit, *no);
        }
    }

    fn tell_call(&mut self, id: RunId, unit: UnitId, no: CallNo) {
        let found = self.runs.get(&id).and_then(|run| run.unit(unit));
        if let Some((unit_state, call)) = found.and_then(|state| state.call(no).map(|call| (state, call))) {
            self.outputs.push(Output::CallNews(id, unit, unit_state.attempt, Box::new(call.clone())));
        }
    }
}

pub(super) fn owed_of(id: RunId, order: &Order) -> Option<Owed> {
    if let Order::StartChild { unit, attempt, .. } = order {
        Some(Owed::Child(id, *unit, *attempt))
    } else if let Order::CancelChild { unit, attempt, .. } = order {
        Some(Owed::ChildEnd(id, *unit, *attempt))
    } else if let Order::TellParent(_) = order {
        Some(Owed::Parent(id))
    } else {
        None
    }
}

/// How a child was started whose start may not have come.
fn start_of(run: &Run, parent: ParentRef, child: RunId, in_force: &InForce) -> Option<StartRun> {
    let StepKind::Subworkflow { workflow, .. } = &run.plan_step(parent.unit.step)?.kind else { return None };
    let input = &run.unit(parent.unit)?.input;
    child_start(run, parent, child, workflow, input, in_force).ok()
}

fn child_start(
    run: &Run,
    parent: ParentRef,
    child: RunId,
    name: &Name,
    input: &Json,
    in_force: &InForce,
) -> Result<StartRun, TaskError> {
    let namespace = &run.workflow().namespace;
    let workflow = in_force.catalogue.workflow(namespace, name).cloned().ok_or_else(|| {
        let message = format!("there is no workflow `{name}` in namespace `{namespace}`");
        TaskError::new(ErrorClass::NoSpecialist, message)
    })?;
    let source = format!("/kapell/runs/{}", parent.run);
    let (event_type, id) = ("kapell.subworkflow.start", &child.to_string());
    let event = OwnEvent { event_type, source: &source, id, subject: None, time: None, data: input };
    let event = event.make().map_err(|error| TaskError::new(ErrorClass::Permanent, error.to_string()))?;
    Ok(StartRun {
        run: child,
        workflow,
        key: None,
        event: event.json,
        parent: Some(parent),
        nesting: run.accepted().nesting + 1,
    })
}
