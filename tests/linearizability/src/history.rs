//! What clients asked and what they were answered, and when.
//!
//! Owns: the shape of a history. Never: judges it.
use std::error::Error;
use std::fmt;

/// Operations that one history may have.
pub const OPERATIONS_MAX: usize = 1 << 20;

/// Who asked. Only for people: clients may have several operations under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<I, O> {
    /// Who asked.
    pub client: ClientId,
    /// What.
    pub input: I,
    /// Before it can have had any effect: a time or a position, in the same unit for all operations of a history.
    pub invoked: u64,
    /// `None`: no answer came. It may take effect at any time after its invocation, or never.
    pub returned: Option<Returned<O>>,
}

/// How an operation was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned<O> {
    /// After it has had its effect. Of two operations that return and are invoked at the same time, neither is
    /// before the other.
    pub at: u64,
    /// The answer.
    pub output: O,
}

/// Operations of concurrent clients.
#[derive(Clone, Debug)]
pub struct History<I, O> {
    operations: Vec<Operation<I, O>>,
}

/// Why something is not a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryError {
    /// An operation returns before it is invoked.
    Backwards {
        /// Its place in what was given.
        operation: usize,
        /// When it was invoked.
        invoked: u64,
        /// When it returned.
        returned: u64,
    },
    /// More than [`OPERATIONS_MAX`] operations.
    TooLong {
        /// So many.
        operations: usize,
    },
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HistoryError::Backwards { operation, invoked, returned } => write!(
                f,
                "operation {operation} returns at {returned}, before its invocation at {invoked}; take both times \
                 from one clock that does not step"
            ),
            HistoryError::TooLong { operations } => write!(
                f,
                "a history of {operations} operations, at most {OPERATIONS_MAX} are allowed; check a shorter time"
            ),
        }
    }
}

impl Error for HistoryError {}

impl<I, O> History<I, O> {
    /// A history of operations in any order.
    pub fn new(operations: Vec<Operation<I, O>>) -> Result<Self, HistoryError> {
        if operations.len() > OPERATIONS_MAX {
            return Err(HistoryError::TooLong { operations: operations.len() });
        }
        for (at, operation) in operations.iter().enumerate() {
            if let Some(returned) = operation.returned.as_ref().filter(|back| back.at < operation.invoked) {
                let (invoked, returned) = (operation.invoked, returned.at);
                return Err(HistoryError::Backwards { operation: at, invoked, returned });
            }
        }
        Ok(Self { operations })
    }

    /// Its operations, as they were given.
    #[must_use]
    pub fn operations(&self) -> &[Operation<I, O>] {
        &self.operations
    }
}

/// Names an operation of a [`Recorder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(usize);

/// Writes a history down while it happens: the order of the calls is the order in which things happened.
///
/// Call [`invoke`](Self::invoke) before the request leaves and [`complete`](Self::complete) after the answer has come.
/// Clients in several threads share one behind a lock.
#[derive(Clone, Debug)]
pub struct Recorder<I, O> {
    /// `None`: forgotten.
    operations: Vec<Option<Operation<I, O>>>,
    now: u64,
}

impl<I, O> Default for Recorder<I, O> {
    fn default() -> Self {
        Self { operations: Vec::new(), now: 0 }
    }
}

impl<I, O> Recorder<I, O> {
    /// A client asks. Without further word the operation never returns.
    pub fn invoke(&mut self, client: u64, input: I) -> OperationId {
        let (client, invoked) = (ClientId(client), self.tick());
        self.operations.push(Some(Operation { client, input, invoked, returned: None }));
        OperationId(self.operations.len() - 1)
    }

    /// The answer has come.
    ///
    /// # Panics
    /// When the operation was completed or forgotten before.
    pub fn complete(&mut self, operation: OperationId, output: O) {
        let at = self.tick();
        let open = self.operations[operation.0].as_mut().expect("the operation was not forgotten");
        assert!(open.returned.is_none(), "operation {} is answered once", operation.0);
        open.returned = Some(Returned { at, output });
    }

    /// The operation surely had no effect and never will have, and its answer says nothing of the state: a full queue,
    /// say. An operation of which this is not sure stays open instead.
    pub fn forget(&mut self, operation: OperationId) {
        self.operations[operation.0] = None;
    }

    /// What was written down.
    pub fn finish(self) -> Result<History<I, O>, HistoryError> {
        History::new(self.operations.into_iter().flatten().collect())
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(invoked: u64, returned: Option<u64>) -> Operation<(), ()> {
        let returned = returned.map(|at| Returned { at, output: () });
        Operation { client: ClientId(0), input: (), invoked, returned }
    }

    #[test]
    fn an_operation_cannot_return_before_it_is_invoked() {
        let error = History::new(vec![operation(3, None), operation(5, Some(4))]).unwrap_err();
        assert_eq!(error, HistoryError::Backwards { operation: 1, invoked: 5, returned: 4 });
        assert!(error.to_string().contains("one clock"), "{error}");
        assert!(History::new(vec![operation(5, Some(5))]).is_ok());
    }

    #[test]
    fn a_history_has_a_limit() {
        assert!(History::new(vec![operation(0, None); OPERATIONS_MAX]).is_ok());
        let error = History::new(vec![operation(0, None); OPERATIONS_MAX + 1]).unwrap_err();
        assert_eq!(error, HistoryError::TooLong { operations: OPERATIONS_MAX + 1 });
    }

    #[test]
    fn what_is_forgotten_is_not_in_the_history_and_what_is_not_answered_is_open() {
        let mut recorder = Recorder::default();
        let (first, second) = (recorder.invoke(1, 'a'), recorder.invoke(2, 'b'));
        recorder.invoke(3, 'c');
        recorder.complete(second, 'y');
        recorder.forget(first);
        let history = recorder.finish().unwrap();
        let b = Operation {
            client: ClientId(2),
            input: 'b',
            invoked: 2,
            returned: Some(Returned { at: 4, output: 'y' }),
        };
        let c = Operation { client: ClientId(3), input: 'c', invoked: 3, returned: None };
        assert_eq!(history.operations(), [b, c]);
    }

    #[test]
    #[should_panic(expected = "answered once")]
    fn an_operation_is_answered_once() {
        let mut recorder = Recorder::default();
        let operation = recorder.invoke(1, ());
        recorder.complete(operation, ());
        recorder.complete(operation, ());
    }
}
