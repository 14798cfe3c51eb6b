//! The check: a history is split by key, each part is searched, and what cannot be explained is cut short.
use std::collections::BTreeMap;

use crate::history::{History, Operation};
use crate::model::Model;
use crate::search::{Found, Search};
use crate::timeline::{self, Event, Side};
use crate::verdict::{Failure, Verdict};

/// How much one search may cost: a step is one try to place one operation, and is remembered in about a hundred bytes.
///
/// Steps and not time, so that the verdict is the same on every machine and under a simulated clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    steps: u32,
}

impl Budget {
    /// So many steps for each key, and as many again for each try to cut a failure short.
    #[must_use]
    pub fn steps(steps: u32) -> Self {
        Self { steps }
    }
}

impl Default for Budget {
    /// Four million steps.
    fn default() -> Self {
        Self { steps: 4_000_000 }
    }
}

/// Steps for each key in the first round.
const FIRST_STEPS: u32 = 10_000;
/// How many times more in each further round: what the earlier ones cost is little against the last.
const MORE_STEPS: u32 = 10;

type Operations<'a, M> = Vec<&'a Operation<<M as Model>::Input, <M as Model>::Output>>;

/// Whether one order explains the history.
///
/// All keys are searched with few steps first and then with ever more, so that a key that is plainly wrong is found
/// before one that is hard has spent its budget.
pub fn check<M: Model>(model: &M, history: &History<M::Input, M::Output>, budget: Budget) -> Verdict<M> {
    let mut undecided: BTreeMap<M::Key, Operations<'_, M>> = BTreeMap::new();
    for operation in history.operations() {
        undecided.entry(model.key(&operation.input)).or_default().push(operation);
    }
    let mut steps = budget.steps.min(FIRST_STEPS);
    loop {
        let mut still = BTreeMap::new();
        for (key, operations) in undecided {
            let events = timeline::events(&operations);
            match Search::new(model, &operations, &events, steps).run() {
                Found::Order(..) => {}
                Found::Nothing { blocked_at } => {
                    let part = Part { model, operations: &operations, events: &events, budget };
                    return Verdict::Not(Box::new(part.failure(key, blocked_at)));
                }
                Found::OutOfBudget => {
                    still.insert(key, operations);
                }
            }
        }
        undecided = still;
        match undecided.first_key_value() {
            None => return Verdict::Linearizable,
            Some((key, _)) if steps == budget.steps => return Verdict::Undecided { key: key.clone() },
            Some(_) => steps = steps.saturating_mul(MORE_STEPS).min(budget.steps),
        }
    }
}

/// The operations of one key that no order explains.
struct Part<'a, M: Model> {
    model: &'a M,
    operations: &'a [&'a Operation<M::Input, M::Output>],
    events: &'a [Event],
    budget: Budget,
}

impl<M: Model> Part<'_, M> {
    /// Finds the first return up to which nothing explains the events. It is not before `blocked_at`: with all that is
    /// known later, everything before that return could still be explained.
    fn failure(&self, key: M::Key, blocked_at: usize) -> Failure<M> {
        let returns = (blocked_at..self.events.len()).filter(|at| self.events[*at].side == Side::Return);
        let returns = returns.collect::<Vec<_>>();
        // Nothing explains the events up to `returns[wrong]`; everything before `returns[right]` is explained.
        let (mut right, mut wrong, mut stride) = (0, returns.len() - 1, 1);
        while right < wrong {
            // It is nearly always the first of them, and seldom far away.
            let middle = (right + stride - 1).min(right + (wrong - right) / 2);
            stride *= 2;
            match self.search(returns[middle] + 1) {
                Found::Nothing { .. } => wrong = middle,
                Found::Order(..) => right = middle + 1,
                Found::OutOfBudget => break,
            }
        }
        let end = returns[wrong];
        let explained = match self.search(end) {
            Found::Order(order, state) => Some((order, state)),
            Found::Nothing { .. } | Found::OutOfBudget => None,
        };
        let is_smallest = explained.is_some();
        let (order, state) = explained.unwrap_or_else(|| (Vec::new(), self.model.initial()));
        let culprit = self.events[end].operation;
        let invoked = |event: &&Event| event.side == Side::Invocation;
        let started = self.events[..end].iter().filter(invoked).map(|event| event.operation);
        let mut is_over = vec![false; self.operations.len()];
        self.events[..=end].iter().filter(|event| !invoked(event)).for_each(|event| {
            is_over[event.operation] = true;
        });
        let owned = |at: usize| self.operations[at].clone();
        Failure {
            key,
            culprit: owned(culprit),
            is_smallest,
            operations: started.clone().count(),
            order: order.into_iter().map(owned).collect(),
            state,
            under_way: started.filter(|at| !is_over[*at]).map(owned).collect(),
        }
    }

    fn search(&self, end: usize) -> Found<M::State> {
        Search::new(self.model, self.operations, &self.events[..end], self.budget.steps).run()
    }
}
