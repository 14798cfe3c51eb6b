//! Texts by key that are read, written and appended to; each begins empty.
use crate::model::Model;

/// The store.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyValue;

/// What is asked of one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Input {
    /// Which.
    pub key: String,
    /// What.
    pub ask: Ask,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// What is there?
    Get,
    /// Be this.
    Put(String),
    /// Go on with this.
    Append(String),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// To a get.
    Value(String),
    /// To the others.
    Done,
}

impl Model for KeyValue {
    type State = String;
    type Input = Input;
    type Output = Output;
    type Key = String;

    fn key(&self, input: &Input) -> String {
        input.key.clone()
    }

    fn initial(&self) -> String {
        String::new()
    }

    fn step(&self, state: &String, input: &Input, output: Option<&Output>) -> Option<String> {
        match (&input.ask, output) {
            (Ask::Get, Some(Output::Value(value))) => (value == state).then(|| state.clone()),
            (Ask::Get, None) => Some(state.clone()),
            (Ask::Put(value), Some(Output::Done) | None) => Some(value.clone()),
            (Ask::Append(more), Some(Output::Done) | None) => Some(format!("{state}{more}")),
            (Ask::Get, Some(Output::Done)) | (Ask::Put(_) | Ask::Append(_), Some(Output::Value(_))) => None,
        }
    }

    fn is_read(&self, _: &Input, output: &Output) -> bool {
        matches!(output, Output::Value(_))
    }
}
