//! What a check says, and how it says it to people.
use std::fmt;

use crate::history::Operation;
use crate::model::Model;

/// What a check came to.
pub enum Verdict<M: Model> {
    /// One order explains all answers.
    Linearizable,
    /// None does.
    Not(Box<Failure<M>>),
    /// The budget was spent on this key before it was clear, and no other key is wrong.
    Undecided {
        /// The first such key.
        key: M::Key,
    },
}

/// Where a history stops being explained.
pub struct Failure<M: Model> {
    /// The object that is wrong.
    pub key: M::Key,
    /// Everything up to the return of this operation cannot be explained.
    pub culprit: Operation<M::Input, M::Output>,
    /// Whether everything before that return can be explained; if not, the budget ended before the first such return
    /// was found.
    pub is_smallest: bool,
    /// Operations of the key that were invoked before that return, the culprit included.
    pub operations: usize,
    /// One order that explains all before that return (there may be others); empty if it is not the smallest.
    pub order: Vec<Operation<M::Input, M::Output>>,
    /// The state after that order.
    pub state: M::State,
    /// The other operations that were under way at that return; answers that came later are not considered.
    pub under_way: Vec<Operation<M::Input, M::Output>>,
}

impl<M: Model> Verdict<M> {
    /// Whether one order explains all answers.
    #[must_use]
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Verdict::Linearizable)
    }

    /// What is wrong, if something is.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure<M>> {
        match self {
            Verdict::Not(failure) => Some(failure),
            Verdict::Linearizable | Verdict::Undecided { .. } => None,
        }
    }
}

impl<M: Model> fmt::Debug for Verdict<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Linearizable => f.write_str("Linearizable"),
            Verdict::Not(failure) => write!(f, "Not({failure})"),
            Verdict::Undecided { key } => write!(f, "Undecided {{ key: {key:?} }}"),
        }
    }
}

/// Operations of the order that people are shown: the last ones.
const SHOWN: usize = 12;

impl<M: Model> fmt::Display for Failure<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no order explains the first {} operations of key {:?}", self.operations, self.key)?;
        writeln!(f, "  {}", Shown(&self.culprit))?;
        if !self.is_smallest {
            return write!(f, "(the budget ended before a shorter part was found)");
        }
        let hidden = self.order.len().saturating_sub(SHOWN);
        writeln!(f, "all before that return is explained by this order, which leads to {:?}:", self.state)?;
        if hidden > 0 {
            writeln!(f, "  ({hidden} operations)")?;
        }
        for operation in &self.order[hidden..] {
            writeln!(f, "  {}", Shown(operation))?;
        }
        write!(f, "{} other operations were under way", self.under_way.len())?;
        self.under_way.iter().try_for_each(|operation| write!(f, "\n  {}", Shown(operation)))
    }
}

struct Shown<'a, I, O>(&'a Operation<I, O>);

impl<I: fmt::Debug, O: fmt::Debug> fmt::Display for Shown<'_, I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { client, input, invoked, returned } = self.0;
        write!(f, "client {}: {input:?} -> ", client.0)?;
        match returned {
            Some(returned) => write!(f, "{:?} ({invoked} to {})", returned.output, returned.at),
            None => write!(f, "? (from {invoked})"),
        }
    }
}
