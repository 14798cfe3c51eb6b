//! What an object does when its operations come one after the other.
use std::fmt::Debug;
use std::hash::Hash;

/// A sequential object.
pub trait Model {
    /// What it remembers.
    type State: Clone + Eq + Hash + Debug;
    /// What it is asked.
    type Input: Clone + Eq + Hash + Debug;
    /// What it answers.
    type Output: Clone + Debug;
    /// Operations of different keys do not touch each other; `()` when there is one object only.
    type Key: Clone + Ord + Debug;

    /// Which object an operation is about.
    fn key(&self, input: &Self::Input) -> Self::Key;

    /// What an object begins with.
    fn initial(&self) -> Self::State;

    /// The state after an operation, or `None` when it is not answered so in this state.
    ///
    /// Without `output` nobody knows the answer: it is any that fits, and what may happen then must include whatever
    /// may happen with an answer.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;

    /// Whether an operation that is answered so never changes the state, whatever the state is. Saying `false` is
    /// always right; saying `true` where it holds saves the search most of its work.
    fn is_read(&self, input: &Self::Input, output: &Self::Output) -> bool {
        let _ = (input, output);
        false
    }
}
